"""How far two recipes rank the same genotypes alike."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas_sweeps.report import sections
from nas_sweeps.report.agreement import _weighted_taus, agreement
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Origin
from nas_sweeps.tables import load
from nas_sweeps.trial import Distribution
from tests.report.lab import EXP, Lab

NAMES = list(PUBLISHED)


def ranked(lab: Lab, *by_recipe: Sequence[float], where: Distribution = EXP) -> None:
    """Genotypes of three methods in turn, retrained under recipes of 2, 3, ... epochs."""
    for i, accuracies in enumerate(zip(*by_recipe, strict=True)):
        for j, accuracy in enumerate(accuracies):
            method = ("darts", "fairdarts", "ssf_nas")[i % 3]
            recipe = ("short", "long", "longest")[j]
            lab.retrain(
                Origin(method=method, search_id=f"s-{i}", seed=i // 3, recipe=recipe),
                distribution=where,
                accuracies=(0.1,) * (1 + j) + (accuracy,),
                genotype=PUBLISHED[NAMES[i]],
            )


def rows_of(lab: Lab) -> dict[str, dict[str, object]]:
    return {str(row["of"]): row for row in agreement(load(lab.store)).to_dict("records")}


RISING = [0.1 * i for i in range(1, 10)]


def test_tau_is_scipys_and_its_interval_holds_it(lab: Lab) -> None:
    other = [0.1, 0.3, 0.2, 0.4, 0.6, 0.5, 0.9, 0.7, 0.8]
    ranked(lab, RISING, other)
    row = rows_of(lab)["genotypes"]
    assert (row["recipe_a"], row["recipe_b"], row["n"]) == ("long", "short", 9)
    assert row["tau"] == pytest.approx(kendalltau(RISING, other).statistic)
    assert 0 < row["low"] < row["tau"] < row["high"] <= 1
    assert str(row["verdict"]).startswith("long and short rank the genotypes alike (tau 0.78, 95 %")


def test_resamples_are_weighted_as_if_they_were_drawn() -> None:
    x, y = np.array([0.1, 0.4, 0.3, 0.3]), np.array([0.2, 0.1, 0.5, 0.6])
    times = np.array([[1, 1, 1, 1], [2, 0, 1, 3], [0, 1, 4, 1]])
    drawn = [kendalltau(np.repeat(x, n), np.repeat(y, n)).statistic for n in times]
    assert _weighted_taus(x, y, times) == pytest.approx(drawn)


def test_recipes_that_disagree_are_told(lab: Lab) -> None:
    ranked(lab, RISING, RISING[::-1])
    row = rows_of(lab)["genotypes"]
    assert row["tau"] == pytest.approx(-1)
    assert "rank the genotypes against each other" in str(row["verdict"])
    assert "first is darts" in str(row["verdict"])
    assert "under long and ssf_nas" in str(row["verdict"])


def test_methods_are_ranked_by_their_means(lab: Lab) -> None:
    ranked(lab, RISING, [x + 0.05 for x in RISING])
    row = rows_of(lab)["methods"]
    assert (row["n"], row["tau"]) == (3, pytest.approx(1))
    assert row["best_a"] == row["best_b"] == "ssf_nas"
    assert "both have ssf_nas first" in str(row["verdict"])


def test_a_published_genotype_is_ranked_among_genotypes_alone(lab: Lab) -> None:
    ranked(lab, RISING, RISING)
    for epochs, recipe in ((2, "short"), (3, "long")):
        accuracies = (0.1,) * (epochs - 1) + (0.99,)
        lab.retrain(
            Origin(method=NAMES[9], recipe=recipe),
            accuracies=accuracies,
            genotype=PUBLISHED[NAMES[9]],
        )
    rows = rows_of(lab)
    assert [rows[of]["n"] for of in ("genotypes", "methods")] == [10, 3]
    assert rows["methods"]["best_a"] == "ssf_nas"
    assert not isnan(rows["methods"]["low"])  # type: ignore[arg-type]


def test_few_are_too_few_to_tell(lab: Lab) -> None:
    ranked(lab, RISING[:4], RISING[:4])
    rows = rows_of(lab)
    assert isnan(rows["genotypes"]["low"])  # type: ignore[arg-type]
    assert rows["genotypes"]["verdict"] == "Too few to tell: 4 genotypes; 5 are the least."
    assert str(rows["methods"]["verdict"]).endswith("each with several genotypes.")


def test_every_pair_of_recipes_has_its_row_and_one_recipe_has_none(lab: Lab) -> None:
    ranked(lab, RISING, where=Distribution(kind="balance"))
    assert agreement(load(lab.store)).empty
    assert sections.recipes(load(lab.store)) is None
    ranked(lab, RISING, RISING, RISING)
    found = agreement(load(lab.store))
    assert set(found["where"]) == {"exp mu=0.1"}
    assert len(found) == 6
    table = sections.recipes(load(lab.store))
    assert table is not None
    assert len(table.rows) == 6


def test_recipes_of_one_genotype_are_one_line_and_not_one_a_pair(lab: Lab) -> None:
    ranked(lab, [0.1], [0.2], [0.3])
    table = sections.recipes(load(lab.store))
    assert table is not None
    assert [[cell.text for cell in row][1] for row in table.rows] == ["genotypes", "methods"]
