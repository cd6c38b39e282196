"""One task alone, its head all that is updated: what a device does most often, call by call.

The same numbers as ``blocks.alone`` and ``head_steps`` leave. On five small images a call of torch
takes as long as what it computes, and so does what Python does between two; here is nothing but
calls. With the features' Gram matrix K = f f^T + 1, E being softmax(z) - Y and s = alpha / M,

    z_(t+1) = z_t - s K E_t,      W_T = W_0 - s (sum_t E_t)^T f,      b_T = b_0 - s sum of its rows

A step is two calls: softmax writes above -Y in a matrix that is there, and [K K] times that is K E.
"""

from __future__ import annotations

from functools import lru_cache
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple

import torch

from trainables._core.blocks import alone
from trainables._core.heads import HEAD_B, HEAD_W

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainables._core.blocks import Lane
    from trainables._core.heads import Head, Labels
    from trainables._core.layers import Params, Statistics


TURN = 10  # steps whose errors have room before they are added up: our default


class Room(NamedTuple):
    """Where the errors of a turn's steps are written, each as softmax(z) above -Y."""

    probabilities: Sequence[torch.Tensor]  # of every step [M, N], for softmax
    errors: Sequence[torch.Tensor]  # of every step [2 M, N], both
    stacked: torch.Tensor  # [2 TURN, M, N], all of it: its sum is that of the errors
    ones: torch.Tensor  # [M]
    pair: torch.Tensor  # [2, 1], ones too

    @classmethod
    def of(cls, labels: Labels) -> Room:
        """For tasks with these labels."""
        images, ways = labels.target.shape
        both = labels.target.new_empty(TURN, 2 * images, ways)
        both[:, images:] = -labels.target
        ones = both.new_ones(images)
        stacked = both.view(-1, images, ways)
        return cls(both[:, :images].unbind(), both.unbind(), stacked, ones, ones[:2].view(2, 1))


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # whoever asks first
def _kept_room(labels: Labels, _thread: int) -> Room:
    return Room.of(labels)


def lone_head(
    through: Sequence[Lane],
    head: Head,
    meta: Mapping[str, torch.Tensor],
    support: torch.Tensor,
    labels: Labels,
    stats: Statistics,
    steps: int,
    rate: float,
    tick: Callable[[], None],
) -> tuple[torch.Tensor, Params]:
    """Adapts, in torch's inference mode.

    Args:
        through: the body's blocks.
        head: prototypes or one shared vector.
        meta: theta.
        support: ``[1, M, H, W, C]``.
        labels: the images' classes.
        stats: takes what the norms measure.
        steps: T, two or more.
        rate: alpha.
        tick: called once the start is ready and after every step; adapts nothing itself.

    Returns:
        The last map ``[1, M, h, w, C]``, and the classifier after T steps.
    """
    images = support.shape[1]
    last = alone(through, meta, support, stats, None)
    f = last.view(images, -1)
    gram = torch.mm(f, f.t())
    w, w_times, b, b_times, z = _start(head, meta, f, gram, labels)
    on_cpu = labels.target.is_cpu  # elsewhere every task has labels of its own
    room = _kept_room(labels, get_ident()) if on_cpu else Room.of(labels)
    probabilities, errors, stacked, ones, pair = room
    gram_twice = torch.add(gram.unsqueeze(1), pair).view(images, -1)
    step, turns = -rate / images, None
    tick()
    if z is None:  # every class alike: softmax says 1 / N, whatever the logits are
        probabilities[0].fill_(1 / labels.target.shape[1])
        z = torch.mm(gram_twice, errors[0]).mul_(step)
    else:
        torch.softmax(z, 1, out=probabilities[0])
        z.addmm_(gram_twice, errors[0], alpha=step)  # into a tensor of its own it would take longer
    tick()
    at = 1
    for _ in range(steps - 2):
        torch.softmax(z, 1, out=probabilities[at])
        z.addmm_(gram_twice, errors[at], alpha=step)
        at += 1
        if at == TURN:
            turns, at = _added_up(turns, stacked), 0
        tick()
    torch.softmax(z, 1, out=probabilities[at])
    total = _added_up(turns, stacked[: 2 * at + 2])
    w = torch.addmm(w, total.t(), f, beta=w_times, alpha=step)
    b = torch.addmv(b, total.t(), ones, beta=b_times, alpha=step)
    tick()
    return last, {HEAD_W: w.unsqueeze(0), HEAD_B: b.unsqueeze(0)}


def _added_up(turns: torch.Tensor | None, stacked: torch.Tensor) -> torch.Tensor:
    """The sum of the errors so far, with those of one more turn."""
    total = stacked.sum(0)
    return total if turns is None else total.add_(turns)


def _start(
    head: Head,
    meta: Mapping[str, torch.Tensor],
    f: torch.Tensor,
    gram: torch.Tensor,
    labels: Labels,
) -> tuple[torch.Tensor, float, torch.Tensor, float, torch.Tensor | None]:
    """What a task starts with.

    Returns:
        Weights, and biases, each but for a number that they are to be taken times, and behind each
        that number; and the images' logits, None for logits that are the same of every class.
    """
    if head.kind == "shared":
        ways = labels.target.shape[1]
        weight, bias = meta["head.weight"], meta["head.bias"]
        return weight.expand(ways, -1), 1.0, bias.expand(ways), 1.0, None
    scale, once = meta["head.scale"], labels.shots == 1
    means = f if once else labels.means(f)
    # one image a class is its own prototype, whose square is there already
    squares = gram.diagonal() if once else (means * means).sum(1)
    if scale.is_cuda:  # its number would be waited for
        w, b = means * (2 * scale.abs()), squares * -scale.abs()
        return w, 1.0, b, 1.0, torch.addmm(b, f, w.t())
    number = abs(scale.item())
    z = torch.addmm(squares, f, means.t(), beta=-number, alpha=2 * number)
    return means, 2 * number, squares, -number, z
