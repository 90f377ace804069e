"""Chain, ledger and job together: whatever happens to workers and drivers, one ending."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import nas_sweeps as ns
from nas_sweeps.space.published import published
from nas_sweeps.standing import standing
from nas_sweeps.store import Result, Store
from nas_sweeps.sweep import job as the_job
from nas_sweeps.sweep.job import Job
from nas_sweeps.trial import SearchTrial, Trial

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


class Held:
    """A lease that nobody contests."""

    key = "0001-000000"

    def holds(self) -> bool:
        return True

    def stop(self) -> None: ...


def new_job(store: Store) -> Job:
    """A driver that has just been started."""
    return Job(
        chain=standing(PLAN, store, retry="lost"),
        store=store,
        resources=GRID.resources,
        lease=Held(),  # type: ignore[arg-type]
        max_retries=2,
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
EVENTS = st.sampled_from(["start", "done", "mistake", "transient", "died", "stop", "crash"])


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

        for what, which in events:
            if what == "start":
                start()
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
    chain = standing(PLAN, store)
    assert chain.finished
    blocked = {slot.parents for slot in chain.blocked}
    assert blocked == {(s.trial_id,) for s in PLAN.searches if s.trial_id in mistaken}
    searched = {s.trial_id for s in PLAN.searches}
    assert searched <= done | mistaken, "every planned search has an ending"
