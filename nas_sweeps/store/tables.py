"""The tables: one Parquet file per trial while it runs, six compacted files for everything.

``load`` takes from the compacted files every trial whose folder has not changed since, and from
the trial's own files the rest. So a compaction is never needed for a right answer, and loading
right after one opens six files. Both may happen while a sweep writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nas_sweeps.store.files import File, warn_skipped
from nas_sweeps.store.layout import AttemptFiles, Layout
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.rows import TrialRows, genotype_rows, read_trial
from nas_sweeps.store.schemas import (
    CLASSES,
    EPOCH_FILE,
    GENOTYPES,
    SCHEMA_VERSION,
    SCHEMAS,
    TRIALS,
    build,
    conform,
    to_frame,
)
from nas_sweeps.store.sealed import seal, unseal

Tables = dict[str, pa.Table]
# A folder that changed less than this before a compaction may change again without its time
# moving (clock ticks are up to 2 s on FAT, 1 s on HFS+ and old NFS): it is read again.
_RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """The tables as pandas, sorted by trial (genotypes by genotype). See ``schemas``."""

    trials: pd.DataFrame
    epochs: pd.DataFrame
    classes: pd.DataFrame
    genotypes: pd.DataFrame
    attempts: pd.DataFrame
    alphas: pd.DataFrame


def write_epochs(files: AttemptFiles, rows: Iterable[Mapping[str, Any]]) -> None:
    """Publish all epochs of a trial so far. Keys are columns of ``EPOCH_FILE``."""
    _write_rows(files.epochs, files.trial.trial_id, rows, EPOCH_FILE)


def write_classes(files: AttemptFiles, rows: Iterable[Mapping[str, Any]]) -> None:
    """Publish a trial's rows per class. Keys are columns of ``CLASSES``."""
    _write_rows(files.classes, files.trial.trial_id, rows, CLASSES)


def _write_rows(
    file: File, trial_id: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema
) -> None:
    named = [{"trial_id": trial_id, **row} for row in rows]
    assert all(row["trial_id"] == trial_id for row in named), "rows of another trial"
    file.publish(seal(build(named, schema)))


def load(store: Store | str | Path) -> Frames:
    """Every trial in a store, whatever its state.

    A file that cannot be read is reported as a warning and hides nothing else.

    Raises:
        ValueError: there is no store.
    """
    tables, _, _ = _gather(_layout(store))
    return Frames(**{name: to_frame(table) for name, table in tables.items()})


def compact(store: Store | str | Path) -> None:
    """Write ``tables/*.parquet`` anew from what changed since they were last written.

    Raises:
        ValueError: there is no store.
    """
    layout = _layout(store)
    settled_before = layout.files.now() - _RACY_NS
    tables, stamps, _ = _gather(layout)
    index = {
        "schema": SCHEMA_VERSION,
        "compaction": uuid4().hex,
        "trials": {t: s if s < settled_before else 0 for t, s in stamps.items()},
    }
    metadata = {"compaction": index["compaction"], "schema": str(SCHEMA_VERSION)}
    whole = {n: seal(table.replace_schema_metadata(metadata)) for n, table in tables.items()}
    for name, data in whole.items():  # half of them published is a compaction that never was
        layout.table(name).publish(data)
    layout.index.publish_json(index)


def damaged(store: Store | str | Path) -> set[str]:
    """Trials of which rows or the spec are lost: neither their files nor the tables hold them.

    Raises:
        ValueError: there is no store.
    """
    return _gather(_layout(store))[2]


def _layout(store: Store | str | Path) -> Layout:
    return (store if isinstance(store, Store) else Store(store)).require().layout


def _gather(layout: Layout) -> tuple[Tables, dict[str, int], set[str]]:
    """All tables; of each trial the stamp up to which they are right (0: read it again); and
    the trials of which something could not be read."""
    # The stamp is taken before any file is opened: a later change gives a later stamp.
    listed = {files.trial_id: (files, stamp) for files, stamp in layout.trials()}
    stamps = {trial_id: stamp for trial_id, (_, stamp) in listed.items()}
    old, known = _compacted(layout)
    kept = {t for t, stamp in stamps.items() if known.get(t) == stamp}
    fresh = [read_trial(files) for t, (files, _) in listed.items() if t not in kept]
    torn = {rows.trial["trial_id"] for rows in fresh if rows.damaged}
    stamps |= {rows.trial["trial_id"]: 0 for rows in fresh if rows.damaged or not rows.fixed}
    if not fresh and len(kept) == len(known):
        return old, stamps, torn
    return _merge({name: _only(table, kept) for name, table in old.items()}, fresh), stamps, torn


def _compacted(layout: Layout) -> tuple[Tables, dict[str, int]]:
    """The compacted tables and their stamps; empty where they are missing, torn, or of two
    compactions because one is being published right now."""
    nothing = {name: schema.empty_table() for name, schema in SCHEMAS.items()}, dict[str, int]()
    index = layout.index.read_json()
    if index is None or index.get("schema") != SCHEMA_VERSION:
        return nothing
    tables: Tables = {}
    for name, schema in SCHEMAS.items():
        try:
            table = unseal(layout.table(name).read())
            metadata = table.schema.metadata or {}
            if metadata.get(b"compaction", b"").decode() != index.get("compaction"):
                return nothing
            if table.column_names != schema.names:
                return nothing
            tables[name] = conform(table, schema, layout.table(name))
        except (OSError, pa.ArrowException) as error:
            warn_skipped(layout.table(name), error)
            return nothing
    return tables, index["trials"]


def _only(table: pa.Table, trial_ids: set[str]) -> pa.Table:
    """The rows of these trials. The genotypes table has no trials: ``_merge`` sees to it."""
    if "trial_id" not in table.column_names:
        return table
    return table.filter(pc.is_in(table["trial_id"], value_set=pa.array(trial_ids, pa.string())))


def _merge(old: Tables, fresh: list[TrialRows]) -> Tables:
    """Old rows and fresh ones, sorted by trial; a trial's own rows keep their order."""
    trials = pa.concat_tables([old["trials"], build((rows.trial for rows in fresh), TRIALS)])
    epochs = pa.concat_tables([old["epochs"], *(rows.epochs for rows in fresh)])
    classes = pa.concat_tables([old["classes"], *(rows.classes for rows in fresh)])
    known = set(old["genotypes"]["genotype_id"].to_pylist())
    found = {g.genotype_id: g for g in (rows.genotype for rows in fresh) if g is not None}
    added = (row for key, g in found.items() if key not in known for row in genotype_rows(g))
    attempts = pa.concat_tables([old["attempts"], *(rows.attempts for rows in fresh)])
    alphas = pa.concat_tables([old["alphas"], *(rows.alphas for rows in fresh)])
    genotypes = pa.concat_tables([old["genotypes"], build(added, GENOTYPES)])
    used = pc.is_in(genotypes["genotype_id"], value_set=trials["genotype_id"].combine_chunks())
    return {
        "trials": _sorted(trials, "trial_id"),
        "epochs": _sorted(epochs, "trial_id"),
        "classes": _sorted(classes, "trial_id"),
        "genotypes": _sorted(genotypes.filter(used), "genotype_id"),
        "attempts": _sorted(attempts, "trial_id"),
        "alphas": _sorted(alphas, "trial_id"),
    }


def _sorted(table: pa.Table, key: str) -> pa.Table:
    """Stably sorted by a text column, with one dictionary per dictionary column."""
    table = table.unify_dictionaries().combine_chunks()
    column = table[key].combine_chunks()
    if pa.types.is_dictionary(column.type):
        rank = np.argsort(np.argsort(np.array(column.dictionary.to_pylist(), dtype=str)))
        values = rank[column.indices.to_numpy()]
    else:
        values = np.array(column.to_pylist(), dtype=str)
    return table.take(pa.array(np.argsort(values, kind="stable")))
