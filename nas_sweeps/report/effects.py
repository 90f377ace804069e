"""What a recipe of retraining buys: the same networks under another recipe, pair by pair."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nas_sweeps.report.labels import done, recipe_labels, retrains
from nas_sweeps.report.spread import interval
from nas_sweeps.tables import Frames

COLUMNS = ["dataset", "where", "recipe", "reference", "mean", "pairs"]
COLUMNS += ["difference", "low", "high", "verdict"]


def recipe_effects(frames: Frames, value: str | None = None) -> pd.DataFrame:
    """A row for each recipe but the reference, which is the one that was begun first.

    Retrains are paired that are equal but for the recipe. Of several genotypes the units are
    genotypes, each with its mean over seeds: seeds of one genotype are no sample of genotypes. Of
    one genotype the units are seeds.

    Args:
        value: a column of the trials table, a fraction in [0, 1]; None: ``frames.headline``.

    Returns:
        ``mean`` of the recipe, ``pairs``, the mean ``difference`` to the ``reference`` with ``low``
        and ``high`` (95 %, Student's t), ``verdict``. Empty where there is one recipe.
    """
    value = frames.headline if value is None else value
    found = done(retrains(frames)).dropna(subset=[value])
    found = found.assign(under=recipe_labels(found)).sort_values("started_at", kind="stable")
    rows: list[dict[str, Any]] = []
    for (dataset, where), block in found.groupby(["dataset", "where"], observed=True):
        recipes = [str(name) for name in dict.fromkeys(block["under"])]
        cells = block.groupby(["genotype_id", "pretrain", "seed", "under"], observed=True)[value]
        table = cells.mean().unstack("under")
        for recipe in recipes[1:]:
            both = table[[recipes[0], recipe]].dropna()
            known = {"dataset": dataset, "where": str(where), "recipe": recipe}
            rows.append(known | {"reference": recipes[0]} | _effect(both[recipe], both[recipes[0]]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _effect(under: pd.Series[float], reference: pd.Series[float]) -> dict[str, Any]:
    differences = (under - reference).astype("float64")
    if differences.index.get_level_values("genotype_id").nunique() > 1:
        differences = differences.groupby("genotype_id").mean()
    low, high = interval(differences.tolist())
    return {
        "mean": float(under.mean()),
        "pairs": len(differences),
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "verdict": "helps" if low > 0 else "costs" if high < 0 else "no difference is shown",
    }
