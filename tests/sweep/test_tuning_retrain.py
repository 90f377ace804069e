"""Studies of retrains in a store: what is tried and what comes of it, through kills."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.sweep import job
from nas_sweeps.sweep.inline import InlinePool
from nas_sweeps.sweep.run import Summary, run
from tests.faked import faked
from tests.sweep.tiny import TINY
from tests.verbs import cli

LR = {"low": 0.01, "high": 0.3, "log": True}
KEPT = ["trial_id", "method", "variant", "recipe", "seed", "study", "role", "proposal", "state"]
RESULTS = ["accuracy_macro_validation", "accuracy_balanced"]


def grid(per: str = "genotype", trials: int = 5) -> ns.Grid:
    tune = {"trials": trials, "startup": 2, "parallel": 2, "seed": 4, "per": per}
    retrain: dict[str, Any] = {"recipe": TINY["retrain"]["recipe"] | {"lr": LR}, "tune": tune}
    return ns.Grid.from_dict(TINY | {"retrain": retrain | {"seeds": 2}})


def run_inline(store: Path, **changes: Any) -> Summary:
    return run(grid(**changes), store, executor="inline", console="none")


def told(store: Path) -> pd.DataFrame:
    trials = ns.load(store).trials.query("phase == 'retrain'")
    return trials[KEPT + RESULTS].sort_values("trial_id", ignore_index=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("tuned") / "store"
    with faked():
        assert run_inline(store).complete
    return store


def test_rows_say_what_was_tried_and_what_it_led_to(finished: Path) -> None:
    trials = told(finished)
    tries, finals = (trials[trials.role == role] for role in ("tuning", "winner"))
    assert len(tries) == 2 * 5
    assert len(finals) == 2 * 2
    assert tries.accuracy_macro_validation.notna().all()
    assert finals.accuracy_macro_validation.isna().all(), "trained on V as well"
    assert tries.groupby("study").proposal.apply(sorted).tolist() == [[0, 1, 2, 3, 4]] * 2
    best = tries.loc[tries.groupby("study").accuracy_macro_validation.idxmax()]
    won = finals.groupby("study").proposal.agg(["min", "max"])
    assert (
        won["min"].to_dict() == won["max"].to_dict() == best.set_index("study").proposal.to_dict()
    )
    assert (set(tries.recipe), set(finals.recipe)) == ({"tuning"}, {"tuned=5"})


def test_proposals_are_no_results_and_tuned_values_are_one_setting(finished: Path) -> None:
    frames = ns.load(finished)
    found = ns.summarise(frames, "accuracy_balanced")
    assert found.index.names == ["method", "recipe"]
    assert set(found.index.get_level_values("recipe")) == {"tuned=5"}, "however values differ"
    assert found.xs("n", axis=1, level="statistic").to_numpy().ravel().tolist() == [2, 2]
    with pytest.raises(KeyError):
        found.loc["tuning"]
    shown = cli("table", finished)
    assert (shown.returncode, "(2)" in shown.stdout) == (0, True)
    assert "recipe tuned=5: each retrained with the best of 5 proposals of a study" in shown.stdout


def test_values_that_differ_between_genotypes_of_a_cell_are_averaged(
    tmp_path: Path, fake_runs: None
) -> None:
    search = TINY["search"] | {"methods": ["darts"], "seeds": 2}
    made = ns.Grid.from_dict(json.loads(grid().to_json()) | {"search": search})
    assert run(made, tmp_path, executor="inline", console="none").complete
    finals = told(tmp_path).query("role == 'winner'")
    assert finals.study.nunique() == 2
    settings = ns.load(tmp_path).trials.query("role == 'winner'").setting
    assert settings.nunique() == 2, "else nothing is averaged here"
    found = ns.summarise(ns.load(tmp_path), "accuracy_balanced")
    assert found.xs("n", axis=1, level="statistic").to_numpy().ravel().tolist() == [4]


def test_kills_lose_and_repeat_nothing(finished: Path, tmp_path: Path, fake_runs: None) -> None:
    for owner, name, calls in (
        (InlinePool, "start", 4),
        (job.Job, "ended", 3),
        (job.Job, "ended", 2),
    ):
        child = os.fork()
        if child == 0:
            try:
                _die_after(owner, name, calls)
                run_inline(tmp_path)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert run_inline(tmp_path).complete
    pd.testing.assert_frame_equal(told(tmp_path), told(finished))
    attempts = ns.load(tmp_path).attempts
    assert attempts.groupby("trial_id", observed=True).epochs_done.sum().eq(1).all()


def _die_after(owner: type, name: str, calls: int) -> None:
    body, left = getattr(owner, name), [calls]

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return body(*arguments, **named)

    setattr(owner, name, counted)


def test_a_study_of_cells_is_shared_by_their_genotypes(tmp_path: Path, fake_runs: None) -> None:
    assert run_inline(tmp_path, per="cell", trials=3).complete
    assert run_inline(tmp_path, per="cell", trials=5).started > 0
    trials = told(tmp_path)
    assert trials[trials.role == "tuning"].groupby("method").size().tolist() == [5, 5]


def test_verbs_count_and_name_what_is_tuned(
    finished: Path, tmp_path: Path, fake_runs: None
) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text(grid().to_json())
    planned = cli("plan", file, "--store", tmp_path / "none")
    assert planned.returncode == 0, planned.stderr
    said = cli("status", finished)
    assert said.returncode == 0
    study = told(finished).query("method == 'darts'").study.iloc[0]
    line = f"study {study} of retraining darts exp mu=0.4: 5 of 5 proposals tried; best"
    assert line in said.stdout
    assert "(recipe.lr=" in said.stdout
    assert cli("report", finished, "-o", tmp_path / "page").returncode == 0
