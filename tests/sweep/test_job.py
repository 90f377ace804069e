"""Chain, ledger and job together: whatever happens to workers and drivers, one ending."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas_sweeps as ns
from nas_sweeps.cost.simulate import Room
from nas_sweeps.schedule import replay
from nas_sweeps.space.published import published
from nas_sweeps.store import Result, Store
from nas_sweeps.store.requests import Request
from nas_sweeps.sweep import job as the_job
from nas_sweeps.sweep.executor import Ended, Pool
from nas_sweeps.sweep.job import Job, Watcher
from nas_sweeps.trial import Resources, SearchTrial, Trial

GRID = ns.Grid.from_dict(
    {
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts", "fairdarts"],
            "distributions": [{"exp": 0.4}],
            "seeds": [0, 1],
        },
        "retrain": {"seeds": [0]},
    }
)
PLAN = ns.plan(GRID)
FOUND = ["DARTS_V1", "DARTS_V2", "SNAS", "GDAS_V1"]  # by search, in the plan's order


class StoreLocked:
    """A lease that nobody contests."""

    key = "0001-000000"

    def holds(self) -> bool:
        return True

    def stop(self) -> None: ...

    def tell(self, **facts: Any) -> None: ...


def new_job(store: Store, **options: Any) -> Job:
    """A driver that has just been started."""
    return Job(
        scheduler=replay(PLAN, store, retry="lost"),
        store=store,
        resources=GRID.resources,
        lease=StoreLocked(),  # type: ignore[arg-type]
        max_retries=2,
        reads=lambda query: lambda entry: entry.seed == int(query),
        **options,
    )


def result_of(trial: Trial, number: int, **ending: Any) -> Result:
    time = "2025-01-01T00:00:00+00:00"
    genotype = None
    if ending["state"] == "done" and isinstance(trial, SearchTrial):
        found = published(FOUND[PLAN.searches.index(trial)])
        genotype = [found.normal, found.reduce]
    return Result(
        trial_id=trial.trial_id,
        phase=trial.phase,
        attempt=number,
        started_at=time,
        finished_at=time,
        genotype=genotype,
        **ending,
    )


ENDINGS: dict[str, dict[str, Any]] = {
    "done": {"state": "done"},
    "mistake": {"state": "failed", "error_class": "ValueError"},
    "transient": {"state": "failed", "error_class": "MemoryError", "transient": True},
}
HAPPENS = ["start", "done", "mistake", "transient", "died", "stop", "crash"]
ASKED = ["pause", "resume", "cancel"]
EVENTS = st.sampled_from(HAPPENS + ASKED)


def test_any_order_of_failures_crashes_and_restarts_ends_with_the_same_done_set() -> None:
    pause, the_job.PAUSE_S = the_job.PAUSE_S, 0.0
    try:
        any_order()
    finally:
        the_job.PAUSE_S = pause


@settings(max_examples=60, deadline=None)
@given(events=st.lists(st.tuples(EVENTS, st.integers(0, 7)), max_size=40))
def any_order(events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        job, live = new_job(store), dict[str, tuple[Trial, Any]]()
        done, mistaken, started = set[str](), set[str](), dict[str, int]()

        def start() -> None:
            if job.next_phase is not None:
                work = job.hand_out()
                trial_id = work.trial.trial_id
                assert trial_id not in done | mistaken, "settled trials never run again"
                assert trial_id not in live, "a trial never runs twice at once"
                live[trial_id] = work.trial, store.begin(trial_id)
                started[trial_id] = started.get(trial_id, 0) + 1

        def end(which: int, how: str) -> None:
            trial_id = list(live)[which % len(live)]
            trial, attempt = live.pop(trial_id)
            if how in ENDINGS:
                assert attempt.finish(result_of(trial, attempt.number, **ENDINGS[how]))
                done.update({trial_id} if how == "done" else ())
                mistaken.update({trial_id} if how == "mistake" else ())
            job.ended(trial_id, "died" if how == "died" else None)

        def obey(what: str, which: int) -> None:
            job._obey(Request(what=what, only=str(which % 2)))  # type: ignore[arg-type]
            for trial_id in job._halted & live.keys():
                live.pop(trial_id)[1].publish(state="stopped")
                job.ended(trial_id)
            assert not job._halted
            assert not live or not job.paused

        for what, which in events:
            if what == "start":
                start()
            elif what in ASKED:
                obey(what, which)
            elif what == "crash" or (what == "stop" and not live):
                store = Store(folder)  # the driver and its workers are gone, and it is started anew
                job, live = new_job(store), {}
            elif what == "stop":
                job.stop("asked to")
                for trial, attempt in live.values():
                    attempt.publish(state="stopped")
                    job.ended(trial.trial_id)
                assert job.over
                job, live = new_job(store), {}
            elif live:
                end(which, what)
        job, live = new_job(Store(folder)), {}
        while not job.over:  # from here on nothing happens any more
            start()
            if live:
                end(0, "done")
        check_the_end(Store(folder), done, mistaken)


def check_the_end(store: Store, done: set[str], mistaken: set[str]) -> None:
    results = store.results()
    assert {t for t, r in results.items() if r.state == "done"} == done
    assert {t for t, r in results.items() if r.state == "failed"} == mistaken
    scheduler = replay(PLAN, store)
    assert scheduler.finished
    blocked = {slot.parents for slot in scheduler.blocked}
    assert blocked == {(s.trial_id,) for s in PLAN.searches if s.trial_id in mistaken}
    searched = {s.trial_id for s in PLAN.searches}
    assert searched <= done | mistaken, "every planned search has an ending"


class Scripted(Pool):
    """Does at each look what the next line of a script says; then every trial ends well."""

    def __init__(
        self, store: Store, *script: Callable[[Scripted], None], cpus: float = 1.0
    ) -> None:
        self.store, self.script = store, list(script)
        self.nodes = [(cpus, 0.0)]
        self.live: list[str] = []
        self.most, self.stopped = 0, False

    def room(self) -> Room:
        return Room(tuple(self.nodes))

    def start(self, trial_id: str, resources: Resources) -> None:
        self.live.append(trial_id)
        self.most = max(self.most, len(self.live))

    def ended(self, timeout_s: float) -> list[Ended]:
        if self.script:
            self.script.pop(0)(self)
            return []
        if not self.live:
            return []
        trial_id = self.live.pop(0)
        if not self.stopped:
            attempt = self.store.begin(trial_id)
            trial = self.store.spec(trial_id)
            assert attempt.finish(result_of(trial, attempt.number, state="done"))
        return [Ended(trial_id)]

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    found.create()
    return found


def test_a_node_that_joins_later_is_used_and_slots_are_kept(store: Store) -> None:
    def joins(pool: Scripted) -> None:
        assert len(pool.live) == 1
        pool.nodes.append((8.0, 0.0))

    pool = Scripted(store, joins)
    job = new_job(store, slots=3)
    job.run(pool)
    assert job.scheduler.finished
    assert pool.most == 3


def test_a_worker_that_cannot_be_started_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def start(self: Scripted, trial_id: str, resources: Resources) -> None:
        if trial_id not in refused:
            refused.append(trial_id)
            raise OSError("no more processes")
        self.live.append(trial_id)

    monkeypatch.setattr(Scripted, "start", start)
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "again", lambda trial, why: told.append(why), raising=False)
    job = new_job(store, watchers=[watcher])
    job.run(Scripted(store))
    assert job.scheduler.finished
    assert len(refused) == len(told) == 8
    assert told[0] == "WorkerLost: could not be started (no more processes)"


def test_where_the_store_fails_what_runs_ends_before_the_error_is_raised(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, asks = Store.result, iter([True])

    def fails_once(self: Store, trial_id: str) -> Result | None:
        if next(asks, False):
            raise OSError("stale file handle")
        return result(self, trial_id)

    monkeypatch.setattr(Store, "result", fails_once)
    pool, job = Scripted(store, cpus=3.0), new_job(store)
    with pytest.raises(OSError, match="stale file handle"):
        job.run(pool)
    assert pool.stopped
    assert not pool.live
    assert job.started == 3
