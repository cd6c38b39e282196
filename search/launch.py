"""Cluster files filled in for a sweep: templates that are valid themselves, read, changed, written.

The templates are ``cluster.yaml`` and ``deploy/`` of the source tree, which is also what the nodes
install. GCP's file is AWS's with another provider and other machines.
"""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from search.config import SweepConfig, dump_sweep
from search.errors import FailedError, UserError
from search.machines import AWS, GCP, Fleet, Machine, choose, fleet, made_for, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ROOT = Path(__file__).parent.parent
TARGETS = ("aws", "gcp", "local", "kuberay", "slurm")
BLANK = "CHANGE-ME"
SHARED, HOME = "/mnt/fewtune", "/home/ray"
MEMORY_GIB = 4  # of a Kubernetes worker, for each core; our default
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


@dataclass(frozen=True)
class Wishes:
    """What a sweep file does not say about its cluster.

    Attributes:
        least: Workers that stay.
        most: Workers at a time.
        spot: Whether workers may be taken away, at a lower price.
        image: The machine's image on a cloud, the container's on Kubernetes; None: left to fill in.
        shared: Server of the NFS export that all nodes mount; None: left to fill in.
        hosts: Machines of one's own, the head first.
    """

    least: int = 0
    most: int = 8
    spot: bool = True
    image: str | None = None
    shared: str | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launch:
    """A filled-in cluster: its file, the sweep file that goes with it, and what to run.

    Attributes:
        text: Of the cluster's file.
        sweep: Of the sweep file for that cluster.
        need: The workers it asks for.
    """

    target: str
    text: str
    sweep: str
    need: Fleet

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
        return [said, *(f"Yours to fill in: {line}" for line in self.blanks)]

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
    if target == "local":
        text = _dump([_local(yaml.safe_load(template), wishes.hosts, beside)])
    elif target == "slurm":
        text = fill_script(template, *_slurm(need, config, beside))
    elif target == "kuberay":
        text = _dump(_kuberay(list(yaml.safe_load_all(template)), need, wishes, sweep))
    else:
        fill = _aws if target == "aws" else _gcp
        text = _dump([fill(_cloud(yaml.safe_load(template), need, wishes, beside), need, wishes)])
    return Launch(target, text, sweep, need)


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
        UserError: The tool is not installed.
        FailedError: It ended with an error, which it has shown.
    """
    tool, *words = _TOOLS[target]
    if shutil.which(tool) is None:
        raise UserError(
            f"`fewtune launch {target}` calls `{tool}`, which is not installed here. Install it, "
            "or add --dry-run and take the file to where it is."
        )
    done = run([tool, *words, str(file)], cwd=ROOT, check=False)
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


def fill_script(text: str, directives: Mapping[str, str | None], names: Mapping[str, str]) -> str:
    r"""Put values into a batch script.

    Args:
        text: The script.
        directives: Of lines ``#SBATCH --NAME=VALUE``; None takes the line out.
        names: Of lines ``NAME=VALUE`` at the start of a line; values are quoted for the shell.

    Raises:
        KeyError: The script lacks one of them.

    Example:
        >>> fill_script("#SBATCH --nodes=1\nSWEEP=a\n", {"nodes": "3"}, {"SWEEP": "my sweep"})
        "#SBATCH --nodes=3\nSWEEP='my sweep'\n"
    """
    lines, left = [], {*directives, *names}
    for line in text.splitlines():
        directive = re.match(r"#SBATCH --([\w-]+)=", line)
        assigned = re.match(r"([A-Z_]+)=", line)
        if directive and directive[1] in directives:
            left.discard(directive[1])
            value = directives[directive[1]]
            lines += [] if value is None else [f"#SBATCH --{directive[1]}={value}"]
        elif assigned and assigned[1] in names:
            left.discard(assigned[1])
            lines.append(f"{assigned[1]}={shlex.quote(names[assigned[1]])}")
        else:
            lines.append(line)
    if left:
        raise KeyError(f"the script has no {', '.join(sorted(left))}")
    return "\n".join(lines) + "\n"


def mount_command(server: str) -> str:
    """Write the command with which a node mounts the shared storage, once."""
    export = server if ":" in server else f"{server}:/"
    options = "nfsvers=4.1,hard,timeo=600,noresvport"
    mount = f"sudo mount -t nfs4 -o {options} {shlex.quote(export)} {SHARED}"
    return f"mountpoint -q {SHARED} || {mount}"


def _template(target: str) -> str:
    file = ROOT / _TEMPLATES[target]
    if not file.is_file():
        raise UserError(
            f"`fewtune launch` fills in {_TEMPLATES[target]} of fewtune's source tree, which the "
            "nodes install too, and it is not beside this installation. Run it from a checkout."
        )
    return file.read_text(encoding="utf-8")


def _cloud(document: dict[str, Any], need: Fleet, wishes: Wishes, sweep: Path) -> dict[str, Any]:
    """Fill in what is the same on every cloud."""
    worker = document["available_node_types"]["worker"]
    worker["min_workers"], worker["max_workers"] = need.least, need.most
    worker["resources"] = {"CPU": need.machine.cpu, "GPU": need.machine.gpu}
    document["max_workers"] = need.most
    document["file_mounts"] |= {f"{HOME}/fewtune": str(ROOT), f"{HOME}/sweep.yaml": str(sweep)}
    if not need.machine.gpu:
        document["docker"]["image"] = document["docker"]["image"].removesuffix("-gpu") + "-cpu"
    commands = document["initialization_commands"]
    blank = mount_command(BLANK)
    document["initialization_commands"] = [
        mount_command(wishes.shared) if wishes.shared and one == blank else one for one in commands
    ]
    return document


def _aws(document: dict[str, Any], need: Fleet, wishes: Wishes) -> dict[str, Any]:
    types = document["available_node_types"]
    types["worker"]["node_config"]["InstanceType"] = need.machine.name
    if not wishes.spot:
        del types["worker"]["node_config"]["InstanceMarketOptions"]
    if wishes.image:
        for node in types.values():
            node["node_config"]["ImageId"] = wishes.image
    return document


def _gcp(document: dict[str, Any], need: Fleet, wishes: Wishes) -> dict[str, Any]:
    place = {"region": "us-west1", "availability_zone": "us-west1-a", "project_id": BLANK}
    document["provider"] = {"type": "gcp", **place}
    types = document["available_node_types"]
    head, worker = Machine("n2-standard-4", 4), need.machine
    types["head"]["node_config"] = _gcp_node(head, wishes, spot=False)
    types["worker"]["node_config"] = _gcp_node(worker, wishes, spot=wishes.spot)
    document["head_setup_commands"] = ["pip install google-api-python-client"]
    return document


def _gcp_node(machine: Machine, wishes: Wishes, *, spot: bool) -> dict[str, Any]:
    image = wishes.image or f"projects/deeplearning-platform-release/global/images/{BLANK}"
    source = {"diskSizeGb": 150, "sourceImage": image}
    disk = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": source}
    node: dict[str, Any] = {"machineType": machine.name, "disks": [disk]}
    scheduling: list[dict[str, Any]] = [{"preemptible": True}] if spot else []
    if machine.gpu:
        scheduling.append({"onHostMaintenance": "TERMINATE"})
        node["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
    return {**node, "scheduling": scheduling} if scheduling else node


def _local(document: dict[str, Any], hosts: tuple[str, ...], sweep: Path) -> dict[str, Any]:
    if not hosts:
        raise UserError("Name your machines, the head first: --host HEAD --host WORKER ...")
    document["provider"] |= {"head_ip": hosts[0], "worker_ips": list(hosts[1:])}
    document["min_workers"] = document["max_workers"] = len(hosts) - 1
    document["file_mounts"] |= {"~/fewtune": str(ROOT), "~/sweep.yaml": str(sweep)}
    return document


def _kuberay(
    documents: list[dict[str, Any]], need: Fleet, wishes: Wishes, sweep: str
) -> list[dict[str, Any]]:
    made, job = documents
    made["data"]["sweep.yaml"] = sweep
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    workers |= {"replicas": need.least, "minReplicas": need.least, "maxReplicas": need.most}
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], workers)]
    for pod in pods:
        pod["containers"][0]["image"] = wishes.image or BLANK
    cpu = need.machine.cpu
    held = {"cpu": str(cpu), "memory": f"{max(1, cpu) * MEMORY_GIB}Gi"}
    if need.machine.gpu:
        held["nvidia.com/gpu"] = str(need.machine.gpu)
    pods[1]["containers"][0]["resources"] = {"limits": held, "requests": dict(held)}
    return [made, job]


def _slurm(
    need: Fleet, config: SweepConfig, sweep: Path
) -> tuple[dict[str, str | None], dict[str, str]]:
    machine, hours = need.machine, config.budget.hours
    directives: dict[str, str | None] = {
        "nodes": str(need.most),
        "cpus-per-task": str(machine.cpu),
        "gpus-per-node": str(machine.gpu) if machine.gpu else None,
    }
    if hours is not None:  # and half an hour for starting and for the front at the end; our default
        directives["time"] = _clock(hours + 0.5)
    return directives, {"SWEEP": str(sweep), "ENVIRONMENT": str(ROOT / ".venv")}


def _clock(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


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
