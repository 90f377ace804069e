"""Studies in a store: under both executors, through kills, with a budget that grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.sweep import job
from nas_sweeps.sweep.inline import InlinePool
from nas_sweeps.sweep.run import Summary, run
from tests.faked import faked
from tests.sweep.tiny import TINY
from tests.verbs import cli

WEIGHT = {"fairdarts": {"zero_one_weight": {"low": 1, "high": 30, "log": True}}}
KEPT = ["trial_id", "phase", "method", "variant", "seed", "study", "role", "proposal"]
RESULTS = ["accuracy_macro_validation", "accuracy_balanced", "genotype_id", "state"]


def grid(trials: int = 6, seeds: int = 2, methods: Any = (WEIGHT,), **tune: Any) -> ns.Grid:
    search = TINY["search"] | {"methods": [*methods], "seeds": seeds}
    tune = {"trials": trials, "startup": 2, "parallel": 2, "seed": 10} | tune
    return ns.Grid.from_dict(TINY | {"search": search, "tune": tune})


def run_inline(store: Path, a_grid: ns.Grid | None = None, **options: Any) -> Summary:
    return run(a_grid or grid(), store, executor="inline", console="none", **options)


def told(store: Path) -> pd.DataFrame:
    trials = ns.load(store).trials
    return trials[KEPT + RESULTS].sort_values("trial_id", ignore_index=True)


def tried(store: Path) -> dict[int, str]:
    trials = told(store)
    found = trials[trials.proposal.notna()]
    return dict(zip(found.proposal.astype(int), found.trial_id, strict=True))


def best_number(store: Path) -> int:
    trials = told(store)
    found = trials[trials.proposal.notna()].set_index("proposal").accuracy_macro_validation
    return int(found.idxmax())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("tuned") / "store"
    with faked():
        assert run_inline(store).complete
    return store


def test_a_study_is_searched_and_its_winner_retrained(finished: Path) -> None:
    trials = told(finished)
    searches = trials[trials.phase == "search"]
    assert sorted(tried(finished)) == list(range(6))
    assert searches.study.nunique() == 1
    best = searches[searches.proposal.notna()].accuracy_macro_validation.idxmax()
    winners = searches[searches.role == "winner"]
    assert searches.trial_id[best] in set(winners.trial_id)
    assert set(winners.seed) == {0, 1}
    assert set(winners.variant) == {"tuned=6"}
    assert best_number(finished) != 0, "else this test would see no difference"
    retrained = ns.load(finished).trials.query("phase == 'retrain'")
    assert {p for of in retrained.parents for p in of} == set(winners.trial_id)
    assert set(retrained.variant) == {"tuned=6"}
    assert set(retrained.study) == set(searches.study)


def test_proposals_are_no_results(finished: Path) -> None:
    found = ns.summarise(ns.load(finished), "accuracy_balanced", phase="search")
    assert found.xs("n", axis=1, level="statistic").to_numpy().sum() == 2
    assert found.index.get_level_values("method").tolist() == ["fairdarts"]


def test_a_second_run_has_nothing_to_do(
    finished: Path, fake_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InlinePool, "start", lambda *_: pytest.fail("it ran"))
    before = {p: p.stat().st_mtime_ns for p in (finished / "trials").rglob("*") if p.is_file()}
    assert run_inline(finished).complete
    assert before == {p: p.stat().st_mtime_ns for p in before}


def dying_after(owner: type, name: str, calls: int, *, before: bool) -> Callable[[], None]:
    """Have this process end, as by SIGKILL, in the n-th call of a method."""

    def arm() -> None:
        body, left = getattr(owner, name), [calls]

        def counted(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and before:
                os._exit(9)
            found = body(*arguments, **named)
            if left[0] < 0:
                os._exit(9)
            return found

        setattr(owner, name, counted)

    return arm


def killed(store: Path, arm: Callable[[], None]) -> None:
    """A run in a process of its own that is killed."""
    child = os.fork()
    if child == 0:
        try:
            arm()
            run_inline(store)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize(
    "places",
    [
        [(Store, "add_origin", 2, True), (Store, "add_origin", 1, True)],
        [(Store, "register", 3, True), (InlinePool, "start", 2, True)],
        [(job.Job, "ended", 2, True), (job.Job, "ended", 2, False), (InlinePool, "start", 1, True)],
    ],
    ids=["between register and origin", "before it starts", "before it is told"],
)
def test_kills_lose_and_repeat_nothing(
    finished: Path, tmp_path: Path, fake_runs: None, places: list[tuple[type, str, int, bool]]
) -> None:
    for owner, name, calls, before in places:
        killed(tmp_path, dying_after(owner, name, calls, before=before))
    assert run_inline(tmp_path).complete
    pd.testing.assert_frame_equal(told(tmp_path), told(finished))
    attempts = ns.load(tmp_path).attempts
    assert attempts.groupby("trial_id", observed=True).epochs_done.sum().eq(1).all()


def test_a_larger_budget_keeps_what_was_tried(
    finished: Path, tmp_path: Path, fake_runs: None
) -> None:
    assert run_inline(tmp_path, grid(4)).complete
    few = tried(tmp_path)
    summary = run_inline(tmp_path, grid(6))
    assert summary.complete
    assert {number: tried(tmp_path)[number] for number in few} == few
    assert tried(tmp_path) == tried(finished), "as if the budget had always been six"


def test_a_grid_with_the_same_values_shares_the_trial(
    finished: Path, tmp_path: Path, fake_runs: None
) -> None:
    plain = ns.Grid.from_dict(TINY | {"search": TINY["search"] | {"methods": ["fairdarts"]}})
    (default,) = ns.plan(plain).searches
    assert run_inline(tmp_path, plain).complete
    assert run_inline(tmp_path).complete
    assert tried(tmp_path)[0] == default.trial_id
    attempts = ns.load(tmp_path).attempts
    assert attempts.trial_id.astype(str).tolist().count(default.trial_id) == 1
    searched = ns.summarise(ns.load(tmp_path), phase="search")
    assert best_number(tmp_path) != 0
    assert searched.xs("n", axis=1, level="statistic").to_numpy().sum() == 3, "still a result"


def test_a_trial_of_a_version_that_measured_less_is_told_before_anything_runs(
    tmp_path: Path, fake_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ns.Grid.from_dict(TINY | {"search": TINY["search"] | {"methods": ["fairdarts"]}})
    (default,) = ns.plan(plain).searches
    with monkeypatch.context() as older:
        older.setattr("nas_sweeps.testing.fake.MEASURES", ("accuracy_validation",))
        assert run_inline(tmp_path, plain).complete
    before = told(tmp_path)
    with pytest.raises(ValueError, match=f"1 trials of the store, {default.trial_id} first, were"):
        run_inline(tmp_path)
    (file := tmp_path / "tuned.yaml").write_text(grid().to_json())
    planned = cli("plan", file, "--store", tmp_path)
    assert (planned.returncode, planned.stdout) == (2, "")
    assert f"1 trials of the store, {default.trial_id} first, were" in planned.stderr
    pd.testing.assert_frame_equal(told(tmp_path), before)
    assert run_inline(tmp_path, grid(objective="accuracy_validation")).complete


def test_a_failed_proposal_is_spent_and_the_study_goes_on(tmp_path: Path, fake_runs: None) -> None:
    lr = {"low": 0.01, "high": 1e6, "log": True}  # FakeRun diverges above 1000
    search = TINY["search"] | {
        "methods": ["darts"],
        "recipe": TINY["search"]["recipe"] | {"lr": lr},
    }
    a_grid = ns.Grid.from_dict(TINY | {"search": search, "tune": {"trials": 8, "startup": 8}})
    summary = run_inline(tmp_path, a_grid)
    trials = told(tmp_path)
    of_study = trials[trials.proposal.notna()]
    assert len(of_study) == 8
    assert {"done", "failed"} == set(of_study.state)
    assert summary.counts["retrain"]["done"] == 1  # type: ignore[index]


def test_what_changes_an_earlier_result_changes_no_proposal(
    finished: Path, tmp_path: Path, fake_runs: None
) -> None:
    """They are found in the store again, with whatever the sampler would say now."""
    assert run_inline(tmp_path).complete
    store = Store(tmp_path)
    store.reopen(tried(tmp_path)[1])
    before = tried(tmp_path)
    assert run_inline(tmp_path).complete
    assert tried(tmp_path) == before


def test_verbs_count_and_name_what_is_tuned(
    finished: Path, tmp_path: Path, fake_runs: None
) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text(grid().to_json())
    planned = cli("plan", file, "--store", tmp_path / "none")
    assert planned.returncode == 0
    assert "fairdarts (tuning)" in planned.stdout
    assert "fairdarts (tuned=6)" in planned.stdout
    said = cli("status", finished)
    assert said.returncode == 0
    assert "fairdarts (tuned=6)" in said.stdout
    study = ns.load(finished).trials.study.dropna().iloc[0]
    assert f"study {study} of fairdarts exp mu=0.4: 6 of 6 proposals tried; best" in said.stdout
    assert f"by #{best_number(finished)} (zero_one_weight=" in said.stdout
    refused = cli("run", file, "--set", "tune.objective=accuracy_tail", "--store", tmp_path / "no")
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert "tune.objective: accuracy_tail is measured on a test set" in line


@pytest.mark.system
@pytest.mark.usefixtures("ray_session", "fake_actors")
def test_ray_comes_to_the_same_table(finished: Path, tmp_path: Path) -> None:
    assert run(grid(), tmp_path, executor="ray", console="none").complete
    pd.testing.assert_frame_equal(told(tmp_path), told(finished))
