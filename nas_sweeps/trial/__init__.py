"""What a trial is: frozen specs, and the identity derived from them.

A spec holds exactly the fields that say what is computed, so ``trial_id`` is a hash of all
of them and of nothing else: no path, host, time, resource or grid name. What only rounds
differently is recorded with each attempt (``nas_sweeps.numerics``). Each numeric field carries its
range; ``nas_sweeps.grid`` turns violations into messages.

**A new field is made with ``added``.** An identity leaves it out wherever it has the value that
stands for how trials were computed before, so no store forgets what it holds.

Images and distributions: ``data``; recipes: ``recipe``; what fields are made of: ``fields``.
"""

from __future__ import annotations

from nas_sweeps.trial.data import Data, DataPaths, Distribution, GroupBy, Groups, Labels
from nas_sweeps.trial.fields import (
    LABEL,
    Count,
    Fraction,
    Mu,
    NonNegative,
    Positive,
    Rate,
    Share,
    absent_values,
    added,
)
from nas_sweeps.trial.recipe import (
    Augment,
    Barlow,
    Choice,
    Chosen,
    Classifier,
    ClassifierStage,
    Knob,
    Policy,
    Precision,
    Pretrain,
    RetrainRecipe,
    Schedule,
    SearchRecipe,
    choose,
    name_and_knobs,
)
from nas_sweeps.trial.spec import (
    Identified,
    MethodSpec,
    Origin,
    Resources,
    RetrainTrial,
    SearchTrial,
    Trial,
    trial_from_json,
)

__all__ = [
    "LABEL",
    "Augment",
    "Barlow",
    "Choice",
    "Chosen",
    "Classifier",
    "ClassifierStage",
    "Count",
    "Data",
    "DataPaths",
    "Distribution",
    "Fraction",
    "GroupBy",
    "Groups",
    "Identified",
    "Knob",
    "Labels",
    "MethodSpec",
    "Mu",
    "NonNegative",
    "Origin",
    "Policy",
    "Positive",
    "Precision",
    "Pretrain",
    "Rate",
    "Resources",
    "RetrainRecipe",
    "RetrainTrial",
    "Schedule",
    "SearchRecipe",
    "SearchTrial",
    "Share",
    "Trial",
    "absent_values",
    "added",
    "choose",
    "name_and_knobs",
    "trial_from_json",
]
