"""The inner loop where the head alone is updated: softmax regression on fixed features.

All steps stay within the support set's Gram matrix, E being softmax(z) - Y:

    z_(t+1) = z_t - (alpha / M) (f f^T + 1) E_t,      W_T = W_0 - (alpha / M) (sum_t E_t)^T f
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import torch
from typing_extensions import override

from trainables._core.heads import HEAD_B, HEAD_W, by_gram
from trainables._core.heads import logits as head_logits
from trainables._core.kernels import added
from trainables._core.layers import Params

if TYPE_CHECKING:
    from collections.abc import Callable


class HeadSteps(Sequence[Params]):
    """Softmax regression on fixed features; a step's classifier is made when it is asked for.

    A step moves the logits through the Gram matrix of the features, or, where a task has more
    images than features, through the features themselves. A task that is alone goes without the
    dimension of tasks.
    """

    def __init__(
        self,
        features: torch.Tensor,
        target: torch.Tensor,
        classifier: tuple[torch.Tensor, torch.Tensor],
        steps: int,
        rate: float,
        tick: Callable[[], None],
    ) -> None:
        self._alone = len(features) == 1
        self._features, weight, bias = (x[0] if self._alone else x for x in (features, *classifier))
        self._classifier = weight, bias
        self._scale = rate / features.shape[1]
        self._target = target
        self._said: list[torch.Tensor] = []  # sum_(s <= t) P_s, the predictions so far
        tick()
        if steps == 0:
            return
        z = head_logits(self._features, weight, bias)
        moved = self._moves(z, steps)
        for t in range(steps):
            if t:
                z = moved(t, self._said[-1])
            p = torch.softmax(z, -1)
            self._said.append(self._said[-1] + p if t else p)
            tick()

    def _moves(
        self, first: torch.Tensor, steps: int
    ) -> Callable[[int, torch.Tensor], torch.Tensor]:
        """How to get the logits after t steps from the sum of the predictions before them.

        With K = f f^T + 1 it is z_t = z_0 + t s K Y - s K sum_(s < t) P_s, s = alpha / M.
        """
        features, target, scale = self._features, self._target, self._scale
        if steps == 1 or not by_gram(*features.shape[-2:]):

            def through(t: int, said: torch.Tensor) -> torch.Tensor:
                errors = torch.sub(said, target, alpha=t)
                step = head_logits(features, errors.mT @ features, errors.sum(-2))
                return torch.sub(first, step, alpha=scale)

            return through
        one = features.new_ones(())
        gram = (torch.addmm if self._alone else torch.baddbmm)(one, features, features.mT)
        counts = torch.arange(steps, dtype=first.dtype, device=first.device) * scale
        counts = counts.view(-1, *[1] * first.dim())
        toward = torch.addcmul(first, counts, gram @ target).unbind()
        return lambda t, said: added(toward[t], gram, said, -scale)

    @override
    def __len__(self) -> int:
        return len(self._said) + 1

    @overload
    def __getitem__(self, index: int) -> Params: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Params]: ...
    @override
    def __getitem__(self, index: int | slice) -> Params | Sequence[Params]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        weight, bias = self._classifier
        t = range(len(self))[index]
        if t:
            errors = torch.sub(self._said[t - 1], self._target, alpha=t)
            weight = added(weight, errors.mT, self._features, -self._scale)
            bias = torch.sub(bias, errors.sum(-2), alpha=self._scale)
        if self._alone:
            weight, bias = weight[None], bias[None]
        return {HEAD_W: weight, HEAD_B: bias}
