from __future__ import annotations

import math

import pandas as pd
import pytest

from nas_sweeps.names import (
    UNKNOWN,
    distribution_name,
    joined,
    method_name,
    pretrain_column,
    trial_name,
)
from nas_sweeps.trial import Distribution


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("balance", None, None), "balance"),
        (("exp", 0.1, math.nan), "exp mu=0.1"),
        (("step", 1e-3, pd.NA), "step mu=0.001"),
        (("uniform", math.nan, 20431.0), "uniform 20431"),
        (("natural", None, math.nan, pd.NA), "natural"),
        (("natural", None, None, 1000.0), "natural n_max=1000"),
        ((None, None, None), UNKNOWN),
    ],
)
def test_a_distribution_is_called_alike_from_a_spec_and_from_a_table(given, expected) -> None:
    assert distribution_name(*given) == expected


def test_a_spec_and_its_columns_have_one_name() -> None:
    spec = Distribution(kind="exp", mu=0.01)
    assert str(spec) == distribution_name(*spec.columns.values()) == "exp mu=0.01"


def test_what_sets_a_method_apart_is_part_of_its_name() -> None:
    assert method_name("darts") == "darts"
    assert method_name("darts", "order=second") == "darts (order=second)"
    assert method_name("ssf_nas", "", pretrain_column("finetune")) == "ssf_nas + barlow"
    assert method_name("ssf_nas", "", pretrain_column("linear")) == "ssf_nas + barlow linear"
    assert method_name("ssf_nas", math.nan, pretrain_column(None)) == "ssf_nas"
    assert method_name(None) == UNKNOWN


def test_a_trial_without_a_seed_has_none_in_its_name() -> None:
    names = joined(["darts", "ssf_nas", "darts"]), distribution_name("balance")
    assert trial_name("retrain", *names, 3) == "retrain darts+ssf_nas balance s3"
    assert trial_name("retrain", *names, pd.NA) == "retrain darts+ssf_nas balance"


def test_retrains_of_two_searches_of_one_cell_have_two_names() -> None:
    names = "darts", distribution_name("exp", 0.1)
    assert trial_name("retrain", *names, 0, [1]) == "retrain darts exp mu=0.1 s0 of s1"
    assert trial_name("retrain", *names, 0, [1, 2, 1]) == "retrain darts exp mu=0.1 s0 of s1+s2"
    assert trial_name("retrain", *names, 0, [None]) == "retrain darts exp mu=0.1 s0"
