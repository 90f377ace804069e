"""What ``doctor`` finds: a line about one thing that a run needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

WRONG = "wrong"  # in the row of a node: its text says why


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is as it should be, and what it is or lacks.

    ``row`` is of a node of a cluster: a word or two about each thing that was looked at there.
    ``later`` is of what is not there yet and comes by itself, which is no fault.
    """

    what: str
    good: bool
    text: str
    row: Mapping[str, str] | None = None
    later: bool = False


def checked(what: str, check: Callable[[], str]) -> Finding:
    """What a check says, or as an error why it fails."""
    try:
        return Finding(what, True, check())
    except (ValueError, ArithmeticError, OSError) as error:
        return Finding(what, False, str(error))
