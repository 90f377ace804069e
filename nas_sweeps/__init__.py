"""Grids of neural-architecture searches on long-tailed image data.

    >>> import nas_sweeps as ns
    >>> grid = ns.load_grid("experiments/quickstart.yaml")
    >>> len(ns.plan(grid))
    12

``ns.run(grid, store)`` computes what is missing, ``ns.load(store)`` gives the tables as pandas
DataFrames. Importing this package imports neither torch nor ray nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_sweeps.grid import Grid, GridError, load_grid, plan
    from nas_sweeps.store import (
        Frames,
        attributed,
        compact,
        edge_weights,
        learning_curves,
        load,
        operation_weights,
        sql,
        summarise,
    )
    from nas_sweeps.sweep.run import run

__version__ = "0.1.0"

_HOME = {
    "Grid": "grid",
    "GridError": "grid",
    "load_grid": "grid",
    "plan": "grid",
    "Frames": "store",
    "attributed": "store",
    "compact": "store",
    "edge_weights": "store",
    "learning_curves": "store",
    "load": "store",
    "operation_weights": "store",
    "sql": "store",
    "summarise": "store",
    "run": "sweep.run",
}
__all__ = [
    "Frames",
    "Grid",
    "GridError",
    "__version__",
    "attributed",
    "compact",
    "edge_weights",
    "learning_curves",
    "load",
    "load_grid",
    "operation_weights",
    "plan",
    "run",
    "sql",
    "summarise",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it lives, when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'nas_sweeps' has no attribute '{name}'")
    return getattr(import_module(f"nas_sweeps.{_HOME[name]}"), name)
