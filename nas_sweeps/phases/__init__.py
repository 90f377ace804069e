"""Phases by name: what a study consists of, each in a file of its own."""

from __future__ import annotations

from nas_sweeps.phases.contract import (
    PHASES,
    Labels,
    Phase,
    depth,
    in_order,
    phase_named,
    phase_of_id,
    register,
)

__all__ = [
    "PHASES",
    "Labels",
    "Phase",
    "depth",
    "in_order",
    "phase_named",
    "phase_of_id",
    "register",
]
