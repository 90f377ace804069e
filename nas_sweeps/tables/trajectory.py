"""The genotypes that a search had along its way, from its rows."""

from __future__ import annotations

import json

from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.files import warn_skipped
from nas_sweeps.store.layout import Layout
from nas_sweeps.tables.rows import read_epochs


def genotypes_of(layout: Layout, trial_id: str) -> dict[int, Genotype]:
    """The genotype after each epoch of a search, as far as its file of epochs can be read."""
    files = layout.trial(trial_id)
    found: dict[int, Genotype] = {}
    for row in read_epochs(files).select(["epoch", "genotype"]).to_pylist():
        if row["genotype"] is None:
            continue
        try:
            found[row["epoch"]] = Genotype.from_json(json.loads(row["genotype"]))
        except ValueError as error:
            warn_skipped(files.spec, error)
    return found
