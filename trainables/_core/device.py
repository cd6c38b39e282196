"""What a unit of work costs on this device, and so how long any adaptation will take.

    predicted ms = sum over units u of price_u * amount_u(network, pattern, steps)

The prices are fitted, none of them below zero, to a few whole adaptations timed here: two small
networks and a large one of five images, and one of 25 that goes through autograd, each with four
patterns after one step and after several. Errors count relative to the time, so that short ones
weigh as much as long ones. That takes less than a second, once per process and device.
"""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables._core.episodes import Episodes
from trainables._core.evaluate import Setting, in_total, lap
from trainables._core.lease import node
from trainables._core.networks import conv4
from trainables._core.work import UNITS, Work, work_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainables._core.networks import Network

Shape = tuple[int, int, int, str, int]  # width, channels, size, halving, images

# our choice, so that every unit of work matters in one of them
SHAPES: tuple[Shape, ...] = (
    (8, 1, 28, "stride", 5),
    (32, 3, 32, "pool", 5),
    (64, 1, 28, "stride", 5),
    (16, 1, 28, "pool", 25),
)
PATTERNS = ("00001", "00011", "01111", "11111")
WAYS, STEPS, FITTED_STEPS = 5, 2, (1, 6)  # the steps after the second are as long as it
TIMED_RUNS = 4
SWEEPS = 400  # of the fit; a hundred are enough for four digits


@dataclass(frozen=True)
class Fingerprint:
    """What decides the speed of a device, as far as this process can see."""

    device: str  # cpu or cuda
    processor: str  # or the GPU's name
    threads: int
    torch: str

    def text(self) -> str:
        """In words, as ``cpu Some Processor, 1 thread, torch 2.13.0``."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.device} {self.processor}, {threads}, torch {self.torch}"


@dataclass(frozen=True)
class Sample:
    """Some work, and the milliseconds it took."""

    work: Work
    ms: float


@dataclass(frozen=True)
class Profile:
    """Prices of one device, JSON-ready by ``to_json``.

    Attributes:
        fingerprint: of the device.
        prices: milliseconds per unit of ``Work``, in the order of ``UNITS``.
        error: mean relative error of the fit on the shapes it was fitted to.
        spread: of the timed runs: how far their median lies above the fastest, as a share of it.
    """

    fingerprint: Fingerprint
    prices: tuple[float, ...]
    error: float
    spread: float

    def to_json(self) -> dict[str, Any]:
        """The profile as plain data, each price by its unit."""
        return {**asdict(self), "prices": dict(zip(UNITS, self.prices, strict=True))}

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Profile:
        """What ``to_json`` made of one."""
        prices = tuple(float(known["prices"][unit]) for unit in UNITS)
        where = Fingerprint(**known["fingerprint"])
        return cls(where, prices, float(known["error"]), float(known["spread"]))

    def milliseconds(self, work: Work) -> float:
        """How long that much work takes here."""
        return sum(p * a for p, a in zip(self.prices, work.amounts(), strict=True))


def predict(
    profile: Profile,
    network: Network,
    pattern: str,
    *,
    steps: int,
    ways: int,
    images: int,
    inductive: bool = True,
) -> float:
    """Milliseconds of adapting to one task of ``images`` support images on the profile's device."""
    return profile.milliseconds(
        work_of(network, pattern, steps=steps, ways=ways, images=images, inductive=inductive)
    )


def fingerprint(device: torch.device) -> Fingerprint:
    """The fingerprint of a device of this process."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return Fingerprint(device.type, name, torch.get_num_threads(), torch.__version__)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def profile_here(device: torch.device) -> Profile:
    """The profile of a device of this process, measured when it is asked for the first time."""
    return _kept(fingerprint(device), device)


@lru_cache(maxsize=8)
def _kept(where: Fingerprint, device: torch.device) -> Profile:
    with node().exclusive():
        return measured(where, device)


def measured(
    where: Fingerprint, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Profile:
    """Times a few adaptations on the device and fits the prices to them."""
    samples: list[Sample] = []
    spreads: list[float] = []
    for shape in SHAPES:
        network, images = network_of(shape), shape[-1]
        for pattern in PATTERNS:
            laps = timed(network, pattern, images, device, clock=clock)
            typical = [statistics.median(column) for column in zip(*laps, strict=True)]
            fastest = [min(column) for column in zip(*laps, strict=True)]
            spreads.append(sum(typical) / sum(fastest) - 1)
            samples += [at(network, pattern, images, typical, steps) for steps in FITTED_STEPS]
    return fit(where, samples, spread=statistics.median(spreads))


def network_of(shape: Shape) -> Network:
    """The network of one of the ``SHAPES``."""
    width, channels, size, down, _ = shape
    return conv4((channels, size, size), width=width, down=down, ways=WAYS)


def timed(
    network: Network,
    pattern: str,
    images: int,
    device: torch.device,
    *,
    runs: int = TIMED_RUNS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of the parts of adaptations to one task, ``lap`` by lap, after a warm-up."""
    generator = torch.Generator().manual_seed(0)
    meta = {n: p.to(device) for n, p in network.init(generator).items()}
    channels, height, width = network.into
    support = torch.randn(1, images, height, width, channels, generator=generator).to(device)
    labels = torch.arange(WAYS, device=device).repeat_interleave(images // WAYS)
    task = Episodes(support, labels, support[:, :0], labels[:0], 1, WAYS)
    setting = Setting(STEPS, 0.01, WAYS, 0, inductive=True)
    return [lap(network, meta, task, setting, pattern, clock) for _ in range(1 + runs)][1:]


def at(network: Network, pattern: str, images: int, parts: Sequence[float], steps: int) -> Sample:
    """What that many steps do and take: every step after the first takes what the last one did."""
    *before, again, behind = parts
    repeated = [*before, *[again] * (1 + steps - len(before)), behind]
    work = work_of(network, pattern, steps=steps, ways=WAYS, images=images)
    return Sample(work, in_total(repeated)[steps])


def fit(where: Fingerprint, samples: Sequence[Sample], *, spread: float) -> Profile:
    """The profile whose prices suit the samples best."""
    times = [sample.ms for sample in samples]
    found = Profile(where, fitted([s.work.amounts() for s in samples], times), 0.0, spread)
    guesses = [found.milliseconds(sample.work) for sample in samples]
    return replace(found, error=relative_error(guesses, times))


def fitted(amounts: Sequence[Sequence[float]], times: Sequence[float]) -> tuple[float, ...]:
    """Prices x >= 0 that make ``amounts x / times`` as nearly 1 as can be, in least squares.

    One price after another takes its best value while the others rest, as often as is enough:
    the problem is convex, and the order is fixed, so the same times give the same prices.
    """
    rows = torch.tensor(amounts, dtype=torch.double)
    rows = rows / torch.tensor(times, dtype=torch.double).unsqueeze(1)
    scale = rows.amax(0).clamp_min(torch.finfo(torch.double).tiny)
    rows = rows / scale
    gram, toward = (rows.T @ rows).tolist(), rows.sum(0).tolist()
    x = [0.0] * len(toward)
    for _ in range(SWEEPS):
        for i, row in enumerate(gram):
            if row[i] > 0:
                rest = sum(g * v for g, v in zip(row, x, strict=True)) - row[i] * x[i]
                x[i] = max(0.0, (toward[i] - rest) / row[i])
    return tuple(v / s for v, s in zip(x, scale.tolist(), strict=True))


def relative_error(predicted: Sequence[float], times: Sequence[float]) -> float:
    """Mean of |predicted - measured| over measured."""
    return statistics.fmean(abs(p - t) / t for p, t in zip(predicted, times, strict=True))
