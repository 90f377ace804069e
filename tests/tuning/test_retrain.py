"""Studies of retrains: of each cell or genotype, on T and V, before the retrains themselves."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from nas_sweeps.grid import Grid, GridError, Plan, plan
from nas_sweeps.grid.tuned import tried
from nas_sweeps.schedule import Outcome, Scheduler, Task
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store.records import State
from nas_sweeps.trial import RetrainTrial

V1, V2 = PUBLISHED["DARTS_V1"], PUBLISHED["DARTS_V2"]
RECIPE = {
    "lr": {"low": 0.01, "high": 0.3, "log": True},
    "loss": {"logit_adjust": {"tau": {"low": 0.5, "high": 2.0}}},
    "epochs": 4,
}
TUNE = {"trials": 6, "startup": 3, "parallel": 3}


def grid(
    tune: Any = None, recipe: Any = None, search: Any = None, data: Any = None, **retrain: Any
) -> Grid:
    recipes = {} if "recipes" in retrain else {"recipe": recipe or RECIPE}
    found: dict[str, Any] = {"methods": ["darts", "gdas"], "distributions": ["balance"], "seeds": 2}
    return Grid.from_dict(
        {
            "data": {"dataset": "digits"} | (data or {}),
            "search": found | (search or {}),
            "retrain": {"seeds": 2, "tune": TUNE | (tune or {})} | recipes | retrain,
        }
    )


def outcome(task: Task) -> Outcome:
    """Each search finds DARTS_V1, but that by gdas with seed 1; seed 1 is the better one."""
    trial: Any = task.trial
    if not isinstance(trial, RetrainTrial):
        second = trial.method.name == "gdas" and trial.seed == 1
        accuracy = 0.5 + 0.1 * trial.seed
        return Outcome(
            state=State.DONE,
            genotype=V2 if second else V1,
            accuracy_validation=accuracy,
            accuracy_macro_validation=1 - accuracy,
        )
    merit = 1 - abs(trial.recipe.lr - 0.2) if trial.recipe.images == "search_half" else None
    return Outcome(state=State.DONE, genotype=trial.genotype, accuracy_macro_validation=merit)


def worked(
    of: Plan,
    shuffle: random.Random | None = None,
    end: Callable[[Task], Outcome] = outcome,
    **known: Any,
) -> tuple[list[Task], Scheduler]:
    """Every trial, up to three at once, which end in an order that is drawn."""
    scheduler, taken, live = Scheduler(of, **known), list[Task](), list[Task]()
    while not scheduler.finished:
        while len(live) < 3 and (task := scheduler.next_task()) is not None:
            taken.append(task)
            live.append(task)
        ended = live.pop(shuffle.randrange(len(live)) if shuffle else 0)
        scheduler.settle(ended.trial.trial_id, end(ended))
    return taken, scheduler


def retrains(scheduler: Scheduler) -> tuple[list[Any], list[Any]]:
    """Trials and origins of proposals, and of what they led to."""
    entries = [(seen.trial, e) for e, seen in scheduler.known() if e.phase == "retrain"]
    tries = [trial for trial, e in entries if e.number is not None]  # type: ignore[union-attr]
    return tries, [trial for trial, e in entries if e.number is None]  # type: ignore[union-attr]


def test_every_cell_spends_its_budget_on_t_and_retrains_its_genotypes_on_everything() -> None:
    _, scheduler = worked(plan(grid()))
    tries, finals = retrains(scheduler)
    assert len(tries) == 2 * 6, "a study for each method"
    assert {trial.recipe.images for trial in tries} == {"search_half"}
    assert {trial.recipe.images for trial in finals} == {"full"}
    assert {trial.seed for trial in tries} == {0}
    assert len(finals) == 2 * 2 * 2, "methods, search seeds, retrain seeds"
    assert all(trial.recipe.epochs == 4 for trial in tries + finals)
    for study, found in tried(scheduler.known()).items():
        best = max(found, key=lambda one: one.objective or 0)
        values = dict(best.values)
        mine = [
            trial
            for trial, origin in ((s.trial, e.origin) for e, s in scheduler.known())
            if isinstance(trial, RetrainTrial)
            and origin
            and (origin.study, origin.proposal) == (study.name, None)
        ]
        assert {trial.recipe.lr for trial in mine} == {values["recipe.lr"]}
        assert {dict(t.recipe.loss.knobs)["tau"] for t in mine} == {
            values["recipe.loss.logit_adjust.tau"]
        }


def test_the_first_proposal_is_the_recipe_without_ranges() -> None:
    _, scheduler = worked(plan(grid()))
    first = retrains(scheduler)[0][0]
    assert (first.recipe.lr, first.recipe.loss) == (0.025, "logit_adjust")


def test_a_cell_tries_the_genotype_of_its_best_search() -> None:
    _, scheduler = worked(plan(grid(search={"methods": ["gdas"]})))
    tries, finals = retrains(scheduler)
    assert {trial.genotype for trial in tries} == {V2}, "that of seed 1"
    assert {trial.genotype for trial in finals} == {V1, V2}
    assert len({(trial.recipe.lr, trial.recipe.loss) for trial in finals}) == 1


def test_each_genotype_has_a_study_and_equal_ones_share_its_trials() -> None:
    taken, scheduler = worked(plan(grid(tune={"per": "genotype"})))
    assert len(tried(scheduler.known())) == 4, "of every search"
    tries = [t.trial for t in taken if getattr(t.trial.recipe, "images", "") == "search_half"]
    assert len(tries) == 2 * 6, "V1 was found three times"
    assert {trial.genotype for trial in tries} == {V1, V2}  # type: ignore[attr-defined]


def test_published_genotypes_are_tuned_too() -> None:
    _, scheduler = worked(plan(grid(winners="none", genotypes=["DARTS_V1", "DARTS_V2"])))
    tries, finals = retrains(scheduler)
    assert [len(tries), len(finals)] == [12, 4]
    assert {(o.method, o.recipe) for _, o in scheduler.links() if o.point is not None} == {
        ("DARTS_V1", "tuned=6"),
        ("DARTS_V2", "tuned=6"),
    }


def test_only_recipes_with_ranges_are_tuned() -> None:
    recipes = {"plain": {"epochs": 4}, "mine": RECIPE}
    of = plan(grid(recipes=recipes, search={"methods": ["darts"], "seeds": 1}))
    taken, scheduler = worked(of)
    called = {origin.recipe for _, origin in scheduler.links() if origin.recipe}
    assert called == {"plain", "mine tuning", "mine tuned=6"}
    assert len([t for t in taken if t.phase == "retrain"]) == 2 + 6 + 2


def test_seeds_of_a_trial_are_the_first_of_the_retrains() -> None:
    _, scheduler = worked(plan(grid(tune={"seeds_per_trial": 2, "trials": 3})))
    tries, _ = retrains(scheduler)
    assert sorted(trial.seed for trial in tries) == [0] * 6 + [1] * 6
    assert all(one.objective is not None for of in tried(scheduler.known()).values() for one in of)


@pytest.mark.parametrize("per", ["cell", "genotype"])
def test_neither_order_nor_a_new_process_changes_what_is_tried(per: str) -> None:
    of = plan(grid(tune={"per": per}))
    taken, scheduler = worked(of)
    whole = {task.trial.trial_id for task in taken}
    shuffled, _ = worked(of, random.Random(3))
    assert {task.trial.trial_id for task in shuffled} == whole
    settled = {task.trial.trial_id: outcome(task) for task in taken[:9]}
    rest, _ = worked(of, settled=settled)
    assert {task.trial.trial_id for task in rest} == whole - set(settled)
    assert scheduler.blocked == ()


def test_a_larger_budget_keeps_what_was_tried() -> None:
    few, many = (
        [t.trial_id for t in retrains(worked(plan(grid(tune={"trials": n})))[1])[0]] for n in (6, 9)
    )
    assert set(few) < set(many)
    assert len(many) - len(few) == 2 * 3


def test_what_was_tried_before_is_taken_as_it_was_unless_of_another_genotype() -> None:
    of = plan(grid(search={"methods": ["darts"], "seeds": 1}))
    fifth = next(e for e in of.retrains if e.number == 5)
    values = (("recipe.lr", 0.29), ("recipe.loss.logit_adjust.tau", 1.9))
    for genotype, taken_up in ((V1, True), (V2, False)):
        odd = fifth.study.trial(values, fifth.data, 0, genotype)
        taken, _ = worked(of, recalled={(fifth.study.name, 5, 0): odd})
        assert (odd in [task.trial for task in taken]) == taken_up


def test_where_every_search_failed_its_retrains_are_blocked() -> None:
    def end(task: Task) -> Outcome:
        return Outcome(state=State.FAILED) if task.phase == "search" else outcome(task)

    taken, scheduler = worked(plan(grid()), end=end)
    assert {task.phase for task in taken} == {"search"}
    assert len(scheduler.blocked) == 2 * 6 + 8


def test_tuned_searches_lead_to_tuned_retrains() -> None:
    tree = {
        "data": {"dataset": "digits"},
        "search": {
            "methods": [{"darts": {"arch_lr": {"low": 1e-4, "high": 1e-2}}}],
            "distributions": ["balance"],
            "seeds": 2,
        },
        "tune": {"trials": 4},
        "retrain": {"recipe": RECIPE, "tune": TUNE},
    }
    _, scheduler = worked(plan(Grid.from_dict(tree)))
    won = {(o.variant, o.recipe) for _, o in scheduler.links() if o.point is not None}
    assert won == {("tuned=4", "tuned=6")}
    assert sorted(len(found) for found in tried(scheduler.known()).values()) == [4, 6]


def test_a_phase_that_copies_a_tuned_slot_has_a_slot_of_its_own() -> None:
    from dataclasses import replace

    slot = plan(grid()).retrains[-1]
    copied = replace(slot, phase="classifier", parents=(slot.key,)).bare()
    assert (type(copied).__name__, copied.parents) == ("Slot", (slot.key,))
    assert slot.bare() is slot


def test_a_resolved_grid_plans_the_same() -> None:
    made = grid(recipes={"plain": {}, "mine": RECIPE}, tune={"per": "genotype"})
    again = Grid.from_json(made.to_json())
    assert again == made
    assert set(plan(again)) == set(plan(made))


def test_a_grid_without_it_is_kept_as_ever() -> None:
    plain = {"data": {"dataset": "digits"}, "search": {"methods": ["darts"]}}
    plain["search"] |= {"distributions": ["balance"]}
    assert '"tune"' not in Grid.from_dict(plain).to_json()


# Mistakes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": {"epochs": 4}}, "retrain.tune: there is nothing to tune: give a setting of"),
        ({"tune": {"objective": "accuracy_balanced"}}, "accuracy_balanced is measured on a test"),
        ({"tune": {"seeds_per_trial": 3}}, "retrain.tune.seeds_per_trial: 3 seeds a trial are"),
        ({"tune": {"per": "seed"}}, "retrain.tune.per: unknown choice 'seed'; choose from cell"),
        ({"tune": {"tries": 3}}, "retrain.tune.tries: unknown setting 'tries'; choose from"),
        ({"data": {"split_seed": "trial"}}, "retrain.tune.per: cell compares searches on the same"),
        ({"recipe": {"lr": {"low": -1, "high": 1}}}, "retrain.recipe.lr: -1.0 is out of range"),
        (
            {"recipe": {"classifier_stage": {"lr": {"low": 1.0, "high": 0.1}}}},
            "retrain.recipe.classifier_stage.lr: from 1 to 0.1 there is nothing",
        ),
        (
            {"recipes": {"mine": {"ema": {"low": 0.9, "high": 1.5}}}},
            "retrain.recipes.mine.ema: 1.5 is out of range",
        ),
    ],
)
def test_mistakes_are_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GridError) as refused:
        grid(**changes)
    assert said in str(refused.value)


def test_ranges_need_the_section() -> None:
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": ["darts"], "distributions": ["balance"]},
        "retrain": {"recipe": RECIPE},
    }
    with pytest.raises(GridError, match=r"retrain\.tune: a knob or setting has a range: say with"):
        Grid.from_dict(tree)


def test_a_knob_of_the_classifier_stage_is_tuned() -> None:
    stage = {
        "epochs": 2,
        "lr": {"low": 0.01, "high": 0.2},
        "loss": {"ce": {"smoothing": {"low": 0.0, "high": 0.3}}},
    }
    of = plan(grid(recipe={"classifier_stage": stage}, search={"methods": ["darts"], "seeds": 1}))
    _, scheduler = worked(of)
    stages = [trial.recipe.classifier_stage for trial in retrains(scheduler)[0]]
    assert (stages[0].lr, stages[0].loss) == (None, "ce")
    assert all(0.01 <= one.lr <= 0.2 for one in stages[1:])
    assert len({str(one) for one in stages}) == 6
