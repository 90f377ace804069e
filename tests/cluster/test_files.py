"""cluster/: each file is what the thing that reads it takes, and says the versions of pyproject."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
TOOLS = Path(sys.executable).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = dict(
    pin.split("==") for pin in PYPROJECT["tool"]["uv"]["constraint-dependencies"] if "==" in pin
)
LAUNCHED = [CLUSTER / "aws/cluster.yaml", CLUSTER / "onprem/cluster.yaml"]
SHELL = [CLUSTER / "slurm/sweep.sbatch", *sorted((ROOT / "tests").glob("*/*.sh"))]


def names(text: str) -> set[str]:
    return set(text.split())


# Fields of KubeRay 1.7, ray-operator/config/crd/bases/ray.io_rayjobs.yaml, version v1.
RAYJOB = names(
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint "
    "entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata "
    "preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes "
    "submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished"
)
RAYCLUSTER = names(
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations managedBy rayVersion suspend upgradeStrategy workerGroupSpecs"
)
HEAD = names("enableIngress headService labels rayStartParams resources serviceType template")
WORKERS = names(
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams "
    "replicas resources scaleStrategy suspend template"
)
POD = names(
    "affinity containers imagePullSecrets nodeSelector priorityClassName securityContext "
    "serviceAccountName terminationGracePeriodSeconds tolerations volumes"
)
CONTAINER = names("env envFrom image name resources securityContext volumeMounts")


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


# Ray's launcher


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` makes of a file before it starts a node, or its error."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(config)
    validate_config(config)
    return config


@pytest.mark.parametrize("file", LAUNCHED, ids=lambda file: file.parent.name)
def test_ray_up_takes_the_file(file: Path) -> None:
    config = prepared(read(file))
    nodes = config["available_node_types"]
    # A sweep asks the autoscaler for nothing, and is refused where no node has a GPU yet.
    assert sum(node["min_workers"] for node in nodes.values()) == config["max_workers"] > 0
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        prepared(read(file) | {"idle_timeout_minuets": 5})


def test_machines_of_ones_own_are_addresses_and_all_are_used() -> None:
    config = prepared(read(CLUSTER / "onprem/cluster.yaml"))
    provider = config["provider"]
    for address in (provider["head_ip"], *provider["worker_ips"]):
        ip_address(address)  # Debian's /etc/hosts makes the head's own name a loopback address
    [node] = config["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == len(provider["worker_ips"])


def test_machines_of_ones_own_have_the_autoscaler_that_knows_them() -> None:
    # `ray up` exports 1 before the command: the second autoscaler leaves a worker out here.
    start = prepared(read(CLUSTER / "onprem/cluster.yaml"))["head_start_ray_commands"][-1]
    assert re.search(r"RAY_enable_autoscaler_v2=0 \S*ray start --head", start)


def test_the_head_on_aws_runs_no_trial_and_workers_are_spot() -> None:
    types = read(CLUSTER / "aws/cluster.yaml")["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


@pytest.mark.parametrize("file", LAUNCHED, ids=lambda file: file.parent.name)
def test_launched_clusters_ask_for_a_token_and_let_a_stop_end(file: Path) -> None:
    config = read(file)
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "RAY_JOB_STOP_WAIT_TIME_S=15" in head
    assert any(target.endswith(".ray/auth_token") for target in config["file_mounts"])


# KubeRay


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_rayjob_has_fields_that_kuberay_knows() -> None:
    job = read(CLUSTER / "kuberay/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= RAYJOB
    assert set(cluster) <= RAYCLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKERS
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    for pod in pods(job):
        assert set(pod) <= POD
        for container in pod["containers"]:
            assert set(container) <= CONTAINER
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_pods_are_of_one_image_and_not_root_and_see_the_claimed_folder() -> None:
    job, claim = read(CLUSTER / "kuberay/rayjob.yaml"), read(CLUSTER / "kuberay/pvc.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    images = {container["image"] for pod in pods(job) for container in pod["containers"]}
    assert images == {read(CLUSTER / "aws/cluster.yaml")["docker"]["image"]}
    for pod in pods(job):
        assert pod["securityContext"]["runAsNonRoot"]
        claims = [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
        assert {"claimName": claim["metadata"]["name"]} in claims
        assert pod["terminationGracePeriodSeconds"] > 30


# The image


def dockerfile() -> list[list[str]]:
    """Words of each instruction."""
    text = re.sub(r"\\\n", " ", (CLUSTER / "Dockerfile").read_text())
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_hadolint_accepts_the_dockerfile() -> None:
    found = subprocess.run(
        [TOOLS / "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


def test_the_image_is_not_root_and_copies_what_is_there_and_not_ignored() -> None:
    lines = dockerfile()
    assert [words[1] for words in lines if words[0] == "USER"][-1] == "1000:1000"
    copied = {word for words in lines if words[0] == "COPY" for word in words[1:-1]}
    assert copied >= {"nas_sweeps", "experiments", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert copied == sent


def test_versions_are_those_of_pyproject() -> None:
    lines = dockerfile()
    (base,) = [words[1] for words in lines if words[0] == "FROM"]
    python = PYPROJECT["tool"]["mypy"]["python_version"]
    assert re.fullmatch(rf"python:{re.escape(python)}\.\d+-slim-\w+", base)
    # Ray, torch and the rest are resolved by uv under the constraints of pyproject.toml.
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.findall(r"([\w\[\]]+)==", text) == ["uv"]
    assert text.count("uv sync --no-cache --no-dev --extra cluster") == 2
    assert any(
        "ray[default]" in one for one in PYPROJECT["project"]["optional-dependencies"]["cluster"]
    )
    job = read(CLUSTER / "kuberay/rayjob.yaml")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == PINNED["ray"]
    tag = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert tag["image"].endswith(f":{PYPROJECT['project']['version']}")


# Shell, and what the README names


@pytest.mark.parametrize("file", SHELL, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_shellcheck_accepts_the_script(file: Path) -> None:
    check: list[str | Path] = [
        TOOLS / "shellcheck",
        "--external-sources",
        file,
    ]  # what it sources, too
    found = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_readme_of_the_folder_names_every_file_in_it() -> None:
    text = (CLUSTER / "README.md").read_text()
    files = [file.relative_to(CLUSTER).as_posix() for file in CLUSTER.rglob("*") if file.is_file()]
    assert all(file in text for file in files if file != "README.md")
    for name in re.findall(
        r"(?<!tests/)cluster/[\w/]+\.\w+", (ROOT / "README.md").read_text() + text
    ):
        assert (ROOT / name).exists(), name
