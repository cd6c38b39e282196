"""TSMD against the same student meta-trained alone: same start, same tasks, same budget.

    FEWTUNE_DATA=... python -m benchmarks.distillation --data omniglot

The teacher's own trajectory does not depend on the student (it is plain MAML), so one teacher
serves all arms at once: every arm is a student of its own that starts from the same weights and
sees the same episodes. Arms differ in what they are told. Differences to the student alone are
paired over the same test tasks; ``guided`` rows adapt with the teacher at the side, as the paper
does, the others alone, as a device does.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch

from benchmarks.record import Row, save
from trainables._core import evaluate
from trainables._core.ending import CHUNK, TEST_SEED
from trainables._core.episodes import Sampler
from trainables._core.guidance import (
    Teacher,
    build_teacher,
    guided_accuracies,
    student_step,
    teacher_step,
)
from trainables._core.outer import MetaOptimiser
from trainables._core.rig import Rig, maml_update, quick_accuracy, student_rig
from trainables._core.settings import MethodConfig, StudentSettings
from trainables._data import Dataset, load
from trainables._learner import TaskShape
from trainables.meta_distillation import DistillationSettings, TeacherSettings

ALONE = "alone"


@dataclass
class Arm:
    """A student and what it is told; ``told`` is None for a student alone."""

    rig: Rig
    outer: MetaOptimiser
    told: DistillationSettings | None


def told(loss: str, weight: float, outer: float, temperature: float = 4.0) -> DistillationSettings:
    """One way of listening."""
    return DistillationSettings.model_validate(
        {"loss": loss, "weight": weight, "outer": outer, "temperature": temperature}
    )


# name -> (views, what is told); the first is the paper's plain sum as summaries give it
ARMS: dict[str, tuple[int, DistillationSettings | None]] = {
    ALONE: (0, None),
    "paper_kl": (0, told("kl", 1.0, 0.0)),
    "paper_relational": (0, told("relational", 1.0, 0.0)),
    "inner_tenth": (0, told("kl", 0.1, 0.0)),
    "outer": (0, told("none", 0.0, 1.0)),
    "outer_tau1": (0, told("none", 0.0, 1.0, 1.0)),
    "inner_and_outer": (0, told("kl", 0.1, 1.0)),
    "alone_views": (2, None),
    "outer_views": (2, told("none", 0.0, 1.0)),
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["omniglot", "cifar-fs", "glyphs"], default="omniglot")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--head-start", type=int, default=200, help="the teacher's alone")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--inner-rate", type=float, default=0.1)
    parser.add_argument("--outer-rate", type=float, default=0.005)
    parser.add_argument("--teacher", default="conv4")
    parser.add_argument("--teacher-width", type=int, default=48)
    parser.add_argument("--teacher-steps", type=int, default=2)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks")
    parser.add_argument("--arms", default=",".join(ARMS), help="names of arms, commas between")
    parser.add_argument("--name", default="")
    return parser.parse_args()


def train(args: argparse.Namespace, arms: dict[str, Arm], teacher: Teacher) -> None:
    """All arms on the same episodes; the teacher first on its own."""
    lead = arms[ALONE].rig
    for _ in range(args.head_start):
        teacher_step(teacher, teacher.rig.episodes())
    started = time.perf_counter()
    for i in range(args.iterations):
        episodes = lead.episodes()
        adviser, _ = teacher_step(teacher, episodes)
        for arm in arms.values():
            if arm.told is None:
                maml_update(arm.rig, arm.outer, episodes)
            else:
                student_step(arm.rig, arm.outer, adviser, episodes, arm.told)
        if (i + 1) % max(1, args.iterations // 5) == 0:
            seen = {name: round(quick_accuracy(arm.rig, 50), 3) for name, arm in arms.items()}
            guide = round(quick_accuracy(teacher.rig, 50), 3)
            print(f"{i + 1}, {time.perf_counter() - started:.0f} s, {guide}, {seen}", flush=True)


def scores(
    args: argparse.Namespace, arms: dict[str, Arm], teacher: Teacher, data: Dataset
) -> dict[str, torch.Tensor]:
    """Accuracy of every test task ``[tasks]``, arm by arm, the teacher's own among them."""
    test = Sampler(data.test, data, TaskShape(5, args.shots, 15), "cpu")

    def alone(rig: Rig) -> torch.Tensor:
        meta = {n: p.detach() for n, p in rig.meta.items()}
        wanted = {rig.pattern: [rig.setting.steps]}
        episodes = test.fixed(TEST_SEED, args.tasks, CHUNK)
        found = evaluate.score(rig.network, meta, episodes, rig.setting, wanted)
        return found[rig.pattern, rig.setting.steps]

    found = {"teacher": alone(teacher.rig)}
    for name, arm in arms.items():
        found[name] = alone(arm.rig)
        if arm.told is not None and arm.told.loss != "none":
            found[f"{name}_guided"] = guided_accuracies(
                arm.rig,
                teacher,
                arm.told,
                test,
                seed=TEST_SEED,
                tasks=args.tasks,
                with_labels=True,
            )
    return found


def table(found: dict[str, torch.Tensor]) -> list[Row]:
    """Accuracies, and paired differences to the same views with plain labels."""
    rows = []
    for name, values in found.items():
        mean, ci95 = evaluate.interval(values)
        rows.append(Row(name, mean, "share", "higher", None, None, f"+-{ci95:.4f}"))
        control = "alone_views" if "views" in name else ALONE
        if name not in (control, "teacher"):
            gain, half = evaluate.interval(values - found[control])
            detail = f"paired, +-{half:.4f}"
            rows.append(Row(f"{name}_gain", gain, "share", "higher", None, control, detail))
    return rows


def main() -> None:
    """Trains every arm beside one teacher and compares them on test classes."""
    args = arguments()
    torch.set_num_threads(1)
    data = load(args.data, root=None)
    shape = TaskShape(5, args.shots, 5)
    common = {
        "inner_steps": args.steps,
        "inner_rate": args.inner_rate,
        "order": "first",
        "outer_rate": args.outer_rate,
        "student": StudentSettings(width=args.width),
    }
    plain = MethodConfig.model_validate(common)
    settings = TeacherSettings.model_validate(
        {"kind": args.teacher, "width": args.teacher_width, "inner_steps": args.teacher_steps}
    )
    teacher = build_teacher(
        settings,
        plain,
        data,
        shape,
        seed=args.seed,
        device="cpu",
        iterations=args.iterations + args.head_start,
    )
    arms = {}
    for name in dict.fromkeys([ALONE, *args.arms.split(",")]):
        views, what = ARMS[name]
        config = plain.model_copy(update={"views": views})
        rig = student_rig(config, data, shape, seed=args.seed, device="cpu")
        outer = MetaOptimiser(rig.meta, config.outer_rate, args.iterations)
        arms[name] = Arm(rig, outer, what)
    train(args, arms, teacher)

    found = scores(args, arms, teacher, data)
    rows = table(found)
    name = args.name or f"distillation_{args.data}_{args.shots}shot"
    save(name, rows, settings=vars(args), normalisation="inductive")


if __name__ == "__main__":
    main()
