from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pytest

from nas_sweeps.store import Origin, Store
from nas_sweeps.tables import attributed, compact, load
from nas_sweeps.tables import gather as gather_module
from nas_sweeps.tables.schemas import SCHEMAS
from tests.store.conftest import OTHER, Lab
from tests.tables.large import write_large

OWNED = [name for name in SCHEMAS if name != "genotypes"]


@pytest.fixture(params=["compacted", "from files", "half"])
def swept(lab: Any, request: pytest.FixtureRequest) -> Any:
    """A sweep's store; "half": some trials are newer than the compacted tables."""
    if request.param == "half":
        lab.finish(lab.search(7))
        lab.age()
        compact(lab.store)
    lab.sweep()
    if request.param == "compacted":
        lab.age()
        compact(lab.store)
    return lab


def second(tmp_path: Path) -> Lab:
    store = Store(tmp_path / "second")
    store.create()
    return Lab(store)


# Columns


def test_columns_are_read_of_every_table_that_has_them(swept: Any) -> None:
    whole = load(swept.store)
    some = load(swept.store, columns=["accuracy_balanced", "recall"])
    assert list(some.trials) == list(some.epochs) == ["trial_id", "accuracy_balanced"]
    assert list(some.classes) == ["trial_id", "recall"]
    assert list(some.genotypes) == ["genotype_id"]
    for name in ("trials", "epochs", "classes"):
        wanted = getattr(whole, name)[list(getattr(some, name))]
        pd.testing.assert_frame_equal(getattr(some, name), wanted)


def test_columns_by_table_leave_other_tables_whole(swept: Any) -> None:
    some = load(swept.store, columns={"epochs": ["epoch"], "alphas": ["epoch"]})
    assert list(some.epochs) == list(some.alphas) == ["trial_id", "epoch"]
    assert list(some.trials) == SCHEMAS["trials"].names


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["acuracy"], "no column 'acuracy'; choose from trial_id, phase"),
        ({"epochs": ["mu"]}, "table epochs has no column 'mu'; choose from trial_id, stage"),
        ({"epoch": ["mu"]}, "no table 'epoch'; choose from trials"),
        ("mu", r"write it as a list: \['mu'\]"),
        (["store"], "no column 'store'"),
    ],
)
def test_a_column_that_is_none_is_a_users_mistake(lab: Any, columns: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(lab.store, columns=columns)


# Filters


def test_filters_choose_the_rows_of_every_table(swept: Any) -> None:
    whole = load(swept.store)
    some = load(swept.store, filters=[("phase", "=", "search"), ("state", "in", ["done"])])
    trials = whole.trials.query("phase == 'search' and state == 'done'")
    assert list(some.trials["trial_id"]) == list(trials["trial_id"])
    for name in OWNED:
        frame = getattr(whole, name)
        wanted = frame[frame["trial_id"].isin(trials["trial_id"])].reset_index(drop=True)
        found = getattr(some, name)
        pd.testing.assert_frame_equal(found, wanted, check_categorical=False, obj=name)
        assert len(found), name
    assert set(some.genotypes["genotype_id"]) == {OTHER.genotype_id}


def test_filters_do_not_need_their_columns_to_be_read(swept: Any) -> None:
    some = load(swept.store, columns=(c for c in ["epoch"]), filters=[("phase", "=", "search")])
    assert list(some.trials) == ["trial_id"]
    assert all(trial_id.startswith("s-") for trial_id in some.trials["trial_id"])


def test_filters_are_alternatives_of_conditions_or_an_expression(swept: Any) -> None:
    either = load(swept.store, filters=[[("seed", "=", 2)], [("state", "=", "failed")]])
    assert set(either.trials["state"]) == {"running", "failed"}
    nested = load(swept.store, filters=[["seed", "=", 2], ["state", "=", "running"]])
    assert set(nested.trials["state"]) == {"running"}
    none = load(swept.store, filters=pc.field("accuracy_balanced").is_null())
    assert set(none.trials["state"]) == {"waiting", "running"}


@pytest.mark.parametrize(
    "filters",
    [
        *([("mu", "~", 1)], [("mu",)], [("mu", "=", "much")], ("mu", "=", 0.1), 3, {"mu": 0.1}),
        *([("method", "in", "darts")], [("mu", "=", None)], [("mu", 1, 2)], [[3]]),
    ],
)
def test_a_filter_that_is_none_is_a_users_mistake(lab: Any, filters: Any) -> None:
    lab.sweep()
    with pytest.raises(ValueError, match=r"filters.*columns of trials: trial_id"):
        load(lab.store, filters=filters)


def test_a_column_that_is_not_there_is_told_with_the_one_that_was_meant(lab: Any) -> None:
    lab.sweep()
    with pytest.raises(ValueError, match="did you mean seed"):
        load(lab.store, filters=[("sed", "=", 1)])
    with pytest.raises(ValueError, match="did you mean epoch"):
        load(lab.store, columns=["epok"])


def test_answers_name_the_columns_that_were_not_loaded(lab: Any) -> None:
    lab.sweep()
    few = load(lab.store, columns=["method", "seed"])
    with pytest.raises(ValueError, match=r"columns of trials that were not loaded: phase, state"):
        few.table()
    with pytest.raises(ValueError, match="not loaded: phase"):
        few.learning_curves(phase="search")


# Several stores


def test_several_stores_are_one_table_that_says_where_from(lab: Any, tmp_path: Path) -> None:
    other = second(tmp_path)
    ours, theirs = lab.finish(lab.search(0)), other.finish(other.search(1))
    frames = load([lab.store, str(other.root)])
    where = frames.trials.set_index("trial_id")["store"]
    assert where[ours.trial_id] == str(lab.store)
    assert where[theirs.trial_id] == str(other.root)
    assert frames.trials["trial_id"].is_monotonic_increasing
    for name in OWNED:
        assert set(getattr(frames, name)["trial_id"]) == {ours.trial_id, theirs.trial_id}
    assert not frames.genotypes.duplicated().any()


def test_a_trial_that_two_stores_hold_is_taken_where_it_is_done(lab: Any, tmp_path: Path) -> None:
    other = second(tmp_path)
    lab.begin(lab.search(0))
    trial = other.finish(other.search(0), accuracy=0.75)
    for stores in ([lab.root, other.root], [other.root, lab.root], [other.root, other.root]):
        frames = load(stores)
        assert frames.trials[["trial_id", "state"]].to_numpy().tolist() == [
            [trial.trial_id, "done"]
        ]
        assert len(frames.epochs) == len(frames.alphas) == 2
        assert len(frames.attempts) == 1


def test_of_two_results_the_later_one_counts(lab: Any, tmp_path: Path) -> None:
    other = second(tmp_path)
    lab.finish(lab.search(0), finished_at="2025-02-01T00:00:00+00:00")
    other.finish(other.search(0), finished_at="2025-01-31T00:00:00+00:00")
    assert load([other.root, lab.root]).trials["store"].tolist() == [str(lab.root)]


def test_a_shared_retrain_keeps_the_origins_of_all_stores(lab: Any, tmp_path: Path) -> None:
    other = second(tmp_path)
    lab.finish(lab.retrain(0, Origin(method="darts", search_id="s-1", seed=0)))
    other.finish(other.retrain(0, Origin(method="fairdarts", search_id="s-2", seed=1)))
    frames = load([lab.root, other.root])
    assert frames.trials["method"].tolist() == ["darts+fairdarts"]
    assert frames.trials["parents"].tolist() == [["s-1", "s-2"]]
    assert sorted(attributed(frames)["method"]) == ["darts", "fairdarts"]


def test_filters_may_ask_for_the_store(lab: Any, tmp_path: Path) -> None:
    other = second(tmp_path)
    lab.sweep()
    theirs = other.finish(other.search(9))
    frames = load([lab.root, other.root], filters=[("store", "=", str(other.root))])
    assert list(frames.trials["trial_id"]) == [theirs.trial_id]
    assert set(frames.epochs["trial_id"]) == {theirs.trial_id}


def test_no_stores_are_a_users_mistake() -> None:
    with pytest.raises(ValueError, match="no store was named"):
        load([])


# Later


def test_frames_stay_as_loaded_while_a_sweep_goes_on(swept: Any) -> None:
    frames = load(swept.store)
    before = load(swept.store)
    wanted = {name: getattr(before, name) for name in SCHEMAS}
    new = swept.finish(swept.search(5))
    swept.age()
    compact(swept.store)
    for name in SCHEMAS:
        pd.testing.assert_frame_equal(getattr(frames, name), wanted[name], obj=name)
        if name != "genotypes":
            assert new.trial_id not in set(getattr(frames, name)["trial_id"])


def test_alphas_come_from_the_trials_when_their_table_is_torn(lab: Any) -> None:
    lab.sweep()
    lab.age()
    compact(lab.store)
    whole = load(lab.store).alphas
    lab.store.layout.table("alphas").publish(b"PAR1 torn")
    frames = load(lab.store)
    with pytest.warns(UserWarning, match=r"alphas\.parquet"):
        pd.testing.assert_frame_equal(frames.alphas, whole)
    assert len(whole)


def test_a_large_store_is_loaded_without_opening_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_large(tmp_path / "large", trials=30, epochs=4, weighed=3)
    monkeypatch.setattr(gather_module, "read_trial", None)
    frames = load(tmp_path / "large")
    assert [len(getattr(frames, name)) for name in ("trials", "epochs", "alphas")] == [30, 120, 12]
    assert frames.epochs["trial_id"].astype(str).is_monotonic_increasing
