"""What is drawn for TensorBoard after each trial that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from search.config import load_sweep
from search.gallery import PATIENCE_S, Gallery, chosen
from search.recorder import Record
from search.results import load_results
from search.rundir import RunDir, write_json
from tests import bundles
from trainables._data import load

if TYPE_CHECKING:
    from pathlib import Path


class Wall:
    """A board that remembers what hangs on it."""

    def __init__(self) -> None:
        self.pictures: list[tuple[str, int]] = []
        self.scalars: list[tuple[str, float, int]] = []
        self.tables: list[tuple[int, bytes, tuple[int, int]]] = []
        self.episodes: list[int] = []
        self.told: dict[int, dict[str, Any]] = {}

    def picture(self, tag: str, png: bytes, step: int, size: tuple[int, int]) -> None:
        self.pictures.append((tag, step))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def table(self, number: int, png: bytes, size: tuple[int, int]) -> None:
        self.tables.append((number, png, size))

    def concluded(self, number: int, metrics: dict[str, Any], episode: object) -> None:
        self.told[number] = metrics
        self.episodes += [number] if episode else []


class Kept:
    """What a gallery asks of a recorder."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.records: dict[int, Record] = {}

    def of_state(self, *states: str) -> list[Record]:
        return [record for record in self.records.values() if record.state in states]


def still() -> float:
    """A clock by which drawing takes no time."""
    return 0.0


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.open(bundles.run(tmp_path / "run", []))


def end(gallery: Gallery, kept: Any, point: tuple[float, int, float] | None, **more: Any) -> None:
    number = len(kept.records)
    state, metrics = ("FAIL", {}) if point is None else ("COMPLETE", bundles.metrics(*point))
    record = Record(number, {"student.width": 4}, state, metrics, cost_s=10.0, **more)
    kept.records[number] = record
    gallery.started(record)
    gallery.reported(record, {})
    gallery.finished(record)


def test_the_front_is_drawn_where_it_changed_and_its_hypervolume_told(run: RunDir) -> None:
    wall: Any = Wall()
    kept: Any = Kept(run)
    gallery = Gallery(wall, kept, load_sweep(run.sweep_file, settings=False), still)
    end(gallery, kept, (0.5, 1000, 2.0))
    end(gallery, kept, None)
    end(gallery, kept, (0.4, 2000, 3.0))  # beaten: the front stands
    end(gallery, kept, (0.9, 3000, 4.0))
    assert wall.pictures == [("front", 1), ("front", 4)]
    by_trials = [(step, v) for tag, v, step in wall.scalars if tag == "hypervolume/by_trials"]
    assert [step for step, _ in by_trials] == [1, 3, 4]
    assert by_trials[-1][1] > by_trials[-2][1]
    assert [s for tag, _, s in wall.scalars if tag.endswith("seconds")] == [10, 30, 40]


def test_a_trained_model_has_its_table_drawn_once(run: RunDir) -> None:
    wall: Any = Wall()
    kept: Any = Kept(run)
    gallery = Gallery(wall, kept, load_sweep(run.sweep_file, settings=False), still)
    row = {"pattern": "011", "step": 2, "accuracy": 0.5, "adapt_ms": 2.0, "tasks": 20}
    for number, rows in enumerate(
        ([row], [row], [], [{**row, "accuracy": None, "adapt_ms": None}])
    ):
        run.trial(number).mkdir()
        write_json(run.trial(number) / "table.json", rows)
    end(gallery, kept, (0.5, 1000, 2.0))
    end(gallery, kept, (0.5, 1000, 2.0), of=0)
    end(gallery, kept, (0.5, 1000, 2.0))
    end(gallery, kept, (0.5, 1000, 2.0))
    ((number, png, size),) = wall.tables
    assert number == 0
    assert png.startswith(b"\x89PNG")
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == size


def test_drawing_takes_a_twentieth_of_the_time_at_most(run: RunDir) -> None:
    kept: Any = Kept(run)
    now = 0.0

    class SlowWall(Wall):
        """Every table takes a second."""

        @override
        def table(self, number: int, png: bytes, size: tuple[int, int]) -> None:
            nonlocal now
            now += 1.0
            super().table(number, png, size)

    wall: Any = SlowWall()
    gallery = Gallery(wall, kept, load_sweep(run.sweep_file, settings=False), lambda: now)
    row = {"pattern": "011", "step": 2, "accuracy": 0.5, "adapt_ms": 2.0, "tasks": 20}
    for number in range(30):
        run.trial(number).mkdir()
        write_json(run.trial(number) / "table.json", [row])

    def drawn() -> list[int]:
        return [number for number, *_ in wall.tables]

    end(gallery, kept, (0.5, 1000, 2.0))
    now = 19.9
    end(gallery, kept, (0.9, 900, 1.0))
    end(gallery, kept, (0.95, 800, 0.5))
    assert drawn() == [0]
    now = 20.0
    end(gallery, kept, (0.4, 2000, 3.0))
    assert drawn() == [0, 3], "one at a time, the newest first"
    assert wall.pictures == [("front", 1), ("front", 4)]
    end(gallery, kept, (0.99, 700, 0.1))
    gallery.catch_up()
    assert drawn() == [0, 3, 4, 2, 1]
    assert wall.pictures[-1] == ("front", 5)
    pictures = list(wall.pictures)
    gallery.catch_up()
    assert wall.pictures == pictures, "nothing is owed"
    for _ in range(25):
        end(gallery, kept, (0.4, 2000, 3.0))
    gallery.catch_up()
    assert len(drawn()) == 5 + 20, "patience has an end"


def test_what_is_on_the_front_has_its_scores_told_and_an_episode_shown(tmp_path: Path) -> None:
    run = RunDir.open(bundles.run(tmp_path / "run", [(0.5, 1000, 1.0), (0.8, 3000, 2.0)]))
    wall: Any = Wall()
    kept: Any = Kept(run)
    times = iter([0.0, 1.0, PATIENCE_S + 1])
    gallery = Gallery(wall, kept, load_sweep(run.sweep_file, settings=False), still)
    for number, test in enumerate((0.4, None)):
        metrics = {"accuracy": 0.5, "fresh_accuracy": 0.45, "test_accuracy": test}
        kept.records[number] = Record(number, {}, "COMPLETE", metrics)
    gallery._clock = lambda: next(times)
    gallery.conclude([0, 1], load("glyphs", root=None, size=20))
    assert wall.told == {0: {"fresh_accuracy": 0.45, "test_accuracy": 0.4},
                         1: {"fresh_accuracy": 0.45, "test_accuracy": None}}  # fmt: skip
    assert wall.episodes == [0], "patience has an end"


def test_the_chosen_configuration_is_told_with_its_numbers(tmp_path: Path) -> None:
    points = [(0.5, 1000, 1.0), (0.8, 3000, 2.0), (0.85, 9000, 6.0)]
    text = chosen(load_results(bundles.run(tmp_path / "run", points)))
    assert text.startswith("Trial 1, the knee of 3 trials on the front:")
    assert "| accuracy | 80.0 % |" in text
    assert "| student.width | 4 |" in text
    assert "fewtune export run --pick knee" in text
