"""Shares of GPUs: what the loop starts when, by a clock of its own, and the check of such times."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.simulate import Room
from nas_sweeps.schedule import replay, scheduler
from nas_sweeps.space.published import published
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.files import LocalFiles
from nas_sweeps.store.ledger import now
from nas_sweeps.sweep import standing
from nas_sweeps.sweep.executor import Ended, Pool
from nas_sweeps.sweep.job import Job
from nas_sweeps.trial import Resources
from tests.placed import Held, grid_of, problems
from tests.sweep.test_job import StoreLocked

GPUS = 8
FOUND = published("DARTS_V2")


class Clockwork(Pool):
    """Eight devices, and trials that take a time by chance, of a clock that only they move.

    As in Ray a fraction goes to the fullest device that has room, and what finds none waits. As in
    Tune a process that is free goes on with a trial of its size, and ends where another one starts.
    """

    def __init__(self, store: Store, seed: int, keeps: bool = False, scale_s: float = 1.0) -> None:
        self.store, self.draw, self.now = store, random.Random(seed), 0.0
        self.keeps, self.scale_s = keeps, scale_s
        self.kept: list[float] = []  # sizes of free processes
        self.processes = 0  # that were started
        self.free = [1.0] * GPUS
        self.ends: list[tuple[float, str, tuple[int, ...], float]] = []
        self.held: list[Held] = []
        self.waiting: deque[tuple[str, Resources]] = deque()
        self.ready: dict[str, float] = {}  # when the search of a retrain has ended

    def room(self) -> Room:
        return Room(((1000.0, float(GPUS)),))

    def start(self, trial_id: str, resources: Resources) -> None:
        self.waiting.append((trial_id, resources))
        self._begin()

    def _begin(self) -> None:
        while self.waiting and self._placed(*self.waiting[0]):
            self.waiting.popleft()

    def _placed(self, trial_id: str, resources: Resources) -> bool:
        share = min(resources.gpus, 1.0)
        order = sorted(range(GPUS), key=lambda d: (self.free[d], d))  # the fullest that has room
        devices = tuple([d for d in order if self.free[d] >= share][: max(1, int(resources.gpus))])
        if len(devices) < max(1, int(resources.gpus)):
            return False
        for device in devices:
            self.free[device] -= share
        end = self.now + self.scale_s * self.draw.uniform(1, 3)
        heapq.heappush(self.ends, (end, trial_id, devices, share))
        if resources.gpus in self.kept:
            self.kept.remove(resources.gpus)
        else:
            self.kept, self.processes = [], self.processes + 1
        parents = [o.search_id for o in self.store.origins(trial_id)]
        ready = max((self.ready[p] for p in parents if p), default=0.0)
        names = tuple(map(str, devices))
        self.held.append(Held(trial_id, resources.gpus, names, ready, self.now, end))
        return True

    def ended(self, timeout_s: float) -> list[Ended]:
        self.now, trial_id, devices, share = heapq.heappop(self.ends)
        for device in devices:
            self.free[device] += share
        self.kept.append(share * len(devices))
        self._begin()
        self.ready[trial_id] = self.now
        attempt, moment = self.store.begin(trial_id), now()
        attempt.finish(
            Result(
                trial_id=trial_id,
                phase="search" if trial_id.startswith("s-") else "retrain",
                state=State.DONE,
                attempt=attempt.number,
                started_at=moment,
                finished_at=moment,
                genotype=FOUND.to_json(),
            )
        )
        return [Ended(trial_id)]


@pytest.fixture(autouse=True)
def without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds each on a busy disk, and nothing is switched off here."""
    publish = LocalFiles.publish
    monkeypatch.setattr(
        LocalFiles,
        "publish",
        lambda self, key, data, *, durable=True: publish(self, key, data, durable=False),
    )


def worked(
    folder: Path, grid: ns.Grid, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Clockwork:
    """The pool when every trial of the grid has ended."""
    store = Store(folder)
    store.create()
    pool = Clockwork(store, seed=5, **options)
    for module in (standing, scheduler):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: pool.now))
    Job(
        scheduler=replay(ns.plan(grid), store),
        store=store,
        resources=grid.resources,
        lease=StoreLocked(),  # type: ignore[arg-type]
    ).run(pool)
    assert len(pool.held) == len(ns.plan(grid)) * 3 // 4, "both methods find one genotype"
    return pool


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize(
    ("search", "retrain"), [(0.5, 1), (1, 0.5), (0.25, 0.5), (0.5, 0.25), (1, 2), (2, 1)]
)
def test_no_device_is_oversubscribed_and_none_idles_while_a_trial_fits(
    tmp_path: Path, search: float, retrain: float, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace_data(grid_of(12, search, retrain))
    pool = worked(tmp_path, grid, monkeypatch, keeps=keeps, scale_s=60.0)
    found = list(problems(pool.held, GPUS, grace_s=0.0))
    # One that waits for more than is free is not overtaken by a smaller one behind it.
    waits = {held.trial for held in pool.held if held.need == search}
    assert [line for line in found if not line.startswith(tuple(waits))] == []
    if search == retrain:
        assert found == []


@pytest.mark.parametrize(("search", "retrain"), [(0.5, 1), (1, 0.5), (1, 2), (2, 1)])
def test_a_process_that_is_kept_is_used_and_nothing_waits_long_for_that(
    tmp_path: Path, search: float, retrain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace_data(grid_of(60, search, retrain))
    by_phase, kept = (
        worked(tmp_path / str(keeps), grid, monkeypatch, keeps=keeps, scale_s=20.0)
        for keeps in (False, True)
    )
    assert kept.processes < by_phase.processes / 2
    assert kept.now < 1.05 * by_phase.now, "though starts take no time here"
    searches = [held for held in kept.held if held.need == search]
    for late in (held for held in kept.held if held.need == retrain):
        overdue = late.ready + standing.PATIENCE_S
        assert not any(overdue < other.start < late.start for other in searches), late


def test_long_trials_go_by_their_phase_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace_data(grid_of(12))
    told = [
        worked(tmp_path / f"{keeps} {scale}", grid, monkeypatch, keeps=keeps, scale_s=scale)
        for keeps, scale in ((False, 301.0), (True, 301.0), (False, 20.0), (True, 20.0))
    ]
    by_phase, kept, short_by_phase, short_kept = ([h.trial for h in pool.held] for pool in told)
    assert by_phase == kept
    assert short_by_phase != short_kept


def replace_data(grid: ns.Grid) -> ns.Grid:
    """Images by seed, so that every retrain is a trial of its own."""
    data = grid.data.model_copy(update={"subset_seed": "trial"})
    return grid.model_copy(update={"data": data})


# --- the check itself ---

A = Held("a", 0.5, ("0",), 0.0, 0.0, 2.0)
B = Held("b", 0.5, ("0",), 0.0, 0.0, 1.0)
C = Held("c", 1.0, ("1",), 0.0, 0.0, 2.0)


def test_shares_that_fit_and_wait_for_nothing_are_no_problem() -> None:
    after = Held("d", 0.5, ("0",), 0.0, 1.0, 3.0)
    assert list(problems([A, B, C, after], 2, 0.0)) == []


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (replace(B, need=1.0), "devices 0 are oversubscribed"),
        (replace(B, devices=("2",)), "b was given 0.5 GPUs and saw ('2',)"),
        (replace(B, devices=("0", "1")), "b was given 0.5 GPUs"),
        (replace(B, start=1.0, end=2.0), "b was ready and fitted for 1.00 s from 0.00 s on"),
    ],
)
def test_what_is_not_as_promised_is_told(held: Held, told: str) -> None:
    found = list(problems([A, held, C], 2, 0.5))
    assert any(told in line for line in found), found
