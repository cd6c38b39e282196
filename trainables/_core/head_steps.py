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
    from collections.abc import Callable, Mapping

    from trainables._core.heads import Head, Labels


class HeadSteps(Sequence[Params]):
    """Softmax regression on fixed features; a step's classifier is made when it is asked for.

    A step moves the logits through the Gram matrix of the features, or, where a task has more
    images than features, through the features themselves. A task that is alone comes without the
    dimension of tasks.

    Args:
        head: whose classifier the tasks start with.
        params: the network's meta-parameters.
        features: ``[B, M, F]`` or ``[M, F]``.
        labels: the tasks' classes.
        steps: inner steps T.
        rate: alpha.
        tick: called once the start is ready and after every step.
    """

    def __init__(
        self,
        head: Head,
        params: Mapping[str, torch.Tensor],
        features: torch.Tensor,
        labels: Labels,
        *,
        steps: int,
        rate: float,
        tick: Callable[[], None],
    ) -> None:
        alone, gram = features.dim() == 2, None
        times, plus = (torch.mm, torch.addmm) if alone else (torch.bmm, torch.baddbmm)
        weight, bias = head.start(params, features, labels)
        self._alone, self._features, self._classifier = alone, features, (weight, bias)
        self._scale = rate / features.shape[-2]
        self._errors: list[torch.Tensor] = []  # E of every step
        tick()
        if steps == 0:
            return
        target, scale, free = labels.target, self._scale, not torch.is_grad_enabled()
        if steps > 1 and by_gram(*features.shape[-2:]):
            gram = times(features, features.mT) + 1
        z = errors = plus(bias if alone else bias.unsqueeze(1), features, weight.mT)
        for t in range(steps):
            if t and gram is not None:
                z = plus(z, gram, errors, alpha=-scale)
            elif t:
                move = head_logits(features, errors.mT @ features, errors.sum(-2))
                z = torch.sub(z, move, alpha=scale)
            errors = torch.softmax(z, -1)
            errors = errors.sub_(target) if free else errors - target
            self._errors.append(errors)
            tick()

    @override
    def __len__(self) -> int:
        return len(self._errors) + 1

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
            errors = torch.stack(self._errors[:t]).sum(0) if t > 1 else self._errors[0]
            weight = added(weight, errors.mT, self._features, -self._scale)
            bias = torch.sub(bias, errors.sum(-2), alpha=self._scale)
        if self._alone:
            weight, bias = weight[None], bias[None]
        return {HEAD_W: weight, HEAD_B: bias}
