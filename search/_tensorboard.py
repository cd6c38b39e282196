"""The one door to TensorBoard: what the driver writes while trials run.

No TensorFlow: events go through TensorBoard's own writer. HParams needs one experiment record at
the root that names every column; written per trial, the columns of conditional spaces vanish. A
trial's row is written when it ends: TensorBoard reads it once, and it says how the trial ended.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.text import metadata as text_metadata  # type: ignore[import-untyped]
from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]
from tensorboard.util import tensor_util  # type: ignore[import-untyped]

from search.metrics import METRICS
from search.progress import show
from spaces._domains import Choice, Domain, Fixed, Space, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from search.recorder import Record

Proto: TypeAlias = Any  # protobuf classes are made at run time
_CURVES = ("teacher_accuracy", "train_accuracy", "outer_rate", "tasks_per_s", "process_mib")
BEST = "best/"  # before a metric's name: what HParams shows of it
OUTCOME = "outcome"  # a column of HParams: how the trial ended, and why
BY_STEP = "by_inner_step/"  # before chosen and all_layers: accuracy over inner steps
AFTER = ("fresh_accuracy", "test_accuracy")  # measured of the front, when the sweep ends
_ROW_ONLY = ("iteration", "finished", "table", "failure", "notes")


class BoardWriter:
    """Writes a run's TensorBoard files; an observer of its trials.

    Args:
        folder: ``RUN/tensorboard``.
        space: Of the sweep: the columns of HParams.
        objectives: Their columns come first.
    """

    def __init__(self, folder: Path, space: Space, objectives: Sequence[str]) -> None:
        self.folder = folder
        self._open: dict[int, EventFileWriter] = {}
        fresh = not folder.exists()
        self._root = EventFileWriter(str(folder))
        if fresh:
            self._add(self._root, experiment(space, objectives))
            self._add(self._root, layout(objectives))
        self._root.flush()

    def text(self, tag: str, markdown: str) -> None:
        """Show a text at the root, such as the sweep file."""
        self._add(self._root, _text(tag, markdown))
        self._root.flush()

    def picture(self, tag: str, png: bytes, step: int, size: tuple[int, int]) -> None:
        """Show a picture at the root; ``size`` is width and height in pixels."""
        self._add(self._root, _image(tag, png, size), step=step)
        self._root.flush()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number of the search at the root."""
        self._add(self._root, _scalar(tag, value), step=step)
        self._root.flush()

    def table(self, number: int, png: bytes, size: tuple[int, int]) -> None:
        """Show the picture of a trial's table beside its numbers; the trial may have ended."""
        self._beside(number, _image("patterns", png, size))

    def concluded(
        self, number: int, metrics: Mapping[str, Any], episode: tuple[bytes, tuple[int, int]] | None
    ) -> None:
        """Show what came of a trial after it had ended.

        Args:
            number: The trial.
            metrics: As its test accuracy; for HParams.
            episode: A picture, and its width and height; None: there is none.
        """
        told = {name: value for name, value in metrics.items() if _is_number(value)}
        values = [_scalar(BEST + name, value) for name, value in told.items()]
        if episode is not None:
            values.append(_image("episode", *episode))
        self._beside(number, *values)  # one file: each is opened in the order of their names

    def _beside(self, number: int, *values: Proto) -> None:
        ended = number not in self._open
        self._add(self._writer(number), *values)
        if ended:
            self._open.pop(number).close()

    def close(self) -> None:
        """Write out everything."""
        for writer in [*self._open.values(), self._root]:
            writer.close()
        self._open.clear()

    def started(self, record: Record) -> None:
        """Show the trial's configuration as a text."""
        rows = [f"| {name} | {value} |" for name, value in record.config.items()]
        table = "\n".join(["| parameter | value |", "|---|---|", *rows])
        self._add(self._writer(record.id), _text("configuration", table))

    def reported(self, record: Record, row: Mapping[str, Any]) -> None:
        """Write every number of a report as a scalar of that name."""
        writer = self._writer(record.id)
        told = {n: v for n, v in row.items() if n not in _ROW_ONLY and _is_number(v)}
        scalars = [_scalar(name, value) for name, value in told.items()]
        self._add(writer, *scalars, step=int(row.get("iteration", 0)))  # one event: half the bytes
        if row.get("finished"):
            for step, values in sorted(by_step(row).items()):
                self._add(writer, *(_scalar(BY_STEP + n, v) for n, v in values.items()), step=step)
        writer.flush()

    def finished(self, record: Record) -> None:
        """Write the trial's row of HParams, and its last word as a text."""
        writer = self._writer(record.id)
        done = record.state == "COMPLETE"
        status = api_pb2.STATUS_SUCCESS if done else api_pb2.STATUS_FAILURE
        self._add(writer, _text("result", _result(record)))
        self._add(writer, session_start(record), *best_scalars(record))
        self._add(writer, session_end(status))
        writer.close()
        self._open.pop(record.id, None)

    def _writer(self, number: int) -> EventFileWriter:
        if number not in self._open:
            self._open[number] = EventFileWriter(str(self.folder / f"trial-{number:05d}"))
        return self._open[number]

    @staticmethod
    def _add(writer: EventFileWriter, *values: Proto, step: int = 0) -> None:
        summary = summary_pb2.Summary(value=values)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))


def experiment(space: Space, objectives: Sequence[str]) -> Proto:
    """The record that names every column: each parameter of the space and each metric."""
    numeric = [name for name, metric in METRICS.items() if metric.usable]
    names = dict.fromkeys([*objectives, *numeric, *AFTER, "loss"])
    data = api_pb2.Experiment(
        description="fewtune: one session for each trial",
        time_created_secs=time.time(),
        hparam_infos=[
            *(_column(name, domain) for name, domain in space.items()),
            api_pb2.HParamInfo(
                name=OUTCOME,
                display_name=OUTCOME,
                description="how the trial ended, and why",
                type=api_pb2.DATA_TYPE_STRING,
            ),
        ],
        metric_infos=[
            api_pb2.MetricInfo(
                name=api_pb2.MetricName(tag=BEST + name),
                display_name=name,
                description=METRICS[name].meaning if name in METRICS else "",
            )
            for name in names
        ],
    )
    return _hparams(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=data))


def layout(objectives: Sequence[str]) -> Proto:
    """The record that lays out the first screen: the search, then its trials.

    Args:
        objectives: Of the sweep; each has a chart of all trials.
    """
    tags = {
        "the search": ["hypervolume/by_trials", "hypervolume/by_trial_seconds"],
        "trials": [*dict.fromkeys(["loss", "accuracy", *objectives, *_CURVES])],
        "validation accuracy at each inner step": [f"{BY_STEP}chosen", f"{BY_STEP}all_layers"],
    }
    screen = layout_pb2.Layout(
        category=[
            layout_pb2.Category(title=title, chart=[_chart(tag) for tag in of])
            for title, of in tags.items()
        ]
    )
    return summary_pb2.Summary.Value(
        tag=custom_scalars.CONFIG_SUMMARY_TAG,
        metadata=custom_scalars.create_summary_metadata(),
        tensor=tensor_util.make_tensor_proto(screen.SerializeToString(), shape=()),
    )


def _chart(tag: str) -> Proto:
    lines = layout_pb2.MultilineChartContent(tag=[f"^{re.escape(tag)}$"])
    return layout_pb2.Chart(title=tag, multiline=lines)


def session_start(record: Record) -> Proto:
    """The record that gives one trial's parameters, and how it ended."""
    began = datetime.fromisoformat(record.started).timestamp() if record.started else time.time()
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=began)
    why = record.why()
    told = record.state.lower() + (f": {why}" if why else "")
    for name, value in {**record.config, OUTCOME: told}.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
    return _hparams(metadata.SESSION_START_INFO_TAG, data)


def session_end(status: int) -> Proto:
    """The record that ends one trial's session."""
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    return _hparams(metadata.SESSION_END_INFO_TAG, data)


def best_scalars(record: Record) -> list[Proto]:
    """What HParams shows of a trial: of one that completed its result, of another its best report.

    The loss is the lowest reported of either.
    """
    found = {name: v for name, v in record.metrics.items() if _is_number(v) and name in METRICS}
    for name in (*found, "loss"):
        if name == "loss" or record.state != "COMPLETE":
            curve = [row[name] for row in record.reports if _is_number(row.get(name))]
            highest = name in METRICS and METRICS[name].better == "max"
            if curve:
                found[name] = max(curve) if highest else min(curve)
    return [_scalar(BEST + name, value) for name, value in found.items()]


def by_step(row: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Inner step -> accuracy of the chosen pattern, and of all layers, as far as each was scored.

    Args:
        row: A trial's last report, with its table.
    """
    found: dict[int, dict[str, float]] = {}
    for entry in json.loads(row.get("table", "[]")):
        pattern, accuracy = entry["pattern"], entry.get("accuracy")
        names = {"chosen": pattern == row.get("pattern"), "all_layers": "0" not in pattern}
        told = {name: accuracy for name, holds in names.items() if holds and _is_number(accuracy)}
        if told:
            found.setdefault(int(entry["step"]), {}).update(told)
    return found


def _column(name: str, domain: Domain) -> Proto:
    values: tuple[Value, ...] = ()
    if isinstance(domain, Choice | Fixed):
        values = domain.options if isinstance(domain, Choice) else (domain.value,)
    info = api_pb2.HParamInfo(name=name, display_name=name, description=domain.why)
    if isinstance(domain, Choice | Fixed):
        info.type = _type_of(values[0])
        info.domain_discrete.extend(values)
    else:
        info.type = api_pb2.DATA_TYPE_FLOAT64
        info.domain_interval.min_value = float(domain.low)
        info.domain_interval.max_value = float(domain.high)
    return info


def _type_of(value: Value) -> int:
    if isinstance(value, bool):
        return int(api_pb2.DATA_TYPE_BOOL)
    return int(api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64)


def _hparams(tag: str, data: Proto) -> Proto:
    return summary_pb2.Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )


def _scalar(tag: str, value: float) -> Proto:
    return summary_pb2.Summary.Value(tag=tag, simple_value=float(value))


def _image(tag: str, png: bytes, size: tuple[int, int]) -> Proto:
    image = summary_pb2.Summary.Image(
        width=size[0], height=size[1], colorspace=3, encoded_image_string=png
    )
    return summary_pb2.Summary.Value(tag=tag, image=image)


def _text(tag: str, markdown: str) -> Proto:
    tensor = tensor_util.make_tensor_proto([markdown.encode()], shape=(1,))
    kind = text_metadata.create_summary_metadata(tag, "")
    return summary_pb2.Summary.Value(tag=tag, metadata=kind, tensor=tensor)


def _result(record: Record) -> str:
    why = record.why()
    head = f"**{record.state}** after {record.cost_s:.1f} s{f' - {why}' if why else ''}"
    rows = [f"| {k} | {show(k, v)} |" for k, v in record.metrics.items()]
    return "\n".join([head, "", "| metric | value |", "|---|---|", *rows])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
