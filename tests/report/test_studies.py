"""Studies are made again from a store as Optuna has them, and written as a database of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.tables import Frames
from tests.report.lab import Lab
from tests.report.tuned import EPOCHS
from tests.verbs import cli

FAIR, DARTS = "fairdarts exp mu=0.4", "darts exp mu=0.4"


@pytest.fixture(scope="module")
def studies(tuned: Path) -> dict[str, optuna.Study]:
    return ns.studies(tuned)


def proposed(frames: Frames, study: str) -> dict[int, list[Any]]:
    """Rows of the trials table by the number of the proposal, read here without the package."""
    found: dict[int, list[Any]] = {}
    for row in frames.trials.to_dict("records"):
        for origin in json.loads(row["origins"]) if isinstance(row["origins"], str) else ():
            if origin.get("study") == study and origin.get("proposal") is not None:
                found.setdefault(origin["proposal"], []).append(row)
    return found


def test_every_cell_that_is_tuned_has_a_study(studies: dict[str, optuna.Study]) -> None:
    assert list(studies) == [FAIR, DARTS]
    for study in studies.values():
        assert [trial.number for trial in study.trials] == list(range(5))
        assert study.metric_names == ["accuracy_macro_validation"]
        assert study.directions == [optuna.study.StudyDirection.MAXIMIZE]


def test_trials_are_the_proposals_of_the_tables(
    studies: dict[str, optuna.Study], tuned_frames: Frames
) -> None:
    study = studies[FAIR]
    rows = proposed(tuned_frames, study.user_attrs["study"])
    assert sorted(rows) == list(range(5))
    epochs = tuned_frames.epochs.astype({"trial_id": str})
    for trial in study.trials:
        (row,) = rows[trial.number]
        assert trial.state == TrialState.COMPLETE
        assert trial.value == row["accuracy_macro_validation"]
        assert trial.params == {
            name: value
            for name, value in json.loads(row["spec"])["method"]["knobs"]
            if name in ("zero_one", "zero_one_weight")
        }
        assert trial.user_attrs["trial ids"] == [row["trial_id"]]
        own = epochs[epochs["trial_id"] == row["trial_id"]].dropna(
            subset="accuracy_macro_validation"
        )
        assert trial.intermediate_values == dict(
            zip(own["epoch"], own["accuracy_macro_validation"], strict=True)
        )
        assert max(trial.intermediate_values) == EPOCHS
        assert trial.duration is not None
    assert study.trials[0].params == study.user_attrs["defaults"]
    assert study.best_value == max(r["accuracy_macro_validation"] for (r,) in rows.values())


def test_what_failed_failed_and_a_default_outside_its_range_is_kept(
    studies: dict[str, optuna.Study], tuned_frames: Frames
) -> None:
    study = studies[DARTS]
    rows = proposed(tuned_frames, study.user_attrs["study"])
    states = {trial.state for trial in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.FAIL}
    for trial in study.trials:
        of = sorted(rows[trial.number], key=lambda row: row["seed"])
        assert trial.user_attrs["seeds"] == [0, 1]
        assert trial.user_attrs["trial ids"] == [row["trial_id"] for row in of]
        if any(row["state"] == "failed" for row in of):
            assert trial.state == TrialState.FAIL
            assert "lower the recipe's lr" in trial.user_attrs["error"]
        else:
            assert trial.value == pytest.approx(sum(r["accuracy_macro_validation"] for r in of) / 2)
    first = study.trials[0]
    assert (first.state, first.params) == (TrialState.COMPLETE, {})
    assert first.user_attrs["outside the ranges"] == {"recipe.lr": 0.025}
    assert all(set(trial.params) == {"recipe.lr"} for trial in study.trials[1:])


def test_a_store_without_studies_has_none(lab: Lab) -> None:
    lab.search()
    assert ns.studies(lab.store) == {}


# The database


@contextmanager
def dashboard(database: Path) -> Iterator[str]:
    """optuna-dashboard, started on a port that is free; its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [program, "--host", "127.0.0.1", "--port", str(port), f"sqlite:///{database}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    address, patience = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
                assert time.monotonic() < patience, "it never answered"
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.communicate()


def asked(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def database(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "it's 100% <done> #1.db"
    done = cli("export-study", tuned, FAIR, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: study '{FAIR}', 5 of 5 proposals; look at it with")
    return out


def test_optuna_reads_what_was_exported(database: Path, studies: dict[str, optuna.Study]) -> None:
    read = optuna.load_study(study_name=FAIR, storage=f"sqlite:///{database}")
    before = studies[FAIR]
    assert read.user_attrs == before.user_attrs
    assert read.metric_names == before.metric_names
    for told, kept in zip(read.trials, before.trials, strict=True):
        for what in (
            *("state", "values", "params", "distributions", "user_attrs", "intermediate_values"),
            *("datetime_start", "datetime_complete"),
        ):
            assert getattr(told, what) == getattr(kept, what), what
    assert [path.name for path in database.parent.iterdir()] == [database.name], "nothing beside it"


def test_optuna_dashboard_shows_the_study_and_its_trials(
    database: Path, studies: dict[str, optuna.Study]
) -> None:
    with dashboard(database) as address:
        (summary,) = asked(f"{address}/api/studies")["study_summaries"]
        assert summary["study_name"] == FAIR
        shown = asked(f"{address}/api/studies/{summary['study_id']}?after=0")
    assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 5
    for trial, wanted in zip(shown["trials"], studies[FAIR].trials, strict=True):
        assert trial["values"] == [wanted.value]
        params = {one["name"]: one["param_external_value"] for one in trial["params"]}
        assert params == {name: str(value) for name, value in wanted.params.items()}
        ids = {one["key"]: one["value"] for one in trial["user_attrs"]}["trial ids"]
        assert json.loads(ids) == wanted.user_attrs["trial ids"]
        assert len(trial["intermediate_values"]) == EPOCHS


@pytest.mark.parametrize("name", ["fairdarts", "fairdarts exp", "study"])
def test_a_cell_may_be_said_shortly(
    name: str, tuned: Path, studies: dict[str, optuna.Study], tmp_path: Path
) -> None:
    said = studies[FAIR].user_attrs["study"][:5] if name == "study" else name
    done = cli("export-study", tuned, said, tmp_path / "study.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"study '{FAIR}'" in done.stdout


def test_mistakes_are_one_message_and_write_nothing(tuned: Path, lab: Lab, tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        done = cli("export-study", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        return line

    out = tmp_path / "study.db"
    known = said(tuned, "fairdart exp mu=0.4", out)
    assert f"no study is called 'fairdart exp mu=0.4' in store '{tuned}'" in known
    assert f"choose from {FAIR} (" in known
    assert f"; {DARTS} (" in known
    assert known.endswith(f"(did you mean {FAIR}?)")
    assert "no study is called ''" in said(tuned, "", out)
    lab.search()
    assert "no study has proposed anything in it" in said(lab.store.root, "darts", out)
    assert "is no store" in said(tmp_path / "nothing", "darts", out)
    assert "ends in .db, .sqlite, .sqlite3" in said(tuned, "darts", tmp_path / "study.csv")
    inside = Path(Store(tuned).root) / "tables" / "study.db"
    assert "among the store's own files" in said(tuned, "darts", inside)
    assert not out.exists()
    out.write_text("mine")
    assert "is there already; name another file, or say --overwrite" in said(tuned, "darts", out)
    assert out.read_text() == "mine"
    assert cli("export-study", tuned, "darts", out, "--overwrite").returncode == 0
    assert optuna.load_study(study_name=DARTS, storage=f"sqlite:///{out}").trials
    assert sorted(os.listdir(tmp_path)) == ["a store 'with' \"quotes\" <b>", "study.db"]
