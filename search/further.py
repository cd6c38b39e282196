"""Every further adaptation of a trained model as a complete trial of the study.

A finished trial leaves ``further.json`` beside its result: what its model does under the other
settings. Each entry becomes a trial of its own - number, directory, the same weights with its own
way of adapting - files first, then the study, then whoever watches. The list is removed when all
of it is told; until then, a resumed run completes what is missing from the trial's files.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from search.adaptations import training_key
from search.metrics import unsteady
from search.paired import TASKS_FILE
from search.recorder import Record
from search.rundir import FURTHER, SCORES, now, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from search.recorder import Observer, Recorder
    from spaces._domains import Value

_WEIGHTS, _SPEC = "model.safetensors", "pattern.json"


class FurtherTrials:
    """Records further adaptations; an observer of the trials they belong to.

    Args:
        recorder: The run's.
        watchers: Who is told of each, after everything is written.
    """

    def __init__(self, recorder: Recorder, watchers: tuple[Observer, ...] = ()) -> None:
        self.recorder, self.watchers = recorder, watchers

        self._trained: dict[str, list[int]] = {}
        for record in recorder.of_state("COMPLETE"):
            self._remember(record)

    def trained(self, config: Mapping[str, Value]) -> list[str]:
        """Return the directories of trials that trained the model of a configuration.

        The last one comes first: it has the fullest table.
        """
        numbers = self._trained.get(training_key(config, self.recorder.study.space), [])
        return [str(self.recorder.run.trial(number)) for number in reversed(numbers)]

    def reconcile(self) -> int:
        """Complete what a kill interrupted, once the study knows every parent.

        Returns:
            How many trials were told.
        """
        study, records = self.recorder.study, self.recorder.records
        known = study.states()
        told = 0
        for number in sorted(records):
            record = records[number]
            if record.of is not None and number not in known:  # files, and then the kill
                study.add(record.config, record.metrics, record.of)
                told += 1
        parents = [r for r in self.recorder.of_state("COMPLETE") if self._left(r).is_file()]
        for record in parents:
            there = [r.config for r in records.values() if r.of == record.id]
            told += self._tell_all(record, there)
        return told

    def started(self, record: Record) -> None:
        """Nothing: a trial has no further settings before its end."""

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        """Nothing: a trial has no further settings before its end."""

    def finished(self, record: Record) -> None:
        """Record what a trained model does under its further settings."""
        if record.state != "COMPLETE":
            return
        self._remember(record)
        if self._left(record).is_file():
            self._tell_all(record, [])

    def _remember(self, record: Record) -> None:
        if (self.recorder.run.trial(record.id) / SCORES).is_file():
            key = training_key(record.config, self.recorder.study.space)
            self._trained.setdefault(key, []).append(record.id)

    def _left(self, record: Record) -> Path:
        return self.recorder.run.trial(record.id) / FURTHER

    def _tell_all(self, parent: Record, there: list[dict[str, Value]]) -> int:
        told = 0
        for entry in read_json(self._left(parent)):
            wanted = self.recorder.wanted()
            said = self.recorder.study.unusable(entry["metrics"])
            usable = not (said or unsteady(entry["metrics"], wanted))
            if entry["config"] not in there and usable:
                self._tell(parent, entry)
                told += 1
        self._left(parent).unlink()
        return told

    def _tell(self, parent: Record, entry: dict[str, Any]) -> None:
        run, study = self.recorder.run, self.recorder.study
        record = Record(
            study.next,
            entry["config"],
            "COMPLETE",
            entry["metrics"],
            cost_s=entry["cost_s"],
            started=parent.ended,
            ended=now(),
            of=parent.id,
        )
        folder = run.trial(record.id)
        shutil.rmtree(folder, ignore_errors=True)  # what a kill left of the same
        (folder / "student").mkdir(parents=True)
        _share(run.trial(parent.id) / "student" / _WEIGHTS, folder / "student" / _WEIGHTS)
        write_json(folder / "student" / _SPEC, entry["spec"])
        write_json(folder / "table.json", entry["table"])
        if answers := entry.get("answers"):
            write_json(folder / TASKS_FILE, answers)
        run.write_result(asdict(record))
        number = study.add(record.config, record.metrics, parent.id)
        if number != record.id:
            raise RuntimeError(f"The study counts trial {record.id} as {number}.")
        self.recorder.records[record.id] = record
        for watcher in self.watchers:
            watcher.started(record)
            watcher.reported(record, {"iteration": 0, **record.metrics})
            watcher.finished(record)


def _share(weights: Path, copy: Path) -> None:
    """Give a file a second name; copy it where the file system has no links."""
    try:
        os.link(weights, copy)
    except OSError:
        shutil.copyfile(weights, copy)
