"""Tuning of knobs: ranges in place of values, and studies that propose values. No torch."""

from __future__ import annotations

from nas_sweeps.tuning.ranges import (
    REGISTRIES,
    Range,
    TunedMethod,
    plain_recipe,
    ranges_of,
    setting_of,
    tuned_recipe,
    with_setting,
)
from nas_sweeps.tuning.stop import Pruned, Stop
from nas_sweeps.tuning.study import (
    COSTS,
    MEASURES,
    SAMPLERS,
    Measure,
    RetrainStudy,
    Sampler,
    Study,
    Told,
    Values,
)

__all__ = [
    "COSTS",
    "MEASURES",
    "REGISTRIES",
    "SAMPLERS",
    "Measure",
    "Pruned",
    "Range",
    "RetrainStudy",
    "Sampler",
    "Stop",
    "Study",
    "Told",
    "TunedMethod",
    "Values",
    "plain_recipe",
    "ranges_of",
    "setting_of",
    "tuned_recipe",
    "with_setting",
]
