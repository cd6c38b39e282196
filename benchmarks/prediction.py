"""Predicted against measured: how long a pattern takes, and how much memory it needs.

    python -m benchmarks.prediction

The device's profile is fitted to a few adaptations, then every pattern of networks it has not
seen is predicted and timed: Conv-4 of 8 to 64 filters, stride and pooling, grey images of 28 px
and colour images of 32 px, 5-way 1-shot and 5-shot, 1 to 10 steps. All of them take turns within
a round, those of the profile too, and the fastest round counts, so that other load weighs less;
time is that of the thread on its core. Prediction knows no weights and no images, so random ones
do. Memory is exact and needs one round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from itertools import product
from typing import TYPE_CHECKING

import torch

from benchmarks.record import Row, save
from trainables._core import device
from trainables._core.episodes import Episodes
from trainables._core.evaluate import Setting
from trainables._core.memory import adapt_mib
from trainables._core.networks import conv4
from trainables._core.patterns import candidates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trainables._core.device import Profile, Sample, Shape

    Key = tuple[Shape, str]
    Parts = dict[Key, list[float]]

HERE = torch.device("cpu")
STEPS = (1, 2, 5, 10)
WIDTHS = (8, 16, 32, 64)
FEW = ("11111", "01111", "00111", "00011", "00001", "10000", "01010")  # of 5-shot tasks
SUFFIXES = ("11111", "01111", "00111", "00011", "00001")
MEAN_FLOOR = 0.25  # our mark on a machine with neighbours


def grid() -> list[Key]:
    """Every network with every pattern, those of the profile first."""
    known = list(product(device.SHAPES, device.PATTERNS))
    images = ((1, 28), (3, 32))
    nets = [(w, c, s, d) for w, (c, s), d in product(WIDTHS, images, ("stride", "pool"))]
    one_shot = product([(*net, 5) for net in nets], candidates(5))
    five_shot = product([(*net, 25) for net in nets], FEW)
    return list(dict.fromkeys([*known, *one_shot, *five_shot]))


def fastest(keys: Sequence[Key], rounds: int) -> Parts:
    """The least milliseconds of each part of an adaptation, over rounds in shuffled order."""
    found: Parts = {}
    order = random.Random(0)
    for turn in range(rounds):
        for shape, pattern in order.sample(keys, len(keys)):
            network = device.network_of(shape)
            laps = device.timed(network, pattern, shape[-1], HERE, runs=1, clock=time.thread_time)
            so_far = found.get((shape, pattern), laps[0])
            found[shape, pattern] = [min(pair) for pair in zip(so_far, laps[0], strict=True)]
        sys.stderr.write(f"round {turn + 1} of {rounds}\n")
    return found


def samples(found: Parts, keys: Iterable[Key], steps: Iterable[int]) -> list[Sample]:
    """Work and time of some of the grid."""
    return [
        device.at(device.network_of(shape), pattern, shape[-1], found[shape, pattern], t)
        for (shape, pattern), t in product(keys, steps)
    ]


def errors(profile: Profile, found: Parts, keys: Iterable[Key]) -> list[float]:
    """Relative errors of the predictions."""
    return [abs(profile.milliseconds(s.work) - s.ms) / s.ms for s in samples(found, keys, STEPS)]


def prediction_rows(found: Parts) -> tuple[list[Row], Profile]:
    """Mean and worst error over the grid, the profile's own networks left out."""
    known = list(product(device.SHAPES, device.PATTERNS))
    fitted = samples(found, known, device.FITTED_STEPS)
    profile = device.fit(device.fingerprint(HERE), fitted, spread=0.0)
    rows = [Row("fit_error", profile.error, "", "lower", None, None, "on the profile's shapes")]
    for name, shots in (("1_shot", 5), ("5_shot", 25)):
        keys = [k for k in found if k[0][-1] == shots and k[0] not in device.SHAPES]
        found_errors = errors(profile, found, keys)
        said = f"{len(keys)} networks and patterns, T = 1, 2, 5, 10"
        mean, worst = statistics.fmean(found_errors), max(found_errors)
        rows.append(Row(f"error_{name}", mean, "", "lower", MEAN_FLOOR, None, said))
        rows.append(Row(f"worst_{name}", worst, "", "lower", None, None, said))
    return rows, profile


def memory_rows() -> list[Row]:
    """``adapt_mib`` of a 5-way 1-shot task on grey images of 28 px, T = 10."""
    rows = []
    for width, pattern in product((32, 64), SUFFIXES):
        network = conv4((1, 28, 28), width=width)
        generator = torch.Generator().manual_seed(0)
        meta = network.init(generator)
        support = torch.randn(1, 5, 28, 28, 1, generator=generator)
        task = Episodes(support, torch.arange(5), support[:, :0], torch.arange(0), 1, 5)
        mib = adapt_mib(network, meta, task, Setting(10, 0.1, 5, 0, inductive=True), pattern)
        rows.append(Row(f"mib_conv4_{width}_{pattern}", mib, "MiB", "lower"))
    return rows


def main() -> None:
    """Measures, fits, predicts, and writes the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    torch.set_num_threads(1)
    rows, profile = prediction_rows(fastest(grid(), parser.parse_args().rounds))
    save("prediction", [*rows, *memory_rows()], profile=profile.to_json())


if __name__ == "__main__":
    main()
