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
    from nas_sweeps.store.summary import attributed, summarise
    from nas_sweeps.store.tables import Frames, compact, load

__all__ = [
    "Frames",
    "Origin",
    "Result",
    "State",
    "Store",
    "attributed",
    "compact",
    "load",
    "summarise",
]

_TABLES = ("Frames", "compact", "load")
_SUMMARY = ("attributed", "summarise")


def __getattr__(name: str) -> Any:
    if name in _TABLES:
        return getattr(import_module("nas_sweeps.store.tables"), name)
    if name in _SUMMARY:
        return getattr(import_module("nas_sweeps.store.summary"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
