"""What an adaptation does, in the few units that the time it takes follows.

Multiply-accumulates alone do not tell the time of networks this small: every layer passed costs
something, however few its filters; a gather costs by the places it looks at, not by what it finds
there; norms and ReLUs cost by the numbers of a map. Counted here for any network and pattern;
``device`` measures what each unit costs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from trainables._core.blocks import written_out
from trainables._core.cost import adapt_macs
from trainables._core.kernels import Window
from trainables._core.layers import ConvBlock, wide, wide_alone
from trainables._core.patterns import first_updated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trainables._core.layers import Conv, Layer
    from trainables._core.networks import Network


@dataclass(frozen=True)
class Work:
    """Units of work of one adaptation.

    Attributes:
        starts: adaptations, 1.
        passes: of a convolution and its norm, forward or back.
        steps: inner steps.
        macs: multiply-accumulates.
        numbers: of the maps that are normalised, forward or back.
        looks: places that gathers and scatters look at: positions times taps.
        recorded: numbers of the maps that autograd keeps a record of.
    """

    starts: float
    passes: float
    steps: float
    macs: float
    numbers: float
    looks: float
    recorded: float

    def amounts(self) -> list[float]:
        """The units in their order."""
        return [getattr(self, name) for name in UNITS]


UNITS = tuple(field.name for field in fields(Work))


def work_of(
    network: Network, pattern: str, *, steps: int, ways: int, images: int, inductive: bool = True
) -> Work:
    """The work of adapting to one task of ``images`` support images, as ``cost.adapt_macs``."""
    start, body = first_updated(pattern), network.body
    prefix = [c for layer in body[:start] for c in layer.convs()]
    suffix = [c for layer in body[start:] for c in layer.convs()]
    entered = body[start].entries() if start < len(body) else []  # nothing goes back through these
    last = inductive and network.measures
    graph = not written_out(body[start:], images)
    once = graph and network.measures  # torch's fused calls of one task, in the steps alone
    forth = steps + last if steps or network.head.kind != "prototype" else 1 + last
    numbers, kept = images * sum(_numbers(prefix)), images * sum(_numbers(suffix))
    in_steps, at_last = (
        [sum(_looks(convs, images, once=fused)) for convs in (entered, suffix)]
        for fused in (once, False)
    )
    looks = _looks_alone(body[:start], images)
    above = at_last[1] - at_last[0] if graph else _looks_alone(body[start + 1 :], images)
    looks += (in_steps[1] - in_steps[0]) * (forth - last + steps) + above * last
    if start < len(body) and isinstance(body[start], ConvBlock):
        looks += at_last[0]  # kept from the first pass on
    else:
        looks += in_steps[0] * (forth - last) + at_last[0] * last
    record = kept * steps if graph else 0
    return Work(
        starts=1,
        passes=len(prefix) + len(suffix) * (forth + steps),
        steps=steps,
        macs=adapt_macs(
            network, pattern, steps=steps, ways=ways, images=images, inductive=inductive
        ),
        numbers=numbers + kept * (forth + steps),
        looks=looks,
        recorded=record,
    )


def _numbers(convs: list[Conv]) -> Iterator[int]:
    return (c.out * c.height * c.width for c in convs)


def _looks_alone(layers: Sequence[Layer], images: int) -> int:
    """Of layers that one task goes through and nobody differentiates."""
    if not written_out(layers, images):
        return sum(_looks([c for layer in layers for c in layer.convs()], images))
    blocks = [layer for layer in layers if isinstance(layer, ConvBlock)]
    return sum(
        images * block.window.looks
        for block in blocks
        if not wide_alone(block.window, images, block.into[0])
    )


def _looks(convs: list[Conv], images: int, *, once: bool = False) -> Iterator[int]:
    """Places a gather or a scatter looks at; torch's own convolution does without."""
    for c in convs:
        window = Window(c.height, c.width, c.kernel, 1)
        yield (
            0 if c.kernel == 1 or wide(window, images, c.into, once=once) else images * window.looks
        )
