"""How well a room was used, from attempts whose seconds are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.cli.estimate_view import used_text
from nas_sweeps.cost.used import Used, used
from nas_sweeps.grid import Slot
from nas_sweeps.space.published import published
from nas_sweeps.store import Store
from nas_sweeps.store.records import AttemptState
from nas_sweeps.trial import Resources, Trial
from tests.cost.conftest import grid_of

NOON = datetime.fromisoformat("2025-01-02T12:00:00+00:00")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "s")
    found.create()
    return found


def hold(store: Store, trial: Trial, start_s: float, end_s: float, devices: str | None) -> None:
    """An attempt on a node n1, from and to so many seconds after noon."""
    store.register(trial)
    store.begin(
        trial.trial_id,
        host="n1",
        pid=1,
        state=AttemptState.STOPPED,
        started_at=(NOON + timedelta(seconds=start_s)).isoformat(),
        visible_devices=devices,
        cost={"wall_s": end_s - start_s},
    )


def test_halves_of_devices_are_held_and_a_pause_is_no_time_of_the_room(store: Store) -> None:
    ours = ns.plan(grid_of(search__methods=["darts"], search__seeds=2)).searches
    a, b, c, d = (trial for trial in ours if isinstance(trial, Trial))
    for trial, start_s, end_s, device in [
        (a, 0, 100, "0"),
        (b, 0, 100, "0"),
        (c, 0, 60, "1"),
        (d, 5000, 5020, "1"),
        (d, 5020, 5060, "1"),  # goes on after its process died
    ]:
        hold(store, trial, start_s, end_s, device)
    needs = {"search": Resources(gpus=0.5)}
    found = used(store, {t.trial_id for t in ours if isinstance(t, Trial)}, needs)
    # 320 s of halves on two devices, and no trial is shorter than the longest, 100 s.
    assert found == Used(gpus=True, room=2, busy_s=160, took_s=160, bound_s=100)
    assert used_text(found) == (
        "trials held 50% of 2 GPUs for 2m40s, 60% above the lower bound 1m40s of these trials"
    )
    assert used(store, {a.trial_id}, needs) == Used(True, 1, 50, 100, 100)
    assert used(store, set(), needs) is None


def test_without_gpus_the_most_at_once_count_and_a_retrain_waits_for_one(store: Store) -> None:
    planned = ns.plan(grid_of(search__seeds=1, retrain__winners="each"))
    a, b, *_ = (entry for entry in planned.searches if isinstance(entry, Trial))
    slot = next(entry for entry in planned if isinstance(entry, Slot))
    retrain = slot.resolve(published("DARTS_V2"))
    hold(store, a, 0, 10, None)
    hold(store, b, 0, 30, None)
    hold(store, retrain, 10, 50, None)
    for search in (a, b):
        store.add_origin(retrain.trial_id, replace(slot.origin, search_id=search.trial_id))
    ids = {a.trial_id, b.trial_id, retrain.trial_id}
    needs = {"search": Resources(), "retrain": Resources()}
    assert used(store, ids, needs) == Used(gpus=False, room=2, busy_s=80, took_s=50, bound_s=50)
