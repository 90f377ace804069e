"""Means over seeds, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan, sqrt

import numpy as np
import pandas as pd

CONFIDENCE = 0.95


def spread(table: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Mean, sample standard deviation (NaN for one value) and number of values per key.

    Rows without a value count for nothing. Sorted by ``keys``, which stay columns.
    """
    kept = table[np.isfinite(table[value].astype("float64").to_numpy(na_value=nan))]
    cells = kept.astype({value: "float64"}).groupby([*keys], observed=True, dropna=False)[value]
    found = pd.DataFrame({"mean": cells.mean(), "sd": cells.std(), "n": cells.count()})
    return found.reset_index()


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's t interval for the mean at 95 %; NaN for fewer than two values.

    Sees independent, roughly normal values: one per seed.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2 or not all(map(isfinite, values)):
        return nan, nan
    middle = float(np.mean(values))
    half = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(np.std(values, ddof=1)) / sqrt(n)
    return middle - half, middle + half
