"""Clusters whose nodes come and go, with real parts: Ray's autoscaler, raylets, drains and deaths.

The nodes are processes on this machine (Ray's fake provider). Ray's ``AutoscalingCluster`` is not
used: it begins with ``ray stop --force``, which ends every Ray of this user, and it reads a file
that is not in Ray's wheel.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

import nas_sweeps as ns
from tests.faked import SWITCH
from tests.sweep.tiny import TINY
from tests.verbs import cli

pytestmark = pytest.mark.system

HEAD = "f" * 51 + "00000"  # the ids of the fake provider's nodes: this one, then …00001
ID = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
EMPTY = (  # what nodes of another kind would begin with; it has to be there
    *("initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
    *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    **SWITCH,
    "NAS_SWEEPS_FAKE_STEP_S": "0.05",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_FAKE_CLUSTER": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    ID: HEAD,
    "RAY_enable_autoscaler_v2": "1",  # as KubeRay and `ray up` have it
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_health_check_period_ms": "1000",  # else a node that says nothing is given a minute
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


def wait_for(what: Callable[[], Any], limit_s: float = 120) -> Any:
    limit = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < limit, f"not within {limit_s:g} s"
        time.sleep(0.1)
    return found


@dataclass
class Cloud:
    """A head that runs no trial, and an autoscaler that may start two nodes of one CPU."""

    address: str
    head: psutil.Process
    taken: list[psutil.Process] = field(default_factory=list)

    def nodes(self) -> dict[str, psutil.Process]:
        """The raylets of its workers, by node id."""
        found = {}
        for process in self.head.children(recursive=True):
            with suppress(psutil.Error):
                if process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.environ()[ID]] = process
        found.pop(HEAD, None)
        return found

    def node_of(self, pid: int) -> str:
        above = psutil.Process(pid).parents()
        return next(name for name, raylet in self.nodes().items() if raylet in above)

    def drain(self, node: str, deadline_s: int) -> None:
        """Have Ray say that a node is about to be taken away."""
        command = f"drain-node --node-id {node} --address {self.address}"
        command += " --reason DRAIN_NODE_REASON_PREEMPTION --reason-message spot"
        command += f" --deadline-remaining-seconds {deadline_s}"
        subprocess.run([BIN / "ray", *command.split()], check=True, env=ENVIRONMENT)

    def take(self, node: str, how: Callable[[psutil.Process], None]) -> None:
        """Do to the raylet of a node, and to all that it runs, what ends a machine."""
        raylet = self.nodes()[node]
        processes = [raylet, *raylet.children(recursive=True)]
        self.taken += processes
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                how(process)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    address = f"127.0.0.1:{port}"
    worker = {"CPU": 1, "object_store_memory": 80_000_000}
    config = {
        "cluster_name": "elastic",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": address,
            "head_node_id": HEAD,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        **dict.fromkeys(EMPTY, ()),
        "file_mounts": {},
        "head_node_type": "ray.head.default",  # as the provider calls it
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }
    file, log = (tmp_path_factory.mktemp("cloud") / name for name in ("config.yaml", "log"))
    file.write_text(json.dumps(config))
    options = "--block --head --num-cpus 0 --num-gpus 0 --include-dashboard false"
    options += " --dashboard-agent-listen-port 0"
    command = f"start {options} --node-ip-address 127.0.0.1 --port {port} --disable-usage-stats"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, log.open("w") as out:  # short
        files = ["--temp-dir", folder, "--autoscaling-config", file]
        head = psutil.Popen(
            [BIN / "ray", *command.split(), *files], env=ENVIRONMENT, stdout=out, stderr=out
        )
        made = Cloud(address, head)
        try:
            wait_for(lambda: head.poll() is not None or "runtime started" in log.read_text())
            assert head.poll() is None, log.read_text()
            yield made
            assert head.poll() is None, log.read_text()
        finally:
            ours = [*made.taken, head]
            with suppress(psutil.Error):
                ours += head.children(recursive=True)
                head.terminate()
                head.wait(30)
            for process in ours:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def grid(folder: Path, **changed: Any) -> Path:
    """Searches of 20 s on one CPU each."""
    search = TINY["search"] | {"recipe": TINY["search"]["recipe"] | {"epochs": 100}}
    file = folder / "grid.yaml"
    file.write_text(json.dumps(TINY | {"search": search} | changed))
    return file


@contextmanager
def started(cloud: Cloud, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    executor = f"ray: {{address: '{cloud.address}', elastic: true}}"
    driver = subprocess.Popen(
        [BIN / "nas-sweeps", "run", *map(str, arguments), "--executor", executor],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def running(driver: subprocess.Popen[str], store: Path, number: int = 1) -> Any:
    """So many attempts that have a checkpoint, once there are."""
    assert driver.poll() is None, driver.communicate()
    if len({file.parent for file in store.glob("trials/*/*.checkpoint.pt")}) < number:
        return None
    attempts = ns.load(store).attempts.query("state == 'running' and epochs_done > 0")
    return [*attempts.itertuples()] if len(attempts) == number else None


def goes_on(store: Path, trial_id: str) -> None:
    """A trial that lost its node has gone on from the epochs that were done."""
    lost, done = ns.load(store).attempts.query("trial_id == @trial_id").itertuples()
    assert (lost.state, done.state) == ("lost", "done")
    assert 0 < lost.epochs_done <= done.epochs_from < done.epochs_done
    assert lost.pid != done.pid


def test_nodes_come_from_zero_and_go_and_preempted_ones_cost_no_retry(
    cloud: Cloud, tmp_path: Path
) -> None:
    """One is gone after the deadline of its drain, the other ends at SIGTERM long before it."""
    store = tmp_path / "store"
    assert not cloud.nodes()
    with started(cloud, grid(tmp_path), "--store", store, "--max-retries", 0) as driver:
        trials = wait_for(lambda: running(driver, store, 2))
        late, early = (cloud.node_of(trial.pid) for trial in trials)
        assert late != early
        cloud.drain(late, 1)
        cloud.drain(early, 600)
        cloud.take(late, psutil.Process.kill)
        cloud.nodes()[early].terminate()
        said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, said
    for trial in trials:
        goes_on(store, trial.trial_id)
    frames = ns.load(store)
    assert frames.trials.state.tolist() == ["done"] * 4
    assert sorted(frames.attempts.state) == ["done"] * 4 + ["lost"] * 2
    assert "tried again" not in said
    assert "% of 2 slots" in cli("status", store).stdout
    wait_for(lambda: not cloud.nodes())


def test_a_node_that_is_lost_without_a_word_costs_a_retry_and_another_is_asked_for(
    cloud: Cloud, tmp_path: Path
) -> None:
    """A machine that freezes, with the only trial: Ray says when it has waited long enough."""
    store, recipe = tmp_path / "store", TINY["search"]["recipe"] | {"epochs": 20}
    search = TINY["search"] | {"methods": ["darts"], "recipe": recipe}
    file = grid(tmp_path, search=search, retrain={"winners": "none"})
    with started(cloud, file, "--store", store, "--max-retries", 1) as driver:
        [trial] = wait_for(lambda: running(driver, store))
        cloud.take(cloud.node_of(trial.pid), psutil.Process.suspend)
        said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, said
    goes_on(store, trial.trial_id)
    assert said.count("tried again: WorkerLost") == 1
