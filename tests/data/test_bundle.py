from __future__ import annotations

import time

import pytest
import torch

from nas_sweeps.data.identity import fingerprint
from nas_sweeps.data.longtail import class_order
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.trial import Data, DataPaths, Distribution

BALANCE = Distribution(kind="balance")
EXP = Distribution(kind="exp", mu=0.1)


def digits(**fields) -> Data:
    return Data(dataset="digits", label="digits", **fields)


def bundle(distribution: Distribution = EXP, **fields) -> DataSplits:
    return prepare(digits(**fields), distribution, DataPaths(), "cpu")


def counts(labels: torch.Tensor, index: torch.Tensor) -> tuple[int, ...]:
    return tuple(labels[index].bincount(minlength=10).tolist())


def test_counts_describe_the_indices():
    b = bundle()
    assert b.train_counts == counts(b.labels, b.full_index)
    assert b.t_counts == counts(b.labels, b.t_index)
    assert b.v_counts == counts(b.labels, b.v_index)
    assert b.lt_test_counts == counts(b.test_labels, b.lt_test_index)
    assert (b.train_counts[0], b.train_counts[-1]) == (116, 11)
    assert torch.cat((b.t_index, b.v_index)).sort().values.equal(b.full_index.sort().values)
    assert b.num_classes == len(b.class_names) == 10
    assert b.image_size == b.images.shape[-1] == 16


def test_balance_keeps_every_image_and_is_tested_on_exp_a_tenth():
    b = bundle(BALANCE)
    assert b.full_index.sort().values.equal(torch.arange(len(b.images)))
    assert b.lt_test_counts == bundle(EXP).lt_test_counts
    assert b.groups == bundle(EXP).groups


def test_long_tailed_test_can_be_fixed():
    step = Distribution(kind="step", mu=0.5)
    assert bundle(long_tailed_test=step).lt_test_counts == (58,) * 5 + (29,) * 5


def test_a_long_tailed_test_keeps_one_image_of_every_class():
    fixed = Distribution(kind="exp", mu=0.001)
    assert min(bundle(long_tailed_test=fixed).lt_test_counts) == 1


def test_smaller_n_max_shrinks_both_sets():
    b = bundle(n_max=40, test_n_max=10)
    assert max(b.train_counts) == 40
    assert b.test_labels.bincount().tolist() == [10] * 10
    assert len(b.test_images) == 100
    assert max(b.lt_test_counts) == 10


def test_uniform_keeps_the_same_number_of_every_class():
    assert bundle(Distribution(kind="uniform", total=205)).train_counts == (20,) * 10


def test_class_order_moves_counts_and_groups_together():
    b, plain = bundle(class_order_seed=3), bundle()
    order = class_order(3, 10)
    for rank, label in enumerate(order):
        assert b.train_counts[label] == plain.train_counts[rank]
        assert b.lt_test_counts[label] == plain.lt_test_counts[rank]
        assert b.groups[label] == plain.groups[rank]
    assert counts(b.test_labels, b.lt_test_index) == b.lt_test_counts


def test_seeds_of_subset_and_split_are_independent():
    b, resplit, redrawn = bundle(), bundle(split_seed=1), bundle(subset_seed=1)
    assert resplit.full_index.equal(b.full_index)
    assert not resplit.t_index.equal(b.t_index)
    assert not redrawn.full_index.equal(b.full_index)
    assert bundle().t_index.equal(b.t_index)


@pytest.mark.parametrize(
    ("distribution", "fields", "message"),
    [
        (BALANCE, {"n_max": 117}, "class '0' should keep 117 training images and has 116"),
        (Distribution(kind="uniform", total=1170), {"n_max": 117}, "or keep what there is by nat"),
        (EXP, {"test_n_max": 59}, "data.test_n_max: 59 .* lower it to 58"),
        (Distribution(kind="exp", mu=0.01), {}, "class '8' would keep 1 training images"),
        (Distribution(kind="step", mu=0.001), {}, "class '5' would keep 0 training images"),
        (Distribution(kind="uniform", total=2000), {}, "at most 1160"),
    ],
)
def test_impossible_requests_say_what_to_change(distribution, fields, message):
    with pytest.raises(ValueError, match=message):
        bundle(distribution, **fields)


def test_unequal_classes_are_all_kept_by_balance_and_ranked_by_size(
    tmp_path, places, custom, png, write_parquet
):
    for split, labels in (("train", [1] * 7 + [0] * 4 + [2] * 3), ("test", [0, 1, 2, 2])):
        blobs = [png(seed) for seed in range(len(labels))]
        write_parquet(tmp_path / "set" / f"{split}.parquet", blobs, labels)
    b = prepare(custom(), BALANCE, places(tmp_path / "set"), "cpu")
    assert b.train_counts == (4, 7, 3)
    assert b.groups == ("medium", "head", "tail")
    assert len(b.test_labels) == 4
    mild = Distribution(kind="exp", mu=0.7)
    assert prepare(custom(), mild, places(tmp_path / "set"), "cpu").train_counts == (3, 2, 2)


def test_real_cifar10_gives_the_papers_sets_and_is_quick_from_cache(cifar10, custom, tmp_path):
    where = DataPaths(path=str(cifar10), cache=str(tmp_path))
    data = custom(fingerprint=fingerprint(cifar10, where))
    prepare(data, EXP, where, "cpu")
    start = time.perf_counter()
    b = prepare(data, EXP, where, "cpu")
    assert time.perf_counter() - start < 1
    assert b.images.shape == (50000, 3, 32, 32)
    assert b.test_images.shape == (10000, 3, 32, 32)
    assert b.class_names[0] == "airplane"
    assert b.train_counts == (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500)
    assert (len(b.t_index), len(b.v_index)) == (10218, 10213)
    assert b.lt_test_counts == (1000, 774, 599, 464, 359, 278, 215, 166, 129, 100)
    assert b.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)
