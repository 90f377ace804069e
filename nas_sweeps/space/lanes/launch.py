"""The one place where kernels are launched, or only noted down.

Inside ``noting`` nothing is launched: a cell that runs on torch's meta device then tells which
kernels, with which types and sizes, its step needs. ``warm.py`` compiles these ahead of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Launch(NamedTuple):
    """A kernel, its arguments in order, and its keyword arguments."""

    kernel: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


_noted: list[Launch] | None = None
_noted_maps: torch.dtype | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **keywords: Any) -> None:
    """Launch a Triton kernel on the current device; an empty grid is nothing."""
    if _noted is not None:
        _noted.append(Launch(kernel, arguments, keywords))
    elif all(grid):
        kernel[grid](*arguments, **keywords)


@contextmanager
def noting(maps: torch.dtype | None = None) -> Iterator[list[Launch]]:
    """Inside, launches are noted in the list and not done.

    Autocast knows no meta device, so ``maps`` says which type it would give to the maps of a cell
    there; None is that of the cell's inputs.
    """
    global _noted, _noted_maps
    assert _noted is None, "launches are noted once at a time"
    _noted, _noted_maps = [], maps
    try:
        yield _noted
    finally:
        _noted, _noted_maps = None, None


def type_of_noted_maps() -> torch.dtype | None:
    """What ``noting`` was told; None outside of it too."""
    return _noted_maps
