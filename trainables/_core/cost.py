"""Exact counts: multiply-accumulates of adaptation, parameters, bytes.

    cost(Lambda) = Fwd + sum_{Lambda_l = 1} Wgrad_l + sum_{l > l0} Igrad_l      (methods, section 3)

A layer's weight gradient and its input gradient cost as much as its forward pass. Layers below l0
give the same support features in every step, so they run once [our addition to the paper].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables._core.heads import by_gram
from trainables._core.patterns import first_updated

if TYPE_CHECKING:
    from trainables._core.networks import Network

MIB = 2**20
FLOAT_BYTES = 4


def layer_macs(network: Network, ways: int) -> list[int]:
    """Forward multiply-accumulates of one image, layer by layer, head last."""
    return [*(layer.macs() for layer in network.body), network.head.macs(ways)]


def step_macs(network: Network, pattern: str, ways: int) -> int:
    """One inner step for one support image, without the frozen prefix: suffix and gradients."""
    macs = layer_macs(network, ways)
    start = first_updated(pattern)
    forward = sum(macs[start:])
    weight_gradients = sum(m for m, bit in zip(macs, pattern, strict=True) if bit == "1")
    input_gradients = sum(macs[start + 1 :])
    return forward + weight_gradients + input_gradients


def uncached_step_macs(network: Network, pattern: str, ways: int) -> int:
    """One inner step when the prefix runs again: what a pattern alone saves, as in the paper."""
    return sum(layer_macs(network, ways)[: first_updated(pattern)]) + step_macs(
        network, pattern, ways
    )


def adapt_macs(
    network: Network, pattern: str, *, steps: int, ways: int, images: int, inductive: bool = True
) -> int:
    """A whole adaptation to one task of ``images`` support images.

    The prefix once, ``steps`` steps of the suffix (or of the head alone, which needs less) and,
    where query images are normalised with the statistics of the support set, a last pass of the
    updated body that measures them. The prototypes come from the first step's own pass.
    """
    macs = layer_macs(network, ways)
    start, body = first_updated(pattern), len(network.body)
    total = images * sum(macs[:start])
    if start == body:
        total += head_macs(network.head.features, steps=steps, ways=ways, images=images)
    else:
        total += images * steps * step_macs(network, pattern, ways)
        if inductive and network.measures:
            total += images * sum(macs[start:-1])
        if steps == 0 and network.head.kind == "prototype":
            total += images * sum(macs[start:-1])
    if network.head.kind == "prototype":
        total += network.head.features * ways  # |mu_c|^2
    return total


def head_macs(features: int, *, steps: int, ways: int, images: int) -> int:
    """All steps of the head alone: logits, moves of the logits, the classifier at the end.

    What the sums ask for: ``lone_head`` multiplies with -Y along, ``images**2 * ways`` more a step,
    because that takes one call less.
    """
    if steps == 0:
        return 0
    product = images * features * ways
    if by_gram(images, features):
        gram = images**2 * features if steps > 1 else 0
        return 2 * product + gram + (steps - 1) * images**2 * ways
    return 2 * steps * product


def size_mib(network: Network) -> float:
    """Stored weights in mebibytes of float32."""
    return network.parameters() * FLOAT_BYTES / MIB


def known_before(network: Network, ways: int) -> dict[str, float]:
    """Metrics that need no training."""
    return {
        "student_params": network.parameters(),
        "student_mib": size_mib(network),
        "student_macs": network.macs(ways),
    }
