"""Data sets whose classes are unequal by themselves: what is kept, grouped and tested, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.data.longtail import class_groups
from nas_sweeps.data.profiles import kept_counts, known_counts, known_remarks
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.grid import Grid, GridError
from nas_sweeps.sweep.doctor import drawn
from nas_sweeps.trial import Data, Distribution, Groups, trial_from_json
from tests.verbs import cli

NATURAL = Distribution(kind="natural")
BALANCE = Distribution(kind="balance")
TRAIN, TEST = (3, 12, 7), (2, 4, 3)


def exp(mu: float) -> Distribution:
    return Distribution(kind="exp", mu=mu)


@pytest.fixture
def unequal(tmp_path: Path, png: Any, write_parquet: Any) -> Path:
    """A data set of three classes with ``TRAIN`` and ``TEST`` images."""
    for split, counts in (("train", TRAIN), ("test", TEST)):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        blobs = [png(seed) for seed in range(len(labels))]
        write_parquet(tmp_path / "set" / f"{split}.parquet", blobs, labels)
    return tmp_path / "set"


@pytest.fixture
def bundle(unequal: Path, places: Any, custom: Any) -> Callable[..., DataSplits]:
    def build(distribution: Distribution, **fields: Any) -> DataSplits:
        return prepare(custom(**fields), distribution, places(unequal), "cpu")

    return build


def test_natural_keeps_every_image(bundle) -> None:
    b = bundle(NATURAL)
    assert b.train_counts == TRAIN
    assert (b.t_counts, b.v_counts) == ((2, 6, 4), (1, 6, 3))
    assert b.full_index.sort().values.tolist() == list(range(sum(TRAIN)))
    assert b.notes == ()


@pytest.mark.parametrize(("own", "of_data"), [(5, None), (None, 5), (5, 9), (9, 5)])
def test_a_cap_takes_from_the_head_alone(bundle, own, of_data) -> None:
    b = bundle(Distribution(kind="natural", n_max=own), n_max=of_data)
    assert b.train_counts == (3, 5, 5)


def test_a_drawn_tail_may_start_from_unequal_counts_and_says_so(bundle) -> None:
    b = bundle(exp(0.5), n_max=10)
    assert b.train_counts == (3, 7, 5), "10, 7 and 5, of which class 0 has 3"
    assert b.notes == (
        "exp mu=0.5: 1 of 3 classes have fewer images than their share, and keep all that they "
        "have",
    )


def test_a_drawn_tail_without_n_max_is_that_of_the_smallest_class_and_says_so(bundle) -> None:
    b = bundle(exp(0.7))
    assert b.train_counts == (3, 2, 2)
    assert b.notes == (
        "exp mu=0.7: the head is as large as the smallest class, 3; set data.n_max, up to 12, for "
        "more images",
    )


def test_a_tail_of_which_no_class_has_its_share_is_refused(bundle) -> None:
    with pytest.raises(ValueError, match=r"no such tail; lower data\.n_max to 12"):
        bundle(exp(0.9), n_max=1000)


def test_balance_of_unequal_classes_keeps_all_and_says_so(bundle) -> None:
    b = bundle(BALANCE)
    assert b.train_counts == TRAIN
    assert "as natural does; set data.n_max to 3 for equal classes" in b.notes[0]
    assert bundle(BALANCE, n_max=3).train_counts == (3, 3, 3)
    assert bundle(BALANCE, n_max=3).notes == ()


def test_a_class_of_one_image_is_refused_with_what_helps(bundle) -> None:
    with pytest.raises(ValueError, match="needs 2, one for each half of the search; add images"):
        bundle(Distribution(kind="natural", n_max=1))


# Groups


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (None, ("tail", "tail", "tail")),
        (Groups(by="shots", many=10, few=5), ("tail", "head", "medium")),
        (Groups(by="shots", many=7, few=7), ("tail", "head", "medium")),
        (Groups(by="rank"), ("tail", "head", "medium")),
    ],
)
def test_groups_of_natural_counts_go_by_images_unless_chosen(bundle, groups, expected) -> None:
    assert bundle(NATURAL, groups=groups).groups == expected


def test_shots_have_the_usual_bounds() -> None:
    groups = class_groups(NATURAL, (101, 100, 20, 19))
    assert groups == ("head", "medium", "medium", "tail")


def test_chosen_groups_hold_for_drawn_tails_too() -> None:
    counts = (5000, 500, 50, 5)
    assert class_groups(exp(0.001), counts, None, Groups(by="shots")) == (
        *("head", "head"),
        *("medium", "tail"),
    )


# The long-tailed test


def test_a_natural_test_set_is_the_long_tailed_one(bundle) -> None:
    b = bundle(NATURAL)
    assert b.lt_test_counts == TEST
    assert b.lt_test_index.sort().values.tolist() == list(range(sum(TEST)))


def test_of_a_balanced_test_set_classes_count_by_their_training_images(bundle) -> None:
    b = bundle(NATURAL, test_n_max=2)
    assert b.lt_test_counts == TRAIN, "exact, however small the test set"
    assert b.test_labels[b.lt_test_index].bincount().tolist() == [1, 2, 1]
    capped = bundle(Distribution(kind="natural", n_max=4), test_n_max=2)
    assert capped.lt_test_counts == TRAIN, "a cap is on what is trained on"


def test_the_natural_profile_can_be_chosen_for_other_trainings(bundle) -> None:
    assert bundle(exp(0.7), long_tailed_test=NATURAL).lt_test_counts == TEST


# Without images


def test_counts_of_a_data_set_with_a_name_are_known(places) -> None:
    data = Data(dataset="digits", label="d", n_max=200)
    assert known_counts(data, NATURAL) == (116,) * 10
    tail = known_counts(data, exp(0.1))
    assert tail is not None
    assert tail[:4] == (116, 116, 116, 92)
    assert tail == prepare(data, exp(0.1), places(), "cpu").train_counts
    assert known_counts(data, BALANCE) is None, "there are not so many"
    assert "3 of 10 classes have fewer" in known_remarks(data, exp(0.1))[0]


def test_kept_counts_follow_the_rank() -> None:
    assert kept_counts(exp(0.25), 8, (9, 2, 3)) == (8, 2, 2)


# In grid files


def grid(**data: Any) -> Grid:
    distributions = data.pop("distributions", ["natural"])
    return Grid.from_dict(
        {
            "data": {"dataset": "digits"} | data,
            "search": {"methods": ["darts"], "distributions": distributions},
        }
    )


def test_a_grid_says_natural_with_and_without_a_cap() -> None:
    found = grid(distributions=["natural", {"natural": {"n_max": 50}}, {"natural": {"n_max": [9]}}])
    assert [str(cell) for cell in found.search.distributions] == [
        *("natural", "natural n_max=50", "natural n_max=9"),
    ]
    assert Grid.from_json(found.to_json()) == found
    for trial in ns.plan(found).searches:
        assert trial_from_json(trial.to_json()) == trial


@pytest.mark.parametrize("value", [5, {"n_max": 0}, {"max": 5}, {"n_max": "9"}, None, []])
def test_a_cap_that_is_none_is_refused(value) -> None:
    with pytest.raises(GridError, match=r"natural: .* write \{natural: \{n_max: 1000\}\}"):
        grid(distributions=[{"natural": value}])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rank", Groups(by="rank")),
        ("shots", Groups(by="shots")),
        ({"many": 50}, Groups(by="shots", many=50)),
        ({"many": 50, "few": 5}, Groups(by="shots", many=50, few=5)),
        (None, None),
    ],
)
def test_a_grid_chooses_groups(given, expected) -> None:
    found = grid(groups=given)
    assert found.data.spec(0).groups == expected
    assert Grid.from_json(found.to_json()) == found
    for trial in ns.plan(found).searches:
        assert trial_from_json(trial.to_json()) == trial


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("shot", "choose from rank, shots, {many: 100, few: 20}"),
        ({"many": 0}, "choose from rank, shots"),
        ({}, "choose from rank, shots"),
        ({"many": 10, "few": 12}, "would be many .* and few .* lower few"),
    ],
)
def test_groups_that_are_none_are_refused(given, said) -> None:
    with pytest.raises(GridError, match=rf"data\.groups: .*{said}"):
        grid(groups=given)


def test_doctor_and_plan_tell_what_was_drawn_from_unequal_classes(unequal, tmp_path) -> None:
    section = {"path": str(unequal), "n_max": 10}
    search = {"methods": ["darts"], "distributions": ["natural", {"exp": 0.5}]}
    found = Grid.from_dict({"data": section, "search": search})
    told = drawn(ns.plan(found), found.places)
    assert told.startswith("training images: natural 20 (3 to 10 a class), exp mu=0.5 15; exp mu=")
    file = tmp_path / "grid.yaml"
    file.write_text(
        "data: {dataset: digits, n_max: 200}\nsearch: {methods: [darts], distributions: [exp: 0.1]}"
    )
    said = cli("plan", file, "--store", tmp_path / "store").stdout
    assert "exp mu=0.1: 3 of 10 classes have fewer images than their share" in said
