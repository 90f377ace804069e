"""Ranges in the place of values: what a study may choose for a knob or a setting of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from nas_sweeps.trial import Knob, MethodSpec, SearchRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From ``low`` to ``high``, both included, or one of ``choices``.

    ``log``: uniform in the logarithm. ``whole``: whole numbers only.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Knob, ...] = ()

    @property
    def ends(self) -> tuple[Knob, ...]:
        """The values that must be valid for every value to be."""
        return self.choices or (self.low, self.high)

    @property
    def size(self) -> float:
        """How many values there are; infinite for real numbers."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.whole else float("inf")

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        if self.choices:
            return any(type(value) is type(one) and value == one for one in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, Any]:
        """As a grid file says it."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high} | ({"log": True} if self.log else {})


Ranges = tuple[tuple[str, Range], ...]  # by name, sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedMethod(MethodSpec):
    """A method of which some knobs have ranges; ``knobs`` holds their values before tuning."""

    ranges: Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedRecipe(SearchRecipe):
    """A recipe of which some settings have ranges; the fields are their values before tuning."""

    ranges: Ranges


def ranges_of(of: MethodSpec | SearchRecipe) -> Ranges:
    """The ranges of a method or a recipe; none where it is not tuned."""
    return of.ranges if isinstance(of, (TunedMethod, TunedRecipe)) else ()


def plain_recipe(recipe: SearchRecipe) -> SearchRecipe:
    """The recipe before tuning."""
    settings = {field.name: getattr(recipe, field.name) for field in fields(SearchRecipe)}
    return SearchRecipe(**settings)
