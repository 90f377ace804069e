"""Which epochs a trial is made of."""

from __future__ import annotations

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.epochs import after, parts_of
from nas_sweeps.watch.lines import span

GRID = ns.Grid.from_dict(
    {
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts", "ssf_nas"],
            "distributions": ["balance"],
            "seeds": [0],
            "recipe": {"epochs": 7},
        },
        "retrain": {"recipe": {"epochs": 5}, "barlow": {"epochs": 3}},
    }
)


def test_a_search_has_the_stages_of_its_method() -> None:
    tree = GRID.model_dump(mode="json")
    tree["search"] |= {
        "methods": ["darts", {"pc_darts": {"warmup_epochs": 3}}, "random"],
        "recipe": {"epochs": 7},
    }
    found = [parts_of(search) for search in ns.plan(ns.Grid.from_dict(tree)).searches]
    assert [[(kind.stage, n) for kind, n in parts] for parts in found] == [
        [("search", 7)],
        [("warmup", 3), ("search", 4)],
        [],
    ]


def test_a_plan_knows_its_epochs_by_stage() -> None:
    planned = ns.plan(GRID)
    assert [[n for _, n in parts_of(search)] for search in planned.searches] == [[7], [7]]
    plain, pretrained = (parts_of(slot) for slot in planned.retrains)
    assert [(kind.stage, n) for kind, n in plain] == [("train", 5)]
    assert [(kind.stage, n) for kind, n in pretrained] == [("pretrain", 3), ("finetune", 5)]
    assert [n for _, n in after(pretrained, 2)] == [1, 5]
    assert [n for _, n in after(pretrained, 6)] == [2]
    assert after(pretrained, 8) == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (99.4, "99s"),
        (99.6, "1m40s"),
        (599, "9m59s"),
        (600, "10m"),
        (720, "12m"),
        (11100, "3h05m"),
        (4 * 86400 + 6 * 3600, "4d06h"),
    ],
)
def test_a_span_is_short(seconds: float, text: str) -> None:
    assert span(seconds) == text
