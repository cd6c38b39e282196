"""What a report tells of a run, as one JSON document: trials, tables, thresholds, failures, cost.

Numbers have six significant digits and only parameters that the sweep draws are there, so that the
document of 500 trials stays well below a mebibyte.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from search import registry
from search.documents import read_value
from search.errors import UserError
from search.history import history
from search.metrics import METRICS, normalisation_among, normalisation_of
from search.progress import counted, duration
from search.rundir import FINISHED, REFUSED, finite, read_json
from search.threshold import answers
from spaces._domains import Choice, Fixed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.results import RunResults
    from spaces._domains import Domain, Value

DIGITS = 6  # significant ones of a number
CELLS = 40_000  # of all tables together: about 0.7 MiB; our default
EPSILONS = tuple(round(0.0025 * n, 4) for n in range(41))  # 0 to 10 %; our default
BESIDE = ("accuracy", "quality_drop", "adapt_ms", "adapt_macs", "adapt_mib", "student_params",
          "student_mib", "fresh_accuracy", "test_accuracy", "teacher_accuracy")  # fmt: skip
_WORD = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
WORDS = ("pattern", "inner_steps", "adapt_timing", "timed_on")


def contents(results: RunResults, where: str) -> dict[str, Any]:
    """Return everything that a report tells.

    Args:
        results: The run.
        where: How its directory is written in the commands.
    """
    config = results.config
    space = {n: d for n, d in config.resolved_space().items() if not isinstance(d, Fixed)}
    complete = [t for t in results.trials if t["state"] == "COMPLETE"]
    wanted = dict.fromkeys([*config.objectives, *(c.metric for c in config.constraints), *BESIDE])
    there = [n for n in wanted if any(_number(t["metrics"].get(n)) for t in complete)]
    document = {
        "head": _head(results, where),
        "objectives": dict(config.objectives),
        "constraints": [str(c) for c in config.constraints],
        "metrics": {name: _metric(name) for name in there},
        "space": {name: _domain(domain) for name, domain in space.items()},
        "trials": _trials(results, where, [*there, *WORDS], list(space)),
        "front": [t["id"] for t in results.front()],
        "importances": _importances(results, complete),
        "tables": _tables(results),
        "thresholds": _thresholds(results),
        "failures": _failures(results),
        "cost": {
            "lines": [duration(sum(t["cost_s"] for t in results.trials)) + " of trial time",
                      *results.spending().lines()],
            "history": history(results),
        },
    }  # fmt: skip
    return dict(finite(_rounded(document)))


def repeat(results: RunResults, where: str, trial: Mapping[str, Any]) -> str:
    """Return the command that trains a trial's configuration again, from its seed.

    Args:
        results: The run.
        where: How its directory is written in the command.
        trial: Its ``result.json``.
    """
    words = ["fewtune", "train", f"{where}/sweep.yaml"]
    for name, domain in results.config.resolved_space().items():
        if not isinstance(domain, Fixed) and name in trial["config"]:
            words += ["--set", f"space.{name}={_spelled(trial['config'][name])}"]
    return shlex.join(words)


def _spelled(value: Value) -> str:
    """Write a value so that ``--set`` reads it back to the last digit.

    Example:
        >>> _spelled(0.1234567890123), _spelled("kl"), _spelled("no"), _spelled(True)
        ('0.1234567890123', 'kl', '"no"', 'true')
    """
    plain = isinstance(value, str) and _WORD.fullmatch(value) and read_value(value) == value
    return str(value) if plain else json.dumps(value)


def _head(results: RunResults, where: str) -> dict[str, Any]:
    config, info = results.config, results.info
    own = [t for t in results.trials if t.get("of") is None]
    count = {s: sum(t["state"] == s for t in own) for s in (*FINISHED, "RUNNING", REFUSED)}
    left = "not finished" if results.driven else "interrupted"
    words = ("complete", "stopped early", "failed", left, "refused before training")
    told = [f"{n} {word}" for n, word in zip(count.values(), words, strict=True) if n]
    beside = len(results.trials) - len(own)
    volume = results.hypervolume()
    data = config.data
    return {
        "name": str(info.get("name", results.run.path.name)),
        "run": where,
        "what": f"{registry.title(config.method)} on {data.source}, "
        f"{data.ways}-way {data.shots}-shot",
        "trials": f"{counted(len(own), 'trial')}: {', '.join(told) or 'none'}"
        + (f"; and {counted(beside, 'further adaptation')} of their models" if beside else ""),
        "hypervolume": volume,
        "feasible": len(results.feasible()),
        "accuracy": normalisation_among(
            normalisation_of(t["metrics"], t["config"])
            for t in results.trials
            if t["metrics"].get("accuracy") is not None
        ),
        "versions": info.get("versions", {}),
        "running": results.driven,
    }


def _metric(name: str) -> dict[str, Any]:
    metric = METRICS[name]
    share = "accuracy" in name or name.startswith("quality_drop")
    return {"meaning": metric.meaning, "unit": metric.unit, "better": metric.better, "share": share}


def _domain(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Choice):
        return {"options": list(domain.options)}
    if isinstance(domain, Fixed):
        return {"options": [domain.value]}
    return {"low": domain.low, "high": domain.high, "log": domain.log}


def _trials(
    results: RunResults, where: str, metrics: list[str], params: list[str]
) -> list[dict[str, Any]]:
    feasible = {t["id"] for t in results.feasible()}
    rows = []
    for trial in results.trials:
        row = {
            "id": trial["id"],
            "state": trial["state"],
            "feasible": trial["id"] in feasible,
            "m": {n: trial["metrics"][n] for n in metrics if trial["metrics"].get(n) is not None},
            "c": {n: trial["config"][n] for n in params if n in trial["config"]},
            "cost_s": trial["cost_s"],
            "repeat": repeat(results, where, trial),
        }
        if trial.get("of") is not None:
            row["of"] = trial["of"]
        if why := _why(trial):
            row["why"] = why
        rows.append(row)
    return rows


def _why(trial: Mapping[str, Any]) -> str:
    if failure := trial.get("failure"):
        return f"{failure['kind']}: {failure['reason']}"
    return str(trial.get("stopped") or "")


def _importances(results: RunResults, complete: list[dict[str, Any]]) -> dict[str, Any]:
    from search._importances import FEWEST, best_share, importances  # noqa: PLC0415 - Optuna

    config = results.config
    found = importances(config.resolved_space(), config.objectives, complete)
    if not found:
        return {"why": f"Fewer than {FEWEST} complete trials: too few to say."}
    return {"of": found, "share": best_share(len(complete)), "trials": len(complete)}


def _tables(results: RunResults) -> dict[str, Any]:
    """Return the stored table of each trial of the front, until there are too many cells."""
    tables, left_out, cells = {}, 0, 0
    for trial in results.front():
        file = results.run.trial(int(trial["id"])) / "table.json"
        rows = read_json(file) if file.is_file() else []
        cells += len(rows)
        if cells > CELLS:
            left_out += 1
        elif rows:
            names = ("pattern", "step", "accuracy", "adapt_ms", "tasks")
            tables[str(trial["id"])] = [[row.get(name) for name in names] for row in rows]
    return {"of": tables, "left_out": left_out}


def _thresholds(results: RunResults) -> dict[str, Any]:
    try:
        document = answers(results, EPSILONS)
    except UserError as error:
        return {"why": str(error)}
    models: dict[int, dict[str, Any]] = {}
    for threshold in document["thresholds"]:
        for row in threshold["models"]:
            model = models.setdefault(row["trial"], {"choices": [], "at": []})
            choice = {name: value for name, value in row.items() if name != "trial"}
            if choice not in model["choices"]:
                model["choices"].append(choice)
            model["at"].append(model["choices"].index(choice))
    return {
        "epsilons": EPSILONS,
        "models": [{"trial": trial, **model} for trial, model in models.items()],
        "left_out": document["left_out"],
    }


def _failures(results: RunResults) -> list[dict[str, Any]]:
    """Return the kinds of failures, the most frequent first, each with its last reason."""
    kinds: dict[str, dict[str, Any]] = {}
    for trial in results.trials:
        if failure := trial.get("failure"):
            known = kinds.setdefault(failure["kind"], {"kind": failure["kind"], "trials": []})
            known["trials"].append(trial["id"])
            known["reason"] = failure["reason"]
    return sorted(kinds.values(), key=lambda kind: -len(kind["trials"]))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
