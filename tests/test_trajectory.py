"""Genotypes that a search had along its way, retrained beside the one that it ended with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.report.table1 import table1
from nas_sweeps.schedule import replay
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store import Store
from nas_sweeps.sweep.only import chosen_by
from nas_sweeps.sweep.run import run
from nas_sweeps.tables import attributed
from tests.faked import faked
from tests.verbs import cli

SMALL = {"channels": 2, "layers": 3, "batch_size": 8}


def tree(winners: Any, methods: Any = ("darts",), **sections: Any) -> dict[str, Any]:
    return {
        "name": "along",
        "data": {"dataset": "digits", "image_size": 8, "n_max": 10, "test_n_max": 3},
        "search": {
            "methods": list(methods),
            "distributions": ["balance"],
            "recipe": SMALL | {"epochs": 4},
        },
        "retrain": {"winners": winners, "recipe": SMALL | {"epochs": 1}},
    } | sections


def grid(winners: Any, **fields: Any) -> ns.Grid:
    return ns.Grid.from_dict(tree(winners, **fields))


def run_inline(a_grid: ns.Grid, store: Path) -> None:
    with faked():
        assert run(a_grid, store, executor="inline", console="none").complete


def test_a_slot_names_its_epoch_and_plan_counts_them() -> None:
    asked = grid({"epochs": [4, 1, 2]}, methods=["darts", "random"])
    slots = ns.plan(asked).retrains
    each = [(slot.origin.method, slot.origin.search_epoch) for slot in slots]
    # A method that trains nothing has one genotype.
    assert each == [("darts", 1), ("darts", 2), ("darts", 4), ("random", None)]
    assert asked.retrain.count(asked.search) == len(slots)
    assert ns.Grid.from_json(asked.to_json()) == asked
    plan = ns.plan(asked)
    meant = chosen_by("search_epoch == 2", plan)
    assert [entry.origin.search_epoch for entry in plan if meant(entry)] == [2]


@pytest.mark.parametrize(
    ("winners", "said"),
    [
        ({"epochs": [1, 5]}, "retrain.winners.epochs: 5 comes after the last epoch of the search"),
        ({"epochs": []}, "retrain.winners: {'epochs': []} are no epochs of a search; write"),
        ({"epochs": [0]}, "are no epochs of a search"),
        ({"epochs": [1], "x": 1}, "are no epochs of a search"),
        ("eech", "unknown choice 'eech'; choose from each, best_of_seeds, none"),
    ],
)
def test_mistakes(winners: Any, said: str) -> None:
    with pytest.raises(ns.GridError) as caught:
        grid(winners)
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was done, and retrained at its end, before anybody asked for its way."""
    folder = tmp_path_factory.mktemp("along") / "store"
    run_inline(grid("each"), folder)
    run_inline(grid({"epochs": [1, 2, 4]}), folder)
    return folder


def test_each_retrain_has_the_genotype_of_its_epoch(store: Path) -> None:
    frames = ns.load(store)
    [search] = frames.trials[frames.trials["phase"] == "search"]["trial_id"]
    rows = frames.epochs[frames.epochs["trial_id"].astype(str) == search]
    had = {
        row["epoch"]: Genotype.from_json(json.loads(row["genotype"])).genotype_id
        for row in rows.to_dict("records")
    }
    assert len({had[epoch] for epoch in (1, 2, 4)}) == 3
    found = attributed(frames)
    assert dict(zip(found["search_epoch"], found["genotype_id"], strict=True)) == {
        epoch: had[epoch] for epoch in (1, 2, 4)
    }
    # The end is one result, though it was asked for in two ways.
    assert len(frames.trials) == 4


def test_the_epoch_is_a_column_and_sets_rows_apart(store: Path) -> None:
    frames = ns.load(store)
    retrains = frames.trials[frames.trials["phase"] == "retrain"]
    assert sorted(retrains["search_epoch"]) == [1, 2, 4]
    assert ns.summarise(frames).index.names == ["method", "search_epoch"]
    assert sorted(table1(frames)["who"]) == ["darts epoch 1", "darts epoch 2", "darts epoch 4"]


def test_plans_and_lines_name_the_epoch(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps(tree({"epochs": [1, 3]})))
    planned = cli("plan", file, "--store", store).stdout
    assert "darts epoch 1" in planned
    with faked():
        done = cli("run", file, "--store", tmp_path / "s", "--executor", "inline")
    assert "retrain darts epoch 3 balance s0" in done.stdout
    assert done.returncode == 0


def test_nothing_is_retrained_from_an_epoch_without_a_genotype(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "store"
    run_inline(grid("none"), other)
    [search] = ns.load(other).trials["trial_id"]
    [epochs] = (other / "trials" / search).rglob("*.epochs.parquet")
    epochs.unlink()
    with pytest.warns(UserWarning, match="its rows hold no genotype of epoch 1"):
        scheduler = replay(ns.plan(grid({"epochs": [1, 4]})), Store(other))
    assert [slot.origin.search_epoch for slot in scheduler.blocked] == [1]
