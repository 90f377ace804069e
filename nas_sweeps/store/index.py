"""The index of the compacted tables: which trials they hold, and what runs next by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nas_sweeps.store.layout import Layout, TrialFiles
from nas_sweeps.store.records import READABLE, Settled, State


@dataclass(frozen=True, slots=True)
class Index:
    """What the index of the compacted tables says, and the store as it was listed just after."""

    value: dict[str, Any]
    settled: dict[str, Settled]
    listed: list[tuple[TrialFiles, int]]  # names are left out where the index still holds

    def holds(self, trial_id: str, mtime_ns: int) -> bool:
        """Whether a trial is as it was when the tables were compacted."""
        return bool(self.value.get("trials", {}).get(trial_id) == mtime_ns)


def read_index(layout: Layout) -> Index:
    """The index, if it is one that this version reads, and a listing."""
    value = layout.index.read_json() or {}
    if value.get("schema") not in READABLE:
        value = {}
    if "settled" not in value:  # of a version that did not say: names are needed of all trials
        return Index(value, {}, list(layout.trials()))
    return Index(value, _settled_of(value), list(layout.trials(value["trials"])))


def _settled_of(index: dict[str, Any]) -> dict[str, Settled]:
    genotypes = index.get("genotypes", {})
    with_macro = index["schema"] >= 9
    return {
        trial_id: Settled(
            state=State(state),
            transient=transient,
            genotype=None if genotype is None else genotypes[genotype],
            accuracy_validation=accuracy,
            accuracy_macro_validation=macro,
            **_pruned(*pruned),
        )
        for trial_id, (state, transient, accuracy, macro, genotype, *pruned) in (
            (trial_id, row if with_macro else [*row[:3], None, *row[3:]])
            for trial_id, row in index["settled"].items()
        )
    }


def _pruned(by: str | None = None, curve: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
    """Of a trial that is pruned, what follows the rest."""
    return {"pruned_by": by, "curve": tuple((int(epoch), value) for epoch, value in curve)}


def index_of(settled: dict[str, Settled]) -> dict[str, Any]:
    """The part of an index that ``settled`` reads; genotypes, which recur, stand there once."""
    genotypes = {json.dumps(s.genotype): s.genotype for s in settled.values() if s.genotype}
    numbers = {text: str(number) for number, text in enumerate(genotypes)}
    return {
        "settled": {
            trial_id: [
                s.state,
                s.transient,
                s.accuracy_validation,
                s.accuracy_macro_validation,
                numbers[json.dumps(s.genotype)] if s.genotype else None,
                *([s.pruned_by, s.curve] if s.pruned_by else []),
            ]
            for trial_id, s in settled.items()
        },
        "genotypes": {numbers[text]: genotype for text, genotype in genotypes.items()},
    }
