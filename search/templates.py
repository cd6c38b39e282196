"""What is filled into the templates of clusters: each function changes one kind of document."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import UserError
from search.machines import Fleet, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.config import SweepConfig

ROOT = Path(__file__).parent.parent
BLANK = "CHANGE-ME"
SHARED, HOME = "/mnt/fewtune", "/home/ray"
SECRET = "fewtune-bucket"  # of Kubernetes, with the keys of a bucket: our name
MEMORY_GIB = 4  # of a Kubernetes worker, for each core; our default


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


def cloud(
    document: dict[str, Any], need: Fleet, wishes: Wishes, sweep: Path, *, bucket: bool = False
) -> dict[str, Any]:
    """Fill in what is the same on every cloud; with a bucket nothing must be mounted."""
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
        mount_command(wishes.shared) if wishes.shared and one == blank else one
        for one in commands
        if wishes.shared or not bucket or one != blank
    ]
    return document


def aws(
    document: dict[str, Any], need: Fleet, wishes: Wishes, *, bucket: bool = False
) -> dict[str, Any]:
    """Fill in AWS's machines; for a bucket workers need a role, as Ray gives the head one."""
    types = document["available_node_types"]
    if bucket:
        types["worker"]["node_config"]["IamInstanceProfile"] = {"Name": BLANK}
    types["worker"]["node_config"]["InstanceType"] = need.machine.name
    if not wishes.spot:
        del types["worker"]["node_config"]["InstanceMarketOptions"]
    if wishes.image:
        for node in types.values():
            node["node_config"]["ImageId"] = wishes.image
    return document


def gcp(document: dict[str, Any], need: Fleet, wishes: Wishes) -> dict[str, Any]:
    """Put GCP in AWS's place, and its machines; no role of those opens a bucket."""
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


def local(document: dict[str, Any], hosts: tuple[str, ...], sweep: Path) -> dict[str, Any]:
    """Fill in one's own machines, the head first.

    Raises:
        UserError: There are none.
    """
    if not hosts:
        raise UserError("Name your machines, the head first: --host HEAD --host WORKER ...")
    document["provider"] |= {"head_ip": hosts[0], "worker_ips": list(hosts[1:])}
    document["min_workers"] = document["max_workers"] = len(hosts) - 1
    document["file_mounts"] |= {"~/fewtune": str(ROOT), "~/sweep.yaml": str(sweep)}
    return document


def kuberay(
    documents: list[dict[str, Any]],
    need: Fleet,
    wishes: Wishes,
    sweep: str,
    *,
    bucket: bool = False,
) -> list[dict[str, Any]]:
    """Fill in the sweep and the pods of a RayJob; a bucket's keys come from a Secret."""
    made, job = documents
    made["data"]["sweep.yaml"] = sweep
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    workers |= {"replicas": need.least, "minReplicas": need.least, "maxReplicas": need.most}
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], workers)]
    for pod in pods:
        pod["containers"][0]["image"] = wishes.image or BLANK
        if bucket:
            pod["containers"][0]["envFrom"] = [{"secretRef": {"name": SECRET}}]
            pod["volumes"][0] = {"name": pod["volumes"][0]["name"], "emptyDir": {}}
    cpu = need.machine.cpu
    held = {"cpu": str(cpu), "memory": f"{max(1, cpu) * MEMORY_GIB}Gi"}
    if need.machine.gpu:
        held["nvidia.com/gpu"] = str(need.machine.gpu)
    pods[1]["containers"][0]["resources"] = {"limits": held, "requests": dict(held)}
    return [made, job]


def slurm(
    need: Fleet, config: SweepConfig, sweep: Path
) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return what a batch script asks Slurm for, and its names."""
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
