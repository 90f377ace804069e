"""Clusters whose nodes come and go: what is asked of them, and what a lost node costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.simulate import Room
from nas_sweeps.schedule import replay
from nas_sweeps.store import State, Store
from nas_sweeps.sweep.executor import Ended, Pool
from nas_sweeps.sweep.job import Job
from nas_sweeps.sweep.worker import run_trial
from nas_sweeps.testing import fake
from nas_sweeps.trial import DataPaths, Resources
from tests.sweep.test_job import StoreLocked

SEARCH, RETRAIN = Resources(gpus=1), Resources(gpus=2)
RECIPE = {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8}
GRID = ns.Grid.from_dict(
    {
        "data": {"dataset": "digits", "n_max": 40, "test_n_max": 3},
        "search": {
            "methods": ["darts"],
            "distributions": [{"exp": 0.4}],
            "seeds": 4,
            "recipe": RECIPE,
            "resources": {"gpus": 1},
        },
        "retrain": {"recipe": RECIPE, "resources": {"gpus": 2}},
    }
)


class Cloud(Pool):
    """A pool that begins with no node, and has them as soon as they are asked for."""

    where, grows = "a cloud", True

    def __init__(self, store: Store, takes: int = 0, last: int = -1) -> None:
        self.store, self.takes = store, takes  # so many trials lose their node first
        self.last = last  # after so many endings every node is lost, once
        self.idle = 0  # looks in a row at which nothing ran
        self.asked: list[Mapping[Resources, int]] = []
        self.gpus, self.running = 0.0, list[tuple[str, Resources]]()

    def room(self) -> Room:
        return Room(((64.0, self.gpus),) if self.gpus else ())

    def want(self, needs: Mapping[Resources, int]) -> None:
        self.asked.append(dict(needs))
        self.grow()

    def grow(self) -> None:
        """What was asked for stands until something else is."""
        self.gpus = min(3.0, sum(need.gpus * n for need, n in self.asked[-1].items()))

    def start(self, trial_id: str, resources: Resources) -> None:
        self.running.append((trial_id, resources))
        assert sum(need.gpus for _, need in self.running) <= self.gpus

    def ended(self, timeout_s: float) -> list[Ended]:
        self.idle = 0 if self.running else self.idle + 1
        assert self.idle < 100, "nothing is asked for, so no node comes, and the run waits for ever"
        if not self.running:
            self.grow()
            return []
        self.last -= 1
        if self.last == -1:
            lost, self.running, self.gpus = self.running, [], 0.0
            return [Ended(trial_id, "lost its node", preempted=True) for trial_id, _ in lost]
        trial_id, _ = self.running.pop(0)
        if self.takes:
            self.takes -= 1
            return [Ended(trial_id, "lost its node", preempted=True)]
        run_trial(self.store.spec(trial_id), self.store, DataPaths(), Resources())
        return [Ended(trial_id)]


@pytest.fixture(autouse=True)
def fake_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_SWEEPS_RUNS", f"{fake.__name__}:RUNS")


def run(store: Store, pool: Pool, **options: Any) -> Job:
    store.create()
    job = Job(
        scheduler=replay(ns.plan(GRID), store),
        store=store,
        resources=GRID.resources,
        lease=StoreLocked(),  # type: ignore[arg-type]
        **options,
    )
    job.run(pool)
    return job


def test_what_is_ready_is_asked_for_where_no_node_is_there_yet(tmp_path: Path) -> None:
    pool = Cloud(Store(tmp_path))
    job = run(Store(tmp_path), pool)
    assert job.scheduler.counts()["retrain"][State.DONE] == 4
    assert pool.asked[0] == {SEARCH: 4}, "four searches are ready, and no retrain is"
    assert all(sum(needs.values()) <= 8 for needs in pool.asked)
    assert any(needs.get(RETRAIN) for needs in pool.asked)


def test_no_more_is_asked_for_than_may_run_at_once(tmp_path: Path) -> None:
    pool = Cloud(Store(tmp_path))
    run(Store(tmp_path), pool, slots=2)
    assert max(sum(needs.values()) for needs in pool.asked) == 2


def test_a_pool_that_cannot_grow_refuses_what_fits_nowhere(tmp_path: Path) -> None:
    pool = Cloud(Store(tmp_path))
    pool.grows = False
    with pytest.raises(ValueError, match="no node of a cloud has more than 0"):
        run(Store(tmp_path), pool)
    assert not pool.asked


def test_nodes_that_are_taken_away_cost_no_try(tmp_path: Path) -> None:
    pool = Cloud(Store(tmp_path), takes=6)
    job = run(Store(tmp_path), pool, max_retries=0)
    assert job.scheduler.counts()["search"][State.DONE] == 4


def test_a_trial_that_lost_the_last_node_is_asked_for_again(tmp_path: Path) -> None:
    pool = Cloud(Store(tmp_path), last=7)  # of eight trials
    job = run(Store(tmp_path), pool, max_retries=0)
    assert job.scheduler.counts()["retrain"][State.DONE] == 4


def test_ray_says_which_actors_died_with_a_node_that_was_taken_away() -> None:
    import queue

    from nas_sweeps.sweep.ray_tune import DIED, TAKEN, _Listener, _Searcher

    told: queue.SimpleQueue[Ended] = queue.SimpleQueue()
    searcher = _Searcher(queue.SimpleQueue(), told)
    searcher.live = {name: name for name in "abcd"}

    def trial(name: str, status: str, failures: int, said: str | None) -> Any:
        metadata = SimpleNamespace(num_failures=failures, error_filename=said)
        over = status != "RUNNING"
        return SimpleNamespace(
            trial_id=name,
            status=status,
            run_metadata=metadata,
            pickled_error_file=None,
            is_finished=lambda: over,
        )

    trials = [
        trial("a", "ERROR", 0, "error.txt"),
        trial("b", "ERROR", 1, "error.txt"),
        trial("c", "ERROR", 0, None),  # an actor that would not be reset
        trial("d", "RUNNING", 0, None),
    ]
    for one in trials:
        searcher.on_trial_complete(one.trial_id, error=True)
    _Listener(searcher).on_step_end(0, trials)
    ends = [told.get_nowait() for _ in range(3)]
    assert ends == [Ended("a", TAKEN, True), Ended("b", DIED), Ended("c", DIED)]
    assert [*searcher.live] == ["d"]
