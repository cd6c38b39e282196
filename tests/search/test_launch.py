"""Cluster files: the templates and what is filled in are valid by the tools' own checks."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner

from search import launch
from search.cli import cli
from search.config import BudgetConfig, ResourcesConfig, SweepConfig, load_sweep
from search.errors import FailedError, UserError
from search.launch import prepare, start, then
from search.templates import BLANK, ROOT, Wishes, fill_script, mount_command

FILLED = Wishes(image="image-1", shared="10.0.0.5:/export", hosts=("head", "one", "two"))


def sweep(gpu=0.25, hours=None, **more):
    budget = BudgetConfig(trials=24, hours=hours)
    return SweepConfig(method="maml", resources=ResourcesConfig(gpu=gpu), budget=budget, **more)


def filled(target, tmp_path, config=None, wishes=FILLED):
    return prepare(target, config or sweep(), wishes, tmp_path / f"{target}.yaml")


def checked(document):
    """Hold a cluster file against Ray's schema, with Ray's defaults in place."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(document)
    validate_config(whole)
    return whole


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/local.yaml"])
def test_the_templates_are_valid_by_rays_own_schema(name):
    document = yaml.safe_load((ROOT / name).read_text())
    checked(document)
    with pytest.raises(Exception, match="not allowed"):
        checked({**document, "idle_minutes": 5})


@pytest.mark.parametrize("target", ["aws", "gcp", "local"])
@pytest.mark.parametrize("gpu", [0.0, 0.25])
def test_filled_in_they_are_too(target, gpu, tmp_path):
    found = filled(target, tmp_path, sweep(gpu))
    document = yaml.safe_load(found.text)
    whole = checked(document)
    assert whole["max_workers"] == (2 if target == "local" else 6)
    mounts = dict(document["file_mounts"])
    assert str(tmp_path / f"{target}.sweep.yaml") in mounts.values()
    assert Path(next(v for k, v in mounts.items() if k.endswith("fewtune"))) == ROOT
    if target != "local":
        worker = document["available_node_types"]["worker"]
        assert (worker["resources"]["GPU"] > 0) == bool(gpu)
        assert document["docker"]["image"].endswith("-gpu" if gpu else "-cpu")


@pytest.mark.parametrize("target", ["aws", "local"])
def test_the_dashboard_stays_on_the_heads_loopback_and_authentication_on(target, tmp_path):
    document = yaml.safe_load(filled(target, tmp_path).text)
    head, worker = document["head_start_ray_commands"], document["worker_start_ray_commands"]
    assert "--dashboard-host=127.0.0.1" in head[-1]
    assert all("RAY_AUTH_MODE=token" in one[-1] for one in (head, worker))
    assert "~/.ray/auth_token" in document["file_mounts"].values()


def test_all_nodes_install_the_pins(tmp_path):
    for target in ("aws", "gcp", "local"):
        commands = " ".join(yaml.safe_load(filled(target, tmp_path).text)["setup_commands"])
        assert "constraints.txt torch" in commands
    pins = (ROOT / "constraints.txt").read_text()
    ray = re.search(r"^ray==(.*)$", pins, re.MULTILINE)
    assert ray is not None
    for name in ("cluster.yaml", "deploy/kuberay.yaml", "deploy/Dockerfile"):
        assert ray[1] in (ROOT / name).read_text()


def test_spot_image_and_storage_are_filled_in(tmp_path):
    document = yaml.safe_load(filled("aws", tmp_path).text)
    worker = document["available_node_types"]["worker"]["node_config"]
    assert worker["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["ImageId"] == "image-1"
    assert mount_command("10.0.0.5:/export") in document["initialization_commands"]
    stays = Wishes(spot=False, least=1, most=3)
    found = filled("aws", tmp_path, wishes=stays)
    node = yaml.safe_load(found.text)["available_node_types"]["worker"]
    assert "InstanceMarketOptions" not in node["node_config"]
    assert (node["min_workers"], node["max_workers"]) == (1, 3)
    assert len(found.blanks) == 3  # two images and the server
    with pytest.raises(UserError, match="yours to fill in"):
        found.check_filled(Path("x.yaml"))
    gcp = yaml.safe_load(filled("gcp", tmp_path).text)["available_node_types"]["worker"]
    assert {"preemptible": True} in gcp["node_config"]["scheduling"]


def test_the_sweep_file_that_goes_along_asks_for_what_the_cluster_may_have(tmp_path):
    for target in launch.TARGETS:
        found = filled(target, tmp_path, sweep(), Wishes(most=2, hosts=("a", "b")))
        file = tmp_path / "sweep.yaml"
        file.write_text(found.sweep)
        config = load_sweep(file)
        scales = target in ("aws", "gcp", "kuberay")
        assert config.resources.scales == scales
        assert config.resources.concurrent == (8 if scales else None)
        assert config.storage.startswith("/mnt/fewtune") == (target != "slurm")
    kept = filled("aws", tmp_path, sweep(storage="/elsewhere"))
    assert "storage: /elsewhere" in kept.sweep


BUCKET = "s3://bucket/runs?region=eu-west-1"


def test_a_cluster_for_a_bucket_mounts_nothing_and_names_where_the_keys_come_from(tmp_path):
    wishes = Wishes(image="image-1", hosts=("a", "b"))
    for target in launch.TARGETS:
        found = filled(target, tmp_path, sweep(storage=BUCKET), wishes)
        assert f"storage: {BUCKET}" in found.sweep
        assert "mount -t nfs4" not in found.text
        (keys,) = [line for line in found.lines() if line.startswith("Keys for s3://bucket/runs: ")]
        assert "region" not in keys
        assert len(found.blanks) == {"aws": 1, "gcp": 1}.get(target, 0)
        assert not any("Keys" in line for line in filled(target, tmp_path).lines())
    document = yaml.safe_load(filled("aws", tmp_path, sweep(storage=BUCKET), wishes).text)
    checked(document)
    types = document["available_node_types"]
    assert types["worker"]["node_config"]["IamInstanceProfile"] == {"Name": BLANK}
    assert "IamInstanceProfile" not in types["head"]["node_config"]
    both = filled("aws", tmp_path, sweep(storage=BUCKET))  # a share that is asked for is mounted
    assert mount_command("10.0.0.5:/export") in yaml.safe_load(both.text)["initialization_commands"]
    job = list(yaml.safe_load_all(filled("kuberay", tmp_path, sweep(storage=BUCKET)).text))[1]
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["volumes"][0] == {"name": "shared", "emptyDir": {}}
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "fewtune-bucket"}}]


def test_a_rayjob_has_the_structure_that_kuberay_reads(tmp_path):
    """Of the structure alone: the operator's own check needs a Kubernetes cluster."""
    for text in ((ROOT / "deploy/kuberay.yaml").read_text(), filled("kuberay", tmp_path).text):
        config, job = yaml.safe_load_all(text)
        assert (config["kind"], job["kind"], job["apiVersion"]) == (
            "ConfigMap", "RayJob", "ray.io/v1",
        )  # fmt: skip
        cluster = job["spec"]["rayClusterSpec"]
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["enableInTreeAutoscaling"] is True
        head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
        assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
        for group in (head, workers):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            held = container["resources"]
            assert held["limits"] == held["requests"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert all(isinstance(v, str) for v in group["rayStartParams"].values())
        names = {v["configMap"]["name"] for v in head["template"]["spec"]["volumes"][1:]}
        assert names == {config["metadata"]["name"]}
    found = filled("kuberay", tmp_path)
    assert not found.blanks
    config, job = yaml.safe_load_all(found.text)
    assert yaml.safe_load(config["data"]["sweep.yaml"])["method"] == "maml"
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    held = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert held == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    cpu = list(yaml.safe_load_all(filled("kuberay", tmp_path, sweep(0)).text))[1]
    assert "nvidia.com/gpu" not in str(cpu)


def test_a_batch_script_is_a_script(tmp_path):
    template = (ROOT / "deploy/slurm.sh").read_text()
    text = filled("slurm", tmp_path, sweep(hours=2.0)).text
    for script in (template, text, filled("slurm", tmp_path, sweep(0)).text):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        checker = shutil.which("shellcheck", path=Path(sys.executable).parent)
        if checker:
            subprocess.run([checker, "-"], input=script, text=True, check=True)
        (srun,) = [line for line in script.splitlines() if line.startswith("srun ")]
        assert "ray symmetric-run" in srun
        assert " -- fewtune sweep " in srun
    assert "#SBATCH --nodes=6\n" in text
    assert "#SBATCH --time=02:30:00\n" in text
    assert f"SWEEP={tmp_path}/slurm.sweep.yaml" in text
    assert "gpus-per-node" not in filled("slurm", tmp_path, sweep(0)).text
    with pytest.raises(KeyError, match="no nodse"):
        fill_script(template, {"nodse": "1"}, {})


def test_hosts_and_the_source_tree_must_be_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--host HEAD"):
        filled("local", tmp_path, wishes=Wishes())
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    with pytest.raises(UserError, match="from a checkout"):
        filled("aws", tmp_path)


def test_the_tool_is_called_where_it_is_there(tmp_path, monkeypatch):
    file, seen = tmp_path / "x.yaml", []

    def run(words, **more):
        seen.append(words)
        return SimpleNamespace(returncode=len(seen) - 1)

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(launch, "TOKEN", tmp_path / "token")
    with pytest.raises(UserError, match="ray get-auth-token --generate"):
        start("aws", file, run)
    (tmp_path / "token").touch()
    start("aws", file, run)
    assert seen == [["ray", "up", "--yes", str(file)]]
    with pytest.raises(FailedError, match="`sbatch` ended with code 1"):
        start("slurm", file, run)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="`kubectl`, which is not installed"):
        start("kuberay", file, run)


def test_the_command_writes_both_files_and_says_what_is_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "start", lambda target, file: pytest.fail("started"))
    done = CliRunner().invoke(cli, ["launch", "slurm", "--dry-run"], standalone_mode=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "fewtune-slurm.sweep.yaml").is_file()
    assert "Workers: 6 of worker" not in done.stdout
    assert done.stdout.strip() == "fewtune-slurm.sh"
    assert "Start it:  sbatch fewtune-slurm.sh" in done.stderr
    done = CliRunner().invoke(cli, ["launch", "aws"], standalone_mode=False)
    assert isinstance(done.exception, UserError)
    monkeypatch.setattr(launch, "start", lambda target, file: None)
    words = ["launch", "local", "--host", "a", "--host", "b"]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert "Machines: 2, of your own" in done.stderr
    assert "ray up fewtune" not in done.stderr
    lost = CliRunner().invoke(cli, [*words, "-o", "none/x.yaml"], standalone_mode=False)
    assert "cannot be written" in str(lost.exception)


def test_what_is_next_names_the_tool():
    assert then("kuberay", Path("k.yaml"), started=False)[0] == "Start it:  kubectl apply -f k.yaml"
    assert len(then("aws", Path("a.yaml"), started=True)) == 1
    assert BLANK in mount_command(BLANK)
