"""What is left follows from what was measured, and is unknown until something was."""

from __future__ import annotations

from collections import Counter

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.pace import Kind, Pace, after, kind_at, left_s, parts_of, remaining_s
from nas_sweeps.watch.lines import span

SEARCH = Kind("search", "search", "darts ", "balance")
OTHER = Kind("search", "search", "ssf_nas ", "exp mu=0.1")
RETRAIN = Kind("retrain", "train", "darts ", "balance")
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
    assert Pace().seconds(found[2]) == 0.0


def test_nothing_is_known_before_anything_was_measured() -> None:
    assert Pace().epoch_s(SEARCH) is None
    assert remaining_s(Pace(), [], {((SEARCH, 1),): 1}, 1) is None


def test_the_nearest_kind_that_was_measured_counts() -> None:
    pace = Pace()
    pace.add(SEARCH, 2.0)
    pace.add(SEARCH, 4.0)
    assert pace.epoch_s(SEARCH) == 3.0
    assert pace.epoch_s(OTHER) == 3.0, "of the same phase, better than nothing"
    assert pace.epoch_s(RETRAIN) is None
    pace.add(OTHER, 90.0, epochs=3)
    assert pace.epoch_s(OTHER) == 30.0
    assert pace.epoch_s(SEARCH) == 3.0


def test_trials_share_the_slots_and_the_longest_bounds_them() -> None:
    pace = Pace()
    pace.add(SEARCH, 1.0)
    waiting = Counter({((SEARCH, 10),): 4})
    assert remaining_s(pace, [], waiting, 1) == 40.0
    assert remaining_s(pace, [], waiting, 2) == 20.0
    assert remaining_s(pace, [5.0, 60.0], waiting, 4) == 60.0
    assert remaining_s(pace, [None], waiting, 4) is None
    assert remaining_s(pace, [], {}, 4) == 0.0


def test_an_epoch_that_is_late_takes_nothing_from_the_later_ones() -> None:
    pace, parts = Pace(), ((SEARCH, 3),)
    assert left_s(pace, parts, 0, 1.0) is None
    pace.add(SEARCH, 10.0)
    assert left_s(pace, parts, 1, 4.0) == 16.0
    assert left_s(pace, parts, 1, 500.0) == 10.0
    assert left_s(pace, parts, 2, 500.0) == 0.0
    assert left_s(pace, parts, 3, 4.0) == 0.0


def test_a_plan_knows_its_epochs_by_stage() -> None:
    planned = ns.plan(GRID)
    assert [[n for _, n in parts_of(search)] for search in planned.searches] == [[7], [7]]
    plain, pretrained = (parts_of(slot) for slot in planned.retrains)
    assert [(kind.stage, n) for kind, n in plain] == [("train", 5)]
    assert [(kind.stage, n) for kind, n in pretrained] == [("pretrain", 3), ("finetune", 5)]
    assert [kind_at(pretrained, epoch).stage for epoch in (3, 4)] == ["pretrain", "finetune"]
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
