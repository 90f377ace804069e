"""The Ray executor: pinned actors, workers that die, an object store, and plain refusals."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
import torch

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.sweep import asking, job
from nas_sweeps.sweep.doctor import examine
from nas_sweeps.sweep.ray_token import has_token
from nas_sweeps.sweep.run import run
from nas_sweeps.sweep.stopping import Interrupted
from nas_sweeps.testing import fake
from tests.sweep.tiny import TINY


def grid(phase_resources: dict | None = None, **data: object) -> ns.Grid:
    resources = {"resources": phase_resources or {"gpus": 0, "cpus": 1}}
    return ns.Grid.from_dict(
        TINY
        | {
            "data": TINY["data"] | data,
            "search": TINY["search"] | resources,
            "retrain": TINY["retrain"] | resources,
        }
    )


pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_session", "fake_actors")]


def run_on_ray(store: Path | str, a_grid: ns.Grid, **options: object):
    return run(a_grid, store, executor="ray", console="none", **options)


def test_trials_are_pinned_to_the_gpus_they_were_given_and_follow_each_other_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_sweeps.sweep import ray_tune

    begun, body = tmp_path / "begun", ray_tune.run_in_worker
    begun.mkdir()

    def two_at_once(store, trial_id, *others):
        (begun / trial_id).touch()
        limit = time.monotonic() + 120
        while len(list(begun.iterdir())) < 2 and time.monotonic() < limit:
            time.sleep(0.05)
        return body(store, trial_id, *others)

    monkeypatch.setattr(ray_tune, "run_in_worker", two_at_once)
    store = tmp_path / "store"
    assert run_on_ray(store, grid({"gpus": 1, "cpus": 1})).complete
    attempts = ns.load(store).attempts
    assert len(attempts) == 4
    assert set(attempts.visible_devices) == {"0", "1"}, "two trials at a time, one device each"
    assert attempts.groupby("pid").visible_devices.nunique().tolist() == [1, 1]
    for _, of_process in attempts.groupby("pid"):
        assert sorted(of_process.trials_before) == list(range(len(of_process)))
    assert not (store / ".tune").exists()


def test_a_process_whose_trial_failed_runs_no_other(
    tmp_path: Path, fake_actors: dict[str, str]
) -> None:
    fake_actors |= {fake.FAILS: "darts"}
    search = TINY["search"] | {"seeds": [0, 1], "resources": {"gpus": 1, "cpus": 1}}
    a_grid = ns.Grid.from_dict(TINY | {"search": search, "retrain": {"winners": "none"}})
    counts = run_on_ray(tmp_path, a_grid).counts["search"]
    assert (counts["done"], counts["failed"]) == (2, 2)
    attempts = ns.load(tmp_path).attempts.sort_values("started_at")
    for _, of_process in attempts.groupby("pid"):
        assert "failed" not in of_process.state.tolist()[:-1]
    assert attempts.error_class.dropna().tolist() == ["RuntimeError"] * 2, "as the trial says"


def test_a_warm_worker_that_is_killed_costs_its_trial_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGKILL, after the first epoch's checkpoint of the second trial in its process."""
    from nas_sweeps.sweep import ray_tune

    body, killed = ray_tune.run_in_worker, tmp_path / "killed"

    def is_killed_once(*arguments):
        from nas_sweeps.sweep import worker
        from nas_sweeps.sweep.reuse import PROCESS

        save = worker._Worker._save

        def save_and_die(self, run):
            save(self, run)
            if PROCESS.trials == 2 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        worker._Worker._save = save_and_die
        try:
            return body(*arguments)
        finally:
            worker._Worker._save = save

    monkeypatch.setattr(ray_tune, "run_in_worker", is_killed_once)
    recipe = TINY["search"]["recipe"] | {"epochs": 2}
    search = TINY["search"] | {"methods": ["darts"], "seeds": [0, 1, 2], "recipe": recipe}
    a_grid = ns.Grid.from_dict(
        TINY
        | {
            "search": search | {"resources": {"gpus": 1, "cpus": 2}},  # one at a time
            "retrain": {"winners": "none"},
        }
    )
    assert run_on_ray(tmp_path / "store", a_grid).complete
    attempts = ns.load(tmp_path / "store").attempts.sort_values("started_at")
    assert attempts.state.tolist() == ["done", "lost", "done", "done"]
    assert attempts.trials_before.tolist() == [0, 1, 0, 1]
    assert attempts.epochs_from.tolist() == [0, 0, 1, 0], "it goes on from its checkpoint"


def test_more_gpus_than_any_node_has_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"search.resources.gpus: 3 asked .* more than 2"):
        run_on_ray(tmp_path, grid({"gpus": 3, "cpus": 1}))
    with pytest.raises(ValueError, match=r"no node of this Ray cluster has 64 CPUs"):
        run_on_ray(tmp_path, grid({"gpus": 0, "cpus": 64}))
    assert not (tmp_path / "trials").exists()


def test_a_worker_that_dies_is_started_again_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt kills itself after its first epoch's checkpoint."""
    from nas_sweeps.sweep import ray_tune

    body = ray_tune.run_in_worker

    def dies_once(*arguments):
        from nas_sweeps.sweep import worker

        save = worker._Worker._save

        def save_and_die(self, run):
            save(self, run)
            if self.attempt.number == 1:
                os._exit(1)

        worker._Worker._save = save_and_die
        try:
            return body(*arguments)
        finally:
            worker._Worker._save = save

    monkeypatch.setattr(ray_tune, "run_in_worker", dies_once)
    one = ns.Grid.from_dict(
        TINY
        | {
            "search": TINY["search"]
            | {"methods": ["darts"], "recipe": TINY["search"]["recipe"] | {"epochs": 2}},
            "retrain": {"winners": "none"},
        }
    )
    assert run_on_ray(tmp_path, one).complete
    frames = ns.load(tmp_path)
    assert frames.trials.attempt.tolist() == [2]
    assert frames.epochs.epoch.tolist() == [1, 2]
    assert frames.attempts.state.tolist() == ["lost", "done"]
    assert frames.attempts.epochs_done.tolist() == [1, 2]
    assert frames.attempts.epochs_from.tolist() == [0, 1]


ONE_SEARCH = {"methods": ["darts"]}


def one_search() -> ns.Grid:
    return ns.Grid.from_dict(
        TINY | {"search": TINY["search"] | ONE_SEARCH, "retrain": {"winners": "none"}}
    )


def starts(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_a_worker_that_always_dies_becomes_a_failed_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_sweeps.sweep import ray_tune

    counted = tmp_path / "starts"
    counted.mkdir()

    def dies(*arguments):
        (counted / str(os.getpid())).touch()
        os._exit(1)

    monkeypatch.setattr(ray_tune, "run_in_worker", dies)
    monkeypatch.setattr(job, "PAUSE_S", 0.1)
    summary = run_on_ray(tmp_path / "store", one_search())
    assert summary.counts["search"]["failed"] == 1
    assert ns.load(tmp_path / "store").trials.error_class.tolist() == ["WorkerLost"]
    assert starts(counted) == 1 + job.MAX_RETRIES


def test_a_run_whose_store_was_taken_over_stops_and_calls_nothing_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_sweeps.sweep import ray_tune

    counted = tmp_path / "starts"
    counted.mkdir()

    def is_taken_over(store, *others):
        (counted / uuid4().hex).touch()
        for record in (Path(store) / "drivers").iterdir():
            record.unlink()

    monkeypatch.setattr(ray_tune, "run_in_worker", is_taken_over)
    summary = run_on_ray(tmp_path / "store", one_search())
    assert "taken this store over" in summary.stopped
    assert starts(counted) == 1
    assert Store(tmp_path / "store").results() == {}


def test_workers_end_when_their_run_stops(tmp_path: Path, fake_actors: dict[str, str]) -> None:
    """Two searches run; one fails and --fail-fast stops the other in the middle of its epochs."""
    two = ns.Grid.from_dict(
        TINY
        | {
            "search": TINY["search"] | {"recipe": TINY["search"]["recipe"] | {"epochs": 5000}},
            "retrain": {"winners": "none"},
        }
    )
    fake_actors |= {fake.FAILS: "fairdarts", fake.STEP_S: "0.05"}
    summary = run_on_ray(tmp_path, two, fail_fast=True)
    assert "--fail-fast" in summary.stopped
    states = ns.load(tmp_path).attempts.state
    assert sorted(states) == ["failed", "stopped"]


def test_a_store_on_an_object_store_serves_a_cluster(tmp_path: Path) -> None:
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    try:
        secrets = {"access_key": "x", "secret_key": "y", "region": "us-east-1"}
        s3 = fs.S3FileSystem(**secrets, endpoint_override=endpoint, allow_bucket_creation=True)
        s3.create_dir("bucket")
        options = f"region=us-east-1&endpoint_override={quote(endpoint, safe='')}"
        store = f"s3://x:y@bucket/a/store?{options}"
        assert run_on_ray(store, one_search()).complete
        frames = ns.load(store)
        assert frames.trials.state.tolist() == ["done"]
        assert run_on_ray(store, one_search()).started == 0
    finally:
        server.stop()


def test_a_doctor_looks_at_ray_and_at_every_node(tmp_path: Path) -> None:
    store = tmp_path / "store"
    findings = {f.what: f for f in examine(grid({"gpus": 1}), store)}
    assert "1 node with 2 CPUs and 2 GPUs" in findings["ray"].text
    (node,) = (f for what, f in findings.items() if what.startswith("node "))
    if not torch.cuda.is_available():  # this session's GPUs are logical
        assert not node.good
        assert "torch sees none" in node.text
    else:
        assert node.good
    unfit = {f.what: f for f in examine(grid({"gpus": 4}), store)}["ray"]
    assert not unfit.good
    assert "search.resources.gpus" in unfit.text
    assert list(tmp_path.iterdir()) == []


def test_a_user_has_a_token_in_a_file_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("secret")
    assert has_token()
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert has_token()


def test_a_sigterm_while_ray_starts_is_a_stop_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nas_sweeps.sweep import ray_session

    def init(**options: object) -> None:
        sys.exit(signal.SIGTERM)  # as Ray's own handler does

    ended: list[str] = []
    monkeypatch.setattr(ray_session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_session.ray, "init", init)
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: ended.append("ray"))
    monkeypatch.setattr(ray_session, "_processes", list)  # these tests' own session stays
    with pytest.raises(Interrupted) as stopped, ray_session.session(None):
        pass
    assert ended == ["ray"]
    assert stopped.value.exit_code == 128 + signal.SIGTERM


def test_tune_is_silent_in_a_session_of_the_callers(capsys: pytest.CaptureFixture[str]) -> None:
    """It would warn of each trial that has none of the files that it was told not to write."""
    from nas_sweeps.sweep.ray_tune import quiet

    log = logging.getLogger("ray.tune.analysis.experiment_analysis")
    before = log.getEffectiveLevel()
    with quiet():
        print("a table")
        assert not log.isEnabledFor(logging.ERROR)
    assert log.getEffectiveLevel() == before
    assert capsys.readouterr().out == ""


def test_a_run_is_paused_goes_on_and_is_cut_short_from_elsewhere(
    tmp_path: Path, fake_actors: dict[str, str]
) -> None:
    fake_actors |= {fake.STEP_S: "0.02"}
    recipe = TINY["search"]["recipe"] | {"epochs": 5000}  # minutes
    search = TINY["search"] | ONE_SEARCH | {"recipe": recipe}
    a_grid = ns.Grid.from_dict(TINY | {"search": search, "retrain": {"winners": "none"}})
    store = Store(tmp_path)
    seen: list[list[str]] = []

    def now() -> list[str]:
        return list(ns.load(tmp_path).attempts.state) if (tmp_path / "trials").is_dir() else []

    def wait_for(wanted: list[str]) -> None:
        limit = time.monotonic() + 60
        while now() != wanted:
            assert time.monotonic() < limit, (now(), wanted)
            time.sleep(0.1)

    def asks() -> None:
        wait_for(["running"])
        asking.pause(store)
        wait_for(["stopped"])
        time.sleep(1.0)
        seen.append(now())
        asking.resume(store)
        wait_for(["stopped", "running"])
        asking.cancel(store, "phase == 'search'")

    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(asks)
        summary = run_on_ray(tmp_path, a_grid)
        asked.result()
    assert seen == [["stopped"]], "nothing starts while it is paused"
    assert summary.cancelled == 1
    assert now() == ["stopped"] * 2
