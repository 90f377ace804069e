"""Everything a trial needs to know about its images, on its device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas_sweeps.data.datasets import Statistics
from nas_sweeps.data.longtail import (
    Group,
    Labels,
    by_label,
    class_groups,
    class_order,
    draw_subset,
    lt_test_profile,
    natural_test_weights,
    split_groups,
    split_half,
)
from nas_sweeps.data.profiles import class_counts, kept_counts, remarks
from nas_sweeps.data.sources import Images, load_images
from nas_sweeps.trial import Data, DataPaths, Distribution


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSplits:
    """A data set under one distribution. Images are uint8 (N, 3, S, S), labels int64 (N,).

    ``full_index`` is the long-tailed training set, ``t_index`` and ``v_index`` its stratified
    halves; all three index ``images``. Counts and groups are per label. ``lt_test_counts`` are
    the weights of the exact long-tailed test accuracy (the expectation over subsamples), and
    ``lt_test_index`` is one such subsample of ``test_images``. ``notes`` say what a person should
    know of how the training images were drawn.
    """

    images: Tensor
    labels: Tensor
    full_index: Tensor
    t_index: Tensor
    v_index: Tensor
    test_images: Tensor
    test_labels: Tensor
    lt_test_index: Tensor
    class_names: tuple[str, ...]
    num_classes: int
    train_counts: tuple[int, ...]
    t_counts: tuple[int, ...]
    v_counts: tuple[int, ...]
    lt_test_counts: tuple[int, ...]
    groups: tuple[Group, ...]
    mean: Statistics
    std: Statistics
    image_size: int
    notes: tuple[str, ...] = ()


def prepare(
    data: Data, distribution: Distribution, places: DataPaths, device: torch.device | str
) -> DataSplits:
    """Load, draw the long-tailed subset, split it, and move it to ``device``.

    Raises:
        ValueError: as ``load_images``; or the distribution asks a class for more images than
            there are, or leaves it fewer than the two that T and V need.
    """
    images = load_images(data, places)
    names = images.class_names
    order = class_order(data.class_order_seed, len(names))
    labels = images.train_labels.numpy()
    counts = _train_counts(data, distribution, labels, order, names)
    full = draw_subset(labels, counts, data.subset_seed, order)
    t_index, v_index, split_notes = _halves(data, distribution, images, full)
    kept = _test_index(data, images.test_labels.numpy(), names)
    test_labels = images.test_labels.numpy()[kept]
    available = tuple(_count(labels, len(names))[label] for label in order)
    tested = tuple(_count(test_labels, len(names))[label] for label in order)
    lt_weights, lt_counts = _long_tailed_test(data, distribution, tested, available)
    lt_index = draw_subset(test_labels, lt_counts, data.subset_seed, order)
    train_counts = by_label(counts, order)

    def put(values: Labels | Tensor) -> Tensor:
        return torch.as_tensor(values).to(device)

    return DataSplits(
        images=put(images.train_NCHW),
        labels=put(images.train_labels),
        full_index=put(full),
        t_index=put(t_index),
        v_index=put(v_index),
        test_images=put(images.test_NCHW if len(kept) == len(images.test_labels)
                        else images.test_NCHW[torch.from_numpy(kept)]),
        test_labels=put(test_labels),
        lt_test_index=put(lt_index),
        class_names=names,
        num_classes=len(names),
        train_counts=train_counts,
        t_counts=_count(labels[t_index], len(names)),
        v_counts=_count(labels[v_index], len(names)),
        lt_test_counts=by_label(lt_weights, order),
        groups=class_groups(distribution, train_counts, order, data.groups),
        mean=images.mean,
        std=images.std,
        image_size=images.train_NCHW.shape[-1],
        notes=(*remarks(distribution, data.n_max, available), *split_notes),
    )  # fmt: skip


def _train_counts(
    data: Data,
    distribution: Distribution,
    labels: Labels,
    order: Sequence[int],
    names: Sequence[str],
) -> tuple[int, ...]:
    """Images per rank, as ``kept_counts``, none of them more than there are or fewer than two."""
    available = _count(labels, len(names))
    counts = kept_counts(distribution, data.n_max, [available[label] for label in order])
    for label, count in zip(order, counts, strict=True):
        if count > available[label]:
            raise ValueError(
                f"{distribution}: class '{names[label]}' should keep {count} training images and "
                f"has {available[label]}; lower data.n_max, or keep what there is by natural"
            )
        if count < 2:
            raise ValueError(
                f"{distribution}: class '{names[label]}' would keep {count} training images and "
                f"needs 2, one for each half of the search; {_more(distribution)}"
            )
    return counts


def _halves(
    data: Data, distribution: Distribution, images: Images, full: Labels
) -> tuple[Labels, Labels, tuple[str, ...]]:
    """T and V, and how far they are stratified where groups keep together."""
    labels = images.train_labels.numpy()
    if images.train_groups is None:
        return *split_half(labels, full, data.split_seed), ()
    groups = images.train_groups.numpy()
    try:
        halves = split_groups(labels, full, groups, data.split_seed)
    except ValueError as error:
        raise ValueError(_named_class(str(error), images.class_names)) from None
    in_t, of_all = (_count(labels[part], len(images.class_names)) for part in (halves[0], full))
    shares = [t / n for t, n in zip(in_t, of_all, strict=True)]
    worst = max(range(len(shares)), key=lambda k: abs(shares[k] - 0.5))
    notes = [
        f"{distribution}: T and V by {len(np.unique(groups[full])):,} groups: T has "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of a class's images "
        f"('{images.class_names[worst]}' at worst: {in_t[worst]:,} of {of_all[worst]:,})"
    ]
    if images.shared_groups:
        notes.append(
            f"{images.shared_groups:,} groups have test images too: accuracies may be too good"
        )
    return *halves, tuple(notes)


def _named_class(text: str, names: Sequence[str]) -> str:
    """``class 3 has …`` with the name of the class."""
    return re.sub(r"^class (\d+)", lambda found: f"class '{names[int(found[1])]}'", text)


def _test_index(data: Data, test_labels: Labels, names: Sequence[str]) -> Labels:
    """The balanced test set: all test images, or ``test_n_max`` of each class."""
    if data.test_n_max is None:
        return np.arange(len(test_labels))
    available = _count(test_labels, len(names))
    smallest = int(np.argmin(available))
    if data.test_n_max > available[smallest]:
        raise ValueError(
            f"data.test_n_max: {data.test_n_max} images of each class were asked for and "
            f"'{names[smallest]}' has {available[smallest]}; lower it to {available[smallest]}"
        )
    return np.sort(draw_subset(test_labels, [data.test_n_max] * len(names), data.subset_seed))


def _long_tailed_test(
    data: Data, distribution: Distribution, tested: Sequence[int], available: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What each class weighs in the long-tailed test accuracy, and the images of the subsample.

    Of a natural profile the weights are the data set's own counts, which no small test set rounds.
    Small test sets keep one image in the subsample where the profile says less.

    ``tested`` and ``available`` are test and training images per rank.
    """
    profile = lt_test_profile(distribution, data.long_tailed_test)
    if profile.kind != "natural":
        counts = class_counts(profile, min(tested), len(tested))
        kept = tuple(max(1, count) for count in counts)
        return kept, kept
    weights = natural_test_weights(tested, available)
    most = max(weights)
    return weights, tuple(
        max(1, there * weight // most) if len(set(tested)) == 1 else there
        for there, weight in zip(tested, weights, strict=True)
    )


def _more(distribution: Distribution) -> str:
    """What to do for more images of a class."""
    if distribution.kind == "natural":
        return "add images of it, or remove the class"
    return "raise mu, total or data.n_max"


def _count(labels: Labels, num_classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=num_classes).tolist())
