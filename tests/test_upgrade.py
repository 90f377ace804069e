"""An upgrade forgets nothing: stores of earlier versions load, and their trials go on."""

from __future__ import annotations

import os
import re
import tarfile
import warnings
from pathlib import Path

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.schedule import replay
from nas_sweeps.store import Store
from nas_sweeps.store.layout import TrialFiles
from nas_sweeps.store.records import SCHEMA_VERSION
from nas_sweeps.tables import gather
from nas_sweeps.tables.schemas import SCHEMAS
from nas_sweeps.trial import trial_from_json
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


@pytest.fixture
def compacted(older: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, unpacked with the times that its index of tables knows; files are not read."""
    index = Store(older).layout.index.read_json()
    assert index is not None
    assert index["schema"] == 4
    for trial_id, mtime_ns in index["trials"].items():
        if mtime_ns:
            os.utime(older / "trials" / trial_id, ns=(mtime_ns, mtime_ns))
    original = gather.read_trial

    def read(files: TrialFiles) -> object:
        assert files.trial_id in STOPPED, "what is done is in the tables"
        return original(files)

    monkeypatch.setattr(gather, "read_trial", read)
    return older


def test_tables_of_an_older_version_load_with_nulls_for_what_they_lacked(
    compacted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = ns.load(compacted)
        some = ns.load(compacted, columns=["threads", "form"]).trials.set_index("trial_id")
    found = {name: getattr(frames, name) for name in SCHEMAS}
    trials = frames.trials.set_index("trial_id")
    done = trials.loc[sorted(DONE)]
    assert done.accuracy_balanced.notna().all()
    assert done[["threads", "device_model", "numerics_changed"]].isna().all(axis=None)
    assert trials.form["s-8bea260dc9fdb047"] == "arranged", "it said depthwise: plain"
    pd.testing.assert_frame_equal(some, trials[["threads", "form"]])
    monkeypatch.undo()
    (compacted / "tables" / "index.json").unlink()
    again = ns.load(compacted)
    for name in SCHEMAS:  # the trials' own files say the same
        pd.testing.assert_frame_equal(
            _as_written_today(found[name]), _as_written_today(getattr(again, name)), obj=name
        )


def _as_written_today(frame: pd.DataFrame) -> pd.DataFrame:
    """Specs of an earlier version lack the fields that were added since: they are one trial."""
    if "spec" not in frame:
        return frame
    return frame.assign(spec=[trial_from_json(text).to_json() for text in frame["spec"]])


def test_a_compaction_keeps_what_older_tables_held(compacted: Path) -> None:
    before = ns.load(compacted)
    wanted = {name: getattr(before, name) for name in SCHEMAS}
    ns.compact(compacted)
    index = Store(compacted).layout.index.read_json()
    assert index is not None
    assert index["schema"] == SCHEMA_VERSION
    after = ns.load(compacted)
    for name in SCHEMAS:
        pd.testing.assert_frame_equal(wanted[name], getattr(after, name), obj=name)


def logs(store: Path, trial_id: str) -> list[str]:
    """Of a trial's attempts, the oldest first."""
    attempts = Store(store).layout.trial(trial_id).attempts
    return [attempt.log.read().decode() for attempt in attempts]


def computed(log: str) -> list[int]:
    """The epochs that an attempt finished."""
    return [int(epoch) for epoch in re.findall(r"INFO \w+ +(\d+)/\d+ +\| loss", log)]


def test_trials_of_an_older_store_have_the_ids_of_today(older: Path) -> None:
    store = Store(older)
    chain = replay(ns.plan(OLD_GRID), store)
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
