"""Cluster files filled in for a sweep: templates that are valid themselves, read, changed, written.

The templates are ``cluster.yaml`` and ``deploy/`` of the source tree, which is also what the nodes
install. GCP's file is AWS's with another provider and other machines.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from search import templates
from search.addresses import is_address, shown
from search.config import SweepConfig, dump_sweep
from search.errors import FailedError, UserError
from search.machines import AWS, GCP, Fleet, Machine, choose, fleet, made_for, wanted
from search.templates import BLANK, ROOT, SECRET, SHARED, Wishes, fill_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOKEN = Path.home() / ".ray" / "auth_token"
TARGETS = ("aws", "gcp", "local", "kuberay", "slurm")
_TEMPLATES = {
    "aws": "cluster.yaml",
    "gcp": "cluster.yaml",
    "local": "deploy/local.yaml",
    "kuberay": "deploy/kuberay.yaml",
    "slurm": "deploy/slurm.sh",
}
_TOOLS = {
    "aws": ("ray", "up", "--yes"),
    "gcp": ("ray", "up", "--yes"),
    "local": ("ray", "up", "--yes"),
    "kuberay": ("kubectl", "apply", "-f"),
    "slurm": ("sbatch",),
}


_OWN_KEYS = "in the environment of every node (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
_KEYS = {
    "aws": "a role of the workers that may write there, as an instance profile",
    "gcp": f"{_OWN_KEYS}, such as those of a service account",
    "local": f"{_OWN_KEYS}, or its ~/.aws",
    "kuberay": f"kubectl create secret generic {SECRET} --from-literal=AWS_ACCESS_KEY_ID=... "
    "--from-literal=AWS_SECRET_ACCESS_KEY=...",
    "slurm": "in your environment, or in your ~/.aws",
}


@dataclass(frozen=True)
class Launch:
    """A filled-in cluster: its file, the sweep file that goes with it, and what to run.

    Attributes:
        text: Of the cluster's file.
        sweep: Of the sweep file for that cluster.
        need: The workers it asks for.
        bucket: Where the runs are kept, as it may be shown; empty: in a directory.
    """

    target: str
    text: str
    sweep: str
    need: Fleet
    bucket: str = ""

    @property
    def blanks(self) -> list[str]:
        """The lines that are the user's to fill in."""
        lines = self.text.splitlines()
        return [one.strip() for one in lines if BLANK in one and not one.lstrip().startswith("#")]

    def lines(self) -> list[str]:
        """Say what was asked for, and what is left to fill in."""
        need, machine = self.need, self.need.machine
        if machine.cpu:
            count = f"{need.least} to {need.most}" if need.least < need.most else f"{need.most}"
            said = f"Workers: {count} of {machine.name} ({machine.cpu} CPU, {machine.gpu} GPU)"
            said += f", {need.each} trial{'s' if need.each > 1 else ''} on each"
        else:
            said = f"Machines: {need.most + 1}, of your own"
        keys = f"Keys for {self.bucket}: {_KEYS[self.target]}"
        filled = [f"Yours to fill in: {line}" for line in self.blanks]
        return [said, *([keys] if self.bucket else []), *filled]

    def check_filled(self, file: Path) -> None:
        """Refuse to start a cluster with blanks.

        Raises:
            UserError: There are some.
        """
        if self.blanks:
            raise UserError(
                f"{file} has lines that are yours to fill in, marked {BLANK}. Fill them in and run "
                f"`{' '.join(_TOOLS[self.target])} {file}`, or give --image and --shared."
            )


def prepare(target: str, config: SweepConfig, wishes: Wishes, file: Path) -> Launch:
    """Fill a target's template in for a sweep.

    Args:
        target: One of ``TARGETS``.
        config: The sweep.
        wishes: What its file does not say.
        file: Where the cluster's file will lie; the sweep file's name follows.

    Raises:
        UserError: No machine holds a trial, the numbers of workers contradict each other, hosts
            are missing, or the source tree with the templates is not there.
    """
    template, need = _template(target), _needed(target, config, wishes)
    sweep, beside = _sweep(target, config, need), sweep_file(file)
    bucket = is_address(config.storage)
    if target == "local":
        text = _dump([templates.local(yaml.safe_load(template), wishes.hosts, beside)])
    elif target == "slurm":
        text = fill_script(template, *templates.slurm(need, config, beside))
    elif target == "kuberay":
        text = _dump(
            templates.kuberay(
                list(yaml.safe_load_all(template)), need, wishes, sweep, bucket=bucket
            )
        )
    else:
        same = templates.cloud(yaml.safe_load(template), need, wishes, beside, bucket=bucket)
        filled = (
            templates.gcp(same, need, wishes)
            if target == "gcp"
            else templates.aws(same, need, wishes, bucket=bucket)
        )
        text = _dump([filled])
    return Launch(target, text, sweep, need, shown(config.storage) if bucket else "")


def sweep_file(file: Path) -> Path:
    """Where the sweep file of a cluster's file lies: beside it."""
    return file.with_name(f"{file.stem}.sweep.yaml").absolute()


def place(found: Launch, file: Path) -> None:
    """Write a cluster's file and the sweep file beside it.

    Raises:
        UserError: They cannot be written there.
    """
    try:
        file.write_text(found.text, encoding="utf-8")
        sweep_file(file).write_text(found.sweep, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}. Give another -o.") from error


def start(target: str, file: Path, run: Callable[..., Any] = subprocess.run) -> None:
    """Hand a filled-in file to the tool that it is for.

    Raises:
        UserError: The tool is not installed, or the token is not there.
        FailedError: It ended with an error, which it has shown.
    """
    tool, *words = _TOOLS[target]
    if shutil.which(tool) is None:
        raise UserError(
            f"`fewtune launch {target}` calls `{tool}`, which is not installed here. Install it, "
            "or add --dry-run and take the file to where it is."
        )
    if tool == "ray" and not TOKEN.is_file():
        raise UserError(
            "`ray up` hands every node the token of Ray's authentication, and there is no "
            f"{TOKEN}. "
            "Make it, once: `ray get-auth-token --generate`."
        )
    done = run([tool, *words, str(file)], check=False)
    if done.returncode:
        raise FailedError(f"`{tool}` ended with code {done.returncode}; what it said is above.")


def then(target: str, file: Path, *, started: bool) -> list[str]:
    """Say what comes next: starting it where that was not done, then the sweep."""
    words = " ".join(word for word in _TOOLS[target] if word != "--yes")
    first = [] if started else [f"Start it:  {words} {file}"]
    if target == "kuberay":
        return [*first, "Watch it:  kubectl get rayjob fewtune"]
    if target == "slurm":
        return [*first, "Watch it:  squeue --me"]
    sweep = "fewtune sweep ~/sweep.yaml --address auto"
    return [*first, f"Run the sweep:  ray exec {file} --tmux '{sweep}'"]


def _template(target: str) -> str:
    file = ROOT / _TEMPLATES[target]
    if not file.is_file():
        raise UserError(
            f"`fewtune launch` fills in {_TEMPLATES[target]} of fewtune's source tree, which the "
            "nodes install too, and it is not beside this installation. Run it from a checkout."
        )
    return file.read_text(encoding="utf-8")


def _needed(target: str, config: SweepConfig, wishes: Wishes) -> Fleet:
    if target == "local":
        hosts = max(1, len(wishes.hosts))
        return Fleet(Machine("one of yours", 0), hosts - 1, hosts - 1, 1)
    tables = {"aws": AWS, "gcp": GCP}
    machine = choose(tables[target], config) if target in tables else made_for(config)
    return fleet(machine, config, wishes.least, wishes.most)


def _sweep(target: str, config: SweepConfig, need: Fleet) -> str:
    """Write the sweep file for a cluster: what it may ask for, and where its runs are kept."""
    changes: dict[str, Any] = {"scales": target in ("aws", "gcp", "kuberay")}
    if changes["scales"]:
        changes["concurrent"] = min(need.concurrent, wanted(config))
    own = SweepConfig.model_fields["storage"].default
    there = own == config.storage and target != "slurm"  # there, home is shared
    storage = f"{SHARED}/{own}" if there else config.storage
    resources = config.resources.model_copy(update=changes)
    return dump_sweep(config.model_copy(update={"resources": resources, "storage": storage}))


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(documents: Iterable[dict[str, Any]]) -> str:
    # a copy: what two places share would be written as an anchor
    return yaml.dump_all(
        copy.deepcopy(list(documents)), Dumper=_Dumper, sort_keys=False, width=1000
    )
