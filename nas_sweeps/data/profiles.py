"""How many images each class keeps under a distribution. Plain Python, so that planning is light.

Profiles are those of LDAM-DRW's imbalance_cifar.py (paper section IV-A).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.trial import Data, Distribution


def class_counts(distribution: Distribution, n_max: int, num_classes: int) -> tuple[int, ...]:
    """Images per rank, from head to tail.

    ``exp``: n_max * mu^(i/(K-1)); ``step``: n_max, and n_max * mu for the latter half. Both
    truncate as LDAM does, after adding 1e-9: 5000 * 0.0006 is 2.9999999999999996 in floating
    point and means 3.

    Raises:
        ValueError: fewer than two classes; ``mu`` or ``total`` is missing; ``step`` with an odd
            number of classes; ``uniform`` asks for more than ``n_max`` images of a class.
    """
    if num_classes < 2:
        raise ValueError(f"a distribution needs at least 2 classes, not {num_classes}")
    match distribution.kind:
        case "balance":
            return (n_max,) * num_classes
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


def known_counts(data: Data, distribution: Distribution) -> tuple[int, ...] | None:
    """Training images per rank of a data set with a name, without looking at it.

    None where only the images can tell, or where the distribution cannot be drawn from them.
    """
    if data.dataset not in DATASETS.names():
        return None
    source = DATASETS.build(data.dataset)
    available = source.images_per_class
    try:
        counts = class_counts(distribution, data.n_max or available, source.num_classes)
    except ValueError:
        return None
    return counts if max(counts) <= available else None


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
