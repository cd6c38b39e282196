"""The adaptation settings that a trained model is scored under besides the one drawn for it.

They are the points of a scrambled Sobol sequence (Sobol 1967, Owen 1998) in the parameters whose
stage is adaptation, seeded by the sweep's seed and by the training: whatever runs beside, the same
model meets the same settings. A rate costs a table of its own, steps and epsilon hardly anything,
so that ``SHARE`` settings have one rate in common, the first of them the drawn one.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

from torch.quasirandom import SobolEngine

from spaces._domains import Choice, Fixed, Float, active

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces._domains import Domain, Space, Value

SHARE = 4  # settings that have a rate in common; our default
RATE = "test.rate"


def training_part(config: Mapping[str, Value], space: Space) -> dict[str, Value]:
    """Return what of a configuration decides the trained model."""
    return {k: v for k, v in config.items() if space[k].stage == "training"}


def training_key(config: Mapping[str, Value], space: Space) -> str:
    """Name a training by the content of its configuration; data and settings are the run's."""
    parts = sorted(training_part(config, space).items())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def further_settings(
    config: Mapping[str, Value], space: Space, count: int, seed: int
) -> list[dict[str, Value]]:
    """Return whole configurations that share a drawn one's training, none twice.

    Args:
        config: The drawn one.
        space: Of the sweep.
        count: How many settings there are to be, with the drawn one; fewer where they coincide.
        seed: Of the sweep.
    """
    domains = {
        name: domain
        for name, domain in space.items()
        if domain.stage == "adaptation" and not isinstance(domain, Fixed) and active(domain, config)
    }
    if count < 2 or not domains:
        return []
    key = int(hashlib.sha256(f"{seed} {training_key(config, space)}".encode()).hexdigest()[:15], 16)
    points = SobolEngine(len(domains), scramble=True, seed=key).draw(count)
    rates: list[Value | None] = [config.get(RATE), *([None] * count)]
    found = [dict(config)]
    for number, point in enumerate(points.tolist()[1:], 1):
        drawn = {
            name: at(domain, u) for (name, domain), u in zip(domains.items(), point, strict=True)
        }
        if RATE in domains:
            group = number // SHARE
            rate = rates[group]
            rates[group] = drawn[RATE] = drawn[RATE] if rate is None else rate
        candidate = {**config, **drawn}
        if candidate not in found:
            found.append(candidate)
    return found[1:]


def at(domain: Domain, share: float) -> Value:
    """Return the value of a domain at a share in [0, 1) of its way, even in what it draws evenly.

    Example:
        >>> from spaces._domains import Int
        >>> at(Int(1, 10, why="steps"), 0.0), at(Int(1, 10, why="steps"), 0.99)
        (1, 10)
        >>> at(Float(0.001, 1.0, log=True, why="rate"), 0.5)
        0.0316227766
    """
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return domain.options[int(share * len(domain.options))]
    if isinstance(domain, Float):
        if domain.log:
            low, high = math.log(domain.low), math.log(domain.high)
            value = math.exp(low + share * (high - low))
        else:
            value = domain.low + share * (domain.high - domain.low)
        return min(max(float(f"{value:.9g}"), domain.low), domain.high)
    low, high = domain.low - 0.5, domain.high + 0.5
    if domain.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    return min(max(round(value), domain.low), domain.high)
