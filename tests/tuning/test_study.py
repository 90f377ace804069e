"""Studies: what is proposed follows from the results, and nothing is proposed twice."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_sweeps.grid import Grid, GridError, Plan, plan
from nas_sweeps.schedule import Outcome, Scheduler, Task
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store.records import State
from nas_sweeps.trial import SearchTrial
from nas_sweeps.tuning import SAMPLERS

V1 = PUBLISHED["DARTS_V1"]
WEIGHT = {"low": 1, "high": 30, "log": True}
FAIRDARTS = {"fairdarts": {"zero_one_weight": WEIGHT, "zero_one": {"choices": ["l1", "l2"]}}}


def grid(methods: Any = (FAIRDARTS,), recipe: Any = None, **tune: Any) -> Grid:
    search = {"methods": [*methods], "distributions": ["balance"], "seeds": 2}
    return Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": search | ({} if recipe is None else {"recipe": recipe}),
            "retrain": {"winners": "none"},
            "tune": {"trials": 8, "startup": 3, "parallel": 3} | tune,
        }
    )


def done(accuracy: float | None) -> Outcome:
    """With a plain accuracy that says the contrary, which nothing here goes by."""
    plain = None if accuracy is None else 1 - accuracy
    return Outcome(
        state=State.DONE,
        genotype=V1,
        accuracy_validation=plain,
        accuracy_macro_validation=accuracy,
    )


FAILED = Outcome(state=State.FAILED)


def knobs(trial: Any) -> dict[str, Any]:
    assert isinstance(trial, SearchTrial)
    return dict(trial.method.knobs)


def merit(trial: Any) -> float:
    """A smooth objective: best at weight 4 under l1."""
    of = knobs(trial)
    return 1 - abs(of["zero_one_weight"] - 4) / 40 - 0.1 * (of["zero_one"] == "l2")


def proposed(tasks: list[Task]) -> dict[int, Any]:
    """Trials by the number of the proposal."""
    return {
        origin.proposal: task.trial
        for task in tasks
        for origin in task.origins
        if origin.proposal is not None
    }


def worked(of: Plan, shuffle: random.Random | None = None, **known: Any) -> list[Task]:
    """Every trial, run with up to three at once, which end in an order that is drawn."""
    scheduler, taken, live = Scheduler(of, **known), list[Task](), list[Task]()
    while not scheduler.finished:
        while len(live) < 3 and (task := scheduler.next_task()) is not None:
            taken.append(task)
            live.append(task)
        ended = live.pop(shuffle.randrange(len(live)) if shuffle else 0)
        scheduler.settle(ended.trial.trial_id, done(merit(ended.trial)))
    return taken


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_spends_its_budget_and_searches_its_winner_with_every_seed(sampler: str) -> None:
    of = plan(grid(sampler=sampler))
    taken = worked(of)
    tried = proposed(taken)
    assert sorted(tried) == list(range(8))
    assert len({trial.trial_id for trial in tried.values()}) == 8, "no proposal twice"
    assert {trial.seed for trial in tried.values()} == {0}
    assert all(1 <= knobs(trial)["zero_one_weight"] <= 30 for trial in tried.values())
    best = max(tried.values(), key=merit)
    # The winner with seed 0 was tried already; what is left is seed 1.
    (last,) = [task for task in taken if task.origins[0].proposal is None]
    assert (knobs(last.trial), last.trial.seed) == (knobs(best), 1)
    assert last.origins[0].variant == "tuned=8"


def test_the_first_proposal_is_what_a_grid_without_ranges_runs() -> None:
    plain = Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": {"methods": ["fairdarts"], "distributions": ["balance"], "seeds": 1},
        }
    )
    (expected,) = plan(plain).searches
    assert proposed(worked(plan(grid())))[0] == expected


def test_another_default_can_be_said() -> None:
    weight = WEIGHT | {"default": 2}
    first = proposed(worked(plan(grid([{"fairdarts": {"zero_one_weight": weight}}]))))[0]
    assert knobs(first)["zero_one_weight"] == 2.0


def test_a_default_outside_its_range_is_tried_all_the_same() -> None:
    beyond = {"fairdarts": {"zero_one_weight": {"low": 20.0, "high": 30.0}}}
    weights = [
        knobs(t)["zero_one_weight"]
        for _, t in sorted(proposed(worked(plan(grid([beyond])))).items())
    ]
    assert weights[0] == 10.0
    assert all(20 <= weight <= 30 for weight in weights[1:])


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_trials_end_changes_no_proposal(order: random.Random) -> None:
    of = plan(grid())
    assert proposed(worked(of, order)) == proposed(worked(of))


def test_another_seed_proposes_otherwise_and_results_steer() -> None:
    first, other = (proposed(worked(plan(grid(seed=seed)))) for seed in (0, 1))
    assert first[0] == other[0]
    assert first[1] != other[1]
    scheduler = Scheduler(plan(grid()))
    worse = dict[int, Any]()
    while (task := scheduler.next_task()) is not None:
        worse |= proposed([task])
        scheduler.settle(task.trial.trial_id, done(1 - merit(task.trial)))
    assert [worse[n] == first[n] for n in (1, 2)] == [True, True], "while it starts up"
    assert worse[7] != first[7]


def test_a_larger_budget_keeps_what_was_proposed() -> None:
    few, many = (proposed(worked(plan(grid(trials=n)))) for n in (8, 12))
    assert {number: many[number] for number in few} == few
    assert len(many) == 12


def test_no_more_run_at_once_than_may() -> None:
    scheduler = Scheduler(plan(grid()))
    tasks = [task for _ in range(9) if (task := scheduler.next_task()) is not None]
    assert sorted(proposed(tasks)) == [0, 1, 2]
    scheduler.settle(tasks[1].trial.trial_id, done(0.3))
    assert scheduler.next_task() is None, "the fourth waits for the first"
    scheduler.settle(tasks[0].trial.trial_id, done(0.2))
    fourth, fifth = scheduler.next_task(), scheduler.next_task()
    assert fourth is not None
    assert fifth is not None
    assert sorted(proposed([fourth, fifth])) == [3, 4]


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_new_process_goes_on_where_the_last_one_was(stop: int) -> None:
    of = plan(grid())
    whole = worked(of)
    settled = {t.trial.trial_id: done(merit(t.trial)) for t in whole[:stop]}
    rest = worked(of, settled=settled)
    assert [task.trial for task in rest] == [task.trial for task in whole[stop:]]


def test_what_was_proposed_before_is_taken_as_it_was() -> None:
    """Whatever the sampler would propose now: results may have changed, or Optuna."""
    of = plan(grid())
    (fifth,) = [e for e in of.searches if e.number == 5]
    odd = fifth.study.trial((("zero_one", "l1"), ("zero_one_weight", 29.5)), fifth.data, fifth.seed)
    taken = worked(of, recalled={(fifth.study.name, 5, 0): odd})
    assert proposed(taken)[5] == odd
    assert taken[0].trial == odd or odd in [task.trial for task in taken]


def test_few_values_are_all_tried_and_then_shared() -> None:
    of = plan(grid([{"fairdarts": {"zero_one": {"choices": ["l1", "l2"]}}}]))
    taken = worked(of)
    assert len({t.trial.trial_id for t in taken if t.trial.seed == 0}) == 2
    scheduler = Scheduler(of, {t.trial.trial_id: done(merit(t.trial)) for t in taken})
    assert scheduler.counts()["search"][State.DONE] == 10


def test_whole_numbers_and_settings_of_the_recipe_are_tuned_too() -> None:
    recipe = {"epochs": 3, "batch_size": {"low": 16, "high": 64}, "lr": {"low": 0.01, "high": 0.1}}
    of = grid(["darts"], recipe)
    tried: list[Any] = [t for _, t in sorted(proposed(_fixed(plan(of))).items())]
    assert tried[0].recipe.batch_size == 64
    assert all(type(t.recipe.batch_size) is int for t in tried)
    assert len({t.recipe.batch_size for t in tried}) > 2
    assert all(t.recipe.epochs == 3 and 0.01 <= t.recipe.lr <= 0.1 for t in tried)


def _fixed(of: Plan) -> list[Task]:
    scheduler, taken = Scheduler(of), list[Task]()
    while (task := scheduler.next_task()) is not None:
        taken.append(task)
        scheduler.settle(task.trial.trial_id, done(0.5))
    return taken


def test_the_winner_has_the_best_mean_over_the_seeds_of_a_trial() -> None:
    of = plan(grid(seeds_per_trial=2, trials=4))
    scheduler, tried, last = Scheduler(of), dict[int, list[Any]](), list[Any]()
    accuracies = {0: (0.5, 0.5), 1: (0.9, 0.0), 2: (0.6, 0.6), 3: (0.99, None)}
    while (task := scheduler.next_task()) is not None:
        (origin,) = task.origins
        assert origin.proposal is not None
        tried.setdefault(origin.proposal, []).append(task.trial)
        accuracy = accuracies[origin.proposal][task.trial.seed]
        outcome = FAILED if accuracy is None else done(accuracy)
        scheduler.settle(task.trial.trial_id, outcome)
        last = [e for e in scheduler.states() if e[1] == State.WAITING]
    assert last == [], "the winner was searched with both seeds while it was tried"
    assert all(len({str(knobs(trial)) for trial in pair}) == 1 for pair in tried.values())
    winners = [to for to, origin in scheduler.links() if origin.proposal is None]
    assert winners == [trial.trial_id for trial in tried[2]]


def test_a_cell_in_which_everything_failed_has_no_winner() -> None:
    scheduler = Scheduler(plan(grid(trials=4)))
    while (task := scheduler.next_task()) is not None:
        scheduler.settle(task.trial.trial_id, FAILED)
    assert [entry.number for entry in scheduler.blocked] == [None, None]  # type: ignore[union-attr]


def test_what_is_not_tuned_runs_as_ever_and_every_cell_has_a_budget_of_its_own() -> None:
    of = plan(
        grid(["darts", FAIRDARTS, {"ssf_nas": {"barlow_lambda": {"low": 0.001, "high": 0.1}}}])
    )
    named = [e.origin.study if e.origin else "" for e in of.searches]
    assert named.count("") == 2
    assert sorted(named.count(name) for name in {*named} - {""}) == [10, 10]


def test_only_winners_are_gone_on_from() -> None:
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": [FAIRDARTS], "distributions": ["balance"], "seeds": 2},
        "tune": {"trials": 4},
    }
    of = plan(Grid.from_dict(tree))
    winners = [e.key for e in of.searches if e.number is None]
    assert [entry.parents for entry in of.retrains] == [(key,) for key in winners]
    assert {entry.origin.variant for entry in of.retrains} == {"tuned=4"}


def test_a_resolved_grid_plans_the_same() -> None:
    recipe = {"preset": "fairdarts", "lr": {"low": 0.001, "high": 0.1, "log": True}}
    made = grid([FAIRDARTS], recipe)
    again = Grid.from_json(made.to_json())
    assert again == made
    assert list(plan(again)) == list(plan(made))
    first: Any = plan(made).searches[0].study.defaults()
    assert dict(first)["recipe.lr"] == 0.005, "that of the preset"


def test_planning_does_not_import_optuna() -> None:
    code = (
        f"import nas_sweeps, sys\nnas_sweeps.plan(nas_sweeps.Grid.from_json({grid().to_json()!r}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint('optuna' in sys.modules, 'torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["False", "False"]


# Mistakes


def mistake(*arguments: Any, **tune: Any) -> str:
    with pytest.raises(GridError) as refused:
        grid(*arguments, **tune)
    (said,) = refused.value.args
    return str(said)


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ({"low": -1, "high": 3}, "-1.0 is out of range; it must be at least 0"),
        ({"low": 3, "high": 3}, "from 3 to 3 there is nothing to choose from; low < high"),
        ({"low": 0, "high": 3, "log": True}, "a logarithm has no 0; raise low above 0"),
        ({"low": 1}, "is not a range; write {low: 1, high: 30, log: true}"),
        ({"low": 1, "high": "3"}, "is not a range; write"),
        ({"low": 1, "high": 3, "step": 1}, "a range has no step; write"),
        ({"choices": [1]}, "choices are two or more single values"),
        ({"choices": [1, "a"]}, "'a' is not a number"),
    ],
)
def test_a_range_that_is_none_is_told_with_its_place(knob: Any, said: str) -> None:
    told = mistake([{"fairdarts": {"zero_one_weight": knob}}])
    assert told.startswith("grid: search.methods[0].fairdarts.zero_one_weight: ")
    assert said in told


def test_ranges_of_what_has_none_are_told() -> None:
    assert "zero_one: is no number; write {choices: [a, b]}" in mistake(
        [{"fairdarts": {"zero_one": {"low": 1, "high": 2}}}]
    )
    assert "unknown setting 'zero_two'" in mistake([{"fairdarts": {"zero_two": WEIGHT}}])
    assert "recipe.batch_size: takes whole numbers" in mistake(
        recipe={"batch_size": {"low": 8.5, "high": 32}}
    )
    assert "recipe.lr: -0.1 is out of range" in mistake(recipe={"lr": {"low": -0.1, "high": 0.1}})
    assert "unknown setting 'lrr'" in mistake(recipe={"lrr": {"low": 0.1, "high": 0.2}})


def test_tune_and_ranges_need_each_other() -> None:
    assert "tune: there is nothing to tune: give a knob" in mistake(["fairdarts"])
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": [FAIRDARTS], "distributions": ["balance"]},
    }
    with pytest.raises(GridError, match="tune: a knob or setting has a range: say with tune"):
        Grid.from_dict(tree)


def test_an_objective_of_a_test_set_is_refused_with_the_reason() -> None:
    said = mistake(objective="accuracy_balanced")
    assert "tune.objective: accuracy_balanced is measured on a test set" in said
    assert "write accuracy_macro_validation" in said
    assert "unknown objective 'accuracy'" in mistake(objective="accuracy")


def test_more_seeds_a_trial_than_there_are_are_refused() -> None:
    assert "tune.seeds_per_trial: 3 seeds a trial are more than the 2" in mistake(seeds_per_trial=3)


def test_samplers_and_settings_have_names() -> None:
    assert "unknown choice 'tbe'; choose from tpe, random" in mistake(sampler="tbe")
    assert "tune.trails: unknown setting 'trails'; choose from trials" in mistake(trails=3)
