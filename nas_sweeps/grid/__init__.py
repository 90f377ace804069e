"""The grid file: what it may say, and the trials it stands for. No torch, no ray."""

from __future__ import annotations

from nas_sweeps.grid.expand import Plan, RetrainSlot, plan
from nas_sweeps.grid.messages import GridError
from nas_sweeps.grid.model import Grid, load_grid

__all__ = ["Grid", "GridError", "Plan", "RetrainSlot", "load_grid", "plan"]
