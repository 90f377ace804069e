"""What a store's tables are right now: compacted rows where they still hold, else the trials' own.

Small tables (trials, genotypes) are put together at once; of the large ones only the bytes are
read and checked, and ``Part.read`` decodes them when somebody asks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nas_sweeps.store.files import warn_skipped
from nas_sweeps.store.index import Index, read_index
from nas_sweeps.store.layout import Layout
from nas_sweeps.store.records import SCHEMA_VERSION, Settled, State
from nas_sweeps.tables.checksum import VerifiedParquet, check
from nas_sweeps.tables.rows import TrialRows, genotype_rows, read_trial
from nas_sweeps.tables.schemas import (
    GENOTYPES,
    SCHEMAS,
    TRIALS,
    build,
    conform,
    needed_of,
    upgrade,
)
from nas_sweeps.trial import Origin
from nas_sweeps.tuning.stop import Pruned

PARTS = ("epochs", "classes", "attempts", "alphas")  # tables of rows that belong to a trial
TOGETHER = 256  # trials whose rows become one table
USUAL = tuple(name for name in SCHEMAS if name != "alphas")


@dataclass(frozen=True)
class Part:
    """A table of rows that belong to trials: compacted ones of some, fresh ones of others."""

    schema: pa.Schema
    old: VerifiedParquet | None
    kept: set[str] | None  # trials whose compacted rows hold; None: all of them
    fresh: list[pa.Table]

    def read(
        self, columns: Sequence[str] | None = None, trial_ids: pa.Array | None = None
    ) -> pa.Table:
        """Its rows, sorted by trial: of these columns (``trial_id`` among them), these trials."""
        names = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        if self.old is None:
            table = schema.empty_table()
        else:
            held = upgrade(self.old.read(needed_of(names, self.old.names)))
            table = conform(held, schema, "tables").replace_schema_metadata(None)
        if self.kept is not None:
            table = of_trials(table, pa.array(self.kept, pa.string()))
        if self.fresh:
            added = [rows.select(names) for rows in self.fresh]
            table = sort_by(pa.concat_tables([table, *added]), "trial_id")
        return table if trial_ids is None else of_trials(table, trial_ids)


@dataclass(frozen=True)
class Gathered:
    """The tables of one store, and what is known of its trials."""

    trials: pa.Table
    genotypes: pa.Table
    parts: dict[str, Part]
    mtimes_ns: dict[str, int]  # of each trial's folder: up to then its rows are right; 0: never
    corrupt: set[str] = field(default_factory=set)  # trials of which something cannot be read
    current: bool = False  # everything comes from the compacted tables, which are of this version

    def settled(self) -> dict[str, Settled]:
        """What decides what runs next, for every settled trial."""
        columns = ["trial_id", "state", "transient", "genotype_id", "stop"]
        columns += ["accuracy_validation", "accuracy_macro_validation"]
        cells: dict[str, list[list[Any]]] = {}
        for row in self.genotypes.to_pylist():
            cell = cells.setdefault(row["genotype_id"], [[], []])[row["cell"] == "reduce"]
            cell.append([row["operation"], row["source"], row["node"]])
        return {
            row["trial_id"]: Settled(
                state=State(row["state"]),
                transient=bool(row["transient"]),
                genotype=cells.get(row["genotype_id"]),
                accuracy_validation=row["accuracy_validation"],
                accuracy_macro_validation=row["accuracy_macro_validation"],
                **_pruned(row["stop"]),
            )
            for row in self.trials.select(columns).to_pylist()
            if State(row["state"]).settled
        }

    def links(self) -> list[tuple[str, Origin]]:
        """Who asked for which trial, by its id."""
        rows = self.trials.select(["trial_id", "origins"]).to_pylist()
        return [
            (row["trial_id"], Origin.from_json(origin))
            for row in rows
            for origin in json.loads(row["origins"] or "[]")
        ]

    def table(
        self, name: str, columns: Sequence[str] | None = None, trial_ids: pa.Array | None = None
    ) -> pa.Table:
        """A table, or some of its columns and trials; of genotypes, those of these trials."""
        if name in self.parts:
            return self.parts[name].read(columns, trial_ids)
        table = self.trials if name == "trials" else self.genotypes
        if trial_ids is not None and name == "trials":
            table = of_trials(table, trial_ids)
        elif trial_ids is not None:
            used = of_trials(self.trials, trial_ids)["genotype_id"].combine_chunks()
            table = table.filter(pc.is_in(table["genotype_id"], value_set=used))
        return table if columns is None else table.select(list(columns))


def _pruned(stop: str | None) -> dict[str, Any]:
    """What the column ``stop`` says, as fields of ``Settled``."""
    return {} if stop is None else Settled.facts(Pruned.from_json(stop))


def gather(layout: Layout, names: Collection[str] = USUAL, index: Index | None = None) -> Gathered:
    """Every trial's rows in these tables, read once from a store that may be written meanwhile.

    Args:
        index: of a listing at hand; None: the store is listed now.
    """
    index = index or read_index(layout)
    # The stamp is taken before any file is opened: a later change gives a later stamp.
    listed = {files.trial_id: (files, mtime_ns) for files, mtime_ns in index.listed}
    mtimes_ns = {trial_id: mtime_ns for trial_id, (_, mtime_ns) in listed.items()}
    old = _compacted(layout, index.value, {"trials", "genotypes", *names})
    known = index.value["trials"] if old else {}
    kept = {t for t, mtime_ns in mtimes_ns.items() if known.get(t) == mtime_ns}
    fresh, rows_of = [], {name: _Rows() for name in PARTS if name in names}
    for trial_id, (files, _) in listed.items():
        if trial_id not in kept:  # its names were left out if its compacted rows are lost
            rows = read_trial(files if files.names else layout.trial(trial_id))
            for name, of in rows_of.items():
                of.add(getattr(rows, name))
            fresh.append(rows.without_parts())
    corrupt = {rows.trial["trial_id"] for rows in fresh if rows.corrupt}
    mtimes_ns |= {rows.trial["trial_id"]: 0 for rows in fresh if rows.corrupt or not rows.fixed}
    some = kept if len(kept) < len(known) else None
    trials, genotypes = _whole_tables(old, some, fresh)
    parts = {
        name: Part(SCHEMAS[name], old.get(name), some, of.tables()) for name, of in rows_of.items()
    }
    current = bool(old) and not fresh and some is None and index.value["schema"] == SCHEMA_VERSION
    return Gathered(trials, genotypes, parts, mtimes_ns, corrupt, current)


class _Rows:
    """Rows of many trials. A small table of each trial would take 100 KiB, however few rows."""

    def __init__(self) -> None:
        self._whole: list[pa.Table] = []
        self._small: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """A trial's rows."""
        if len(table):
            self._small.append(table)
        if len(self._small) >= TOGETHER:
            self._whole, self._small = self.tables(), []

    def tables(self) -> list[pa.Table]:
        """All of them, in the order in which they came."""
        if not self._small:
            return self._whole
        together = pa.concat_tables(self._small).unify_dictionaries().combine_chunks()
        return [*self._whole, together]


def _compacted(
    layout: Layout, index: dict[str, Any], names: set[str]
) -> dict[str, VerifiedParquet]:
    """The compacted tables; none where one is missing, torn, or of another compaction because
    one is being published right now."""
    tables: dict[str, VerifiedParquet] = {}
    for name in names if index else ():
        try:
            table = check(layout.table(name).read())
        except (OSError, pa.ArrowException) as error:
            warn_skipped(layout.table(name), error)
            return {}
        if table.metadata.get(b"compaction", b"").decode() != index["compaction"]:
            return {}
        today = index["schema"] == SCHEMA_VERSION
        if not table.sealed or (today and table.names != SCHEMAS[name].names):
            return {}
        tables[name] = table
    return tables


def _whole_tables(
    old: dict[str, VerifiedParquet], kept: set[str] | None, fresh: list[TrialRows]
) -> tuple[pa.Table, pa.Table]:
    """Trials and genotypes."""
    trials = Part(
        TRIALS, old.get("trials"), kept, [build((r.trial for r in fresh), TRIALS)] if fresh else []
    ).read()
    genotypes = old["genotypes"].read() if old else GENOTYPES.empty_table()
    genotypes = conform(genotypes, GENOTYPES, "tables").replace_schema_metadata(None)
    if not fresh and kept is None:
        return trials, genotypes
    known = set(genotypes["genotype_id"].to_pylist())
    found = {g.genotype_id: g for g in (rows.genotype for rows in fresh) if g is not None}
    added = (row for key, g in found.items() if key not in known for row in genotype_rows(g))
    genotypes = pa.concat_tables([genotypes, build(added, GENOTYPES)])
    used = pc.is_in(genotypes["genotype_id"], value_set=trials["genotype_id"].combine_chunks())
    return trials, sort_by(genotypes.filter(used), "genotype_id")


def of_trials(table: pa.Table, trial_ids: pa.Array) -> pa.Table:
    """The rows of these trials."""
    return table.filter(pc.is_in(table["trial_id"], value_set=trial_ids))


def sort_by(table: pa.Table, key: str) -> pa.Table:
    """Stably sorted by a text column, with one dictionary per dictionary column."""
    table = table.unify_dictionaries().combine_chunks()
    column = table[key].combine_chunks()
    if pa.types.is_dictionary(column.type):
        rank = np.argsort(np.argsort(np.array(column.dictionary.to_pylist(), dtype=str)))
        values = rank[column.indices.to_numpy()]
    else:
        values = np.array(column.to_pylist(), dtype=str)
    if bool((values[:-1] <= values[1:]).all()):
        return table
    return table.take(pa.array(np.argsort(values, kind="stable")))
