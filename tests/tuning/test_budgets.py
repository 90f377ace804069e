"""Budgets that grow, and parallel asks: nothing is proposed twice, and nothing changes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas_sweeps as ns
from nas_sweeps.grid import Grid, plan
from nas_sweeps.schedule import Outcome, Scheduler, Task
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store.records import State
from nas_sweeps.sweep.run import run
from tests.sweep.tiny import TINY

WEIGHT = {"low": 1, "high": 30, "log": True}


def grid(knobs: Any, seeds: int = 1, **tune: Any) -> Grid:
    search = TINY["search"] | {"methods": [{"fairdarts": knobs}], "seeds": seeds}
    return Grid.from_dict(TINY | {"search": search, "tune": tune, "retrain": {"winners": "none"}})


def tried(of: Grid, at_once: int, draw: random.Random) -> list[Any]:
    """The trials that are run, of which so many run at once and end in any order."""
    scheduler, taken, live = Scheduler(plan(of)), list[Any](), list[Task]()
    while not scheduler.finished:
        while len(live) < at_once and (task := scheduler.next_task()) is not None:
            taken.append(task.trial)
            live.append(task)
        ended: Any = live.pop(draw.randrange(len(live))).trial
        merit = 1 - abs(dict(ended.method.knobs)["zero_one_weight"] - 7) / 30
        outcome = Outcome(
            state=State.DONE, genotype=PUBLISHED["DARTS_V1"], accuracy_macro_validation=merit
        )
        scheduler.settle(ended.trial_id, outcome)
    return taken


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["tpe", "random", "nsga2"]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_parallel_asks_propose_no_duplicates(
    sampler: str, parallel: int, at_once: int, draw: random.Random
) -> None:
    """Twelve values there are, and so twelve proposals try each of them once."""
    knobs = {
        "zero_one": {"choices": ["l1", "l2"]},
        "zero_one_weight": {"choices": [1, 2, 5, 7, 10, 20]},
    }
    asked = {"trials": 12, "startup": 3, "parallel": parallel, "sampler": sampler}
    trials = tried(grid(knobs, **asked), at_once, draw)
    assert len({trial.trial_id for trial in trials}) == len(trials) == 12


def test_equal_proposals_are_one_trial() -> None:
    knobs = {"zero_one": {"choices": ["l1", "l2"]}}
    of = grid(knobs | {"zero_one_weight": 7}, trials=9, parallel=4)
    trials = tried(of, 4, random.Random(0))
    assert len(trials) == 2
    scheduler = Scheduler(plan(of), {t.trial_id: Outcome(state=State.FAILED) for t in trials})
    assert scheduler.counts()["search"][State.FAILED] == 9


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "cmaes"])
def test_thirty_keep_the_first_twenty(sampler: str, tmp_path: Path, fake_runs: None) -> None:
    """In a store: what was tried with twenty stays, and ten are added."""
    if sampler == "cmaes":
        pytest.importorskip("cmaes")

    def after(trials: int) -> dict[int, tuple[str, int]]:
        a_grid = grid(
            {"zero_one_weight": WEIGHT, "arch_lr": {"low": 1e-4, "high": 0.1, "log": True}},
            trials=trials,
            startup=6,
            parallel=4,
            sampler=sampler,
        )
        done = run(a_grid, tmp_path, executor="inline", console="none")
        assert done.complete
        assert done.started == 10 if trials == 30 else done.started == 20
        frames = ns.load(tmp_path)
        found = frames.trials[frames.trials.proposal.notna()]
        computed = frames.attempts.groupby("trial_id", observed=True).epochs_done.sum()
        epochs = [int(computed[trial_id]) for trial_id in found.trial_id]
        tried = zip(found.trial_id, epochs, strict=True)
        return dict(zip(found.proposal.astype(int), tried, strict=True))

    twenty, thirty = after(20), after(30)
    assert sorted(thirty) == list(range(30))
    assert {number: thirty[number] for number in range(20)} == twenty
    assert {epochs for _, epochs in thirty.values()} == {1}, "nothing was computed twice"
