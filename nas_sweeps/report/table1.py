"""Table I: methods side by side, with what the seeds allow one to say about them."""

from __future__ import annotations

from math import isnan, nan
from typing import Any

import pandas as pd

from nas_sweeps.report.labels import done, retrains
from nas_sweeps.report.spread import interval
from nas_sweeps.tables import Frames

BASELINE = "darts"  # the method that the paper's Table I begins with
BLOCK = ["dataset", "what", "where"]


def table1(
    frames: Frames, value: str = "accuracy_balanced", baseline: str | None = None
) -> pd.DataFrame:
    """A row per method within each data set, setting and distribution.

    One value counts per seed that is independent: where methods were searched with several
    seeds, the mean over the retrains of each search seed, else the value of each retrain seed.
    Differences to the baseline are paired by that seed, which also draws the training images.

    Args:
        value: a column of the trials table, a fraction in [0, 1].
        baseline: a name of the column ``who``; None: the first that is darts, else the first.

    Returns:
        ``who`` and the columns of ``BLOCK``; ``mean``, ``sd``, ``n`` (retrains), ``seeds``
        (independent values), ``seeds_of`` (search, or retrain: then the noise of searching is
        not seen), ``low`` and ``high`` (95 %, Student t over seeds); ``difference``,
        ``difference_low``, ``difference_high``, ``pairs``; ``verdict``, a sentence. Differences
        are NaN for the baseline itself. Everything but the counts is a fraction.

    Raises:
        ValueError: there is no such column, or no such method.
    """
    found = retrains(frames)
    if value not in found or not pd.api.types.is_float_dtype(found[value]):
        raise ValueError(f"value: no column of fractions '{value}', such as accuracy_balanced")
    found = done(found).dropna(subset=[value])
    names = list(found["who"].cat.remove_unused_categories().cat.categories)
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline: no method '{baseline}'; choose from {', '.join(names)}")
    own = [name for name in names if name.split(" ")[0] == BASELINE]
    chosen = baseline or next(iter(own + names), "")
    rows: list[dict[str, Any]] = []
    for block, trials in found.groupby(BLOCK, observed=True, dropna=False):
        key = dict(zip(BLOCK, block, strict=True))
        rows += [key | row for row in _block(trials, value, chosen)]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *BLOCK,
    *("who", "mean", "sd", "n", "seeds", "seeds_of", "low", "high"),
    *("difference", "difference_low", "difference_high", "pairs", "verdict"),
]


def units(trials: pd.DataFrame, value: str) -> tuple[pd.Series[float], bool]:
    """One value by method and independent seed, and whether that is the seed of the search.

    Args:
        trials: retrains of one block, with ``who``.
    """
    several = bool((trials.groupby("who", observed=True)["search_seed"].nunique() > 1).any())
    # A published genotype has no search: its retrain seed stands for both.
    seed = trials["search_seed"].fillna(trials["seed"]) if several else trials["seed"]
    # A trial whose spec cannot be read has no seed: all such count as one.
    cells = trials.assign(unit=seed).groupby(["who", "unit"], observed=True, dropna=False)
    return cells[value].mean(), several


def _block(trials: pd.DataFrame, value: str, baseline: str) -> list[dict[str, Any]]:
    by_seed, several = units(trials, value)
    own = {str(who): rows.droplevel("who") for who, rows in by_seed.groupby("who", observed=True)}
    against = own.get(baseline)
    out = []
    for who, rows in trials.groupby("who", observed=True):
        mine, values = own[str(who)], rows[value]
        low, high = interval(mine.tolist())
        facts = {"who": str(who), "mean": values.mean(), "sd": values.std(), "n": len(values)}
        facts |= {"seeds": len(mine), "seeds_of": "search" if several else "retrain"}
        facts |= {"low": low, "high": high}
        out.append(facts | _against(mine, None if who == baseline else against, who == baseline))
    return out


def _against(
    mine: pd.Series[float], other: pd.Series[float] | None, is_baseline: bool
) -> dict[str, Any]:
    """The paired difference and what can be said of it."""
    if other is None:
        said = (
            "The baseline." if is_baseline else "The baseline has no result here to compare with."
        )
        return _facts(nan, nan, nan, 0, said)
    pairs = (mine - other).dropna()
    if pairs.empty:
        return _facts(nan, nan, nan, 0, "No seed in common with the baseline, so no comparison.")
    difference = float(pairs.mean())
    low, high = interval(pairs.tolist())
    return _facts(difference, low, high, len(pairs), verdict(difference, low, high, len(pairs)))


def _facts(d: float, low: float, high: float, pairs: int, said: str) -> dict[str, Any]:
    names = ("difference", "difference_low", "difference_high", "pairs", "verdict")
    return dict(zip(names, (d, low, high, pairs, said), strict=True))


def verdict(difference: float, low: float, high: float, pairs: int) -> str:
    """One sentence on a paired difference (fractions) and its 95 % interval."""
    points = f"{abs(100 * difference):.2f} points"
    direction = "above" if difference > 0 else "below"
    if difference == 0 and (pairs == 1 or low == high):
        return f"No difference on any of {pairs} seed{'s' if pairs > 1 else ''}."
    if pairs == 1 or isnan(low):
        return f"{points} {direction} with one pair of seeds: n=1 cannot tell this from seed noise."
    across = f"95 % interval {100 * low:+.2f} to {100 * high:+.2f}, {pairs} pairs"
    if low <= 0 <= high:
        return f"Does not stand out of the seed noise: {points} {direction} ({across})."
    return f"Stands out of the seed noise: {points} {direction} ({across})."
