"""Methods against each other, and the seeds that would settle it."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from nas_sweeps.report import sections
from nas_sweeps.report.pairs import method_pairs, win_matrix
from nas_sweeps.report.power import pairs_needed, power
from nas_sweeps.store import Origin
from nas_sweeps.tables import load
from nas_sweeps.trial import Distribution
from tests.report.lab import BALANCE, EXP, GENOTYPES, PUBLISHED, Lab

# Of a paired, two-sided t-test at 5 % and 80 % power: 199, 34 and 15 pairs for the small, medium
# and large effects of Cohen (1988), as G*Power 3.1 (Faul et al. 2007) has them.


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_needed_are_the_published_ones(effect: float, pairs: int) -> None:
    assert pairs_needed(effect, 1.0) == pairs
    assert pairs_needed(-effect * 3, 3.0) == pairs
    assert power(effect, pairs) >= 0.8 > power(effect, pairs - 1)


def test_power_is_what_simulated_studies_find() -> None:
    draws = np.random.default_rng(0).normal(0.9, 1.0, (20_000, 8))
    found = (ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power(0.9, 8) == pytest.approx(found, abs=0.01)


def test_what_no_number_of_pairs_settles() -> None:
    assert pairs_needed(0.0, 1.0) == inf
    assert pairs_needed(1e-4, 1.0) == inf
    assert isnan(pairs_needed(0.5, 0.0))
    assert isnan(pairs_needed(0.5, float("nan")))
    assert pairs_needed(1000.0, 1.0) == 2


def searched(lab: Lab, method: str, finals: Sequence[float], where: Distribution = EXP) -> None:
    for seed, final in enumerate(finals):
        lab.retrain(
            Origin(method=method, search_id=f"s-{method}-{seed}", seed=seed),
            seed=seed,
            distribution=where,
            accuracies=(0.1, final),
            genotype=PUBLISHED[GENOTYPES[method]],
        )


def test_a_pair_by_hand(lab: Lab) -> None:
    searched(lab, "darts", (0.50, 0.52, 0.54))
    searched(lab, "fairdarts", (0.51, 0.50, 0.55))
    [row] = method_pairs(load(lab.store)).to_dict("records")
    differences = [-0.01, 0.02, -0.01]
    assert (row["a"], row["b"], row["pairs"]) == ("darts", "fairdarts", 3)
    assert row["difference"] == pytest.approx(0.0)
    assert row["sd"] == pytest.approx(np.std(differences, ddof=1))
    assert row["outcome"] == "tie"


def test_more_seeds_are_told_until_it_stands_out(lab: Lab) -> None:
    searched(lab, "darts", (0.50, 0.52, 0.54))
    searched(lab, "fairdarts", (0.52, 0.53, 0.57))  # -0.02, -0.01, -0.03: mean 2 sd below 0
    searched(lab, "ssf_nas", (0.52, 0.53, 0.5601))  # -0.02, -0.01, -0.0201
    rows = {(r["a"], r["b"]): r for r in method_pairs(load(lab.store)).to_dict("records")}
    tie = rows["darts", "fairdarts"]
    assert tie["outcome"] == "tie"  # t = 3.46, and 4.30 is the bound of 3 pairs
    assert tie["needed"] == pairs_needed(2.0, 1.0) == 5
    assert tie["more"] == 2
    assert tie["verdict"] == "2 more seeds would settle a difference of this size (5 in all)."
    settled = rows["darts", "ssf_nas"]
    assert (settled["outcome"], settled["more"]) == ("loss", 0)
    assert settled["verdict"] == "ssf_nas is above darts by 1.67 points."


def test_the_matrix_counts_cells(lab: Lab) -> None:
    for where, other in ((EXP, 0.1), (BALANCE, -0.1)):
        searched(lab, "darts", (0.50, 0.52, 0.54), where)
        searched(lab, "fairdarts", [x + other for x in (0.50, 0.52, 0.541)], where)
    searched(lab, "ssf_nas", (0.7,))
    matrix = win_matrix(method_pairs(load(lab.store)))
    assert matrix.loc["darts", "fairdarts"] == "1 / 0 / 1"
    assert matrix.loc["fairdarts", "darts"] == "1 / 0 / 1"
    assert matrix.loc["darts", "ssf_nas"] == "0 / 0 / 0 + 1 open"
    assert matrix.loc["darts", "darts"] == ""


def test_the_page_has_both_tables(lab: Lab) -> None:
    assert sections.pairs(load(lab.store)) is None
    searched(lab, "darts", (0.50, 0.52))
    searched(lab, "fairdarts", (0.51, 0.50))
    found = sections.pairs(load(lab.store))
    assert found is not None
    assert [column.title for column in found.matrix.columns] == ["method", "darts", "fairdarts"]
    assert [cell.text for cell in found.matrix.rows[0]] == ["darts", "", "0 / 1 / 0"]
    said = dict(zip([c.title for c in found.table.columns], found.table.rows[0], strict=True))
    assert [said[title].text for title in ("A", "B", "of A", "pairs of seeds")] == [
        *("darts", "fairdarts", "tie", "2")
    ]
    more = said["more seeds"].text
    assert said["in words"].text.startswith(f"{more} more seeds would settle")
