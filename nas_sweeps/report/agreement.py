"""How far rankings agree between recipes of retraining: Kendall's tau with bootstrap intervals.

Which search method comes out best may depend on how its genotypes are retrained: comparisons under
one recipe alone have been found to flip under another (arXiv 2507.16533).
"""

from __future__ import annotations

from itertools import combinations
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from nas_sweeps.report.labels import done, recipe_labels, retrains
from nas_sweeps.report.spread import CONFIDENCE
from nas_sweeps.tables import Frames

ENOUGH_GENOTYPES = 5  # fewer have hardly more rankings than a coin
ENOUGH_METHODS = 3
RESAMPLES = 2000
COLUMNS = ["dataset", "where", "of", "recipe_a", "recipe_b", "n", "tau", "low", "high"]
COLUMNS += ["best_a", "best_b", "verdict"]


def agreement(frames: Frames, value: str | None = None) -> pd.DataFrame:
    """A row per data set, distribution and pair of recipes, for genotypes and for methods.

    A genotype counts with its mean over retrain seeds, under both recipes; a method with the mean
    over its genotypes. Genotypes are drawn with replacement for the interval; for that of methods,
    the genotypes of each method are, since methods are what one compares and not a sample. So a
    method of one genotype, as a published one is, counts only where fewer than three have more.

    Args:
        value: a column of the trials table, a fraction in [0, 1]; None: ``frames.headline``.

    Returns:
        ``of`` (genotypes, methods), ``n`` (how many are retrained under both), ``tau`` (Kendall's
        tau-b; NaN where all are equal), ``low`` and ``high`` (95 %; NaN where there are too few),
        ``best_a`` and ``best_b`` (the best under either), ``verdict``, a sentence. Empty where
        there is one recipe.
    """
    value = frames.headline if value is None else value
    found = done(retrains(frames)).dropna(subset=[value])
    images = found["setting"].map(_images, na_action="ignore")
    found = found.assign(under=recipe_labels(found), images=images)
    rows: list[dict[str, Any]] = []
    for key, block in found.groupby(["dataset", "images", "where"], observed=True, dropna=False):
        cells = block.groupby(["who", "genotype_id", "under"], observed=True)[value].mean()
        table = cells.unstack("under")
        for a, b in combinations(sorted(map(str, table)), 2):
            both = table[[a, b]].dropna().set_axis(["a", "b"], axis=1)
            named = {"dataset": key[0], "where": str(key[2]), "recipe_a": a, "recipe_b": b}
            rows += [named | row for row in (_genotypes(both), _methods(both))]
    told = [row | {"verdict": verdict(row)} for row in rows]
    return pd.DataFrame(told, columns=COLUMNS)


def _images(setting: str) -> str:
    return ",".join(part for part in setting.split(",") if part.startswith("data."))


def _genotypes(both: pd.DataFrame) -> dict[str, Any]:
    low, high = nan, nan
    x, y = both["a"].to_numpy(float), both["b"].to_numpy(float)
    if len(both) >= ENOUGH_GENOTYPES:
        times = np.random.default_rng(0).multinomial(
            len(both), np.full(len(both), 1 / len(both)), RESAMPLES
        )
        low, high = _percentiles(_weighted_taus(x, y, times))
    best = [f"{who} ({genotype[:8]})" for who, genotype in both.index]
    return {"of": "genotypes"} | _row(x, y, low, high, best)


def _methods(both: pd.DataFrame) -> dict[str, Any]:
    of_method = {str(who): rows for who, rows in both.groupby("who", observed=True)}
    several = {who: rows for who, rows in of_method.items() if len(rows) > 1}
    if len(several) >= ENOUGH_METHODS:
        of_method = several
    groups = [rows.to_numpy(float) for rows in of_method.values()]
    means = np.array([group.mean(0) for group in groups]).reshape(-1, 2)
    low, high = nan, nan
    if len(groups) >= ENOUGH_METHODS and min(map(len, groups)) > 1:
        draws = np.random.default_rng(0)
        drawn = np.stack(
            [g[draws.integers(len(g), size=(RESAMPLES, len(g)))].mean(1) for g in groups], axis=1
        )
        x, y = (np.sign(d[:, :, None] - d[:, None]) for d in (drawn[..., 0], drawn[..., 1]))
        size = np.sqrt((x**2).sum((1, 2)) * (y**2).sum((1, 2)))
        with np.errstate(invalid="ignore"):
            low, high = _percentiles((x * y).sum((1, 2)) / size)
    return {"of": "methods"} | _row(means[:, 0], means[:, 1], low, high, [*of_method])


def _row(x: Any, y: Any, low: float, high: float, names: list[str]) -> dict[str, Any]:
    from scipy.stats import kendalltau

    tau = float(kendalltau(x, y).statistic) if len(x) > 1 else nan
    best = [names[int(np.argmax(values))] if len(values) else "" for values in (x, y)]
    facts = {"n": len(x), "tau": tau, "low": low, "high": high}
    return facts | {"best_a": best[0], "best_b": best[1]}


def _weighted_taus(x: Any, y: Any, times: Any) -> Any:
    """Kendall's tau-b of samples in which each of n pairs occurs so many times.

    Args:
        x, y: (n,)
        times: (samples, n)
    """
    sx, sy = (np.sign(v[:, None] - v[None]) for v in (x, y))
    total, own_x, own_y = (
        np.einsum("bi,ij,bj->b", times, signs, times, optimize=True)
        for signs in (sx * sy, sx**2, sy**2)
    )
    with np.errstate(invalid="ignore"):
        return total / np.sqrt(own_x * own_y)


def _percentiles(taus: Any) -> tuple[float, float]:
    """Of the samples in which not all are equal."""
    tail = 50 * (1 - CONFIDENCE)
    known = taus[np.isfinite(taus)]
    return tuple(np.percentile(known, [tail, 100 - tail]).tolist()) if len(known) else (nan, nan)


def verdict(row: dict[str, Any]) -> str:
    """One sentence on what two recipes say of the same genotypes or methods."""
    what, a, b = row["of"], row["recipe_a"], row["recipe_b"]
    if isnan(row["low"]):
        each = ", each with several genotypes" if what == "methods" else ""
        least = ENOUGH_METHODS if what == "methods" else ENOUGH_GENOTYPES
        return f"Too few to tell: {row['n']} {what}; {least} are the least{each}."
    across = f"tau {row['tau']:.2f}, 95 % interval {row['low']:.2f} to {row['high']:.2f}"
    if row["low"] > 0:
        said = f"{a} and {b} rank the {what} alike ({across})"
    elif row["high"] < 0:
        said = f"{a} and {b} rank the {what} against each other ({across})"
    else:
        said = f"How {a} ranks the {what} says nothing that is sure of how {b} does ({across})"
    same = row["best_a"] == row["best_b"]
    best = (
        f"both have {row['best_a']} first"
        if same
        else (f"first is {row['best_a']} under {a} and {row['best_b']} under {b}")
    )
    return f"{said}; {best}."
