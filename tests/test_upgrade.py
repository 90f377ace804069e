"""An upgrade forgets nothing: stores of earlier versions load, and their trials go on."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.standing import standing
from nas_sweeps.store import Store
from tests.fixtures.make_store import GRID

FIXTURES = Path(__file__).parent / "fixtures"
DONE = {"s-8bea260dc9fdb047", "r-5b09793589a8f188"}
STOPPED = {"s-7b304ae3b2af8e43": 1, "r-c18be1e7e478d6d0": 2}  # and the epochs that they finished
OLD_GRID = ns.Grid.from_dict(GRID)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A store that another version wrote."""
    with tarfile.open(FIXTURES / "store_v4.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "store_v4"


def logs(store: Path, trial_id: str) -> list[str]:
    """Of a trial's attempts, the oldest first."""
    attempts = Store(store).layout.trial(trial_id).attempts
    return [attempt.log.read().decode() for attempt in attempts]


def computed(log: str) -> list[int]:
    """The epochs that an attempt finished."""
    return [int(epoch) for epoch in re.findall(r"INFO \w+ +(\d+)/\d+ +\| loss", log)]


def test_trials_of_an_older_store_have_the_ids_of_today(older: Path) -> None:
    store = Store(older)
    chain = standing(ns.plan(OLD_GRID), store)
    assert chain.trial_ids() >= set(store.states()) == DONE | set(STOPPED)
    assert {t for t, result in store.results().items() if result.state == "done"} == DONE


def test_trials_of_an_older_store_go_on_from_their_checkpoints(older: Path) -> None:
    before = ns.load(older).epochs
    summary = ns.run(OLD_GRID, older, executor="inline", console="none")
    assert summary.complete
    for trial_id, epochs in STOPPED.items():
        first, second = logs(older, trial_id)
        assert computed(first) == list(range(1, epochs + 1))
        assert computed(second) == list(range(epochs + 1, 4)), "no epoch is computed twice"
        assert f"going on after epoch {epochs}" in second
        (warning,) = re.findall("WARNING (.*)", second)
        assert "does not round as when it began" in warning, "that is not known of version 4"
    assert all(len(logs(older, trial_id)) == 1 for trial_id in DONE), "what is done is left alone"
    kept = ["trial_id", "epoch", "loss_weights", "accuracy_balanced", "genotype_id", "epoch_s"]
    after = ns.load(older).epochs
    merged = before[kept].merge(after[kept], how="left", indicator=True)
    assert len(before) == 9
    assert merged["_merge"].eq("both").all(), "rows of finished epochs are as they were"
