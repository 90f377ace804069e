"""Ranges in the knobs of a recipe's loss and sampler."""

from __future__ import annotations

from typing import Any

import pytest

from nas_sweeps.grid import Grid, GridError, plan
from nas_sweeps.schedule import Outcome, Scheduler
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store.records import State
from nas_sweeps.trial import Choice

DONE = Outcome(state=State.DONE, genotype=PUBLISHED["DARTS_V1"], accuracy_macro_validation=0.5)
GAMMA = {"focal": {"gamma": {"low": 0.5, "high": 5.0}}}


def grid(**recipe: Any) -> Grid:
    return Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": {"methods": ["darts"], "distributions": ["balance"], "recipe": recipe},
            "retrain": {"winners": "none"},
            "tune": {"trials": 6, "startup": 3, "parallel": 3},
        }
    )


def tried(of: Grid) -> list[Any]:
    """The recipes of the proposals, in their order."""
    scheduler, recipes = Scheduler(plan(of)), dict[int | None, Any]()
    while (task := scheduler.next_task()) is not None:
        recipes[task.origins[0].proposal] = task.trial.recipe
        scheduler.settle(task.trial.trial_id, DONE)
    return [recipes[n] for n in range(6)]


def test_a_knob_of_a_loss_is_tuned_from_its_default() -> None:
    losses = [recipe.loss for recipe in tried(grid(loss=GAMMA, epochs=3))]
    assert losses[0] == "focal", "the default, as a grid without a range has it"
    assert all(type(loss) is Choice and loss.name == "focal" for loss in losses[1:])
    gammas = [dict(loss.knobs)["gamma"] for loss in losses[1:]]
    assert all(0.5 <= gamma <= 5 for gamma in gammas)
    assert len({*gammas}) == 5


def test_several_knobs_and_settings_are_tuned_together() -> None:
    recipe: dict[str, Any] = {
        "loss": {"ldam": {"margin": {"choices": [0.3, 0.5, 0.7]}, "after": 0.8}},
        "sampler": {"effective": {"beta": {"low": 0.9, "high": 0.999, "default": 0.95}}},
        "batch_size": {"low": 16, "high": 64, "default": 32},
    }
    made = tried(grid(**recipe))
    assert str(made[0].loss) == "ldam(after=0.8)"
    assert str(made[0].sampler) == "effective(beta=0.95)"
    assert made[0].batch_size == 32
    assert {dict(one.loss.knobs)["after"] for one in made} == {0.8}
    assert {dict(one.loss.knobs).get("margin", 0.5) for one in made} <= {0.3, 0.5, 0.7}
    assert all(type(one.batch_size) is int for one in made)


def test_a_study_names_them_as_a_grid_file_places_them() -> None:
    (first, *_) = plan(grid(loss=GAMMA)).searches
    assert first.study.defaults() == (("recipe.loss.focal.gamma", 1.0),)


def test_a_resolved_grid_says_them_again() -> None:
    made = grid(loss=GAMMA, sampler={"effective": {"beta": {"low": 0.9, "high": 0.99}}})
    again = Grid.from_json(made.to_json())
    assert again == made
    assert list(plan(again)) == list(plan(made))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"focal": {"gamma": {"low": -1, "high": 5}}}, ".loss.focal.gamma: -1.0 is out of range"),
        ({"focal": {"gama": {"low": 1, "high": 5}}}, ".loss.focal.gama: unknown setting 'gama'"),
        ({"focl": {"gamma": {"low": 1, "high": 5}}}, ".loss: unknown loss 'focl'"),
        ({"focal": {"gamma": {"low": 5, "high": 1}}}, ".loss.focal.gamma: from 5 to 1 there is"),
        ({"ldam": {"margin": {"low": 1}}}, ".loss.ldam.margin: {'low': 1} is not a range"),
    ],
)
def test_mistakes_are_told_with_their_place(loss: Any, said: str) -> None:
    with pytest.raises(GridError) as refused:
        grid(loss=loss)
    assert f"grid: search.recipe{said}" in str(refused.value)
