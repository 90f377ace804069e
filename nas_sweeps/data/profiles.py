"""How many images each class keeps under a distribution. Plain Python, so that planning is light.

What a class keeps is a profile's share of the largest class, and never more than it has.

Profiles are those of LDAM-DRW's imbalance_cifar.py (paper section IV-A).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.trial import Data, Distribution


def class_counts(distribution: Distribution, n_max: int, num_classes: int) -> tuple[int, ...]:
    """Images per rank, from head to tail, of a distribution that does not ask what there is.

    ``exp``: n_max * mu^(i/(K-1)); ``step``: n_max, and n_max * mu for the latter half. Both
    truncate as LDAM does, after adding 1e-9: 5000 * 0.0006 is 2.9999999999999996 in floating
    point and means 3.

    Raises:
        ValueError: fewer than two classes; ``mu`` or ``total`` is missing; ``step`` with an odd
            number of classes; ``uniform`` asks for more than ``n_max`` images of a class;
            ``natural``, whose counts are those of the images.
    """
    if num_classes < 2:
        raise ValueError(f"a distribution needs at least 2 classes, not {num_classes}")
    match distribution.kind:
        case "balance":
            return (n_max,) * num_classes
        case "natural":
            raise ValueError("the counts of 'natural' are those of the images")
        case "uniform":
            return (_uniform_count(distribution, n_max, num_classes),) * num_classes
        case "exp":
            mu = _mu(distribution)
            shares = [mu ** (rank / (num_classes - 1)) for rank in range(num_classes)]
        case "step":
            if num_classes % 2:
                raise ValueError(f"'step' halves the classes, and {num_classes} is odd; use 'exp'")
            shares = [1.0 if 2 * rank < num_classes else _mu(distribution)
                      for rank in range(num_classes)]  # fmt: skip
    return tuple(math.floor(n_max * share + 1e-9) for share in shares)


def kept_counts(
    distribution: Distribution, n_max: int | None, available: Sequence[int]
) -> tuple[int, ...]:
    """Images per rank that classes of ``available`` images keep.

    Args:
        n_max: of the largest class before mu. None: all of the smallest class, or for ``balance``
            and ``natural`` all of every class.

    Raises:
        ValueError: as ``class_counts``; or no class has its share of ``exp`` or ``step``.
    """
    if distribution.kind == "natural":
        caps = [cap for cap in (n_max, distribution.n_max) if cap is not None]
        return tuple(min(count, *caps) if caps else count for count in available)
    if distribution.kind == "balance" and n_max is None:
        return tuple(available)
    shares = class_counts(distribution, n_max or min(available), len(available))
    if distribution.kind in ("exp", "step"):
        if all(map(int.__gt__, shares, available)):
            raise ValueError(
                f"{distribution}: every class has fewer images than its share of {n_max}, so there "
                f"would be no such tail; lower data.n_max to {max(available)} or less"
            )
        return tuple(map(min, shares, available))
    return shares  # equal in every class, or no balance and no control: the caller refuses


def remarks(
    distribution: Distribution, n_max: int | None, available: Sequence[int]
) -> tuple[str, ...]:
    """What a person should know of counts that classes of unequal size, or too small ones, lead to.

    Raises:
        ValueError: as ``class_counts``.
    """
    smallest, largest = min(available), max(available)
    if distribution.kind in ("exp", "step"):
        shares = class_counts(distribution, n_max or smallest, len(available))
        lacking = sum(share > there for share, there in zip(shares, available, strict=True))
        if lacking:
            return (
                f"{distribution}: {lacking} of {len(available)} classes have fewer images than "
                "their share, and keep all that they have",
            )
    if smallest == largest or n_max is not None or distribution.kind == "natural":
        return ()
    if distribution.kind == "balance":
        return (
            f"balance keeps every image of classes of {smallest:,} to {largest:,}, as natural "
            f"does; set data.n_max to {smallest} for equal classes",
        )
    if distribution.kind == "uniform":
        return ()
    return (
        f"{distribution}: the head is as large as the smallest class, {smallest:,}; set "
        f"data.n_max, up to {largest}, for more images",
    )


def known_available(data: Data) -> tuple[int, ...] | None:
    """Training images per rank that a data set with a name comes with; None: not known here."""
    if data.dataset not in DATASETS.names():
        return None
    source = DATASETS.build(data.dataset)
    each = source.images_per_class
    return None if each is None else (each,) * source.num_classes


def known_counts(data: Data, distribution: Distribution) -> tuple[int, ...] | None:
    """Training images per rank of a data set with a name, without looking at it.

    None where only the images can tell, or where the distribution cannot be drawn from them.
    """
    available = known_available(data)
    if available is None:
        return None
    try:
        counts = kept_counts(distribution, data.n_max, available)
    except ValueError:
        return None
    return counts if all(map(int.__le__, counts, available)) else None


@lru_cache(maxsize=1024)
def known_remarks(data: Data, distribution: Distribution) -> tuple[str, ...]:
    """``remarks`` on a data set with a name, without looking at it; none where nothing is known."""
    available = known_available(data)
    try:
        return () if available is None else remarks(distribution, data.n_max, available)
    except ValueError:  # the run will say so
        return ()


def half_size(counts: Sequence[int]) -> int:
    """Images of T, the half of the training images on which weights are searched."""
    return sum((count + 1) // 2 for count in counts)


def _mu(distribution: Distribution) -> float:
    if distribution.mu is None:
        raise ValueError(f"distribution '{distribution.kind}' needs mu, in (0, 1]")
    return distribution.mu


def _uniform_count(distribution: Distribution, n_max: int, num_classes: int) -> int:
    if distribution.total is None:
        raise ValueError("distribution 'uniform' needs total, the number of training images")
    count = distribution.total // num_classes
    if count > n_max:
        raise ValueError(
            f"{distribution} asks for {count} images of each class and there are {n_max}; "
            f"lower total to at most {n_max * num_classes}"
        )
    return count
