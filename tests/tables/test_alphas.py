from __future__ import annotations

from typing import Any

import pytest

from nas_sweeps.space.genotype import EDGES
from nas_sweeps.tables import compact, edge_weights, load, operation_weights
from nas_sweeps.tables.compaction import write_epochs
from tests.store.conftest import weighed


def test_edge_weights_are_tidy(lab: Any) -> None:
    trial = lab.search()
    lab.epochs(trial, (0.5, 0.25))
    tidy = edge_weights(load(lab.store))
    assert len(tidy) == 2 * 2 * len(EDGES) * 2  # epochs, cells, edges, operations
    keys = ["epoch", "cell", "node", "source", "operation"]
    found = tidy.set_index(keys)["weight"]
    assert found[2, "normal", 4, 1, "skip_connect"] == 0.25
    assert found[1, "normal", 5, 4, "none"] == 0.5
    assert found[1, "reduce", 2, 0, "skip_connect"] == 0.25
    assert not tidy.duplicated(keys).any()
    assert set(tidy["trial_id"]) == {trial.trial_id}


def test_operations_are_averaged_over_edges(lab: Any) -> None:
    trial, epoch = lab.search(), weighed(0.0)
    epoch["edge_weights"][1] = 0.7  # skip_connect, on the normal cell's first edge alone
    write_epochs(lab.begin(trial).files, [{"stage": "search", "epoch": 1} | epoch])
    found = operation_weights(load(lab.store)).set_index(["cell", "operation"])["weight"]
    assert found["normal", "skip_connect"] == pytest.approx(0.7 / len(EDGES))
    assert found["reduce", "none"] == 0.75


def test_methods_with_other_operations_keep_their_names(lab: Any) -> None:
    two, one = lab.search(0), lab.search(1)
    lab.epochs(two, (0.5,))
    own = {"operations": "mine", "edge_weights": [0.125] * 2 * len(EDGES)}
    write_epochs(lab.begin(one).files, [{"stage": "search", "epoch": 1} | own])
    found = operation_weights(load(lab.store))
    names = found.groupby("trial_id")["operation"].agg(set)
    assert names[one.trial_id] == {"mine"}
    assert names[two.trial_id] == {"none", "skip_connect"}


def test_epochs_of_an_older_version_have_no_weights(lab: Any) -> None:
    trial = lab.search()
    rows = [{"stage": "search", "epoch": 1}, {"stage": "search", "epoch": 2} | weighed(0.5)]
    write_epochs(lab.begin(trial).files, rows)
    for _ in range(2):
        frames = load(lab.store)
        assert frames.alphas["epoch"].tolist() == [2]
        assert frames.epochs["epoch"].tolist() == [1, 2]
        lab.age()
        compact(lab.store)


def test_a_store_without_searches_has_empty_weights(lab: Any) -> None:
    frames = load(lab.store)
    assert list(edge_weights(frames)) == [
        *("trial_id", "epoch", "cell", "node", "source", "operation", "weight"),
    ]
    assert operation_weights(frames).empty
