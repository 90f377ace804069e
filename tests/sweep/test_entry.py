"""A worker as a process of its own: the command that a batch system or another pool would start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.store import State, Store
from nas_sweeps.store.lease import Lease
from nas_sweeps.sweep.executor import Setting
from nas_sweeps.testing import fake
from nas_sweeps.trial import Resources
from tests.sweep.tiny import TINY

pytestmark = pytest.mark.usefixtures("fake_runs")
RECIPE = TINY["search"]["recipe"]
WITHOUT_RAY = """
import runpy, sys
runpy.run_module("nas_sweeps.sweep.worker", run_name="__main__", alter_sys=True)
sys.exit("ray was imported" if "ray" in sys.modules else 0)
"""


def asked(folder: Path, epochs: int = 1) -> tuple[Store, str]:
    """A store in which one search is asked for, and its id."""
    search = TINY["search"] | {"methods": ["darts"], "recipe": RECIPE | {"epochs": epochs}}
    (trial,) = ns.plan(ns.Grid.from_dict(TINY | {"search": search})).searches
    store = Store(folder)
    store.create()
    store.register(trial)
    return store, trial.trial_id


def begun(store: Store, trial_id: str, command: list[str]) -> subprocess.Popen[bytes]:
    """A worker that has begun the trial."""
    worker = subprocess.Popen(command)
    limit = time.monotonic() + 60
    while store.state(trial_id) != State.RUNNING:
        assert worker.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    return worker


def test_a_store_and_a_trials_id_are_enough_and_ray_is_not_imported(tmp_path: Path) -> None:
    store, trial_id = asked(tmp_path / "a 'store'")
    command = [sys.executable, "-c", WITHOUT_RAY, store.root, trial_id]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert store.state(trial_id) == State.DONE
    (device,) = ns.load(store.root).attempts.visible_devices
    assert device == "", "without a GPU it sees none"


def test_a_trial_that_is_not_in_the_store_is_refused(tmp_path: Path) -> None:
    store, _ = asked(tmp_path)
    command = [sys.executable, "-m", "nas_sweeps.sweep.worker", store.root, "s-0123456789abcdef"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no trial 's-0123456789abcdef' was asked for here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_none_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas_sweeps.sweep.worker", str(tmp_path / "no"), "s-0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no store" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("by", ["driver", "signal"])
def test_a_worker_that_is_told_to_stop_publishes_where_it_is(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fake.STEP_S, "0.05")
    store, trial_id = asked(tmp_path, epochs=5000)
    with Lease(store.layout, "the test") as lease:
        setting = Setting(store=store, places=ns.Grid.from_dict(TINY).places, driver=lease.key)
        worker = begun(store, trial_id, setting.command(trial_id, Resources()))
        if by == "driver":
            lease.stop()
        else:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
    assert ns.load(store.root).attempts.state.tolist() == ["stopped"]
