"""The grid file: what it may say, and the trials it stands for. No torch, no ray."""

from __future__ import annotations

from nas_sweeps.grid.expand import Entry, Plan, Slot, plan
from nas_sweeps.grid.messages import GridError
from nas_sweeps.grid.model import Grid, load_grid

__all__ = ["Entry", "Grid", "GridError", "Plan", "Slot", "load_grid", "plan"]
