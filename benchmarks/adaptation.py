"""Adaptation as a device does it, one task at a time: a chosen pattern, our full one, peers.

    FEWTUNE_DATA=... python -m benchmarks.adaptation

The time is from support images to a student ready to predict: the steps, the classifier, and the
pass that measures the statistics of the support set. Patterns are chosen on validation classes of
meta-trained students, at the number of steps that the full pattern takes; what the choice costs is
then measured on test classes, paired. All contenders of a setting take turns in each round, and a
ratio is the median over rounds. The chosen pattern and the full one run on one thread. Against a
peer there are two figures: both on one thread, and both in their fastest form, one or two threads,
and for a peer images first or channels last, by its median over all rounds.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, groupby
from multiprocessing import get_context
from typing import TYPE_CHECKING

import torch

from benchmarks import conventional, peers
from benchmarks.models import SHOTS, WAYS, Recipe, student
from benchmarks.record import Row, save
from benchmarks.timing import (
    Contender,
    in_turns,
    milliseconds,
    ratio,
    threads_said,
)
from trainables._core import evaluate
from trainables._core.cost import adapt_macs
from trainables._core.ending import CHUNK, TEST_SEED, VALIDATION_SEED
from trainables._core.episodes import Sampler
from trainables._core.evaluate import Setting, on_a_device
from trainables._core.patterns import candidates, full
from trainables._data import load
from trainables._learner import TaskShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trainables._core.episodes import Episodes
    from trainables._core.layers import Params
    from trainables._core.networks import Network
    from trainables._data import Dataset

EPSILON = 0.01
LEARNED = 1.5 / WAYS  # a student's accuracy with every layer; near 1 / WAYS no drop says anything
STEPS = {5: 10.0, 10: 20.0}  # T -> how many times faster the choice must be than the full pattern
PEER_FLOOR = 1.5  # times faster than any peer, all of them on all layers
EVERY_LAYER = full(5)
TIMED_TASKS = 8  # different tasks that timed runs go round
PEERS = {"higher": peers.by_higher, "by hand": peers.by_hand}
TAUGHT: Mapping[str, Mapping[str, int]] = {  # what these need beyond a few hundred iterations
    "cifar-fs": {"iterations": 1000, "inner_steps": 3},
}
HEADS = ("shared", "prototype")  # the first is a linear head to a peer


def recipe_of(source: str, width: int, head: str, iterations: int) -> Recipe:
    """How a student is taught: for longer, in fewer steps, where a short training is too little."""
    recipe = Recipe(source, width, head, iterations)
    return replace(recipe, **TAUGHT.get(source, {}))  # type: ignore[arg-type]  # not words


@dataclass(frozen=True)
class Case:
    """A meta-trained student, the data it comes from, and the pattern chosen for each T."""

    name: str
    network: Network
    meta: Params
    setting: Setting  # of the most steps
    chosen: Mapping[int, str]

    def at(self, steps: int) -> Setting:
        """The same setting with fewer steps."""
        return replace(self.setting, steps=steps)


class Scores:
    """Accuracies of a student's patterns on the same tasks, each measured when it is asked for."""

    def __init__(
        self,
        network: Network,
        meta: Params,
        tasks: Callable[[], Iterator[Episodes]],
        setting: Setting,
    ) -> None:
        self.network, self.setting = network, setting
        self._meta, self._tasks = meta, tasks
        self._found: evaluate.Accuracies = {}

    def of(self, pattern: str, steps: int) -> torch.Tensor:
        """Accuracy of every task ``[tasks]``."""
        if (pattern, steps) not in self._found:
            wanted = {pattern: sorted(STEPS)}
            self._found |= evaluate.score(
                self.network, self._meta, self._tasks(), self.setting, wanted
            )
        return self._found[pattern, steps]

    def cost(self, pattern: str, steps: int) -> int:
        """Multiply-accumulates of one adaptation."""
        setting, images = self.setting, WAYS * SHOTS * (1 + self.setting.views)
        return adapt_macs(
            self.network,
            pattern,
            steps=steps,
            ways=WAYS,
            images=images,
            inductive=setting.inductive,
        )

    def choice(self, steps: int) -> str:
        """What ``patterns.choose`` takes from the table at T: dearer patterns stay unmeasured."""
        mark = float(self.of(EVERY_LAYER, steps).double().mean())

        def cost(pattern: str) -> int:
            return self.cost(pattern, steps)

        def accuracy(pattern: str) -> float:
            return float(self.of(pattern, steps).double().mean())

        for _, equally_dear in groupby(sorted(candidates(5), key=cost), key=cost):
            best = max(equally_dear, key=accuracy)
            if mark - accuracy(best) <= EPSILON + 1e-9:
                return best
        return EVERY_LAYER


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="omniglot,cifar-fs", help="sources, commas between")
    parser.add_argument("--widths", default="32,64", help="filters, commas between")
    parser.add_argument("--iterations", type=int, default=1000, help="where so many do")
    parser.add_argument("--validation-tasks", type=int, default=600)
    parser.add_argument("--test-tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5, help="runs of a turn")
    parser.add_argument("--threads", type=int, default=2, help="of training and scoring")
    parser.add_argument("--name", default="adaptation")
    return parser.parse_args()


def case(args: argparse.Namespace, data: Dataset, recipe: Recipe) -> tuple[Case, list[Row]]:
    """A student with its chosen patterns, and what they cost on test classes."""
    network, meta = student(recipe, data)
    setting = Setting(max(STEPS), recipe.inner_rate, WAYS, 0, inductive=True)
    shape = TaskShape(WAYS, SHOTS, 15)

    def scores(split: str, seed: int, tasks: int) -> Scores:
        sampler = Sampler(getattr(data, split), data, shape, "cpu")
        return Scores(network, meta, lambda: sampler.fixed(seed, tasks, CHUNK), setting)

    validation = scores("validation", VALIDATION_SEED, args.validation_tasks)
    test = scores("test", TEST_SEED, args.test_tasks)
    name = f"{recipe.data}_{recipe.width}_{recipe.head}"
    chosen = {steps: validation.choice(steps) for steps in STEPS}
    rows = []
    for steps, pattern in chosen.items():
        kept, half = evaluate.interval(test.of(EVERY_LAYER, steps))
        accuracy_id, words = f"{name}_T{steps}_full_accuracy", f"+-{half:.4f}, test classes"
        rows.append(Row(accuracy_id, kept, "share", "higher", LEARNED, "chance", words))
        drop, drop_half = evaluate.interval(test.of(EVERY_LAYER, steps) - test.of(pattern, steps))
        detail = (
            f"{pattern}, test classes, paired over {args.test_tasks} tasks, +-{drop_half:.4f}; "
            f"full pattern {kept:.4f} +-{half:.4f}"
        )
        drop_id = f"{name}_T{steps}_drop"
        rows.append(Row(drop_id, drop, "share", "lower", EPSILON, "own full pattern", detail))
    return Case(name, network, meta, setting, chosen), rows


def ours(case: Case, pattern: str, steps: int, tasks: Sequence[Episodes]) -> Callable[[], object]:
    """One adaptation by the project's engine."""
    setting, turn = case.at(steps), cycle(tasks)
    return lambda: on_a_device(case.network, case.meta, next(turn), setting, pattern)


def peer(
    adapter: Callable[..., peers.Adapter], case: Case, steps: int, tasks: Sequence[Episodes]
) -> list[Contender]:
    """A peer adapting every layer, in all its forms."""
    inner = peers.Inner(steps, case.setting.rate, case.setting.inductive)

    def run_in(layout: torch.memory_format) -> Callable[[], object]:
        model = conventional.of(case.network, case.meta, layout)
        adapt_one = adapter(model, inner)
        turn = cycle([peers.tasks_of(e, layout)[0] for e in tasks])

        def run() -> object:
            task = next(turn)
            return adapt_one(task.support, task.labels)

        return run

    return peers.forms(run_in)


def timed(
    args: argparse.Namespace, cases: Mapping[str, Case], steps: int, tasks: Sequence[Episodes]
) -> list[Row]:
    """Speeds at T of the students of one width on one source, all in the same rounds."""
    linear = cases[HEADS[0]]
    contenders, chosen = [], {}
    for head, one in cases.items():
        contenders += [
            Contender(f"{head} chosen", ours(one, one.chosen[steps], steps, tasks)),
            Contender(f"{head} full", ours(one, EVERY_LAYER, steps, tasks)),
        ]
    run = ours(linear, EVERY_LAYER, steps, tasks)
    forms = {"ours": [Contender(threads_said(n), run, n) for n in peers.THREADS]}
    forms |= {name: peer(adapter, linear, steps, tasks) for name, adapter in PEERS.items()}
    named = {
        name: [replace(form, name=f"{name}, {form.name}") for form in several]
        for name, several in forms.items()
    }
    contenders += [form for several in named.values() for form in several]
    times = in_turns(contenders, rounds=args.rounds, repeats=args.repeats)
    for name, several in named.items():
        single = [form for form in several if form.threads == 1]
        for key, some in ((name, several), (f"{name} one thread", single)):
            chosen[key] = min((form.name for form in some), key=partial(milliseconds, times))
            times[key] = times[chosen[key]]

    def row(name: str, slow: str, fast: str, floor: float, words: str) -> Row:
        found = ratio(times, slow, fast)
        detail = (
            f"{words}{milliseconds(times, fast):.2f} ms against {milliseconds(times, slow):.2f} "
            f"ms, {found.spread}"
        )
        return Row(name, found.value, "x", "higher", floor, slow, detail)

    rows = []
    for head, one in cases.items():
        name, words = f"{one.name}_T{steps}_speedup", f"{one.chosen[steps]}, "
        rows.append(row(name, f"{head} full", f"{head} chosen", STEPS[steps], words))
    for name in PEERS:
        for threads in ("", " one thread"):
            slow, fast = name + threads, "ours" + threads
            words = f"every layer; {chosen[fast]}; {chosen[slow]}: "
            row_id = f"{linear.name}_T{steps}_full_against_{slow.replace(' ', '_')}"
            rows.append(row(row_id, slow, fast, PEER_FLOOR, words))
    return rows


def measured(
    args: argparse.Namespace, source: str, width: int
) -> tuple[list[Row], list[dict[str, object]]]:
    """Rows and recipes of the students of one width on one source."""
    data = load(source, root=None)
    rows: list[Row] = []
    cases, recipes = {}, []
    torch.set_num_threads(args.threads)
    for head in HEADS:
        recipe = recipe_of(source, width, head, args.iterations)
        cases[head], said = case(args, data, recipe)
        rows += said
        recipes.append(vars(recipe))
    sampler = Sampler(data.test, data, TaskShape(WAYS, SHOTS, 1), "cpu")
    tasks = list(sampler.fixed(TEST_SEED, TIMED_TASKS, 1))
    for steps in STEPS:
        rows += timed(args, cases, steps, tasks)
    return rows, recipes


def main() -> None:
    """Trains or reads every student, chooses, and times."""
    args = arguments()
    rows, recipes = [], []
    jobs = [(args, s, int(w)) for s in args.data.split(",") for w in args.widths.split(",")]
    # each in a process of its own: how memory lies after the others' passes is none of its times
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for found, taught in pool.map(measured, *zip(*jobs, strict=True)):
            rows += found
            recipes += taught
    save(args.name, rows, settings=vars(args), students=recipes)


if __name__ == "__main__":
    main()
