"""The tables: one Parquet file per trial while it runs, six compacted files for everything.

``load`` takes from the compacted files every trial whose folder has not changed since, and from
the trial's own files the rest. So a compaction is never needed for a right answer, and loading
right after one opens six files. Both may happen while a sweep writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from nas_sweeps.store.files import File
from nas_sweeps.store.index import index_of
from nas_sweeps.store.layout import AttemptFiles, Layout
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import SCHEMA_VERSION
from nas_sweeps.tables.checksum import with_checksum
from nas_sweeps.tables.gather import gather
from nas_sweeps.tables.schemas import CLASSES, EPOCH_FILE, SCHEMAS, build

# A folder that changed less than this before a compaction may change again without its time
# moving (clock ticks are up to 2 s on FAT, 1 s on HFS+ and old NFS): it is read again.
_RACY_NS = 2_000_000_000


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
    file.publish(with_checksum(build(named, schema)))


def compact(store: Store | str | Path) -> None:
    """Write ``tables/*.parquet`` anew from what changed since they were last written.

    Where nothing did, nothing is written.

    Raises:
        ValueError: there is no store.
    """
    layout = layout_of(store)
    settled_before = layout.files.now() - _RACY_NS
    gathered = gather(layout, SCHEMAS)
    if gathered.current:
        return
    mtimes_ns = {t: s if s < settled_before else 0 for t, s in gathered.mtimes_ns.items()}
    index = {"schema": SCHEMA_VERSION, "compaction": uuid4().hex, "trials": mtimes_ns}
    index |= index_of({t: s for t, s in gathered.settled().items() if mtimes_ns[t]})
    metadata = {"compaction": index["compaction"], "schema": str(SCHEMA_VERSION)}
    whole = {
        name: with_checksum(gathered.table(name).replace_schema_metadata(metadata), "lz4")
        for name in SCHEMAS
    }
    for name, data in whole.items():  # half of them published is a compaction that never was
        layout.table(name).publish(data)
    layout.index.publish_json(index)


def layout_of(store: Store | str | Path) -> Layout:
    """Raises ValueError where there is no store."""
    return (store if isinstance(store, Store) else Store(store)).require().layout
