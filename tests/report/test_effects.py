"""What a recipe buys, by hand."""

from __future__ import annotations

import math

import pytest

from nas_sweeps.report import sections
from nas_sweeps.report.effects import recipe_effects
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Origin
from nas_sweeps.tables import load
from tests.report.lab import EXP, Lab

NAMES = list(PUBLISHED)


def retrained(lab: Lab, genotype: int, seed: int, *accuracies: float) -> None:
    """One genotype and seed under recipes of 2, 3, ... epochs."""
    for i, accuracy in enumerate(accuracies):
        lab.retrain(
            Origin(method=NAMES[genotype], recipe=("first", "second", "third")[i]),
            distribution=EXP,
            seed=seed,
            accuracies=(0.1,) * (1 + i) + (accuracy,),
            genotype=PUBLISHED[NAMES[genotype]],
        )


def test_of_one_genotype_seeds_are_paired(lab: Lab) -> None:
    for seed, (first, second) in enumerate([(0.5, 0.6), (0.4, 0.5), (0.6, 0.73)]):
        retrained(lab, 0, seed, first, second)
    (row,) = recipe_effects(load(lab.store)).to_dict("records")
    assert (row["recipe"], row["reference"], row["pairs"]) == ("second", "first", 3)
    assert row["difference"] == pytest.approx(0.11)
    half = 4.302652729749 * 0.017320508 / math.sqrt(3)  # t of 2 degrees of freedom, 97.5 %
    assert (row["low"], row["high"]) == pytest.approx((0.11 - half, 0.11 + half))
    assert row["verdict"] == "helps"
    table = sections.effects(load(lab.store))
    assert table is not None
    assert len(table.rows) == 1


def test_of_several_genotypes_they_are_the_units(lab: Lab) -> None:
    for genotype, gain in enumerate((0.1, -0.1)):
        for seed in range(4):
            retrained(lab, genotype, seed, 0.5, 0.5 + gain)
    (row,) = recipe_effects(load(lab.store)).to_dict("records")
    assert row["pairs"] == 2, "eight retrains of two genotypes are two pairs"
    assert row["verdict"] == "no difference is shown"


def test_one_recipe_has_no_effect(lab: Lab) -> None:
    retrained(lab, 0, 0, 0.5)
    assert recipe_effects(load(lab.store)).empty
    assert sections.effects(load(lab.store)) is None
