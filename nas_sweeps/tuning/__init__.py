"""Tuning of knobs: ranges in place of values, and studies that propose values. No torch."""

from __future__ import annotations

from nas_sweeps.tuning.ranges import Range, TunedMethod, TunedRecipe, plain_recipe, ranges_of
from nas_sweeps.tuning.stop import Pruned, Stop
from nas_sweeps.tuning.study import SAMPLERS, Sampler, Study, Told, Values, require

__all__ = [
    "SAMPLERS",
    "Pruned",
    "Range",
    "Sampler",
    "Stop",
    "Study",
    "Told",
    "TunedMethod",
    "TunedRecipe",
    "Values",
    "plain_recipe",
    "ranges_of",
    "require",
]
