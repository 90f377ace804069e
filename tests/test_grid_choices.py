"""Losses and samplers with knobs, as a grid file names them and as trials are known by them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.space.published import published
from nas_sweeps.tables.rows import setting
from nas_sweeps.trial import (
    Choice,
    Data,
    Distribution,
    RetrainRecipe,
    RetrainTrial,
    trial_from_json,
)
from tests.test_grid_identity import RETRAIN


def grid(**recipe: Any) -> ns.Grid:
    return ns.Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": {"methods": ["darts"], "distributions": ["balance"], "recipe": recipe},
            "retrain": {"recipe": recipe},
        }
    )


def recipes(**recipe: Any) -> tuple[Any, Any]:
    made = grid(**recipe)
    return made.search.recipe, made.retrain.recipe


def test_a_loss_and_a_sampler_may_have_knobs() -> None:
    for recipe in recipes(loss={"logit_adjust": {"tau": 2}}, sampler={"effective": {"beta": 0.9}}):
        assert recipe.loss == Choice(name="logit_adjust", knobs=(("tau", 2.0),))
        assert recipe.sampler == Choice(name="effective", knobs=(("beta", 0.9),))


@pytest.mark.parametrize("loss", ["focal", {"focal": None}, {"focal": {}}, {"focal": {"gamma": 1}}])
def test_one_choice_has_one_spelling_however_it_is_written(loss: Any) -> None:
    plain = ns.plan(grid(loss="focal"))
    same = ns.plan(grid(loss=loss))
    assert [entry.key for entry in plain] == [entry.key for entry in same]


def test_knobs_are_part_of_an_identity_and_travel_in_json() -> None:
    def trial(loss: Any) -> RetrainTrial:
        return replace(RETRAIN, recipe=replace(RETRAIN.recipe, loss=loss))

    tau = trial(Choice(name="logit_adjust", knobs=(("tau", 2.0),)))
    assert len({tau.trial_id, trial("logit_adjust").trial_id, RETRAIN.trial_id}) == 3
    assert trial("ce").trial_id == RETRAIN.trial_id
    again = trial_from_json(tau.to_json())
    assert again == tau
    assert again.trial_id == tau.trial_id
    assert json.loads(tau.to_json())["recipe"]["loss"]["name"] == "logit_adjust"


def test_a_grid_writes_choices_as_it_reads_them() -> None:
    made = grid(loss={"focal": {"gamma": 2}}, sampler="over")
    tree = made.model_dump(mode="json")
    for phase in ("search", "retrain"):
        assert tree[phase]["recipe"]["loss"] == {"focal": {"gamma": 2.0}}
        assert tree[phase]["recipe"]["sampler"] == "over"
    again = ns.Grid.from_dict(tree)
    assert [entry.key for entry in ns.plan(again)] == [entry.key for entry in ns.plan(made)]


def test_the_column_setting_tells_knobs_apart() -> None:
    def of(loss: Any) -> str:
        return setting(
            RetrainTrial(
                data=Data(dataset="digits", label="digits"),
                distribution=Distribution(kind="balance"),
                genotype=published("DARTS_V2"),
                recipe=RetrainRecipe(loss=loss),
                seed=0,
            )
        )

    assert of("drw") == "loss=drw"
    assert of(Choice(name="focal", knobs=(("gamma", 2.0),))) == "loss=focal(gamma=2.0)"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"loss": {"focal": {"gama": 2}}},
         "recipe.loss.focal.gama: unknown setting 'gama'; choose from gamma (did you mean gamma?)"),
        ({"loss": {"focal": {"gamma": -1}}},
         "recipe.loss.focal.gamma: -1 is out of range; it must be at least 0"),
        ({"loss": {"focal": {"gamma": "2"}}}, "recipe.loss.focal.gamma: '2' is not a number"),
        ({"loss": {"fokal": {}}}, "recipe.loss: unknown loss 'fokal'; choose from "),
        ({"loss": {"focal": 2}}, "recipe.loss.focal: must hold knobs, `knob: value`, not 2"),
        ({"loss": {"focal": {}, "ce": {}}},
         "recipe.loss: write a loss's name or {name: {knob: value}}, not "),
        ({"sampler": ["over"]},
         "recipe.sampler: write a sampler's name or {name: {knob: value}}, not ['over']"),
        ({"sampler": {"over": {"beta": 0.5}}},
         "recipe.sampler.over.beta: unknown setting 'beta'; choose from"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(ns.GridError) as refused:
        grid(**recipe)
    for phase in ("search", "retrain"):
        assert f"grid: {phase}.{said}" in str(refused.value)
