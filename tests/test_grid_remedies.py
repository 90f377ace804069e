"""Which settings of a recipe go together, told when a grid is read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import nas_sweeps as ns
from nas_sweeps.cost.epochs import parts_of
from nas_sweeps.recipes import require_sound
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.tables.rows import setting
from nas_sweeps.trial import (
    Choice,
    ClassifierStage,
    Data,
    Distribution,
    RetrainRecipe,
    RetrainTrial,
    trial_from_json,
)


def grid(
    search: dict[str, Any] | None = None,
    retrain: dict[str, Any] | None = None,
    methods: Any = ("darts",),
    **section: Any,
) -> ns.Grid:
    return ns.Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": {
                "methods": list(methods),
                "distributions": ["balance"],
                "recipe": search or {},
            },
            "retrain": {"recipe": retrain or {}} | section,
        }
    )


STAGE: dict[str, Any] = {"epochs": 3, "loss": {"label_aware_smoothing": {"smoothing_head": 0.3}}}


def test_a_stage_of_the_classifier_is_a_section_of_the_recipe() -> None:
    made = grid(retrain={"classifier_stage": STAGE})
    stage = made.retrain.recipe.classifier_stage
    loss = Choice(name="label_aware_smoothing", knobs=(("smoothing_head", 0.3),))
    assert stage == ClassifierStage(epochs=3, loss=loss)
    tree = made.model_dump(mode="json")
    assert tree["retrain"]["recipe"]["classifier_stage"]["loss"] == STAGE["loss"]
    again = ns.Grid.from_dict(tree)
    assert [e.key for e in ns.plan(again)] == [e.key for e in ns.plan(made)]


def test_an_empty_stage_has_its_defaults_and_none_is_none() -> None:
    assert grid(retrain={"classifier_stage": {}}).retrain.recipe.classifier_stage == (
        ClassifierStage()
    )
    assert grid(retrain={"classifier_stage": None}).retrain.recipe.classifier_stage is None


def test_a_plan_prices_the_stage() -> None:
    made = grid(retrain={"epochs": 5, "classifier_stage": STAGE}, methods=["ssf_nas"])
    (slot,) = ns.plan(made).retrains
    assert [(kind.stage, n) for kind, n in parts_of(slot)] == [
        ("pretrain", 150),
        ("finetune", 5),
        ("classifier", 3),
    ]


def trial(**recipe: Any) -> RetrainTrial:
    return RetrainTrial(
        data=Data(dataset="digits", label="digits"),
        distribution=Distribution(kind="balance"),
        genotype=Genotype((("sep_conv_3x3", 0, 2),), (("max_pool_3x3", 1, 2),)),
        recipe=RetrainRecipe(**recipe),
        seed=0,
    )


def test_a_stage_travels_in_json_and_has_a_column() -> None:
    made = trial(classifier_stage=ClassifierStage(learn="scale"), ema=0.9)
    assert trial_from_json(made.to_json()) == made
    told = "classifier_stage=15 epochs of scale balanced ce,ema=0.9"
    assert setting(made) == told
    assert setting(trial(classifier_stage=ClassifierStage())) != setting(trial())


def test_every_remedy_is_off_by_default_and_changes_the_id_where_it_is_on() -> None:
    on = {
        "classifier": "cosine", "classifier_scale": 16.0, "classifier_stage": ClassifierStage(),
        "mixup": 0.2, "cutmix": 1.0, "mix_probability": 0.5, "nesterov": True,
        "warmup_epochs": 5, "schedule": "linear", "ema": 0.99, "sampler": "over",
        "policy": "trivial_augment",
    }  # fmt: skip
    later = {field.name for field in fields(RetrainRecipe) if "absent" in field.metadata}
    assert later == set(on)
    ids = {trial(**{name: value}).trial_id for name, value in on.items()}
    assert len(ids | {trial().trial_id}) == len(on) + 1


RIGHT: list[dict[str, Any]] = [
    {"loss": "ldam", "classifier": "etf"},
    {"loss": "ldam", "classifier": "cosine"},
    {"loss": "ldam", "classifier_stage": {"loss": "ldam"}},
    {"classifier": "etf", "classifier_stage": {"learn": "scale"}},
    {"classifier": "etf", "auxiliary": 0.4},
    {"loss": "drw", "classifier_stage": {"loss": "drw"}, "ema": 0.99},
    {"cutmix": 1.0, "sampler": "balanced", "loss": {"ce": {"smoothing": 0.1}}},
    {"mixup": 1.0, "loss": "ghm", "classifier_stage": {}},
]


@pytest.mark.parametrize("recipe", RIGHT, ids=str)
def test_these_go_together(recipe: dict[str, Any]) -> None:
    require_sound(grid(retrain=recipe, pretrain="barlow").retrain.recipe)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"mixup": 0.2, "cutmix": 1.0}, "cutmix",
     "cutmix and mixup are both on, and a batch is mixed in one way; set one of them to 0"),
    ({"loss": "ldam", "classifier": "linear"}, "loss",
     "loss ldam takes cosines, which the classifier 'linear' does not give; set classifier"),
    ({"classifier_stage": {"loss": {"ldam": {"scale": 20}}}}, "classifier_stage.loss",
     "loss ldam(scale=20.0) takes cosines, which the classifier 'linear' does not give"),
    ({"classifier": "etf", "classifier_stage": {}}, "classifier_stage.learn",
     "learn classifier has nothing to learn where the classifier is etf, which is fixed; use"),
    ({"nesterov": True, "momentum": 0.0}, "nesterov", "nesterov needs a momentum above 0"),
    ({"warmup_epochs": 5, "epochs": 5}, "warmup_epochs",
     "warmup_epochs is 5 of 5 epochs, so the rate would never fall; lower it, or raise epochs"),
    ({"warmup_epochs": 5, "schedule": "one_cycle"}, "warmup_epochs",
     "warmup_epochs is not for one_cycle, which begins with a warm-up; set it to 0"),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "place", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_these_are_refused_with_the_reason(recipe: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(ns.GridError) as refused:
        grid(retrain=recipe)
    assert f"grid: retrain.recipe.{place}: {said}" in str(refused.value)


def test_a_fixed_classifier_cannot_be_what_is_trained_after_pretraining() -> None:
    grid(retrain={"classifier": "etf"}, pretrain="none", barlow={"then": "linear"})
    with pytest.raises(ns.GridError, match=r"retrain.recipe.classifier: classifier etf is fixed"):
        grid(retrain={"classifier": "etf"}, pretrain="barlow", barlow={"then": "linear"})


def test_a_fixed_classifier_cannot_be_the_probe_of_a_search_without_labels() -> None:
    grid(search={"classifier": "etf"}, methods=["darts", "fairdarts"])
    with pytest.raises(ns.GridError, match=r"search.methods\[0\]: ssf_nas trains its weights with"):
        grid(search={"classifier": "etf"}, methods=["ssf_nas"])


def test_a_search_is_checked_too() -> None:
    with pytest.raises(ns.GridError, match=r"search.recipe.loss: loss ldam takes cosines"):
        grid(search={"loss": "ldam", "classifier": "linear"})


def test_unknown_settings_of_the_stage_name_the_choices() -> None:
    with pytest.raises(ns.GridError) as refused:
        grid(retrain={"classifier_stage": {"epoch": 3, "sampler": "balancd"}})
    assert (
        "grid: retrain.recipe.classifier_stage.epoch: unknown setting 'epoch'; choose from epochs, "
        "learn, loss, sampler, lr (did you mean epochs?)" in refused.value.args
    )
    assert "retrain.recipe.classifier_stage.sampler: unknown sampler 'balancd'" in str(
        refused.value
    )


# The preset `strong`, and the grids that take it apart

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def recipes_of(name: str) -> dict[str, RetrainRecipe]:
    """The recipes of a grid file, each read as the one of a grid."""
    written = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())["retrain"]["recipes"]
    return {name: grid(retrain=recipe).retrain.recipe for name, recipe in written.items()}


def differences(one: RetrainRecipe, other: RetrainRecipe) -> set[str]:
    return {
        field.name
        for field in fields(RetrainRecipe)
        if getattr(one, field.name) != getattr(other, field.name)
    }


@pytest.mark.parametrize("name", ["ablation", "ablation_cpu"])
def test_each_recipe_of_an_ablation_takes_one_part_away(name: str) -> None:
    recipes = recipes_of(name)
    strong = recipes.pop("strong")
    assert len(set(recipes.values()) | {strong}) == len(recipes) + 1
    parts = {
        "no_adjustment": {"loss"},
        "no_cutmix": {"cutmix"},
        "no_policy": {"policy"},
        "no_average": {"ema"},
        "no_drop_path": {"drop_path"},
        "no_auxiliary": {"auxiliary"},
        "no_warm_up": {"nesterov", "warmup_epochs", "lr"},
        "mixup": {"mixup", "cutmix"},
        "deferred": {"loss"},
        "classifier_stage": {"loss", "classifier_stage"},
    }
    for part, settings in parts.items():
        if part in recipes:
            assert differences(strong, recipes[part]) == settings, part
    assert len(parts.keys() & recipes.keys()) == {"ablation": 10, "ablation_cpu": 6}[name]


def test_the_strong_grid_searches_once_by_each_method_and_retrains_their_cells_strongly() -> None:
    made = ns.load_grid(EXPERIMENTS / "strong.yaml")
    planned = ns.plan(made)
    assert (len(planned.searches), len(planned.retrains)) == (3, 4)
    assert {slot.recipe for slot in planned.retrains} == {
        grid(retrain={"preset": "strong"}).retrain.recipe
    }
    assert made.resources("retrain").gpus == 1


def test_the_ablations_are_grids() -> None:
    kept = [f"data.fingerprint='{'2' * 64}'"]
    for name, overrides, retrains in (("ablation", [], 36), ("ablation_cpu", kept, 24)):
        planned = ns.plan(ns.load_grid(EXPERIMENTS / f"{name}.yaml", overrides))
        assert (len(planned.searches), len(planned.retrains)) == (0, retrains)


def test_recipes_by_name_are_told_of_as_one_is() -> None:
    with pytest.raises(ns.GridError) as refused:
        ns.Grid.from_dict(
            {
                "data": {"dataset": "digits"},
                "search": {"methods": ["darts"], "distributions": ["balance"]},
                "retrain": {
                    "recipes": {
                        "a": {"classifier_stage": {"epoch": 3}},
                        "b": {"mixup": 1.0, "cutmix": 1.0},
                    }
                },
            }
        )
    assert (
        "grid: retrain.recipes.a.classifier_stage.epoch: unknown setting 'epoch'; choose from "
        "epochs, learn, loss, sampler, lr (did you mean epochs?)" in refused.value.args
    )
    assert "grid: retrain.recipes.b.cutmix: cutmix and mixup are both on" in str(refused.value)


def test_settings_that_a_method_does_not_read_are_told(tmp_path: Path) -> None:
    tree = {
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts", "ssf_nas", {"ssf_nas": {"where": "joint"}}, "random"],
            "distributions": ["balance"],
            "recipe": {"loss": "focal", "mixup": 1.0},
        },
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(tree))
    with pytest.warns(UserWarning, match="changes nothing") as told:
        ns.load_grid(tmp_path / "grid.yaml")
    assert [str(w.message).partition("grid.yaml: ")[2] for w in told] == [
        "search.recipe.loss, search.recipe.mixup: not read in searches by random, where it changes "
        "nothing"
    ], "of ssf_nas one variant reads them"
    tree["search"]["methods"] = ["ssf_nas", {"ssf_nas": {"where": "w_only"}}]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(tree))
    with pytest.warns(
        UserWarning, match=r"grid.yaml: search.recipe.mixup: not read in searches by ssf"
    ):
        ns.load_grid(tmp_path / "grid.yaml")
