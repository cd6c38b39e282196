"""Meta-training, tasks per second: MAML of the second order, and TSMD with a ResNet-12 teacher.

    python -m benchmarks.meta_training [--device cuda]

Ours is what a trial runs, ``maml_update`` and ``student_step``; a peer does the same on the same
tasks from the same weights. All take turns in each round; a ratio is the median over rounds, each
contender in its fastest form: one or two threads, and for a peer images first or channels last,
whichever trial rounds of their own find. The head is linear, the one all peers have.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import torch

from benchmarks import conventional, peers
from benchmarks.record import Row, save
from benchmarks.timing import (
    Contender,
    best_form,
    in_turns,
    milliseconds,
    ratio,
    threads_said,
)
from trainables._core.guidance import Teacher, build_teacher, student_step, teacher_step
from trainables._core.outer import MetaOptimiser
from trainables._core.rig import Rig, maml_update, student_rig
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._data import load
from trainables._learner import TaskShape
from trainables.meta_distillation import DistillationSettings, TeacherSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainables._core.episodes import Episodes
    from trainables._data import Dataset

OUR_THREADS = (1, 2)  # the forms of ours: the project's engine under either number of threads
BATCHES = 4  # different meta-batches that timed iterations go round
SHAPE = TaskShape(5, 1, 15)
ITERATIONS = 10**6  # a schedule nobody reaches the end of
FLOORS = {
    "cpu": {"higher": 2.0, "by hand": 2.0, "TorchOpt": 2.0, "tsmd": 1.5},
    "cuda": {"higher": 10.0, "tsmd": 5.0},
}
PEERS = {
    "higher": peers.with_higher,
    "by hand": peers.hand_written,
    "TorchOpt": peers.with_torchopt,
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--meta-batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--teacher-width", type=int, default=16)
    parser.add_argument("--teacher-order", choices=["first", "second"], default="first")
    parser.add_argument("--tsmd-batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=28, help="px of an image")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="meta_training")
    return parser.parse_args()


def rig_of(args: argparse.Namespace, data: Dataset, normalisation: str, tasks: int) -> Rig:
    """A fresh student as a trial would build it."""
    config = MethodConfig.model_validate(
        {
            "student": StudentSettings(width=args.width, head="linear"),
            "inner_steps": args.steps,
            "meta_batch": tasks,
            "normalisation": normalisation,
        }
    )
    return student_rig(config, data, SHAPE, seed=0, device=args.device)


def trainer_of(rig: Rig, layout: torch.memory_format) -> peers.MetaTrainer:
    """A peer's model and optimiser with the rig's weights and settings."""
    config = rig.config
    second = config.order == "second"
    inner = peers.Inner(config.inner_steps, config.inner_rate, rig.setting.inductive, second)
    meta = {n: p.detach() for n, p in rig.meta.items()}
    model = conventional.of(rig.network, meta, layout)
    return peers.MetaTrainer(model, inner, config.outer_rate)


def ours(
    args: argparse.Namespace, name: str, built: Callable[[], Callable[[], object]]
) -> list[Contender]:
    """The project's engine, built and run under every number of threads, as a trial would be."""
    found, before = [], torch.get_num_threads()
    for count in OUR_THREADS if args.device == "cpu" else (1,):
        torch.set_num_threads(count)
        found.append(Contender(f"{name}, {threads_said(count)}", built(), count))
    torch.set_num_threads(before)
    return found


def race(
    args: argparse.Namespace, forms: dict[str, list[Contender]], tasks: int, words: str
) -> list[Row]:
    """Rows of tasks per second of everyone, and of ours (the first) against every peer."""
    contenders, form = [], {}
    for name, several in forms.items():
        best, form[name] = best_form(several, name=name, device=args.device)
        contenders.append(best)
    times = in_turns(contenders, rounds=args.rounds, device=args.device)
    own, *others = forms
    floors = FLOORS["cpu" if args.device == "cpu" else "cuda"]
    rows = []
    for name in forms:
        rate = tasks / milliseconds(times, name) * 1e3
        row_id = f"{words}_{name.replace(' ', '_')}"
        rows.append(Row(row_id, rate, "tasks/s", "higher", None, None, form[name]))
    for name in others:
        found = ratio(times, name, own)
        floor = floors.get("tsmd" if words.startswith("tsmd") else name)
        row_id = f"{words}_against_{name.replace(' ', '_')}"
        rows.append(Row(row_id, found.value, "x", "higher", floor, name, found.spread))
    return rows


def maml(args: argparse.Namespace, data: Dataset, normalisation: str) -> list[Row]:
    """Second-order MAML of one Conv-4."""
    drawn = rig_of(args, data, normalisation, args.meta_batch)
    batches = [drawn.episodes() for _ in range(BATCHES)]

    def own() -> Callable[[], object]:
        rig = rig_of(args, data, normalisation, args.meta_batch)
        outer = MetaOptimiser(rig.meta, rig.config.outer_rate, ITERATIONS)
        turn = cycle(batches)
        return lambda: maml_update(rig, outer, next(turn))

    def peer(loss: peers.TaskLoss, layout: torch.memory_format) -> Callable[[], object]:
        trainer = trainer_of(drawn, layout)
        turn = cycle([peers.tasks_of(episodes, layout) for episodes in batches])
        return lambda: trainer.step(next(turn), loss)

    forms = {"ours": ours(args, "maml_update", own)}
    forms |= {n: peers.forms(partial(peer, loss), args.device) for n, loss in PEERS.items()}
    return race(args, forms, args.meta_batch, f"maml_{normalisation}")


def tsmd(args: argparse.Namespace, data: Dataset) -> list[Row]:
    """A ResNet-12 teacher and a Conv-4 student, both learning, the method's own defaults."""
    told = DistillationSettings()
    settings = TeacherSettings.model_validate(
        {"kind": "resnet12", "width": args.teacher_width, "order": args.teacher_order}
    )

    def pair() -> tuple[Rig, Teacher]:
        rig = rig_of(args, data, "inductive", args.tsmd_batch)
        where = {"seed": 0, "device": args.device, "iterations": ITERATIONS}
        return rig, build_teacher(settings, rig.config, data, SHAPE, **where)

    pupil, guide = pair()
    batches = [pupil.episodes() for _ in range(BATCHES)]

    def own() -> Callable[[], object]:
        rig, teacher = pair()
        outer = MetaOptimiser(rig.meta, rig.config.outer_rate, ITERATIONS)
        turn = cycle(batches)
        return lambda: tsmd_update(rig, outer, teacher, next(turn), told)

    def by_hand(layout: torch.memory_format) -> Callable[[], object]:
        trainers = trainer_of(guide.rig, layout), trainer_of(pupil, layout)
        words = peers.Told(told.weight, told.outer, told.temperature)
        turn = cycle([peers.tasks_of(episodes, layout) for episodes in batches])
        return lambda: peers.tsmd_step(*trainers, next(turn), words)

    forms = {
        "ours": ours(args, "teacher_step and student_step", own),
        "by hand": peers.forms(by_hand, args.device),
    }
    return race(args, forms, args.tsmd_batch, "tsmd")


def tsmd_update(
    rig: Rig,
    outer: MetaOptimiser,
    teacher: Teacher,
    episodes: Episodes,
    told: DistillationSettings,
) -> None:
    """A meta-iteration of TSMD on given episodes, as ``guided_step`` does it."""
    adviser, _ = teacher_step(teacher, episodes)
    student_step(rig, outer, adviser, episodes, told)


def main() -> None:
    """MAML under both normalisations, then TSMD."""
    args = arguments()
    data = load("glyphs", size=args.size)  # speed asks for shapes alone; these need no download
    rows = maml(args, data, "inductive") + maml(args, data, "transductive") + tsmd(args, data)
    save(args.name, rows, settings=vars(args))


if __name__ == "__main__":
    main()
