"""Every method against every other: who wins where, and how many more seeds would settle it."""

from __future__ import annotations

from itertools import combinations
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from nas_sweeps.report.labels import done, retrains
from nas_sweeps.report.power import pairs_needed
from nas_sweeps.report.spread import interval
from nas_sweeps.report.table1 import BLOCK, units
from nas_sweeps.tables import Frames

COLUMNS = [*BLOCK, "a", "b", "difference", "sd", "low", "high", "pairs", "needed", "more"]
COLUMNS += ["outcome", "verdict"]
OUTCOMES = ("win", "tie", "loss", "open")


def method_pairs(frames: Frames, value: str | None = None) -> pd.DataFrame:
    """A row per pair of methods within each data set, setting and distribution, as in Table I.

    Args:
        value: a column of the trials table, a fraction in [0, 1]; None: ``frames.headline``.

    Returns:
        ``a`` and ``b`` (methods), ``difference`` (mean of a - b over seeds that both have), ``sd``
        of it, ``low`` and ``high`` (95 %, Student's t), ``pairs`` of seeds; ``outcome`` of a: win
        or loss where the interval does not hold 0, tie where it does, open with fewer than two
        pairs. ``needed`` pairs would find a difference of this size and spread in 80 % of studies
        (5 %, two-sided), ``more`` than there are: 0 where it stands out already, infinity beyond
        10,000, NaN where nothing is known of the spread. ``verdict`` is a sentence.
    """
    value = frames.headline if value is None else value
    found = done(retrains(frames)).dropna(subset=[value])
    rows: list[dict[str, Any]] = []
    for block, trials in found.groupby(BLOCK, observed=True, dropna=False):
        key = dict(zip(BLOCK, block, strict=True))
        by_seed, _ = units(trials, value)
        own = {
            str(who): rows.droplevel("who") for who, rows in by_seed.groupby("who", observed=True)
        }
        rows += [key | _pair(a, b, own[a] - own[b]) for a, b in combinations(own, 2)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _pair(a: str, b: str, differences: pd.Series[float]) -> dict[str, Any]:
    values = differences.dropna().to_numpy(float)
    n = len(values)
    low, high = interval(values.tolist())
    mean = float(values.mean()) if n else nan
    sd = float(np.std(values, ddof=1)) if n > 1 else nan
    outcome = _outcome(low, high)
    needed = pairs_needed(mean, sd)
    settled = outcome in ("win", "loss")
    more = 0.0 if settled else max(1.0, needed - n) if needed == needed else nan
    row = {"a": a, "b": b, "difference": mean, "sd": sd, "low": low, "high": high, "pairs": n}
    row |= {"needed": needed, "more": more, "outcome": outcome}
    return row | {"verdict": _verdict(row)}


def _outcome(low: float, high: float) -> str:
    if isnan(low):
        return "open"
    return "win" if low > 0 else "loss" if high < 0 else "tie"


def _verdict(row: dict[str, Any]) -> str:
    a, b, more = row["a"], row["b"], row["more"]
    if not row["pairs"]:
        return "No seed in common."
    if row["outcome"] == "open":
        return "One pair of seeds says nothing of the spread: two or more do."
    if row["outcome"] in ("win", "loss"):
        first, second = (a, b) if row["outcome"] == "win" else (b, a)
        return f"{first} is above {second} by {abs(100 * row['difference']):.2f} points."
    if isnan(more):
        return "No difference on any seed."
    if more == inf:
        return "Beside its spread the difference is so small that no number of seeds will do."
    seeds = f"{more:.0f} more seed{'s' if more > 1 else ''}"
    return f"{seeds} would settle a difference of this size ({row['needed']:.0f} in all)."


def win_matrix(pairs: pd.DataFrame) -> pd.DataFrame:
    """Of each method (row) against each other (column): cells of the grid by outcome.

    Args:
        pairs: of ``method_pairs``.

    Returns:
        A frame of texts ``wins / ties / losses``, with ``+ 1 open`` where a cell has fewer than two
        pairs of seeds; empty text on the diagonal.
    """
    names = sorted({*pairs["a"], *pairs["b"]})
    counts = {(a, b): dict.fromkeys(OUTCOMES, 0) for a in names for b in names}
    other = {"win": "loss", "loss": "win", "tie": "tie", "open": "open"}
    for a, b, outcome in pairs[["a", "b", "outcome"]].itertuples(index=False):
        counts[a, b][outcome] += 1
        counts[b, a][other[outcome]] += 1
    texts = [["" if a == b else _counted(counts[a, b]) for b in names] for a in names]
    return pd.DataFrame(texts, index=names, columns=names)


def _counted(of: dict[str, int]) -> str:
    known = f"{of['win']} / {of['tie']} / {of['loss']}"
    return known + (f" + {of['open']} open" if of["open"] else "")
