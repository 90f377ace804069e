"""Early stopping in a store: decisions outlive kills, and end with the rule that took them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.store.files import File
from nas_sweeps.store.ledger import Attempt
from nas_sweeps.sweep.inline import InlinePool
from nas_sweeps.sweep.job import Job
from nas_sweeps.sweep.judge import Judge
from nas_sweeps.sweep.run import Summary, run
from tests.faked import faked
from tests.sweep.tiny import TINY
from tests.verbs import cli

WEIGHT = {"fairdarts": {"zero_one_weight": {"low": 1, "high": 30, "log": True}}}
RECIPE = TINY["search"]["recipe"]
RULES = {
    "median": {"rule": "median", "after_epochs": 2, "startup": 2},
    "asha": {"rule": "asha", "after_epochs": 1},
    "hyperband": {"rule": "hyperband", "after_epochs": 1, "reduction_factor": 2},
}
TIMES = ["epoch_s", "images_per_s", "peak_mem_gib"]


def study(stop: Any = None, trials: int = 8) -> ns.Grid:
    """A study of so many proposals, six epochs each, and its two final searches."""
    search = {"methods": [WEIGHT], "seeds": 2, "recipe": RECIPE | {"epochs": 6}, "stop": stop}
    tune = {"trials": trials, "startup": 2, "parallel": 2, "seed": 11}
    return ns.Grid.from_dict(TINY | {"search": TINY["search"] | search, "tune": tune})


def cell(stop: Any = None, seeds: int = 6, **retrain: Any) -> ns.Grid:
    """Searches of one cell."""
    search = {"methods": ["darts"], "seeds": seeds, "recipe": RECIPE | {"epochs": 6}, "stop": stop}
    return ns.Grid.from_dict(
        TINY | {"search": TINY["search"] | search, "retrain": TINY["retrain"] | retrain}
    )


def run_inline(store: Path, grid: ns.Grid, **options: Any) -> Summary:
    return run(grid, store, executor="inline", console="none", **options)


def trials_of(store: Path) -> pd.DataFrame:
    found = ns.load(store).trials
    kept = ["trial_id", "phase", "state", "role", "proposal", "epochs", "accuracy_macro_validation"]
    return found[[*kept, "genotype_id", "stop_reason", "stop"]].sort_values(
        "trial_id", ignore_index=True
    )


def epochs_of(store: Path) -> pd.DataFrame:
    found = ns.load(store).epochs.drop(columns=TIMES)
    return found.sort_values(["trial_id", "epoch"], ignore_index=True)


def assert_same(a: Path, b: Path) -> None:
    pd.testing.assert_frame_equal(trials_of(a), trials_of(b))
    pd.testing.assert_frame_equal(epochs_of(a), epochs_of(b), check_categorical=False)


@pytest.fixture(scope="module", params=sorted(RULES))
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A rule's name, and a store of its study."""
    store = tmp_path_factory.mktemp(request.param) / "store"
    with faked():
        assert run_inline(store, study(RULES[request.param])).complete
    return request.param, store


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a cell without a rule."""
    store = tmp_path_factory.mktemp("unstopped") / "store"
    with faked():
        assert run_inline(store, cell(winners="none")).complete
    return store


def test_a_rule_prunes_proposals_and_spares_defaults_and_winners(stopped: Any) -> None:
    rule, store = stopped
    trials = trials_of(store)
    pruned = trials[trials.state == "pruned"]
    assert 0 < len(pruned) < 7
    assert set(trials.state) == {"done", "pruned"}
    assert 0 not in set(pruned.proposal)
    assert len(trials[trials.proposal.notna()]) == 8, "a pruned proposal is spent"
    assert (trials[trials.role == "winner"].state == "done").all()
    assert pruned.genotype_id.isna().all()
    assert trials[trials.phase == "retrain"].state.tolist() == ["done", "done"]
    curves = ns.load(store).epochs.groupby("trial_id", observed=True).accuracy_macro_validation
    for row in pruned.itertuples():
        told = json.loads(str(row.stop))
        assert row.epochs == told["epoch"] < 6
        assert told["by"].startswith(f"search {rule} after_epochs=")
        curve = {str(i + 1): value for i, value in enumerate(curves.get_group(row.trial_id))}
        assert told["curve"] == curve, "what it was decided from is what the store holds"
        for peer, value in told["peers"].items():
            assert curves.get_group(peer).iloc[told["epoch"] - 1] == value
    frames = ns.load(store)
    costs = frames.trials[frames.trials.state == "pruned"]
    assert (costs.wall_s > 0).all()
    assert set(frames.attempts.state) == {"done", "pruned"}


def test_a_second_run_has_nothing_to_do(
    stopped: Any, fake_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, store = stopped
    monkeypatch.setattr(InlinePool, "start", lambda *_: pytest.fail("it ran"))
    assert run_inline(store, study(RULES[rule])).complete
    (store / "tables" / "index.json").unlink()  # from the trials' own files
    assert run_inline(store, study(RULES[rule])).complete


def test_without_the_rule_it_goes_on_as_if_there_had_been_none(
    unstopped: Path, tmp_path: Path, fake_runs: None
) -> None:
    store = tmp_path / "store"
    run_inline(store, cell(RULES["asha"], winners="none"))
    before = trials_of(store)
    assert "pruned" in set(before.state)
    summary = run_inline(store, cell(winners="none"))
    assert summary.complete
    assert summary.counts["search"]["done"] == 6  # type: ignore[index]
    assert_same(store, unstopped)
    attempts = ns.load(store).attempts
    again = attempts[attempts.epochs_from > 0]
    assert len(again) == (before.state == "pruned").sum(), "from where they were stopped"


def test_a_worker_that_dies_before_it_begins_brings_no_old_decision_back(
    tmp_path: Path, fake_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(tmp_path, cell(RULES["asha"], seeds=3, winners="none"))
    assert "pruned" in set(trials_of(tmp_path).state)
    start, failed = InlinePool.start, list[str]()

    def fails_once(pool: InlinePool, trial_id: str, resources: Any) -> None:
        if not failed:
            failed.append(trial_id)
            raise OSError("no such luck")
        start(pool, trial_id, resources)

    monkeypatch.setattr(InlinePool, "start", fails_once)
    assert run_inline(tmp_path, cell(seeds=3, winners="none")).complete
    assert failed
    assert set(trials_of(tmp_path).state) == {"done"}


def test_another_rule_decides_anew(tmp_path: Path, fake_runs: None) -> None:
    """From what is there: whoever it prunes as well is pruned again without another epoch."""
    run_inline(tmp_path, cell(RULES["asha"], seeds=4, winners="none"))
    first = trials_of(tmp_path).set_index("trial_id")
    stricter = RULES["asha"] | {"reduction_factor": 9}
    assert run_inline(tmp_path, cell(stricter, seeds=4, winners="none")).complete
    second = trials_of(tmp_path).set_index("trial_id")
    pruned = first.index[first.state == "pruned"]
    assert len(pruned)
    assert (second.state[pruned] == "pruned").all()
    assert (second.epochs[pruned] == first.epochs[pruned]).all()
    said = {json.loads(told)["by"] for told in second.stop[pruned]}
    assert said == {"search asha after_epochs=1 reduction_factor=9"}


# Collapse


def collapsing(**limits: Any) -> ns.Grid:
    return cell({"after_epochs": 3, "collapse": limits}, seeds=3)


@pytest.mark.parametrize(
    ("limits", "column", "beyond"),
    [
        ({"skip_connections": 1}, "num_skip_normal", lambda skips: skips > 1),
        ({"alpha_entropy": 1.9}, "entropy", lambda nats: nats < 1.9),
    ],
)
def test_a_collapsed_search_stops_by_itself(
    unstopped: Path, tmp_path: Path, fake_runs: None, limits: Any, column: str, beyond: Any
) -> None:
    """After the first epoch, from the third on, that is beyond the limit: whoever ran beside it."""
    a_grid = collapsing(**limits)
    summary = run_inline(tmp_path, a_grid)
    assert summary.complete
    curves = ns.load(unstopped).epochs
    curves["entropy"] = curves[["alpha_entropy_normal", "alpha_entropy_reduce"]].max(axis=1)
    found = {}
    for trial in ns.plan(a_grid).searches:
        mine = curves[curves.trial_id == trial.trial_id].sort_values("epoch")
        late = mine[(mine.epoch >= 3) & (mine.epoch < 6)]
        hits = late[beyond(late[column])]
        found[trial.trial_id] = int(hits.epoch.iloc[0]) if len(hits) else 6
    trials = trials_of(tmp_path)
    searches = trials[trials.phase == "search"].set_index("trial_id")
    assert searches.epochs.to_dict() == found
    assert "pruned" in set(searches.state), "else this test would see nothing"
    assert summary.counts["retrain"]["pruned"] == (searches.state == "pruned").sum()
    reasons = searches.stop_reason.dropna()
    assert reasons.str.startswith("collapse after epoch").all()
    (by,) = {json.loads(told)["by"] for told in searches.stop.dropna()}
    (name, limit), *_ = limits.items()
    assert by == f"search collapse {name}={limit} after_epochs=3"


def test_a_loss_that_is_not_finite_is_pruned_where_that_is_asked(
    tmp_path: Path, fake_runs: None
) -> None:
    search = TINY["search"] | {"methods": ["darts"], "recipe": RECIPE | {"lr": 1e6}}
    stop = {"collapse": {"not_finite": True}}
    grid = ns.Grid.from_dict(TINY | {"search": search | {"stop": stop}})
    assert run_inline(tmp_path, grid).complete
    (row,) = trials_of(tmp_path).itertuples()
    assert (row.state, row.epochs) == ("pruned", 0)
    assert "loss_weights is nan" in str(row.stop_reason)
    plain = ns.Grid.from_dict(TINY | {"search": search})
    summary = run_inline(tmp_path, plain)
    assert summary.failed == 1, "without the rule it goes on, and fails"


# What verbs say


def test_verbs_know_what_is_pruned(tmp_path: Path, fake_runs: None) -> None:
    file, store = tmp_path / "grid.yaml", tmp_path / "store"
    grid = cell({"after_epochs": 1, "collapse": {"skip_connections": 0}}, seeds=2)
    file.write_text(grid.to_json())
    planned = cli("plan", file, "--store", store)
    assert "at most: search.stop may end trials early" in planned.stdout
    ran = cli("run", file, "--store", store, "--executor", "inline")
    assert ran.returncode == 0, "it is no failure"
    said = " ".join(ran.stdout.split())
    assert "pruned by collapse after epoch 2: skip connections in the normal cell: 1, more" in said
    assert "2 of 2 search trials pruned, 2 of 2 retrain trials pruned; 2 run now" in said
    nothing_left = "darts exp mu=0.4: every search was pruned by search.stop"
    assert nothing_left in said
    again = cli("run", file, "--store", store, "--executor", "inline", "--retry", "failed")
    assert "nothing to run" in again.stdout
    status = cli("status", store)
    assert nothing_left in " ".join(status.stdout.split())
    assert "2 trials in" in status.stdout
    assert "2 pruned" in status.stdout
    assert "failed" not in status.stdout
    watched = cli("status", "--watch", store)
    assert "search 0/2 (2 pruned), retrain 0/2 (2 pruned)" in watched.stdout
    table = cli("table", store)
    assert table.returncode == 0
    loosened = cli(
        "run", file, "--store", store, "--executor", "inline", "--set", "search.stop=none"
    )
    assert loosened.returncode == 0
    assert "2 of 2 search trials done" in loosened.stdout


def test_a_study_counts_what_it_pruned(stopped: Any) -> None:
    _, store = stopped
    pruned = int((trials_of(store).state == "pruned").sum())
    said = " ".join(cli("status", store).stdout.split())
    assert f"8 of 8 proposals tried, {pruned} of them pruned; best" in said


def test_seeds_that_are_compared_are_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(cell({"rule": "asha", "after_epochs": 1}).to_json())
    with pytest.warns(UserWarning, match="means over them are too high"):
        ns.load_grid(file)
    with pytest.warns(UserWarning, match="nothing to compare it with"):
        ns.load_grid(file, ["search.seeds=1"])


def test_retrains_are_compared_by_their_recipe(tmp_path: Path, fake_runs: None) -> None:
    recipe = RECIPE | {"epochs": 5, "images": "search_half"}
    other = recipe | {"lr": 0.5}
    search = TINY["search"] | {"methods": ["darts"], "seeds": 4}
    stop = {"rule": "asha", "after_epochs": 1, "reduction_factor": 2}
    retrain = {"recipes": {"one": recipe, "other": other}, "stop": stop}
    grid = ns.Grid.from_dict(TINY | {"search": search, "retrain": retrain})
    summary = run_inline(tmp_path, grid)
    assert summary.complete
    assert summary.counts["search"]["done"] == 4  # type: ignore[index]
    trials = ns.load(tmp_path).trials.set_index("trial_id")
    pruned = trials[trials.state == "pruned"]
    assert set(pruned.phase) == {"retrain"}
    assert set(pruned.recipe) == {"one", "other"}
    for row in pruned.itertuples():
        for peer in json.loads(str(row.stop))["peers"]:
            assert trials.recipe[peer] == row.recipe


@pytest.mark.system
@pytest.mark.usefixtures("ray_session", "fake_actors")
def test_ray_prunes_by_the_same_record(tmp_path: Path) -> None:
    """Which trials depends on which run at once; what stands in the store is right of each."""
    grid = study(RULES["asha"])
    assert run(grid, tmp_path, executor="ray", console="none").complete
    trials = trials_of(tmp_path)
    pruned = trials[trials.state == "pruned"]
    assert len(pruned) > 0
    epochs = ns.load(tmp_path).epochs.set_index(["trial_id", "epoch"]).accuracy_macro_validation
    for told in map(json.loads, pruned.stop):
        for peer, value in told["peers"].items():
            assert epochs[peer, told["epoch"]] == value


# Kills around a decision


def killed_at(store: Path, grid: ns.Grid, owner: type, name: str, which: Any, after: bool) -> None:
    """A run in a process of its own, killed where a method is called (or left) as ``which`` says:
    it is told the arguments and, where the call has been made, what came of it."""

    def arm() -> None:
        body = getattr(owner, name)

        def dying(*arguments: Any, **named: Any) -> Any:
            if not after and which(*arguments):
                os._exit(9)
            found = body(*arguments, **named)
            if after and which(*arguments, found):
                os._exit(9)
            return found

        setattr(owner, name, dying)

    child = os.fork()
    if child == 0:
        try:
            arm()
            run_inline(store, grid)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, "it was not killed there"


def ends_pruned(attempt: Attempt, result: Any, *_: Any) -> bool:
    return bool(result.state == "pruned")


def is_result(file: File, value: Any, *_: Any) -> bool:
    return file.name.endswith(".result.json") and value["state"] == "pruned"


def is_ending(file: File, value: Any, *_: Any) -> bool:
    return file.name.endswith(".attempt.json") and value["state"] == "pruned"


def of_pruned(job: Job, trial_id: str, *_: Any) -> bool:
    result = job.store.result(trial_id)
    return result is not None and result.state == "pruned"


MOMENTS: dict[str, tuple[type, str, Callable[..., Any], bool]] = {
    "decided": (Judge, "verdict", lambda *told: told[-1] is not None, True),
    "about to say so": (Attempt, "finish", ends_pruned, False),
    "attempt not yet closed": (File, "publish_json", is_ending, False),
    "attempt closed, no result": (File, "publish_json", is_ending, True),
    "result not yet there": (File, "publish_json", is_result, False),
    "result there": (File, "publish_json", is_result, True),
    "stopped, not told": (Job, "ended", of_pruned, False),
    "told": (Job, "ended", of_pruned, True),
}
KILLED_RULE = {"rule": "asha", "after_epochs": 2, "reduction_factor": 2}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    with faked():
        assert run_inline(store, study(KILLED_RULE, trials=5)).complete
    assert (trials_of(store).state == "pruned").sum() >= 2
    return store


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_neither_loses_nor_repeats_nor_changes_a_decision(
    undisturbed: Path, tmp_path: Path, fake_runs: None, moment: str
) -> None:
    grid = study(KILLED_RULE, trials=5)
    killed_at(tmp_path, grid, *MOMENTS[moment])
    there = Store(tmp_path).results()
    assert run_inline(tmp_path, grid).complete
    assert_same(tmp_path, undisturbed)
    after = Store(tmp_path).results()
    assert {trial_id: after[trial_id] for trial_id in there} == there, "written once"
    done = ns.load(tmp_path).attempts.groupby("trial_id", observed=True)
    computed = done.epochs_done.sum() - done.epochs_from.sum()
    assert (computed == done.epochs_done.max()).all(), "no epoch was computed twice"
