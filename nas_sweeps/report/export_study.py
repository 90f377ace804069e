"""One study as a database of Optuna's: for optuna-dashboard, or to be loaded and gone on with."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from nas_sweeps.paths import user_path
from nas_sweeps.publish import publish, require_writable
from nas_sweeps.report.studies import TunedCell, cell_named, optuna_study, tuned_cells
from nas_sweeps.store import Store
from nas_sweeps.tables import Frames, load

SUFFIXES = (".db", ".sqlite", ".sqlite3")


def export_study(
    store: Store | str | Path, cell: str, out: str | Path, overwrite: bool = False
) -> tuple[TunedCell, int]:
    """Write the study of a cell to ``out``, whole or not at all, as an SQLite database.

    ``optuna.load_study(study_name=NAME, storage="sqlite:///OUT")`` reads it, the name being that of
    the cell. It is a copy: what a store goes on to try does not reach it.

    Args:
        cell: its name (``fairdarts exp mu=0.3``), its study, or the beginning of one of them.

    Returns:
        The cell, and how many proposals were written.

    Raises:
        ValueError: there is no store or no one cell of this name, or ``out`` cannot be written, is
            there already, or is of another kind.
    """
    path = user_path(out)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"'{out}': name a file that ends in {', '.join(SUFFIXES)}")
    keeper = store if isinstance(store, Store) else Store(store)
    if keeper.owns(path):
        raise ValueError(f"'{out}': lies among the store's own files; name another file")
    frames = load(keeper)
    found = cell_named(tuned_cells(keeper, frames), cell, str(store))
    require_writable(path)
    if path.exists() and not overwrite:
        raise ValueError(f"'{out}': is there already; name another file, or say --overwrite")
    with publish(path, durable=False) as scratch:
        written = _write(found, frames, scratch)
    return found, written


def _write(cell: TunedCell, frames: Frames, path: Path) -> int:
    from optuna.storages import RDBStorage

    # A path may hold what has a meaning in a URL, so it is no part of one.
    storage = RDBStorage("sqlite:///study.db", {"creator": lambda: sqlite3.connect(path)})
    try:
        return len(optuna_study(cell, frames, storage).get_trials(deepcopy=False))
    finally:
        storage.remove_session()
        storage.engine.dispose()
