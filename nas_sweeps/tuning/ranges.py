"""Ranges in the place of values: what a study may choose for a knob or a setting of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nas_sweeps.data.samplers import SAMPLERS
from nas_sweeps.losses import LOSSES
from nas_sweeps.registry import Registry
from nas_sweeps.trial import Knob, MethodSpec, RetrainRecipe, SearchRecipe, choose, name_and_knobs


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
    """A recipe of which some settings have ranges; the fields are their values before tuning.

    A range has the name of its setting, dotted as it stands in a grid file: ``lr``,
    ``loss.focal.gamma``.
    """

    ranges: Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedRetrainRecipe(RetrainRecipe):
    """The same of a retraining; its names may be dotted deeper: ``classifier_stage.lr``."""

    ranges: Ranges


_PLAIN: dict[type[Any], type[Any]] = {
    TunedRecipe: SearchRecipe,
    TunedRetrainRecipe: RetrainRecipe,
}
REGISTRIES: dict[str, Registry[Any]] = {"loss": LOSSES, "sampler": SAMPLERS}  # of these settings


def ranges_of(of: Any) -> Ranges:
    """The ranges of a method or a recipe; none where it is not tuned."""
    tuned = isinstance(of, (TunedMethod, TunedRecipe, TunedRetrainRecipe))
    return of.ranges if tuned else ()


def tuned_recipe(recipe: SearchRecipe | RetrainRecipe, ranges: Mapping[str, Range]) -> Any:
    """The recipe with ranges, by name."""
    kind: Any = next(tuned for tuned, plain in _PLAIN.items() if plain is type(recipe))
    return kind(**_fields(recipe, type(recipe)), ranges=tuple(sorted(ranges.items())))


def plain_recipe(recipe: Any) -> Any:
    """The recipe before tuning."""
    plain = _PLAIN.get(type(recipe))
    return plain(**_fields(recipe, plain)) if plain else recipe


def setting_of(recipe: Any, name: str) -> Any:
    """A setting of a recipe, or a knob of a loss or sampler in it, by its dotted name."""
    setting, _, rest = name.partition(".")
    value = getattr(recipe, setting)
    if not rest:
        return value
    if setting not in REGISTRIES:
        return setting_of(value, rest)
    return REGISTRIES[setting].resolve(*name_and_knobs(value))[rest.partition(".")[2]]


def with_setting(recipe: Any, name: str, value: Any) -> Any:
    """The recipe with another value of a setting that ``setting_of`` finds."""
    setting, _, rest = name.partition(".")
    if rest and setting in REGISTRIES:
        chosen, knobs = name_and_knobs(getattr(recipe, setting))
        knobs = knobs | {rest.partition(".")[2]: value}
        value = choose(REGISTRIES[setting], chosen, knobs)
    elif rest:
        value = with_setting(getattr(recipe, setting), rest, value)
    changed: Any = replace(recipe, **{setting: value})
    return changed


def _fields(recipe: Any, kind: type[Any]) -> dict[str, Any]:
    return {field.name: getattr(recipe, field.name) for field in fields(kind)}
