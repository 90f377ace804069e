"""The short forms of a grid file's section ``data``, unfolded, and the way back."""

from __future__ import annotations

from typing import Any

from nas_sweeps.grid.messages import problem, shown
from nas_sweeps.trial import Groups

_SHOTS = "{many: 100, few: 20}"


def groups(value: Any) -> Groups | None:
    """``rank``, ``shots``, or ``{many: 100, few: 20}`` for other bounds of ``shots``."""
    if value is None:
        return None
    if value == "rank" or value == "shots":
        return Groups(by=value)
    bounds = value if isinstance(value, dict) else {"": None}
    whole = all(type(bound) is int and bound > 0 for bound in bounds.values())
    if not bounds or not set(bounds) <= {"many", "few"} or not whole:
        raise problem(f"{shown(value)} is not known; choose from rank, shots, {_SHOTS}")
    made = Groups(by="shots", **bounds)
    if made.few > made.many + 1:
        raise problem(
            f"a class of {made.many + 1} images would be many (more than {made.many}) and few "
            f"(fewer than {made.few}); lower few"
        )
    return made


def short_groups(value: Groups | None) -> str | dict[str, int] | None:
    if value is None:
        return None
    if value.by == "rank":
        return value.by
    return {"many": value.many, "few": value.few}
