"""The inner loop as one would write it on a blackboard: one task, every gradient, then a mask.

Slow on purpose. The engine in ``adapt`` must give the same numbers; tests hold it to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from trainables._core.heads import Labels
from trainables._core.heads import logits as head_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainables._core.adapt import Rule
    from trainables._core.layers import Params
    from trainables._core.networks import Network


def adapt_one(
    network: Network,
    meta: Mapping[str, torch.Tensor],
    support: torch.Tensor,
    labels: torch.Tensor,
    rule: Rule,
    *,
    create_graph: bool = False,
) -> Params:
    """Adapts one task, full gradients masked by the pattern.

    Args:
        network: the layers.
        meta: theta.
        support: ``[M, H, W, C]``.
        labels: ``[M]``.
        rule: pattern, steps, rate and ways.
        create_graph: keep the graph through the inner gradients.

    Returns:
        Every body tensor and the task's classifier ``head.W [N, F]``, ``head.b [N]``.
    """
    first = network.features(network.run(meta, support[None]))
    weight, bias = network.head.start(meta, first, Labels.of(labels, rule.ways, first.dtype))
    params = {n: p.clone() for n, p in meta.items()}  # the prototypes depend on theta, not on these
    params |= {"head.W": weight[0], "head.b": bias[0]}
    layer_of = {n: i for i, layer in enumerate(network.body) for n in layer.names}
    layer_of |= {"head.W": len(network.body), "head.b": len(network.body)}
    if not create_graph:
        params = {n: p.detach().requires_grad_() for n, p in params.items()}
    for _ in range(rule.steps):
        features = network.features(network.run(params, support[None]))
        z = head_logits(features, params["head.W"][None], params["head.b"][None])[0]
        names = list(layer_of)
        grads = torch.autograd.grad(
            F.cross_entropy(z, labels), [params[n] for n in names], create_graph=create_graph
        )
        for name, grad in zip(names, grads, strict=True):
            if rule.pattern[layer_of[name]] == "1":
                moved = params[name] - rule.rate * grad
                params[name] = moved if create_graph else moved.detach().requires_grad_()
    return {n: params[n] for n in layer_of}
