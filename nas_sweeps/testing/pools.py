"""What every executor promises a run, whoever wrote it.

Its trials are fake ones (``FakeRun``), in whatever processes the pool starts: they are to hand the
environment on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.store import State, Store
from nas_sweeps.store.lease import Lease
from nas_sweeps.sweep import job
from nas_sweeps.sweep.executor import EXECUTORS, Executor, Setting
from nas_sweeps.sweep.run import Summary, run
from nas_sweeps.testing import fake
from nas_sweeps.trial import Resources

RECIPE = {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8}
SOON_S = 30.0  # for a worker to start on a busy machine


class PoolContract:
    """Subclass it, parametrised by ``name``."""

    options: dict[str, Any] = {}  # noqa: RUF012  what the executor is made with
    own_processes = True  # whether a trial's death is not the driver's

    @pytest.fixture(autouse=True)
    def fake_trials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NAS_SWEEPS_RUNS", f"{fake.__name__}:RUNS")

    @pytest.fixture
    def given(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Sets a variable in the environment of workers: override it where that is not ours."""
        return monkeypatch.setenv

    def executor(self, name: str) -> Executor:
        """The executor under test."""
        return EXECUTORS.build(name, self.options)

    def grid(
        self,
        epochs: int = 2,
        cpus: int = 1,
        methods: Sequence[str] = ("darts", "fairdarts"),
        winners: str = "none",
    ) -> ns.Grid:
        """Searches, and their retrains where ``winners`` asks for them."""
        resources = {"cpus": cpus}
        return ns.Grid.from_dict(
            {
                "data": {"dataset": "digits", "n_max": 10, "test_n_max": 3},
                "search": {
                    "methods": list(methods),
                    "distributions": [{"exp": 0.4}],
                    "recipe": RECIPE | {"epochs": epochs},
                    "resources": resources,
                },
                "retrain": {"recipe": RECIPE, "resources": resources, "winners": winners},
            }
        )

    def run(self, name: str, store: Path, a_grid: ns.Grid | None = None, **options: Any) -> Summary:
        """A run of the grid by the executor."""
        a_grid = a_grid or self.grid()
        return run(a_grid, store, executor=self.executor(name), console="none", **options)

    def test_every_trial_is_done_once_and_a_second_run_starts_nothing(
        self, name: str, tmp_path: Path
    ) -> None:
        scheduler = self.grid(winners="each")
        first = self.run(name, tmp_path, scheduler)
        assert (first.complete, first.started) == (True, 4)
        attempts = ns.load(tmp_path).attempts
        assert attempts.state.tolist() == ["done"] * 4
        assert (attempts.pid == os.getpid()).all() != self.own_processes
        assert self.run(name, tmp_path, scheduler).started == 0

    def test_a_trial_that_fails_is_a_row_and_stops_no_other(
        self, name: str, tmp_path: Path, given: Any
    ) -> None:
        given(fake.FAILS, "fairdarts")
        counts = self.run(name, tmp_path).counts["search"]
        assert (counts[State.FAILED], counts[State.DONE]) == (1, 1)
        trials = ns.load(tmp_path).trials
        (failed,) = trials[trials.state == "failed"].itertuples()
        assert (failed.method, failed.error_class) == ("fairdarts", "RuntimeError")
        assert failed.attempt == 1, "a mistake of the user's is not tried again"

    def test_a_worker_that_dies_is_noticed_and_what_always_dies_is_a_row(
        self, name: str, tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not self.own_processes:
            pytest.skip("its trials run in this process")
        monkeypatch.setattr(job, "PAUSE_S", 0.1)
        given(fake.DIES, "darts")
        self.run(name, tmp_path, self.grid(methods=["darts"]), max_retries=1)
        frames = ns.load(tmp_path)
        assert frames.trials.error_class.tolist() == ["WorkerLost"]
        assert frames.attempts.state.tolist() == ["lost", "lost", "failed"], "it was tried again"

    def test_what_runs_publishes_where_it_is_when_the_run_stops(
        self, name: str, tmp_path: Path, given: Any
    ) -> None:
        given(fake.STEP_S, "0.05")
        given(fake.FAILS, "darts")
        summary = self.run(name, tmp_path, self.grid(epochs=5000), fail_fast=True)
        assert summary.stopped is not None
        assert "--fail-fast" in summary.stopped
        states = set(ns.load(tmp_path).attempts.state)
        assert states <= {"failed", "stopped"}
        assert "failed" in states

    def test_a_pool_that_is_left_leaves_no_worker_behind(
        self, name: str, tmp_path: Path, given: Any
    ) -> None:
        if not self.own_processes:
            pytest.skip("its trials run in this process")
        given(fake.STEP_S, "0.05")
        store, (trial, *_) = Store(tmp_path), ns.plan(self.grid(epochs=5000)).searches
        store.create()
        store.register(trial)
        with Lease(store.layout, "the contract") as lease:
            setting = Setting(store=store, places=self.grid().places, driver=lease.key)
            with suppress(KeyboardInterrupt), self.executor(name).pool(setting) as pool:
                pool.start(trial.trial_id, Resources())
                limit = time.monotonic() + SOON_S
                while store.state(trial.trial_id) != State.RUNNING:
                    assert time.monotonic() < limit, "no worker began"
                    assert not pool.ended(0.1)
                raise KeyboardInterrupt
        limit = time.monotonic() + SOON_S
        while store.state(trial.trial_id) == State.RUNNING:
            assert time.monotonic() < limit, "its worker goes on"
            time.sleep(0.1)

    def test_a_trial_that_could_never_be_placed_is_refused_at_once(
        self, name: str, tmp_path: Path
    ) -> None:
        if not self.own_processes:
            pytest.skip("its trials run in this process")
        with pytest.raises(ValueError, match=r"search.resources.cpus: no node of .* 100000 CPUs"):
            self.run(name, tmp_path, self.grid(cpus=100_000))
        assert not (tmp_path / "trials").exists()

    def test_with_nothing_started_nothing_ends(self, name: str, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.create()
        with Lease(store.layout, "the contract") as lease:
            setting = Setting(store=store, places=self.grid().places, driver=lease.key)
            with self.executor(name).pool(setting) as pool:
                asked = time.monotonic()
                assert not pool.ended(0.3)
                assert time.monotonic() - asked < 5
                assert pool.room().nodes
                pool.stop()
