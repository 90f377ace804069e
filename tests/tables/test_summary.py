from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from nas_sweeps.store import Origin
from nas_sweeps.tables import attributed, load, summarise
from nas_sweeps.trial import Distribution, Pretrain

BALANCE = Distribution(kind="balance")


def origin(method: str, seed: int = 0, **fields: Any) -> Origin:
    return Origin(method=method, search_id=f"s-{method}{seed}", seed=seed, **fields)


def cell(table: pd.DataFrame, row: Any, *column: Any) -> tuple[Any, ...]:
    """(mean, sd, n) of one cell."""
    keys = [key for key in table if key[:-1] == column]
    assert [key[-1] for key in keys] == ["mean", "sd", "n"]
    return tuple(table.loc[row, key] for key in keys)


def test_a_shared_retrain_counts_for_each_method_that_found_it(lab: Any) -> None:
    shared = lab.finish(lab.retrain(5, origin("darts", 1), origin("fairdarts", 2)))
    lab.finish(lab.retrain(6, Origin(method="DARTS_V2")))
    rows = attributed(load(lab.store))
    found = rows[rows["trial_id"] == shared.trial_id].set_index("method")
    assert found["search_seed"].to_dict() == {"darts": 1, "fairdarts": 2}
    assert set(found["seed"]) == {5}
    baseline = rows[rows["method"] == "DARTS_V2"].iloc[0]
    assert pd.isna(baseline["search_seed"])
    assert pd.isna(baseline["search_id"])


def test_a_retrain_without_origins_keeps_its_row(lab: Any) -> None:
    lab.finish(lab.retrain(0))
    rows = attributed(load(lab.store))
    assert len(rows) == 1
    assert rows["method"].isna().all()
    assert summarise(load(lab.store)).iloc[0].tolist()[-1] == 1


def test_mean_sd_and_n_by_hand(lab: Any) -> None:
    for seed, value in enumerate((0.5, 0.6, 0.9)):
        lab.finish(lab.retrain(seed, origin("darts")), accuracy=value)
    lab.finish(lab.retrain(0, origin("darts"), distribution=BALANCE), accuracy=0.75)
    lab.finish(lab.retrain(9, origin("darts"), origin("fairdarts")), accuracy=0.4)
    lab.finish(lab.retrain(10, origin("darts")), state="failed")
    lab.retrain(11, origin("darts"))
    lab.finish(lab.search(0))
    table = summarise(load(lab.store))
    assert table.columns.names == ["distribution", "mu", "statistic"]
    assert list(table.index) == ["darts", "fairdarts"]
    assert table.columns.get_level_values("distribution").tolist() == ["balance"] * 3 + ["exp"] * 3
    # 0.5, 0.6, 0.9, 0.4: mean 0.6, squared deviations 0.01 + 0 + 0.09 + 0.04 over 3
    assert cell(table, "darts", "exp", 0.1) == pytest.approx((0.6, math.sqrt(0.14 / 3), 4))
    mean, sd, n = cell(table, "fairdarts", "exp", 0.1)
    assert (mean, n) == (0.4, 1)
    assert math.isnan(sd)
    assert table.loc["darts"].tolist()[0] == 0.75  # balance comes first: it has no mu
    assert table.loc["fairdarts"].tolist()[2] == 0


def test_rows_split_where_an_average_would_mix(lab: Any) -> None:
    for pretrain in (None, Pretrain(epochs=1)):
        lab.finish(lab.retrain(0, origin("ssf_nas"), pretrain=pretrain))
    lab.finish(lab.retrain(1, origin("ssf_nas", variant="where=joint")))
    table = summarise(load(lab.store))
    assert table.index.names == ["method", "variant", "pretrain"]
    assert len(table) == 3
    assert (table.xs("n", axis=1, level="statistic") == 1).all(axis=None)


def test_searches_with_different_recipes_are_not_averaged(lab: Any) -> None:
    for seed in (0, 1):
        found = lab.finish(lab.search(seed))
        lab.finish(lab.retrain(seed, Origin(method="darts", search_id=found.trial_id, seed=seed)))
    frames = load(lab.store)
    assert summarise(frames).index.names == ["method"]
    first = frames.trials.index[frames.trials["phase"] == "search"][0]
    frames.trials.loc[first, "setting"] = "epochs=40"
    assert summarise(frames).index.names == ["method", "search_setting"]


def test_sizes_of_a_uniform_distribution_get_columns_of_their_own(lab: Any) -> None:
    for total in (100, 200):
        control = Distribution(kind="uniform", total=total)
        lab.finish(lab.retrain(0, origin("darts"), distribution=control))
    table = summarise(load(lab.store))
    assert table.columns.names == ["distribution", "mu", "total", "statistic"]
    assert table.columns.get_level_values("total").tolist() == [100] * 3 + [200] * 3


def test_other_values_rows_and_columns_can_be_asked_for(lab: Any) -> None:
    lab.finish(lab.retrain(0, origin("darts", 3)))
    table = summarise(load(lab.store), "epochs", rows=("method", "search_seed"), columns=())
    assert table.loc[("darts", 3)].tolist()[::2] == [2.0, 1.0]


def test_nothing_done_is_an_empty_table(lab: Any) -> None:
    lab.retrain(0, origin("darts"))
    table = summarise(load(lab.store))
    assert table.empty


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": "acc"}, "choose from .*accuracy_balanced"),
        ({"value": "state"}, "no numeric column 'state'"),
        ({"rows": ("methd",)}, "no column 'methd'"),
        ({"rows": ()}, "at least one"),
        ({"rows": "method"}, r"write it as a list: \['method'\]"),
        ({"rows": ("method", "mu")}, "'mu' is named twice"),
    ],
)
def test_a_name_that_is_no_column_is_a_users_mistake(
    lab: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        summarise(load(lab.store), **arguments)


def test_learning_curves_are_means_over_the_trials_that_are_done(lab: Any) -> None:
    for seed in (0, 1):
        lab.finish(lab.retrain(seed, origin("darts", seed)))  # 0.5, then 0.25
    lab.finish(lab.retrain(2, origin("darts")), state="failed")
    lab.epochs(lab.retrain(3, origin("darts")), (0.9,))
    lab.finish(lab.search(0))
    curves = load(lab.store).learning_curves()
    assert list(curves) == ["method", "distribution", "mu", "epoch", "mean", "sd", "n"]
    assert curves["epoch"].tolist() == [1, 2]
    assert curves["mean"].tolist() == [0.5, 0.25]
    assert curves["sd"].tolist() == [0, 0]
    assert curves["n"].tolist() == [2, 2]


def test_learning_curves_of_searches_keep_variants_apart(lab: Any) -> None:
    for variant, method in (("", "darts"), ("order=second", "darts"), ("", "ssf_nas")):
        lab.finish(lab.search(len(variant), method, variant))
    curves = load(lab.store).learning_curves(by=["method"], phase="search")
    assert list(curves)[:3] == ["method", "variant", "epoch"]
    assert len(curves) == 3 * 2
    assert set(curves["n"]) == {1}


def test_an_epoch_without_the_value_is_no_point(lab: Any) -> None:
    lab.finish(lab.search(0))
    frames = load(lab.store)
    assert frames.learning_curves("loss_arch", phase="search").empty
    for by in ([], ["method"], ["trial_id"]):
        curves = frames.learning_curves("epoch_s", by=by, phase="search")
        assert curves["mean"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"value": "mu"}, "value: no numeric column 'mu'"),
        ({"value": "stage"}, "choose from epoch, loss_weights"),
        ({"by": ["methods"]}, "no column 'methods'"),
        ({"by": "method"}, "write it as a list"),
        ({"phase": "train"}, "phase 'train': choose from search, retrain"),
    ],
)
def test_learning_curves_say_what_they_do_not_know(lab: Any, asked: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(lab.store).learning_curves(**asked)


def test_the_table_of_frames_is_that_of_summarise(lab: Any) -> None:
    lab.finish(lab.retrain(0, origin("darts")), accuracy=0.4)
    frames = load(lab.store)
    wanted = summarise(frames, "accuracy_balanced", ["mu"], ["method"])
    pd.testing.assert_frame_equal(frames.table(rows=["mu"], columns=["method"]), wanted)
