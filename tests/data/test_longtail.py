from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import xor

import numpy as np
import pytest

from nas_sweeps.data.longtail import (
    by_label,
    class_groups,
    class_order,
    draw_subset,
    lt_test_profile,
    split_half,
)
from nas_sweeps.data.profiles import class_counts
from nas_sweeps.trial import Distribution

TARGETS = np.arange(50000) % 10
BALANCE = Distribution(kind="balance")
MUS = (0.5, 0.1, 0.05, 0.01)


def exp(mu: float) -> Distribution:
    return Distribution(kind="exp", mu=mu)


def step(mu: float) -> Distribution:
    return Distribution(kind="step", mu=mu)


@pytest.mark.parametrize(
    ("table", "kind", "n_max", "classes"),
    [
        ("cifar10_train_exp", "exp", 5000, 10),
        ("cifar10_train_step", "step", 5000, 10),
        ("cifar10_test_exp", "exp", 1000, 10),
        ("cifar10_test_step", "step", 1000, 10),
        ("cifar100_train_exp", "exp", 500, 100),
        ("cifar100_test_exp", "exp", 100, 100),
    ],
)
def test_class_counts_are_the_published_ones(goldens, table, kind, n_max, classes):
    assert goldens[table]
    for mu, counts in goldens[table].items():
        distribution = Distribution(kind=kind, mu=float(mu))
        assert list(class_counts(distribution, n_max, classes)) == counts


@pytest.mark.parametrize(
    ("distribution", "n_max", "classes", "total"),
    [
        (BALANCE, 5000, 10, 50000),
        (exp(0.5), 5000, 10, 36223),
        (exp(0.2), 5000, 10, 25423),
        (exp(0.1), 5000, 10, 20431),
        (exp(0.05), 5000, 10, 17023),
        (exp(0.02), 5000, 10, 13996),
        (exp(0.01), 5000, 10, 12406),
        (exp(0.005), 5000, 10, 11203),
        (step(0.1), 5000, 10, 27500),
        (step(0.01), 5000, 10, 25250),
        (exp(0.1), 500, 100, 19573),
        (exp(0.02), 500, 100, 12608),
        (exp(0.01), 500, 100, 10847),
        (step(0.1), 500, 100, 27500),
        (step(0.02), 500, 100, 25500),
        (step(0.01), 500, 100, 25250),
        (exp(0.1), 1000, 10, 4084),
        (exp(0.01), 1000, 10, 2478),
        (step(0.01), 1000, 10, 5050),
        (exp(0.1), 100, 100, 3876),
        (exp(0.02), 100, 100, 2486),
        (exp(0.01), 100, 100, 2131),
        (Distribution(kind="uniform", total=20431), 5000, 10, 20430),
    ],
)
def test_totals_are_the_published_ones(distribution, n_max, classes, total):
    assert sum(class_counts(distribution, n_max, classes)) == total


def test_a_product_just_below_an_integer_counts_as_that_integer():
    assert int(5000 * 0.0006) == 2  # what truncation alone would give
    for k in range(1, 10000):
        assert class_counts(exp(k * 1e-4), 5000, 2)[1] == k // 2


@pytest.mark.parametrize(
    ("distribution", "classes", "message"),
    [
        (step(0.1), 9, "9 is odd; use 'exp'"),
        (Distribution(kind="exp"), 10, "needs mu"),
        (Distribution(kind="uniform"), 10, "needs total"),
        (Distribution(kind="uniform", total=60000), 10, "at most 50000"),
        (BALANCE, 1, "at least 2 classes"),
    ],
)
def test_an_impossible_profile_says_why(distribution, classes, message):
    with pytest.raises(ValueError, match=message):
        class_counts(distribution, 5000, classes)


def test_subset_is_the_one_ldam_draws():
    index = draw_subset(TARGETS, class_counts(exp(0.1), 5000, 10), seed=0)
    assert index[:5].tolist() == [3980, 38330, 48360, 45720, 6360]
    assert index[-500:][:5].tolist() == [22049, 38169, 22069, 25079, 19269]


@pytest.mark.parametrize(
    ("distribution", "total", "parity"),
    [(exp(0.1), 512475854, 50234), (exp(0.01), 309550124, 21518), (step(0.01), 631109900, 7686)],
)
def test_subset_sums_are_ldams(distribution, total, parity):
    index = draw_subset(TARGETS, class_counts(distribution, 5000, 10), seed=0)
    assert index.sum() == total
    assert reduce(xor, index.tolist()) == parity


def test_drawing_leaves_numpys_global_state_alone():
    np.random.seed(3)
    expected = np.random.RandomState(3).rand()
    draw_subset(TARGETS, (5,) * 10, seed=0)
    assert np.random.rand() == expected


@pytest.mark.parametrize("order", [None, class_order(4, 10)])
def test_subsets_with_one_seed_are_nested_over_mu(order):
    drawn = [
        set(draw_subset(TARGETS, class_counts(exp(mu), 5000, 10), 7, order).tolist()) for mu in MUS
    ]
    assert all(larger > smaller for larger, smaller in pairwise(drawn))


def test_class_order_moves_the_tail_but_not_the_images_of_a_class():
    order = class_order(1, 10)
    assert sorted(order) == list(range(10))
    assert order != tuple(range(10))
    counts = class_counts(exp(0.1), 5000, 10)
    index = draw_subset(TARGETS, counts, 0, order)
    assert tuple(np.bincount(TARGETS[index]).tolist()) == by_label(counts, order)
    identity = draw_subset(TARGETS, (5000,) * 10, 0)
    for label in range(10):
        mine = index[TARGETS[index] == label]
        assert mine.tolist() == identity[TARGETS[identity] == label][: len(mine)].tolist()


def test_a_class_too_small_for_the_subset_is_named():
    with pytest.raises(ValueError, match="class 0 has 5000 images and 5001"):
        draw_subset(TARGETS, (5001,) + (1,) * 9, 0)


@pytest.mark.parametrize(
    ("distribution", "t", "v_total"),
    [
        (exp(0.1), (2500, 1936, 1499, 1160, 898, 696, 539, 417, 323, 250), 10213),
        (exp(0.01), (2500, 1499, 898, 539, 323, 194, 116, 70, 42, 25), 6200),
        (step(0.01), (2500,) * 5 + (25,) * 5, 12625),
    ],
)
def test_split_is_stratified_and_gives_the_odd_image_to_t(distribution, t, v_total):
    index = draw_subset(TARGETS, class_counts(distribution, 5000, 10), 0)
    t_index, v_index = split_half(TARGETS, index, seed=0)
    assert tuple(np.bincount(TARGETS[t_index]).tolist()) == t
    assert len(v_index) == v_total
    assert sorted([*t_index, *v_index]) == sorted(index)


def test_split_depends_on_its_own_seed_only():
    index = draw_subset(TARGETS, (40,) * 10, 0)
    first, again, other = (split_half(TARGETS, index, seed)[0].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_single_image_cannot_be_split():
    with pytest.raises(ValueError, match="class 1 keeps 1 image"):
        split_half(np.array([0, 0, 1]), np.arange(3), 0)


@pytest.mark.parametrize("distribution", [exp(0.1), BALANCE])
def test_ten_classes_are_grouped_by_rank(distribution):
    groups = class_groups(
        distribution, (5000,) * 10 if distribution == BALANCE else range(10, 0, -1)
    )
    assert groups == ("head",) * 3 + ("medium",) * 4 + ("tail",) * 3


def test_groups_follow_the_class_order():
    order = (2, 0, 1)
    counts = by_label((9, 6, 3), order)
    assert class_groups(exp(0.3), counts, order) == ("medium", "tail", "head")


def test_step_has_a_head_and_a_tail():
    counts = class_counts(step(0.01), 5000, 10)
    assert class_groups(step(0.01), counts) == ("head",) * 5 + ("tail",) * 5


@pytest.mark.parametrize(
    ("mu", "sizes"), [(0.01, (35, 35, 30)), (0.02, (41, 41, 18)), (0.1, (69, 31, 0))]
)
def test_a_hundred_classes_are_grouped_by_shots(mu, sizes):
    groups = class_groups(exp(mu), class_counts(exp(mu), 500, 100))
    assert tuple(groups.count(group) for group in ("head", "medium", "tail")) == sizes


def test_long_tailed_test_matches_training_or_is_exp_a_tenth():
    assert lt_test_profile(step(0.01), None) == step(0.01)
    assert lt_test_profile(BALANCE, None) == exp(0.1)
    assert lt_test_profile(Distribution(kind="uniform", total=20), None) == exp(0.1)
    assert lt_test_profile(exp(0.1), exp(0.5)) == exp(0.5)
