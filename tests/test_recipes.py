"""Several recipes of retraining in one grid: their names are labels, and say nothing of what is
computed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.report.bars import final_data
from nas_sweeps.report.compare import compare
from nas_sweeps.report.table1 import table1
from nas_sweeps.store import Origin, Store
from nas_sweeps.sweep.only import chosen_by
from nas_sweeps.sweep.run import run
from nas_sweeps.tables import attributed
from tests.faked import faked
from tests.verbs import cli

SMALL = {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 8}
LONG = SMALL | {"epochs": 3}


def tree(name: str = "recipes", **retrain: Any) -> dict[str, Any]:
    return {
        "name": name,
        "data": {"dataset": "digits", "image_size": 8, "n_max": 10, "test_n_max": 3},
        "search": {
            "methods": ["darts"],
            "distributions": ["balance"],
            "seeds": 2,
            "recipe": SMALL,
        },
        "retrain": {"genotypes": ["DARTS_V2"], **retrain},
    }


BOTH = {"recipes": {"short": SMALL, "long": LONG}}


def complaint(**retrain: Any) -> str:
    with pytest.raises(ns.GridError) as caught:
        ns.Grid.from_dict(tree(**retrain))
    return str(caught.value)


# The grid


def test_every_genotype_is_retrained_under_each() -> None:
    grid = ns.Grid.from_dict(tree(**BOTH))
    retrains = ns.plan(grid).retrains
    each = [(slot.origin.method, slot.origin.recipe, slot.recipe.epochs) for slot in retrains]
    assert each == [
        *2 * [("darts", "short", 2), ("darts", "long", 3)],
        *[("DARTS_V2", "short", 2), ("DARTS_V2", "long", 3)],
    ]
    assert grid.retrain.count(grid.search) == len(retrains)


def test_a_preset_stands_for_its_settings() -> None:
    grid = ns.Grid.from_dict(tree(recipes={"paper": "paper", "darts": {"preset": "darts"}}))
    assert [slot.recipe.epochs for slot in ns.plan(grid).retrains[:2]] == [150, 600]
    assert ns.Grid.from_dict(tree(recipe="darts")).retrain.recipe.epochs == 600


def test_a_name_is_no_part_of_what_is_computed() -> None:
    plain = ns.plan(ns.Grid.from_dict(tree(recipe=SMALL))).retrains[-1]
    named, _ = ns.plan(ns.Grid.from_dict(tree(**BOTH))).retrains[-2:]
    assert named.resolve(named.genotype) == plain.resolve(plain.genotype)
    # As earlier versions had it, so that nobody is asked twice for one trial.
    assert Origin(method="darts", variant="order=second", search_id="s-1", seed=3).key == OLD_KEY
    assert "recipe" not in Origin(method="DARTS_V2").to_json()


OLD_KEY = "8597fce4414216e0"


def test_a_resolved_grid_reads_back() -> None:
    grid = ns.Grid.from_dict(tree(**BOTH))
    kept = json.loads(grid.to_json())["retrain"]
    assert set(kept["recipes"]) == {"short", "long"}
    assert "recipe" not in kept
    assert ns.Grid.from_json(grid.to_json()) == grid
    # A grid with one recipe is written as it always was: its digest names it in stores.
    assert "recipes" not in json.loads(ns.Grid.from_dict(tree()).to_json())["retrain"]


@pytest.mark.parametrize(
    ("retrain", "said"),
    [
        (BOTH | {"recipe": SMALL}, "retrain: give either retrain.recipe or retrain.recipes, not"),
        ({"recipes": {"a": "papr"}}, "retrain.recipes.a.preset: unknown preset 'papr'; choose"),
        ({"recipes": {"a": {"epocs": 3}}}, "unknown setting 'epocs'; choose from preset, channels"),
        ({"recipes": ["paper"]}, "retrain.recipes: must hold recipes by name"),
        ({"recipes": {"a+b": "paper"}}, "retrain.recipes.a+b: is to stand in tables"),
        ({"recipes": {"a": "paper", "b": {}}}, "b: has the same settings as 'a'; remove one"),
        ({"recipes": {"a": {"pretrain": 1}}}, "recipes.a.pretrain: is not part of a recipe"),
    ],
)
def test_mistakes_name_their_place(retrain: dict[str, Any], said: str) -> None:
    assert said in complaint(**retrain)


def test_a_run_can_be_limited_to_a_recipe() -> None:
    plan = ns.plan(ns.Grid.from_dict(tree(**BOTH)))
    meant = chosen_by("recipe == 'long'", plan)
    assert [e.recipe.epochs for e in plan if meant(e)] == [3, 3, 3]


# Results


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three genotypes, each under two recipes."""
    folder = tmp_path_factory.mktemp("recipes") / "store"
    with faked():
        assert run(ns.Grid.from_dict(tree(**BOTH)), folder, executor="inline", console="none")
    return folder


def retrains(store: Path) -> Any:
    trials = ns.load(store).trials
    return trials[trials["phase"] == "retrain"]


def test_the_recipe_is_a_column(store: Path) -> None:
    assert retrains(store).groupby("recipe")["epochs"].unique().map(list).to_dict() == {
        "long": [3],
        "short": [2],
    }
    table = ns.summarise(ns.load(store))
    assert table.index.names == ["method", "recipe"]
    assert list(table.index)[:2] == [("DARTS_V2", "long"), ("DARTS_V2", "short")]


def test_it_is_in_figures_and_tables_of_the_report(store: Path) -> None:
    frames = ns.load(store)
    rows = final_data(frames)["row"].cat.categories
    assert list(rows) == ["DARTS_V2\nlong", "DARTS_V2\nshort", "darts\nlong", "darts\nshort"]
    assert list(table1(frames)["what"].unique()) == ["long", "short"]


def test_it_is_in_plans_and_live_lines(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps(tree(**BOTH)))
    planned = cli("plan", file, "--store", tmp_path / "none")
    assert "darts (short)" in planned.stdout
    assert "DARTS_V2 (long)" in planned.stdout
    with faked():
        done = cli("run", file, "--store", tmp_path / "s", "--executor", "inline")
    assert "retrain darts (long) balance s0" in done.stdout


def test_two_names_for_the_same_settings_share_trials(store: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    other = tree("other", recipes={"mine": SMALL, "third": SMALL | {"epochs": 1}})
    with faked():
        for one in (tree(**BOTH), tree("plain", recipe=SMALL), other):
            run(ns.Grid.from_dict(one), both, executor="inline", console="none")
    rows = retrains(both)
    assert sorted(rows["recipe"]) == 3 * ["long"] + 3 * ["mine+short"] + 3 * ["third"]
    # Asked for three times, a retrain is one result.
    assert len(attributed(ns.load(both))) == 9
    assert (ns.summarise(ns.load(both)).xs("n", axis=1, level="statistic").sum() == 9).all()


def test_stores_that_call_a_recipe_otherwise_compare(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with faked():
        grid = ns.Grid.from_dict(tree(recipes={"mine": SMALL}))
        run(grid, other, executor="inline", console="none")
    found = compare(ns.load(store), ns.load(other))
    cells = found.cells[found.cells["phase"] == "retrain"]
    assert list(cells["recipe"]) == ["mine+short", "mine+short"]
    assert set(found.alone["recipe"]) == {"long"}
    said = cli("compare", store, other).stdout
    assert "darts (mine+short)" in said
    assert Store(other).exists()
