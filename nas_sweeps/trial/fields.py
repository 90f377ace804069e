"""What fields of specs are made of: ranges of numbers, and what an identity leaves out."""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

STRICT = {"extra": "forbid"}  # read by pydantic: unknown keys are errors
LABEL = {"identity": False}  # metadata of a field that only names something for people
ABSENT = "absent"  # metadata of a field that was added later: what trials did without it


def added(default: Any, *, absent: Any = MISSING) -> Any:
    """A field of a spec, or a knob of a method, that trials of earlier versions did not have.

    Args:
        default: of trials that are planned from now on.
        absent: the value that stands for what was computed when there was no such field, where
            it is not the default. It never changes again: identities leave it out.
    """
    return field(default=default, metadata={ABSENT: default if absent is MISSING else absent})


def absent_values(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that were ``added``, with what stands for their absence."""
    return {f.name: f.metadata[ABSENT] for f in fields(kind) if ABSENT in f.metadata}


Positive = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
Rate = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Gt(0), Le(1)]
Mu = Annotated[float, Gt(0), Le(1)]
