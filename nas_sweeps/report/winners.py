"""The cells that searches ended with: Figure 9, and genotypes from the tables."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from nas_sweeps.report.cell_figure import cells_figure
from nas_sweeps.report.labels import done, panel_names, searches
from nas_sweeps.space.genotype import CELLS, Genotype
from nas_sweeps.tables import Frames

_WINNER = ["row", "where", "trial_id", "seed", "accuracy_validation", "genotype_id"]


def winner_data(frames: Frames) -> pd.DataFrame:
    """The best search of each method and distribution: a row per edge of its genotype.

    Best on validation images, as a sweep chooses what it retrains; never on the test set. Of
    equals, the first seed.
    """
    found = done(searches(frames)).dropna(subset=["genotype_id"])
    found = found.assign(row=panel_names(found))[_WINNER]
    ranked = found.sort_values(
        ["row", "where", "accuracy_validation", "seed"], ascending=[True, True, False, True]
    )
    best = ranked.drop_duplicates(["row", "where"])
    return best.merge(frames.genotypes, on="genotype_id", how="inner")


def winner_cells(data: pd.DataFrame) -> Figure:
    """Figure 9 from ``winner_data``: a row per winner, its normal and its reduction cell."""
    return cells_figure(named_winners(data))


def named_winners(data: pd.DataFrame) -> list[tuple[str, Genotype]]:
    """Winners with a name that says who found them, where, and how well it did."""
    groups = data.groupby(["row", "where", "trial_id"], observed=True, sort=True)
    named = []
    for (row, where, _), edges in groups:
        first = edges.iloc[0]
        text = f"{' '.join(str(row).split())}, {where}, seed {first['seed']}"
        if not pd.isna(first["accuracy_validation"]):
            text += f" (validation {100 * first['accuracy_validation']:.1f} %)"
        named.append((text, from_rows(edges)))
    return named


def genotype_of(frames: Frames, genotype_id: str) -> Genotype:
    """The genotype with this id, which a trial of these tables has."""
    return from_rows(frames.genotypes[frames.genotypes["genotype_id"] == genotype_id])


def from_rows(edges: pd.DataFrame) -> Genotype:
    """A genotype from its rows of the genotypes table."""
    cells = dict(list(edges.groupby("cell")[["operation", "source", "node"]]))
    return Genotype.from_json([cells[cell].itertuples(index=False) for cell in CELLS])
