from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_sweeps.publish import publish
from nas_sweeps.store import Origin, Store
from nas_sweeps.tables import Frames, compact, load
from nas_sweeps.tables import gather as gather_module
from nas_sweeps.tables.compaction import write_classes, write_epochs
from nas_sweeps.tables.schemas import CLASSES, EPOCHS, SCHEMAS, TRIALS, build, conform
from nas_sweeps.trial import Barlow, Pretrain

NAMES = list(SCHEMAS)


def assert_equal(a: Frames, b: Frames) -> None:
    for name in NAMES:
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), obj=name)


def trial_row(frames: Frames, trial: Any) -> pd.Series[Any]:
    return frames.trials.set_index("trial_id").loc[trial.trial_id]


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose files are read from now on."""
    seen: list[str] = []
    read = gather_module.read_trial

    def spy(files: Any) -> Any:
        seen.append(files.trial_id)
        return read(files)

    monkeypatch.setattr(gather_module, "read_trial", spy)
    return seen


# Schemas


def test_rows_survive_a_round_trip_with_their_types(lab: Any) -> None:
    trial = lab.search()
    rows: list[dict[str, Any]] = [
        {"stage": "search", "epoch": 1, "num_skip_normal": 3, "genotype": "[]", "lr": 0.1},
        {"trial_id": trial.trial_id, "stage": "search", "epoch": 2, "epoch_s": 1.5},
    ]
    write_epochs(lab.begin(trial).files, rows)
    found = load(lab.store).epochs
    assert [str(t) for t in found[["stage", "epoch", "lr"]].dtypes] == [
        "category",
        "Int64",
        "float64",
    ]
    assert list(found["trial_id"]) == [trial.trial_id] * 2
    assert found["num_skip_normal"].tolist() == [3, pd.NA]
    assert found["lr"].isna().tolist() == [False, True]


def test_a_row_key_without_a_column_is_our_error(lab: Any) -> None:
    files = lab.begin(lab.search()).files
    with pytest.raises(AssertionError, match="acc_balanced"):
        write_epochs(files, [{"stage": "search", "epoch": 1, "acc_balanced": 0.5}])
    with pytest.raises(AssertionError, match="another trial"):
        write_classes(files, [{"trial_id": "s-other", "class_index": 0}])
    assert not Path(files.epochs).exists()


def test_an_empty_store_loads_as_typed_empty_frames(lab: Any) -> None:
    frames = load(lab.store)
    lab.sweep()
    full = load(lab.store)
    for name in NAMES:
        empty = getattr(frames, name)
        assert len(empty) == 0
        assert list(empty) == SCHEMAS[name].names
        pd.testing.assert_series_equal(
            empty.dtypes.astype(str), getattr(full, name).dtypes.astype(str)
        )


def test_a_column_that_only_later_files_have_survives(lab: Any) -> None:
    old, new = lab.search(0), lab.search(1)
    for trial in (old, new):
        lab.epochs(trial)
    path = lab.file(old, "epochs")
    table = pq.read_table(path).drop_columns(["accuracy_balanced"]).replace_schema_metadata(None)
    with publish(path) as scratch:
        pq.write_table(table, scratch)
    found = load(lab.store).epochs.set_index("trial_id")["accuracy_balanced"]
    assert found[new.trial_id].tolist() == [0.5, 0.25]
    assert found[old.trial_id].isna().all()


def test_a_column_of_a_later_version_is_reported(lab: Any) -> None:
    table = build([{"class_index": 1}], CLASSES).append_column("colour", pa.array(["red"]))
    with pytest.warns(UserWarning, match="colour"):
        assert conform(table, CLASSES, "x").schema == CLASSES


def test_rows_belong_to_the_trial_whose_folder_they_lie_in(lab: Any) -> None:
    strange, good = lab.finish(lab.search(0)), lab.finish(lab.search(1))
    path = lab.file(strange, "epochs")
    bare = pq.read_table(path).drop_columns(["trial_id"]).replace_schema_metadata(None)
    pq.write_table(bare, path)
    assert sorted(load(lab.store).epochs["trial_id"]) == sorted(
        [strange.trial_id, good.trial_id] * 2
    )


# Load


def test_every_trial_has_a_row_with_its_state(lab: Any) -> None:
    lab.sweep()
    trials = load(lab.store).trials
    assert sorted(trials["state"]) == ["done", "done", "done", "failed", "running", "waiting"]
    failed = trials[trials["state"] == "failed"].iloc[0]
    assert (failed["method"], failed["variant"]) == ("ssf_nas", "where=joint")
    assert (failed["error_class"], failed["attempt"]) == ("ValueError", 1)
    done = trials[(trials["state"] == "done") & (trials["phase"] == "search")].iloc[0]
    assert (done["wall_s"], done["host"], done["ray_version"]) == (2.0, "n1", "2")
    assert done["started_at"] == pd.Timestamp("2025-01-02T03:04:05Z")
    running = trials[trials["state"] == "running"].iloc[0]
    assert (running["epochs"], running["accuracy_best"]) == (2, 0.5)
    assert pd.isna(running["finished_at"])
    assert pd.isna(running["accuracy_balanced"])


def test_a_retrain_names_its_methods_and_parents(lab: Any) -> None:
    origins = [
        Origin(method="fairdarts", search_id="s-2", seed=1),
        Origin(method="darts", variant="order=second", search_id="s-1", seed=0),
        Origin(method="darts", variant="order=second", search_id="s-0", seed=2),
    ]
    shared = lab.retrain(7, *origins)
    baseline = lab.retrain(8, Origin(method="DARTS_V2"))
    frames = load(lab.store)
    row = trial_row(frames, shared)
    assert (row["method"], row["variant"]) == ("darts+fairdarts", "order=second")
    assert (row["parents"], row["seed"]) == (["s-0", "s-1", "s-2"], 7)
    row = trial_row(frames, baseline)
    assert (row["method"], row["parents"], row["variant"]) == ("DARTS_V2", [], "")


def test_settings_and_pretraining_have_columns(lab: Any) -> None:
    plain = lab.retrain(0, epochs=150)
    pretrained = lab.retrain(
        0, pretrain=Pretrain(epochs=3, then="linear", barlow=Barlow(lambda_=0.01))
    )
    frames = load(lab.store)
    assert trial_row(frames, plain)[["setting", "pretrain"]].tolist() == ["", "none"]
    assert trial_row(frames, pretrained)[["setting", "pretrain"]].tolist() == [
        "epochs=2,pretrain.epochs=3,pretrain.barlow.lambda=0.01",
        "barlow_linear",
    ]
    search = lab.search()
    assert pd.isna(trial_row(load(lab.store), search)["pretrain"])


def test_genotypes_list_each_edge_once(lab: Any) -> None:
    lab.sweep()
    frames = load(lab.store)
    ids = set(frames.trials["genotype_id"].dropna())
    assert set(frames.genotypes["genotype_id"]) == ids
    assert len(frames.genotypes) == 3 + 2  # the edges of the two genotypes
    assert not frames.genotypes.duplicated().any()


def test_a_folder_that_is_no_store_is_a_users_mistake(tmp_path: Any) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="no store"):
            load(path)
        with pytest.raises(ValueError, match="no store"):
            compact(path)


@pytest.mark.parametrize("name", ["spec", "record", "result", "epochs", "classes"])
@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1 torn", b'{"a": [\xff'])
def test_a_torn_file_is_reported_and_hides_no_other_trial(
    lab: Any, name: str, content: bytes
) -> None:
    bad, good = lab.finish(lab.search(0)), lab.finish(lab.search(1))
    path = lab.file(bad, name)
    whole = load(lab.store)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=path.name):
        frames = load(lab.store)
    assert set(frames.trials["trial_id"]) == {bad.trial_id, good.trial_id}
    pd.testing.assert_series_equal(trial_row(frames, good), trial_row(whole, good))
    assert (frames.epochs["trial_id"] == good.trial_id).sum() == 2


def test_load_while_a_trial_writes_sees_whole_files_only(lab: Any) -> None:
    trial = lab.search()
    lab.epochs(trial, (0.1,))
    with publish(lab.file(trial, "epochs")) as scratch, warnings.catch_warnings():
        warnings.simplefilter("error")
        scratch.write_bytes(b"PAR1 half of a")
        assert load(lab.store).epochs["accuracy_balanced"].tolist() == [0.1]
        pq.write_table(build([{"trial_id": trial.trial_id, "epoch": 1}], EPOCHS), scratch)
    assert load(lab.store).epochs["accuracy_balanced"].isna().tolist() == [True]


# Compaction


@pytest.mark.parametrize("aged", [True, False])
def test_compaction_changes_no_answer(lab: Any, aged: bool) -> None:
    lab.sweep()
    if aged:
        lab.age()
    before = load(lab.store)
    for _ in range(2):
        compact(lab.store)
        assert_equal(load(lab.store.root), before)


def test_a_compacted_trial_is_not_opened_again(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.sweep()
    lab.age()
    compact(lab.store)
    seen = opened(monkeypatch)
    running = load(lab.store).trials.query("state == 'running'")["trial_id"]
    assert seen == list(running)  # whether it still runs depends on the time of asking


def test_changes_after_a_compaction_are_seen(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.sweep()
    lab.age()
    compact(lab.store)
    retrain = lab.retrain(0)  # is there already
    lab.store.add_origin(retrain.trial_id, Origin(method="late"))
    again = lab.search(1, "ssf_nas", "where=joint")
    lab.finish(again, accuracy=0.75)
    new = lab.finish(lab.retrain(9, Origin(method="new")))
    after = load(lab.store)
    assert trial_row(after, retrain)["method"] == "darts+late"
    assert trial_row(after, again)["accuracy_balanced"] == 0.75
    assert trial_row(after, new)["method"] == "new"
    for path in (lab.root / "tables").iterdir():
        path.unlink()
    assert_equal(load(lab.store), after)
    lab.age()
    compact(lab.store)
    assert_equal(load(lab.store), after)


def test_a_change_within_the_clocks_tick_of_a_compaction_is_seen(lab: Any) -> None:
    trial = lab.finish(lab.retrain(0, Origin(method="a")))
    folder = lab.root / "trials" / trial.trial_id
    mtime_ns = folder.stat().st_mtime_ns
    compact(lab.store)
    lab.store.add_origin(trial.trial_id, Origin(method="b"))
    os.utime(folder, ns=(mtime_ns, mtime_ns))  # a coarse clock gives both changes one time
    assert trial_row(load(lab.store), trial)["method"] == "a+b"


def test_a_deleted_trial_leaves_the_tables(lab: Any) -> None:
    lab.sweep()
    lab.age()
    compact(lab.store)
    frames = load(lab.store)
    gone = frames.trials.query("genotype_id.notna() and phase == 'retrain'")["trial_id"].iloc[0]
    (lab.root / "trials" / gone).rename(lab.root / "elsewhere")
    after = load(lab.store)
    for name in ("trials", "epochs", "classes"):
        assert gone not in set(getattr(after, name)["trial_id"])
    assert len(after.trials) == len(frames.trials) - 1


@pytest.mark.parametrize("name", [*NAMES, "index"])
@pytest.mark.parametrize("content", [None, b"", b"PAR1 torn"])
def test_a_torn_or_missing_table_is_rebuilt_from_the_trials(
    lab: Any, name: str, content: bytes | None
) -> None:
    lab.sweep()
    lab.age()
    before = load(lab.store)
    compact(lab.store)
    path = Path(lab.store.layout.index if name == "index" else lab.store.layout.table(name))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_equal(load(lab.store), before)
    reported = [w for w in caught if path.name in str(w.message)]
    assert reported or (name == "index" and content is None)


def test_tables_of_two_compactions_are_never_mixed(lab: Any) -> None:
    lab.sweep()
    lab.age()
    compact(lab.store)
    old = lab.store.layout.table("epochs").read()
    lab.finish(lab.search(3))
    compact(lab.store)
    right = load(lab.store)
    lab.store.layout.table("epochs").publish(old)  # as seen halfway through a compaction
    assert_equal(load(lab.store), right)


def test_a_failed_compaction_leaves_the_old_tables(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.sweep()
    compact(lab.store)
    before = {path: path.read_bytes() for path in (lab.root / "tables").iterdir()}
    write, calls = pq.write_table, []

    def full_disk(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise OSError("no space left on device")
        write(*args, **kwargs)

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        compact(lab.store)
    assert {path: path.read_bytes() for path in (lab.root / "tables").iterdir()} == before


def test_the_tables_are_plain_parquet_for_other_tools(lab: Any) -> None:
    lab.sweep()
    compact(lab.store)
    table = pq.read_table(lab.store.layout.table("trials"))
    assert table.schema.equals(TRIALS)
    assert len(table) == 6
    assert {p.name for p in (lab.root / "tables").iterdir()} == {
        "trials.parquet",
        "epochs.parquet",
        "classes.parquet",
        "genotypes.parquet",
        "attempts.parquet",
        "alphas.parquet",
        "index.json",
    }


def test_load_takes_a_path_as_well_as_a_store(lab: Any) -> None:
    lab.sweep()
    assert_equal(load(str(lab.store.root)), load(Store(lab.store.root)))


def test_a_damaged_spec_is_in_no_table(lab: Any) -> None:
    """What a trial was asked with decides what it is compared with and how it is priced."""
    trial = lab.finish(lab.search())
    spec = lab.store.layout.trial(trial.trial_id).spec
    path = lab.root / spec.key
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.warns(UserWarning, match="its content is not what was written"):
        trials = load(lab.store).trials
    assert trials.spec.isna().all()
    assert trials.seed.isna().all()
