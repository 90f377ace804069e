"""Ranges in a grid file: ``{low: 1, high: 30, log: true}`` or ``{choices: [l1, l2]}``.

Wherever a knob of a method in ``search.methods`` or a setting of a recipe may stand, and a knob of
a loss or sampler in it: ``loss: {focal: {gamma: {low: 0.5, high: 5}}}``. What a range stands for
before tuning is the usual default; ``default: 3`` beside the range says another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from nas_sweeps import methods
from nas_sweeps.grid.choice import named, put
from nas_sweeps.grid.messages import Place, Problems, shown
from nas_sweeps.trial import MethodSpec
from nas_sweeps.tuning import REGISTRIES, Range, TunedMethod, tuned_recipe

_WORDS = {"low", "high", "log", "choices", "default"}
_FORMS = "{low: 1, high: 30, log: true} or {choices: [a, b]}"


def is_range(value: Any) -> bool:
    """Whether a value is meant to be a range: no setting holds a section with these words."""
    return isinstance(value, dict) and bool({"low", "high", "choices"} & set(value))


def tuned_method(
    value: Any, found: Problems, *place: str | int
) -> tuple[str, Mapping[str, Any], dict[str, Range]] | None:
    """A method's name, its knobs as they are before tuning, and its ranges.

    None where something is wrong with them.
    """
    one = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    knobs = one if isinstance(one, dict) else {}
    given = {knob: one for knob, one in knobs.items() if is_range(one)}
    if not given:
        known = named(methods.METHODS, value, found, *place)
        return (*known, {}) if known else None
    [name] = value
    fixed = _without(knobs, {(knob,): one for knob, one in given.items()})
    known = named(methods.METHODS, {name: fixed}, found, *place)
    if known is None:
        return None
    cls = methods.get(name)
    ranges = {
        knob: span
        for knob, one in given.items()
        if (span := _range(one, _hint(cls, knob), found, *place, name, knob)) is not None
    }
    for knob, span in ranges.items():
        for end in span.ends:
            named(methods.METHODS, {name: fixed | {knob: end}}, found, *place)
    return None if found else (*known, ranges)


def method_spec(name: str, knobs: Mapping[str, Any], ranges: Mapping[str, Range]) -> MethodSpec:
    """The method with every knob resolved, and with its ranges where it has some."""
    spec = methods.resolve(name, knobs)
    if not ranges:
        return spec
    return TunedMethod(name=spec.name, knobs=spec.knobs, ranges=tuple(sorted(ranges.items())))


def tunable(recipe: WrapValidator) -> WrapValidator:
    """A validator of recipes that takes ranges too, also in the knobs of a loss or a sampler."""
    check: Callable[[Any, ValidatorFunctionWrapHandler], Any] = recipe.func  # type: ignore[assignment]

    def run(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        given = dict(_ranges_in(value)) if isinstance(value, dict) else {}
        if not given:
            return check(value, handler)
        fixed, found = _without(value, given), Problems()
        made, ranges = check(fixed, handler), dict[Place, Range]()
        for place, one in given.items():
            if place == ("test_every",):
                found.add("trains nothing otherwise, so there is no best: write a number", *place)
            span = _range(one, _hint_at(type(made), place), found, *place)
            if span is not None:
                ranges[place] = span
        for place, span in ranges.items():
            for end in span.ends:
                try:
                    check(put(fixed, place, end), handler)
                except ValidationError as error:
                    found.merge(error)
        found.check()
        return tuned_recipe(made, {".".join(map(str, at)): span for at, span in ranges.items()})

    return WrapValidator(run)


def _ranges_in(settings: Mapping[str, Any], *place: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    for name, value in settings.items():
        if is_range(value):
            yield (*place, name), value
        elif isinstance(value, dict):
            yield from _ranges_in(value, *place, name)


def _without(settings: Mapping[str, Any], ranges: Mapping[Place, Any]) -> dict[str, Any]:
    """The settings with what stands for their ranges before tuning."""
    fixed = dict(settings)
    for place, one in ranges.items():
        fixed = put(fixed, place, *([one["default"]] if "default" in one else []))
    return fixed


def _hint_at(kind: Any, place: Place) -> tuple[Any, ...]:
    """The types that what stands at a place of a recipe may have."""
    name, *rest = map(str, place)
    if not rest:
        return _hint(kind, name)
    if name in REGISTRIES:
        known = REGISTRIES[name]
        return _hint(known.get(rest[0]), rest[1]) if rest[0] in known.names() and rest[1:] else ()
    inner = [one for one in _hint(kind, name) if is_dataclass(one)]
    return _hint_at(inner[0], tuple(rest)) if inner else ()


def _hint(cls: type[Any], name: str) -> tuple[Any, ...]:
    """The types that a field may have, but None; empty for a field that there is not."""
    hint = get_type_hints(cls).get(name)
    return tuple(kind for kind in get_args(hint) or (hint,) if kind not in (None, NoneType))


def _range(
    value: Mapping[str, Any], kinds: tuple[Any, ...], found: Problems, *place: str | int
) -> Range | None:
    """A range of a field that may be of these types."""
    if unknown := set(value) - _WORDS:
        found.add(f"a range has no {', '.join(sorted(map(str, unknown)))}; write {_FORMS}", *place)
        return None
    if "choices" in value:
        return _choices(value, kinds, found, *place)
    low: Any = value.get("low")
    high: Any = value.get("high")
    log = value.get("log", False)
    whole = int in kinds and float not in kinds
    if kinds and int not in kinds and float not in kinds:
        found.add("is no number; write {choices: [a, b]}", *place)
    elif not _is_number(low) or not _is_number(high) or not isinstance(log, bool):
        found.add(f"{shown(dict(value))} is not a range; write {_FORMS}", *place)
    elif low >= high:
        found.add(f"from {low:g} to {high:g} there is nothing to choose from; low < high", *place)
    elif log and low <= 0:
        found.add(f"log: a logarithm has no {low:g}; raise low above 0, or leave log out", *place)
    elif whole and not (isinstance(low, int) and isinstance(high, int)):
        found.add("takes whole numbers: write low and high without a fraction", *place)
    elif whole:
        return Range(low=low, high=high, log=log, whole=True)
    else:
        return Range(low=float(low), high=float(high), log=log)
    return None


def _choices(
    value: Mapping[str, Any], kinds: tuple[Any, ...], found: Problems, *place: str | int
) -> Range | None:
    listed = value["choices"]
    single = isinstance(listed, list) and all(
        isinstance(one, (bool, int, float, str)) for one in listed
    )
    if {"low", "high", "log"} & set(value) or not single or len({*map(repr, listed)}) < 2:
        found.add(f"{shown(dict(value))}: choices are two or more single values", *place)
        return None
    if float in kinds:  # as the method will have them
        listed = [float(one) if _is_number(one) else one for one in listed]
    return Range(choices=tuple(dict.fromkeys(listed)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
