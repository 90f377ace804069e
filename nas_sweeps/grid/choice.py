"""A registered thing with knobs, as a grid file says it: ``darts`` or ``{fairdarts: {…}}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import ValidationError

from nas_sweeps.grid.messages import Place, Problems, describe, number_meant, shown, unknown
from nas_sweeps.registry import Registry
from nas_sweeps.trial import Choice, Chosen, Knob, choose
from nas_sweeps.tuning import Range, plain_recipe, ranges_of, setting_of


def named(
    registry: Registry[Any], value: Any, found: Problems, *place: str | int
) -> tuple[str, dict[str, Any]] | None:
    """The name and the knobs that were given, checked; None where something is wrong with them."""
    what = registry.what
    one = {value: None} if isinstance(value, str) else value
    if not isinstance(one, dict) or len(one) != 1:
        found.add(f"write a {what}'s name or {{name: {{knob: value}}}}, not {shown(value)}", *place)
        return None
    [(name, knobs)] = one.items()
    knobs = {} if knobs is None else knobs
    if name not in registry.names():
        found.add(unknown(what, name, registry.names()), *place)
    elif not isinstance(knobs, dict):
        found.add(f"must hold knobs, `knob: value`, not {shown(knobs)}", *place, name)
    elif _sound(registry, name, knobs, found, *place, name):
        return name, knobs
    return None


def _sound(
    registry: Registry[Any], name: str, knobs: dict[str, Any], found: Problems, *place: str | int
) -> bool:
    try:
        decided = registry.resolve(name, knobs)
    except ValidationError as error:
        known = [field.name for field in fields(registry.get(name))]
        for details in error.errors():
            found.add(describe(details, lambda _: sorted(known)), *place, *details["loc"])
        return False
    wrong = False
    for knob, value in decided.items():  # pydantic would read true as 1 and "3" as 3
        given = knobs.get(knob)
        if isinstance(given, (bool, str)) and type(given) is not type(value):
            meant = number_meant(given)
            found.add(f"{shown(given)} is not a number{meant}", *place, knob)
            wrong = True
    return not wrong


def chosen(registry: Registry[Any], value: Any, found: Problems, *place: str | int) -> Chosen:
    """What a recipe holds of it; where something is wrong with it, any name that is known."""
    if isinstance(value, Choice):
        return value
    known = named(registry, value, found, *place)
    return choose(registry, *known) if known else registry.names()[0]


def written(value: Any) -> Any:
    """A recipe, or a part of one, as a grid file says it."""
    if isinstance(value, Choice):
        return {value.name: {knob: _plain(at) for knob, at in value.knobs}}
    if ranges := ranges_of(value):
        said = written(plain_recipe(value))
        for name, span in ranges:
            said = put(said, tuple(name.split(".")), said_with(span, setting_of(value, name)))
        return said
    if is_dataclass(value):
        return {field.name: written(getattr(value, field.name)) for field in fields(value)}
    return value


def said_with(span: Range, default: Any) -> dict[str, Any]:
    """A range as a grid file says it, with what it stands for before tuning."""
    return span.to_json() | {"default": written(default)}


def put(settings: Mapping[str, Any], place: Place, *value: Any) -> dict[str, Any]:
    """The settings with a value at a place, or with none there; a bare name becomes a section."""
    (name, *rest), changed = place, dict(settings)
    if rest:
        inner = changed.get(str(name), {})
        inner = {inner: {}} if isinstance(inner, str) else inner
        changed[str(name)] = put(inner or {}, tuple(rest), *value)
    elif value:
        [changed[str(name)]] = value
    else:
        del changed[str(name)]
    return changed


def _plain(value: Knob) -> Any:
    return list(value) if isinstance(value, tuple) else value
