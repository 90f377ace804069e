"""Search methods by name: what a grid file may ask for. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from nas_sweeps.methods import darts, fairdarts, ssf_nas  # noqa: F401  each registers itself
from nas_sweeps.methods.contract import REGISTRY, Method, Objective, register
from nas_sweeps.trial import Knob, MethodSpec, absent_values

__all__ = ["Method", "Objective", "build", "get", "names", "register", "resolve", "variant"]

ENTRY_POINTS = "nas_sweeps.methods"


def names() -> tuple[str, ...]:
    """Every method, ours and other packages', sorted."""
    _load_outsiders()
    return tuple(sorted(REGISTRY))


def get(name: str) -> type[Method]:
    """The class registered under ``name``. Raises ``ValueError`` naming the choices."""
    known = names()
    if name not in known:
        raise ValueError(f"unknown method '{name}'; choose from {', '.join(known)}")
    return REGISTRY[name]


def resolve(name: str, knobs: Mapping[str, Any]) -> MethodSpec:
    """The method with every knob decided: those given, checked, and defaults for the rest.

    A knob that was ``added`` is left out while it has the value that it stood for before.

    Raises:
        ValueError: an unknown method.
        pydantic.ValidationError: an unknown knob, or a value of the wrong type or range.
    """
    method = _adapter(get(name)).validate_python(dict(knobs))
    absent = absent_values(type(method))
    decided = asdict(method).items()
    return MethodSpec(
        name=name, knobs=tuple(sorted((k, v) for k, v in decided if (k, v) not in absent.items()))
    )


def build(spec: MethodSpec) -> Method:
    """The method that a spec describes. Raises what ``resolve`` raises."""
    kind = get(spec.name)
    method: Method = _adapter(kind).validate_python(absent_values(kind) | dict(spec.knobs))
    return method


def variant(spec: MethodSpec) -> str:
    """The knobs that differ from their defaults, e.g. ``order=second,hvp=exact``, else ``""``."""
    chosen = absent_values(get(spec.name)) | dict(spec.knobs)
    return ",".join(
        f"{knob.name}={_text(chosen[knob.name])}"
        for knob in fields(get(spec.name))
        if knob.name in chosen and chosen[knob.name] != knob.default
    )


def _text(value: Knob) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


@cache
def _adapter(method: type[Method]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(method)


@cache
def _load_outsiders() -> None:
    for point in entry_points(group=ENTRY_POINTS):
        try:
            method = point.load()
        except Exception as error:
            raise ValueError(
                f"method '{point.name}' ({point.value}) cannot be imported: {error}; "
                "repair or uninstall the package that offers it"
            ) from error
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise ValueError(f"method '{point.name}' ({point.value}) is not a Method class")
        register(point.name)(method)
