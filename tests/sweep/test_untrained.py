"""A search that trains nothing goes the way of all searches: planned, run, read, estimated."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.forecast import forecast
from nas_sweeps.cost.measured import measure
from nas_sweeps.grid import Grid
from nas_sweeps.schedule import replay
from nas_sweeps.store import Store
from nas_sweeps.store.layout import Layout
from nas_sweeps.tables.rows import read_trial
from tests.sweep.tiny import TINY


def grid(**changes: object) -> Grid:
    search = TINY["search"] | {"methods": ["random"], "seeds": [0, 1]} | changes
    return Grid.from_dict(TINY | {"search": search})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("random") / "store"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ns.run(grid(), store, executor="inline", console="none").complete
    return store


def test_each_seed_is_a_sample_that_is_retrained(finished: Path) -> None:
    trials = ns.load(finished).trials
    searches = trials[trials.phase == "search"]
    retrains = trials[trials.phase == "retrain"]
    assert searches.state.tolist() == retrains.state.tolist() == ["done"] * 2
    assert searches.epochs.tolist() == [0, 0]
    assert searches.accuracy_balanced.isna().all()
    assert set(searches.genotype_id) == set(retrains.genotype_id)
    assert searches.genotype_id.nunique() == 2
    assert retrains.method.tolist() == ["random"] * 2


def test_a_second_run_starts_nothing_and_finds_nothing_damaged(finished: Path) -> None:
    assert ns.run(grid(), finished, executor="inline", console="none").started == 0
    layout = Store(finished).layout
    assert isinstance(layout, Layout)
    for trial_id in ns.load(finished).trials.trial_id:
        assert not read_trial(layout.trial(trial_id)).corrupt


def test_more_seeds_are_estimated(finished: Path) -> None:
    store, more = Store(finished), grid(seeds=[0, 1, 2])
    planned = ns.plan(more)
    scheduler = replay(planned, store)
    needs = {phase: more.resources(phase) for phase in ("search", "retrain")}
    found = forecast(scheduler, measure([store], needs).rates, {})
    assert found.complete
    assert found.trials == 2
