"""The one place where kernels are launched, or only noted down.

Inside ``noting`` nothing is launched: a cell that runs on torch's meta device then tells which
kernels, with which types and sizes, its step needs. ``warm.py`` compiles these ahead of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Launch(NamedTuple):
    """A kernel, its arguments in order, and its keyword arguments."""

    kernel: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


_noted: list[Launch] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **keywords: Any) -> None:
    """Launch a Triton kernel on the current device; an empty grid is nothing."""
    if _noted is not None:
        _noted.append(Launch(kernel, arguments, keywords))
    elif all(grid):
        kernel[grid](*arguments, **keywords)


@contextmanager
def noting() -> Iterator[list[Launch]]:
    """Inside, launches are noted in the list and not done."""
    global _noted
    assert _noted is None, "launches are noted once at a time"
    _noted = []
    try:
        yield _noted
    finally:
        _noted = None
