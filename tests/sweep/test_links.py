"""A study whose winner changes: the one before is a result no longer, nor what went on from it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.sweep.inline import InlinePool
from nas_sweeps.sweep.links import Links
from nas_sweeps.sweep.run import run
from tests.sweep.tiny import TINY

RULE = {"rule": "median", "after_epochs": 1, "startup": 2}
RECIPE = TINY["search"]["recipe"]
RANGES = {
    "zero_one_weight": {"low": 1, "high": 30, "log": True},
    "arch_lr": {"low": 1e-4, "high": 1e-2, "log": True},
}
LR = {"lr": {"low": 0.01, "high": 0.1, "log": True}, "images": "search_half"}


def study(stop: Any = None, retrain: Any = None, **tune: Any) -> ns.Grid:
    """One of a search, and with ``retrain`` also one of each retraining."""
    search = {"methods": [{"fairdarts": RANGES}], "seeds": 3, "stop": stop}
    search |= {"recipe": RECIPE | {"epochs": 6}}
    tune = {"trials": 8, "startup": 2, "parallel": 2, "seed": 4} | tune
    return ns.Grid.from_dict(
        TINY
        | {"search": TINY["search"] | search, "tune": tune}
        | {"retrain": TINY["retrain"] | (retrain or {})}
    )


def run_inline(store: Path, grid: ns.Grid) -> None:
    assert run(grid, store, executor="inline", console="none").complete


def answers(store: Path) -> list[pd.DataFrame]:
    """What a person is told of the results."""
    frames = ns.load(store)
    attributed = ns.attributed(frames)
    named = ["trial_id", "method", "variant", "recipe", "search_id", "study"]
    return [
        ns.summarise(frames, phase="search", value="accuracy_macro_validation"),
        ns.summarise(frames, rows=["method", "recipe"]),
        attributed[named].sort_values(named, ignore_index=True),
        ns.tuned_against_default(store),
    ]


def winners(store: Path) -> set[str]:
    trials = ns.load(store).trials
    return set(trials.trial_id[(trials.phase == "search") & (trials.role == "winner")])


def same(one: list[pd.DataFrame], other: list[pd.DataFrame]) -> None:
    for left, right in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(left, right)


TUNED = {"recipe": TINY["retrain"]["recipe"] | LR, "tune": {"trials": 4}}


def test_another_rule_leaves_one_winner(tmp_path: Path, fake_runs: None) -> None:
    changed, alone = tmp_path / "changed", tmp_path / "alone"
    run_inline(changed, study(RULE, TUNED))
    first, told = winners(changed), answers(changed)
    run_inline(changed, study(None, TUNED))
    run_inline(alone, study(None, TUNED))
    assert winners(changed) == winners(alone) != first, "else this test would see no difference"
    same(answers(changed), answers(alone))
    recipes = set(ns.attributed(ns.load(changed)).recipe)
    assert recipes == {"tuned=4"}, "though some of these trials were proposals, too"
    roles = ns.load(changed).trials.set_index("trial_id").role
    assert set(roles[[*(first - winners(alone))]]) == {"tuning"}

    run_inline(changed, study(RULE, TUNED))
    with pytest.raises(AssertionError):  # what the rule had given up is done now, and stays so
        same(answers(changed), told)
    same(answers(changed), answers(alone))


def test_a_winner_that_wins_again_is_one_result(tmp_path: Path, fake_runs: None) -> None:
    run_inline(tmp_path, study())
    told, kept = answers(tmp_path), winners(tmp_path)
    store = Store(tmp_path)
    for trial_id in kept:  # as if another run had found another winner
        (won,) = (origin for origin in store.origins(trial_id) if origin.is_winner)
        store.add_origin(trial_id, replace(won, superseded=True))
        store.remove_origin(trial_id, won)
    assert not winners(tmp_path)
    run_inline(tmp_path, study())
    assert winners(tmp_path) == kept
    assert not any(o.superseded for trial_id in kept for o in store.origins(trial_id))
    same(answers(tmp_path), told)


def test_another_rule_leaves_the_points_of_one_pareto_set(tmp_path: Path, fake_runs: None) -> None:
    two = {"objective": ["accuracy_macro_validation", "num_params"], "pareto": 8}
    run_inline(tmp_path, study({"after_epochs": 1, "collapse": {"skip_connections": 1}}, **two))
    first = points(tmp_path)
    run_inline(tmp_path, study(**two))
    (made,) = ns.studies(tmp_path).values()
    assert points(tmp_path) == {trial.number for trial in made.best_trials} != first
    retrained = ns.attributed(ns.load(tmp_path))
    assert set(retrained.search_id) <= winners(tmp_path)


def test_fewer_points_of_a_part_of_the_plan_leave_the_others(
    tmp_path: Path, fake_runs: None
) -> None:
    two = {"objective": ["accuracy_macro_validation", "num_params"]}
    run_inline(tmp_path, study(**two, pareto=8))
    told = points(tmp_path)
    assert len(told) > 2, "else this test would see no difference"
    only = "phase == 'retrain' or variant == 'tuned=8'"  # the winners, without their proposals
    run(study(**two, pareto=2), tmp_path, executor="inline", console="none", only=only)
    assert points(tmp_path) == told


def points(store: Path) -> set[int]:
    """The numbers that the table's rows of searches have."""
    found = ns.summarise(ns.load(store), "accuracy_macro_validation", phase="search")
    return {int(variant.partition("#")[2]) for variant in found.index.get_level_values("variant")}


def test_what_a_kill_leaves_has_one_winner(
    tmp_path: Path, fake_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(tmp_path, study(RULE))
    before = winners(tmp_path)
    began = InlinePool.start

    def dies(pool: InlinePool, trial_id: str, resources: Any) -> None:
        won = any(origin.is_winner for origin in Store(tmp_path).origins(trial_id))
        if won and trial_id not in before:
            raise KeyboardInterrupt
        began(pool, trial_id, resources)

    with monkeypatch.context() as killed:
        killed.setattr(InlinePool, "start", dies)
        killed.setattr(Links, "write", lambda self, there: None)  # nothing is done at the end
        with pytest.raises(KeyboardInterrupt):
            run_inline(tmp_path, study())
    assert not winners(tmp_path) & before
    run_inline(tmp_path, study())
    assert not winners(tmp_path) & before


@pytest.mark.parametrize("phase", ["search", "retrain"])
def test_stores_with_different_winners_are_not_averaged(
    tmp_path: Path, fake_runs: None, phase: str
) -> None:
    ruled, free = tmp_path / "ruled", tmp_path / "free"
    run_inline(ruled, study(RULE))
    run_inline(free, study())
    (name,) = ns.load(free).trials.study.unique()
    with pytest.raises(ValueError, match=f"study {name} has another winner in one of the stores"):
        ns.summarise(ns.load([ruled, free]), "accuracy_balanced", phase=phase)
    shutil.copytree(free, tmp_path / "copy")
    frames = ns.load([free, tmp_path / "copy"])
    told = ns.summarise(frames, "accuracy_balanced", phase=phase)
    assert told.to_numpy().tolist()[0][-1] == 3
