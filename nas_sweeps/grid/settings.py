"""The settings that a grid file may hold, by place: choices for messages about others."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_args

from pydantic import BaseModel

from nas_sweeps.grid.exclude import Rule
from nas_sweeps.grid.messages import Place
from nas_sweeps.phases import PHASES, phase_named
from nas_sweeps.trial import Barlow, ClassifierStage, RetrainRecipe, SearchRecipe
from nas_sweeps.tuning.stop import Collapse


def _names(*types: Any) -> list[str]:
    return [field.name for kind in types for field in fields(kind)]


_SETTINGS: dict[tuple[str, ...], list[str]] = {
    ("search", "recipe"): ["preset", *_names(SearchRecipe)],
    ("retrain", "recipe"): [
        "preset",
        *(name for name in _names(RetrainRecipe) if name != "pretrain"),
    ],
    ("retrain", "recipe", "classifier_stage"): _names(ClassifierStage),
    ("retrain", "barlow"): ["epochs", "then", *_names(Barlow)],
    ("search", "stop", "collapse"): _names(Collapse),
    ("retrain", "stop", "collapse"): _names(Collapse),
    ("exclude",): list(Rule.model_fields),
}


def settings_at(place: Place, grid: type[BaseModel]) -> list[str]:
    """What may stand in a section of this model of a grid, or in a part of it."""
    path = tuple(part for part in place if isinstance(part, str))
    if path[:2] == ("retrain", "recipes"):
        path = ("retrain", "recipe", *path[3:])
    if path in _SETTINGS:
        return _SETTINGS[path]
    kind: Any = grid
    for part in path:
        known = phase_named(part).section if part in PHASES.names() else None
        kind = known or kind.model_fields[part].annotation
        kind = next((one for one in get_args(kind) if hasattr(one, "model_fields")), kind)
    if is_dataclass(kind):
        return _names(kind)
    return sorted(kind.model_fields, key="resources".__eq__)  # its own before what all phases have
