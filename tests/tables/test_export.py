from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas_sweeps.tables import compact, edge_weights, load
from nas_sweeps.tables.export import SUFFIXES, export
from nas_sweeps.tables.schemas import SCHEMAS

TABLES = [name for name in SCHEMAS if name != "alphas"]


@pytest.fixture
def swept(lab: Any) -> Any:
    lab.sweep()
    return lab


def read(path: Path) -> pd.DataFrame:
    return (
        pd.read_csv(path, dtype={"ray_version": str})
        if path.suffix == ".csv"
        else pd.read_parquet(path)
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("table", TABLES)
def test_what_is_exported_is_the_table(swept: Any, tmp_path: Path, table: str, suffix: str) -> None:
    out = tmp_path / "new folder" / f"o'ut{suffix}"
    export(swept.store, out, table)
    found, wanted = read(out), getattr(load(swept.store), table)
    assert len(found) == len(wanted)
    assert set(wanted) <= set(found)
    for name in set(wanted) - {"parents", "started_at", "finished_at", "heartbeat"}:
        left, right = found[name], wanted[name]
        if suffix == ".csv":  # has one way to say nothing
            right = right.astype(object).replace("", None)
        assert left.isna().tolist() == right.isna().tolist(), name
        assert left.dropna().tolist() == right.dropna().tolist(), name


def test_an_epoch_says_what_its_trial_is(swept: Any, tmp_path: Path) -> None:
    frame = export(swept.store, tmp_path / "x.parquet", "epochs")
    trials = load(swept.store).trials.set_index("trial_id")
    for row in frame.to_dict("records"):
        trial = trials.loc[row["trial_id"]]
        assert [row[n] for n in ("phase", "method", "mu", "seed", "state")] == [
            trial[n] for n in ("phase", "method", "mu", "seed", "state")
        ]


def test_an_attempt_keeps_its_own_state(swept: Any, tmp_path: Path) -> None:
    found = export(swept.store, tmp_path / "x.csv", "attempts")
    assert set(found["state"]) == {"done", "failed", "running"}
    assert set(found["trial_state"]) == {"done", "failed", "running"}


def test_the_files_for_other_tools_are_those_of_the_last_compaction(
    lab: Any, tmp_path: Path
) -> None:
    """As README says: ``load`` and ``export`` see a run at work or killed, the files do not yet."""
    table = lab.root / "tables" / "epochs.parquet"
    lab.sweep()
    assert not table.exists(), "no run has ended"
    now = export(lab.store, tmp_path / "now.parquet", "epochs")
    assert len(now) == len(load(lab.store).epochs) > 0
    compact(lab.store)
    assert len(pd.read_parquet(table)) == len(now)
    more = lab.search(9)
    lab.begin(more)
    lab.epochs(more)
    assert len(pd.read_parquet(table)) == len(now), "the next run works, or was killed"
    assert len(load(lab.store).epochs) == len(now) + 2
    compact(lab.store)
    assert len(pd.read_parquet(table)) == len(now) + 2


def test_weights_are_exported_one_a_row(swept: Any, tmp_path: Path) -> None:
    export(swept.store, tmp_path / "x.csv", "alphas")
    found, wanted = read(tmp_path / "x.csv"), edge_weights(load(swept.store))
    assert found["weight"].tolist() == wanted["weight"].tolist()
    assert set(found["method"]) == {"darts", "ssf_nas"}


def test_csv_has_times_lists_and_json_that_others_read(swept: Any, tmp_path: Path) -> None:
    export(swept.store, tmp_path / "x.csv")
    found = read(tmp_path / "x.csv").query("phase == 'retrain'").iloc[0]
    assert found["started_at"] == "2025-01-02T03:04:05.000000Z"
    assert found["parents"].startswith("s-")
    assert json.loads(found["spec"])


@pytest.mark.parametrize(
    ("out", "table", "said"),
    [
        ("x.txt", "trials", r"'.*x\.txt': name a file that ends in \.parquet or \.csv"),
        ("x", "trials", "name a file that ends"),
        ("x.csv", "epoch", "no table 'epoch'; choose from trials"),
        ("taken.csv/x.csv", "trials", "cannot be written"),
        ("folder.csv", "trials", "cannot be written"),
        ("s3:/bucket/x.csv", "trials", "a URI cannot be written to"),
        ("STORE/tables/epochs.parquet", "epochs", "among the store's own files"),
    ],
)
def test_what_cannot_be_written_is_a_users_mistake(
    swept: Any, tmp_path: Path, out: str, table: str, said: str
) -> None:
    (tmp_path / "taken.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    to = out.replace("STORE", swept.store.root) if ":" in out or "STORE" in out else tmp_path / out
    with pytest.raises(ValueError, match=said):
        export(swept.store, to, table)


def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(
    swept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "x.csv"
    export(swept.store, out)
    before = out.read_bytes()

    def full_disk(self: pd.DataFrame, path: Path, **options: Any) -> None:
        path.write_text("half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(ValueError, match="No space left"):
        export(swept.store, out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]
