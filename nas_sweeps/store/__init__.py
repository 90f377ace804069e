"""Where results live: layout, atomic publish, ledger, Parquet tables.

The ledger is light; pandas and pyarrow are imported by the first use of a table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import Result, State
from nas_sweeps.trial import Origin

if TYPE_CHECKING:
    from nas_sweeps.store.alphas import edge_weights, operation_weights
    from nas_sweeps.store.frames import Frames
    from nas_sweeps.store.query import sql
    from nas_sweeps.store.reading import load
    from nas_sweeps.store.summary import attributed, learning_curves, summarise
    from nas_sweeps.store.tables import compact

__all__ = [
    "Frames",
    "Origin",
    "Result",
    "State",
    "Store",
    "attributed",
    "compact",
    "edge_weights",
    "learning_curves",
    "load",
    "operation_weights",
    "sql",
    "summarise",
]

_HOME = {
    "Frames": "frames",
    "attributed": "summary",
    "compact": "tables",
    "edge_weights": "alphas",
    "learning_curves": "summary",
    "load": "reading",
    "operation_weights": "alphas",
    "sql": "query",
    "summarise": "summary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"nas_sweeps.store.{_HOME[name]}"), name)
