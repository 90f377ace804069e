"""Table I says what the seeds allow, and no more."""

from __future__ import annotations

from math import isnan, nan, sqrt

import pandas as pd
import pytest

from nas_sweeps.report.spread import interval
from nas_sweeps.report.table1 import table1, verdict
from nas_sweeps.store import Origin
from nas_sweeps.tables import Frames, load, summarise
from tests.report.lab import EXP, Lab

T_95 = {1: 12.706205, 2: 4.302653}  # quantile 0.975 of Student's t, from printed tables


def row(table: pd.DataFrame, who: str, where: str = "exp mu=0.1") -> pd.Series:
    rows = table[(table["who"] == who) & (table["where"] == where)]
    assert len(rows) == 1
    return rows.iloc[0]


def chains(lab: Lab, **finals: list[float]) -> pd.DataFrame:
    for method, values in finals.items():
        for seed, final in enumerate(values):
            lab.chain(method, seed, EXP, final)
    return table1(load(lab.store))


def test_mean_sd_and_n_are_those_of_summarise(frames: Frames) -> None:
    table, wanted = table1(frames), summarise(frames)
    for method, who in {"darts": "darts", "ssf_nas": "ssf_nas + barlow"}.items():
        found = row(table, who)
        for statistic in ("mean", "sd", "n"):
            assert found[statistic] == wanted.loc[method, ("exp", 0.1, statistic)]


def test_interval_is_students(lab: Lab) -> None:
    table = chains(lab, darts=[0.5, 0.6, 0.7])
    found = row(table, "darts")
    half = T_95[2] * 0.1 / sqrt(3)
    assert found["low"] == pytest.approx(0.6 - half, rel=1e-6)
    assert found["high"] == pytest.approx(0.6 + half, rel=1e-6)
    assert found["verdict"] == "The baseline."
    assert isnan(found["difference"])


def test_differences_are_paired_by_seed(lab: Lab) -> None:
    """Seeds differ by ten points, methods by two: only pairs can see that."""
    table = chains(lab, darts=[0.5, 0.6, 0.7], fairdarts=[0.52, 0.621, 0.719])
    found = row(table, "fairdarts")
    assert found["difference"] == pytest.approx(0.02)
    half = T_95[2] * 0.001 / sqrt(3)
    assert found["difference_low"] == pytest.approx(0.02 - half, rel=1e-6)
    assert found["pairs"] == 3
    assert found["verdict"].startswith("Stands out of the seed noise: 2.00 points above")


def test_noise_is_called_noise(lab: Lab) -> None:
    table = chains(lab, darts=[0.5, 0.7], fairdarts=[0.7, 0.6])
    said = row(table, "fairdarts")["verdict"]
    assert said.startswith("Does not stand out of the seed noise: 5.00 points above")
    assert "2 pairs" in said


def test_one_seed_cannot_tell(lab: Lab) -> None:
    found = row(chains(lab, darts=[0.5], fairdarts=[0.4]), "fairdarts")
    assert found["verdict"] == (
        "10.00 points below with one pair of seeds: n=1 cannot tell this from seed noise."
    )
    assert isnan(found["low"])
    assert isnan(found["difference_low"])


def test_only_seeds_that_both_have_are_paired(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    lab.chain("darts", 1, EXP, 0.75)
    lab.chain("fairdarts", 1, EXP, 0.5)
    lab.chain("fairdarts", 2, EXP, 0.75)
    lab.chain("ssf_nas", 3, EXP, 0.75)
    table = table1(load(lab.store))
    assert row(table, "fairdarts")["difference"] == pytest.approx(-0.25)
    assert row(table, "fairdarts")["pairs"] == 1
    assert "No seed in common" in row(table, "ssf_nas + barlow")["verdict"]


def test_retrains_of_one_search_are_one_value_of_several(lab: Lab) -> None:
    for seed, finals in enumerate([(0.5, 0.6), (0.7, 0.8)]):
        search = lab.search("darts", seed)
        origin = Origin(method="darts", search_id=search.trial_id, seed=seed)
        for again, final in enumerate(finals):
            lab.retrain(origin, seed=10 * seed + again, accuracies=(final,))
    found = row(table1(load(lab.store)), "darts")
    assert (found["n"], found["seeds"], found["seeds_of"]) == (4, 2, "search")
    half = T_95[1] * (0.2 / sqrt(2)) / sqrt(2)
    assert found["high"] - found["mean"] == pytest.approx(half, rel=1e-6)


def test_seeds_of_one_search_are_said_to_be_of_retraining(lab: Lab) -> None:
    search = lab.search("darts", 5)
    origin = Origin(method="darts", search_id=search.trial_id, seed=5)
    for seed, final in enumerate((0.5, 0.6)):
        lab.retrain(origin, seed=seed, accuracies=(final,))
        lab.retrain(Origin(method="DARTS_V2"), seed=seed, accuracies=(final, final + 0.1))
    found = table1(load(lab.store))
    assert set(found["seeds_of"]) == {"retrain"}
    assert found["seeds"].tolist() == [2, 2]


def test_a_published_genotype_is_paired_by_its_retrain_seed(lab: Lab) -> None:
    lab.chain("fairdarts", 0, EXP, 0.5)
    lab.chain("fairdarts", 1, EXP, 0.6)
    for seed, final in enumerate((0.4, 0.5)):
        lab.retrain(Origin(method="DARTS_V2"), seed=seed, accuracies=(0.1, final))
    table = table1(load(lab.store), baseline="DARTS_V2")
    found = row(table, "fairdarts")
    assert found["difference"] == pytest.approx(0.1)
    assert found["pairs"] == 2


def test_equal_results_are_no_difference(lab: Lab) -> None:
    table = chains(lab, darts=[0.5, 0.5], fairdarts=[0.5, 0.5])
    assert row(table, "fairdarts")["verdict"] == "No difference on any of 2 seeds."


def test_results_without_the_value_count_for_nothing(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    lab.retrain(Origin(method="darts"), seed=1, accuracies=(0.5, nan))
    lab.retrain(Origin(method="darts"), seed=2, accuracies=(0.5, None))
    assert row(table1(load(lab.store)), "darts")["n"] == 1


def test_an_empty_store_has_an_empty_table(lab: Lab) -> None:
    table = table1(load(lab.store))
    assert table.empty
    assert "verdict" in table


def test_unknown_names_are_refused_with_the_choices(frames: Frames) -> None:
    with pytest.raises(ValueError, match="choose from <script>"):
        table1(frames, baseline="dart")
    with pytest.raises(ValueError, match="no column of fractions 'beauty'"):
        table1(frames, "beauty")


def test_an_interval_needs_two_finite_values() -> None:
    assert all(map(isnan, (*interval([]), *interval([0.5]), *interval([0.5, nan]))))


def test_the_interval_decides_on_the_verdict() -> None:
    assert verdict(-0.02, -0.03, -0.01, 4).startswith("Stands out")
    assert verdict(-0.02, -0.05, 0.01, 4).startswith("Does not stand out")
    assert verdict(0.02, 0.02, 0.02, 4).startswith("Stands out")
