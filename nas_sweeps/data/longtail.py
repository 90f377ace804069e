"""Long-tailed subsets: how many images a class keeps, which ones, and the stratified split.

NumPy only. Profiles and the drawing rule are those of LDAM-DRW's imbalance_cifar.py (paper
section IV-A). "Rank" is a class's place from head (0) to tail (K-1); ``order[rank]`` is the
label that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas_sweeps.trial import Distribution, Groups

Group = Literal["head", "medium", "tail"]
Labels = NDArray[np.int64]

SHOT_CLASSES = 100  # drawn long tails of fewer classes have no custom of shots: they go by rank
_BY_SHOTS, _BY_RANK = Groups(by="shots"), Groups(by="rank")
LT_TEST_DEFAULT = Distribution(kind="exp", mu=0.1)  # where training itself is not long-tailed


def class_order(seed: int | None, num_classes: int) -> tuple[int, ...]:
    """Labels from head to tail: as they are (None), or permuted by ``seed``."""
    if seed is None:
        return tuple(range(num_classes))
    return tuple(np.random.RandomState(seed).permutation(num_classes).tolist())


def by_label(counts: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Counts per rank to counts per label."""
    rank_of = {label: rank for rank, label in enumerate(order)}
    return tuple(counts[rank_of[label]] for label in range(len(order)))


def draw_subset(
    labels: Labels, counts: Sequence[int], seed: int, order: Sequence[int] | None = None
) -> Labels:
    """Indices of the images kept, grouped by label; ``counts`` are per rank.

    LDAM's rule: one RandomState shuffles each class in turn, in label order, and a class keeps
    its first ``n``. Every class consumes the same random numbers whatever is kept, so with one
    seed a smaller count draws a subset of a larger one, for any mu and any ``order``.

    Raises:
        ValueError: a class has fewer images than it should keep.
    """
    kept = by_label(counts, order or range(len(counts)))
    random = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(kept):
        of_class = np.flatnonzero(labels == label)
        if count > len(of_class):
            raise ValueError(f"class {label} has {len(of_class)} images and {count} were asked for")
        random.shuffle(of_class)
        chosen.append(of_class[:count])
    return np.concatenate(chosen)


def split_half(labels: Labels, index: Labels, seed: int) -> tuple[Labels, Labels]:
    """Split ``index`` into T (weights) and V (architecture), class by class.

    Of n images ceil(n/2) go to T and the rest to V. DARTS cuts the list in the middle, which
    on images grouped by class would give T the head and V the tail.

    Raises:
        ValueError: a class has a single image, so V would miss it.
    """
    random = np.random.RandomState(seed)
    halves: tuple[list[Any], list[Any]] = ([], [])
    for label in np.unique(labels[index]).tolist():
        of_class = random.permutation(index[labels[index] == label])
        if len(of_class) < 2:
            raise ValueError(f"class {label} keeps 1 image, so it cannot be split into T and V")
        middle = (len(of_class) + 1) // 2
        halves[0].append(of_class[:middle])
        halves[1].append(of_class[middle:])
    return np.concatenate(halves[0]), np.concatenate(halves[1])


def split_groups(labels: Labels, index: Labels, groups: Labels, seed: int) -> tuple[Labels, Labels]:
    """Split ``index`` into T and V, every group of ``groups`` (one number an image) in one of them.

    A greedy split that stays as stratified as groups allow. Groups are taken in turn, first those
    that hold the largest share of a class, in random order where that is equal, and each goes
    where it makes up for the most: with d_k the share of class k that T has more of than V so far,
    to T if the sum of d_k times the group's share of class k is negative, else to V.

    Raises:
        ValueError: a class has all its images in one half.
    """
    random = np.random.RandomState(seed)
    names, number_of = np.unique(groups[index], return_inverse=True)
    shares = _shares(labels[index], number_of, len(names))
    turns = random.permutation(len(names)).tolist()
    turns.sort(key=lambda group: -max(shares[group].values()))
    ahead = dict.fromkeys(np.unique(labels[index]).tolist(), 0.0)
    in_t = np.zeros(len(names), bool)
    ahead_in_all = 0.0
    for group in turns:
        balance = sum(ahead[label] * share for label, share in shares[group].items())
        in_t[group] = balance < 0 or (balance == 0 and ahead_in_all <= 0)
        for label, share in shares[group].items():
            ahead[label] += share if in_t[group] else -share
            ahead_in_all += share if in_t[group] else -share
    if in_t[number_of].sum() * 2 < len(index):
        in_t = ~in_t  # as of images by themselves, the odd one goes to T
    halves = index[in_t[number_of]], index[~in_t[number_of]]
    for label in ahead:
        if not all((labels[half] == label).any() for half in halves):
            count = sum(label in of_group for of_group in shares)
            alone = "give it a second group, or remove it"
            raise ValueError(
                f"class {label} has images of {count} group{'s' * (count > 1)}, and no split of "
                f"groups was found that gives some to T and some to V; "
                f"{alone if count == 1 else 'try another data.split_seed'}"
            )
    return halves


def _shares(labels: Labels, groups: Labels, num_groups: int) -> list[dict[int, float]]:
    """Of each group, which share of a class's images it holds, by label."""
    of_class = np.bincount(labels)
    classes = len(of_class)
    pairs, counts = np.unique(groups * classes + labels, return_counts=True)
    shares: list[dict[int, float]] = [{} for _ in range(num_groups)]
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        group, label = divmod(pair, classes)
        shares[group][label] = count / int(of_class[label])
    return shares


def class_groups(
    distribution: Distribution,
    counts: Sequence[int],
    order: Sequence[int] | None = None,
    chosen: Groups | None = None,
) -> tuple[Group, ...]:
    """The shot group of each label; ``counts`` are training images per label.

    By training images (a group may be empty) or by rank of size, equal sizes in class order:
    K // 3 head and as many tail (10 classes: 3, 4, 3), of ``step`` the two halves. Where nobody
    has chosen: ``natural``, and ``exp`` with 100 classes or more, by training images, all else by
    rank, so that the groups of a balanced run are those of the long-tailed runs beside it.
    """
    num_classes = len(counts)
    drawn = distribution.kind != "natural"
    by_rank = drawn and (distribution.kind != "exp" or num_classes < SHOT_CLASSES)
    rule = chosen or (_BY_RANK if by_rank else _BY_SHOTS)
    if rule.by == "shots":
        return tuple(_shot_group(count, rule) for count in counts)
    end = num_classes // 2 if distribution.kind == "step" else max(1, num_classes // 3)
    ranked = sorted(order or range(num_classes), key=lambda label: -counts[label])
    head, tail = set(ranked[:end]), set(ranked[-end:])
    return tuple(
        "head" if label in head else "tail" if label in tail else "medium"
        for label in range(num_classes)
    )


def lt_test_profile(distribution: Distribution, chosen: Distribution | None) -> Distribution:
    """The profile of the long-tailed test set: the chosen one, else that of training.

    Training that is not long-tailed (``balance``, ``uniform``) is tested on exp mu=0.1. The
    paper does not say which profile Figure 7(b) uses.
    """
    if chosen is not None:
        return chosen
    if distribution.kind == "natural":
        return Distribution(kind="natural")
    return distribution if distribution.kind in ("exp", "step") else LT_TEST_DEFAULT


def natural_test_weights(test: Sequence[int], train: Sequence[int]) -> tuple[int, ...]:
    """What each class weighs in a test that is as long-tailed as its data set.

    Its test images, where the classes of the test set are unequal: it is natural itself. Of a
    balanced test set its training images in the data set: a cap on those that are trained on
    (``n_max``) does not change what one will meet.
    """
    return tuple(test) if len(set(test)) > 1 else tuple(train)


def _shot_group(count: int, rule: Groups) -> Group:
    if count > rule.many:
        return "head"
    return "tail" if count < rule.few else "medium"
