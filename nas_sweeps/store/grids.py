"""The resolved grids that runs kept in a store."""

from __future__ import annotations

from typing import Any

from nas_sweeps.names import HEADLINE, HEADLINES
from nas_sweeps.store.layout import Layout


def kept_grids(layout: Layout) -> list[dict[str, Any]]:
    """Every grid that a run kept in a store, the latest first."""
    files = layout.grids()
    files.sort(key=lambda file: (-file.files.mtime_ns(file.key), file.name))
    return [grid for grid in (file.read_json() for file in files) if grid is not None]


def headline_of(layout: Layout) -> str:
    """The column that the latest grid of a store has for its headline."""
    latest = next(iter(kept_grids(layout)), {}).get("headline")
    return latest if latest in HEADLINES else HEADLINE
