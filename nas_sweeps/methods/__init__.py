"""Search methods by name: what a grid file may ask for. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from nas_sweeps.methods import (  # noqa: F401  each registers itself
    beta_darts,
    darts,
    fairdarts,
    gdas,
    pc_darts,
    random,
    ssf_nas,
)
from nas_sweeps.methods.contract import (
    METHODS,
    EdgeWeights,
    Method,
    Parameters,
    Rows,
    Searched,
    register,
)
from nas_sweeps.progress import Progress
from nas_sweeps.trial import Knob, MethodSpec, absent_values

__all__ = [
    "METHODS",
    "EdgeWeights",
    "Method",
    "Parameters",
    "Progress",
    "Rows",
    "Searched",
    "build",
    "get",
    "names",
    "register",
    "resolve",
    "variant",
]

names = METHODS.names
get = METHODS.get


def resolve(name: str, knobs: Mapping[str, Any]) -> MethodSpec:
    """The method with every knob decided: those given, checked, and defaults for the rest.

    A knob that was ``added`` is left out while it has the value that it stood for before.

    Raises:
        ValueError: an unknown method.
        pydantic.ValidationError: an unknown knob, or a value of the wrong type or range.
    """
    absent = absent_values(get(name))
    decided = METHODS.resolve(name, knobs).items()
    return MethodSpec(
        name=name, knobs=tuple(sorted((k, v) for k, v in decided if (k, v) not in absent.items()))
    )


def build(spec: MethodSpec) -> Method:
    """The method that a spec describes. Raises what ``resolve`` raises."""
    return METHODS.build(spec.name, absent_values(get(spec.name)) | dict(spec.knobs))


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
