"""What is drawn equals the tables."""

from __future__ import annotations

from math import isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_sweeps.report import bars, curves, points, style, weights, winners
from nas_sweeps.report.figures import FIGURES, FigureEntry
from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Origin
from nas_sweeps.tables import Frames, load
from tests.report.lab import BALANCE, EXP, FINALS, GENOTYPES, HOSTILE, Lab

by_name = pytest.mark.parametrize("entry", FIGURES, ids=lambda entry: entry.name)
BALANCED, LONG_TAILED = curves.test_sets(Frames({})).values()


def at(data: pd.DataFrame, **key: object) -> pd.Series:
    """The one row with these values."""
    rows = data[np.logical_and.reduce([data[name] == value for name, value in key.items()])]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_supernet_curves_are_means_over_seeds(frames: Frames) -> None:
    data = curves.supernet_data(frames)
    last = at(data, row="darts", column=BALANCED, where="exp mu=0.1", epoch=2)
    assert last["mean"] == pytest.approx((0.25 + 0.28125) / 2)
    assert last["sd"] == pytest.approx(0.03125 / sqrt(2))
    assert last["n"] == 2
    other = at(data, row="darts", column=LONG_TAILED, where="exp mu=0.1", epoch=2)
    assert other["mean"] == pytest.approx(last["mean"] + 0.1)


def test_an_epoch_that_was_not_tested_is_not_drawn(frames: Frames) -> None:
    supernet, retrained = curves.supernet_data(frames), curves.retrained_data(frames)
    assert supernet[supernet["row"] == HOSTILE]["epoch"].tolist() == [1, 1]
    assert retrained[retrained["row"] == HOSTILE]["epoch"].tolist() == [2, 2]


def test_epochs_without_labels_do_not_count(frames: Frames) -> None:
    data = curves.retrained_data(frames)
    own = data[(data["row"] == "ssf_nas + barlow") & (data["column"] == BALANCED)]
    assert sorted(own["epoch"].unique()) == [1, 2]


def test_lines_are_drawn_through_the_data_of_their_panel(frames: Frames) -> None:
    data = curves.retrained_data(frames)
    figure = curves.accuracy_curves(data)
    rows = style.used(data, "row")
    assert len(figure.axes) == 2 * len(rows)
    for i, row in enumerate(rows):
        for j, column in enumerate((BALANCED, LONG_TAILED)):
            drawn = {line.get_label(): line for line in figure.axes[2 * i + j].get_lines()}
            panel = data[(data["row"] == row) & (data["column"] == column)]
            assert set(drawn) == set(panel["where"])
            for where, line in drawn.items():
                wanted = panel[panel["where"] == where]
                np.testing.assert_array_equal(line.get_xdata(), wanted["epoch"])
                np.testing.assert_array_equal(line.get_ydata(), wanted["mean"])


def test_one_distribution_looks_the_same_in_every_figure(frames: Frames) -> None:
    lines = curves.accuracy_curves(curves.supernet_data(frames)).axes[2].get_lines()
    looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in lines}
    again = curves.accuracy_curves(curves.retrained_data(frames)).axes[2].get_lines()
    assert looks == {line.get_label(): (line.get_color(), line.get_marker()) for line in again}
    assert len(set(looks.values())) == len(looks) == 2


def test_categories_differ_in_more_than_colour() -> None:
    looks = [style.line(code) for code in range(7)]
    for channel in ("color", "marker"):
        assert len({look[channel] for look in looks}) == 7
    pairs = {(style.color(code), style.marker(code)) for code in range(49)}
    assert len(pairs) == 49


def test_weights_of_operations_are_means_over_edges_and_seeds(frames: Frames) -> None:
    data = weights.weight_data(frames)
    key = {"row": "darts", "where": "exp mu=0.1", "operation": "skip_connect"}
    last = at(data, **key, column="normal cell", epoch=2)
    assert last["mean"] == 0.0625 + 0.125 * 2.5
    assert last["sd"] == pytest.approx(0.125 / sqrt(2))
    assert last["n"] == 2
    assert at(data, **key, column="reduction cell", epoch=2)["mean"] == 0.0625
    assert set(data["operation"]) == set(OPERATIONS)


def test_weight_curves_are_drawn_through_the_data_of_their_panel(frames: Frames) -> None:
    data = weights.weight_data(frames)
    figure = weights.weight_curves(data)
    panels = list(data.groupby(["row", "where", "column"], observed=True))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == len(panels) == 14
    for axes, (_, panel) in zip(shown, panels, strict=True):
        drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
        lines = panel.groupby("operation", observed=True)["mean"]
        assert drawn == {name: mean.tolist() for name, mean in lines}
    skips = [line for line in shown[0].get_lines() if line.get_label() == "skip_connect"]
    assert "darts, exp mu=0.1, normal cell: skip_connect 0.375" in weights.weight_values(data)
    assert skips[0].get_linewidth() > shown[0].get_lines()[0].get_linewidth()


def test_label_bars_are_the_training_images(frames: Frames) -> None:
    data = bars.label_data(frames)
    counts = {where: rows["train_count"].tolist() for where, rows in data.groupby("where")}
    assert counts == {
        "balance": [100, 100, 100],
        "exp mu=0.1": [100, 31, 10],
        "step mu=0.01": [100, 1, 1],
    }
    heights = [[bar.get_height() for bar in axes.patches] for axes in bars.label_bars(data).axes]
    assert heights == list(counts.values())


def test_label_bars_do_not_mix_what_draws_images_differently(frames: Frames) -> None:
    """Neither another cap on class sizes nor another order of classes may overlay its bars."""
    trials, classes = frames.trials.copy(), frames.classes.copy()
    balanced = trials.index[trials["distribution"] == "balance"]
    trials.loc[balanced[0], "setting"] = "data.n_max=40"
    capped = classes["trial_id"] == trials.loc[balanced[0], "trial_id"]
    classes.loc[capped, "train_count"] = 40
    turned = classes["trial_id"] == trials.loc[trials["distribution"] == "exp", "trial_id"].iloc[0]
    classes.loc[turned, "train_count"] = classes.loc[turned, "train_count"].to_numpy()[::-1]
    data = bars.label_data(frames.replaced(trials=trials, classes=classes))
    found = {key: rows["train_count"].tolist() for key, rows in data.groupby(["source", "where"])}
    assert found["digits, data.n_max=40", "balance"] == [40, 40, 40]
    assert found["digits", "balance"] == [100, 100, 100]
    assert found["digits", "exp mu=0.1"] == [100, 31, 10]


def test_final_bars_are_means_over_seeds(frames: Frames) -> None:
    data = bars.final_data(frames)
    for method, final in FINALS.items():
        row = f"{method} + barlow" if method == "ssf_nas" else method
        found = at(data, row=row, column=BALANCED, where="exp mu=0.1")
        assert found["mean"] == pytest.approx(final + 0.03125)
    panel = bars.final_bars(data).axes[0]
    drawn = sorted(bar.get_height() for bar in panel.patches)
    assert drawn == sorted(data[data["column"] == BALANCED]["mean"])


def test_a_group_without_classes_has_no_bar(frames: Frames) -> None:
    data = bars.group_data(frames)
    assert set(data["column"]) == {"head", "tail"}
    tail = at(data, row="darts", column="tail", where="balance")
    assert tail["mean"] == pytest.approx(0.5 + 0.25 - 0.2)


def test_classes_without_recall_are_left_out(frames: Frames) -> None:
    data = points.class_data(frames)
    hostile = data[data["row"] == HOSTILE]
    assert hostile[["train_count", "mean"]].to_numpy().tolist() == [[100, 0.5], [1, 0.0]]


def test_the_front_is_what_no_smaller_network_reaches(lab: Lab) -> None:
    cells = [PUBLISHED[name] for name in ("DARTS_V1", "FairDARTS_a", "FairDARTS_b")]
    for genotype, final in zip(cells, (0.5, 0.6, 0.7), strict=True):
        lab.retrain(Origin(method="darts"), genotype=genotype, accuracies=(final,))
    data = points.size_data(load(lab.store))
    panel = data[data["measure"] == "parameters"].sort_values("size")
    assert panel["size"].tolist() == [12_000, 14_000, 16_000]
    assert panel["mean"].tolist() == [0.6, 0.7, 0.5]
    assert panel["front"].tolist() == [True, True, False]


def test_winners_are_chosen_by_validation_accuracy(frames: Frames) -> None:
    data = winners.winner_data(frames)
    named = dict(winners.named_winners(data))
    assert named["darts, exp mu=0.1, seed 1 (validation 28.1 %)"] == PUBLISHED["DARTS_V1"]
    assert len(named) == 7  # three methods on two distributions, and one more
    balanced = data[(data["row"] == "fairdarts") & (data["where"] == "balance")]
    assert set(balanced["seed"]) == {0}, "of equals the first"
    assert winners.from_rows(balanced) == PUBLISHED[GENOTYPES["fairdarts"]]


def test_costs_add_up_to_all_that_was_spent(frames: Frames) -> None:
    data = bars.cost_data(frames)
    assert data["hours"].sum() == frames.trials["gpu_hours"].sum() == 0.5 * 27
    assert set(data["measure"]) == {"GPU-hours"}


def test_a_store_without_gpus_counts_hours_of_trials(lab: Lab) -> None:
    lab.search(cost={"wall_s": 1800.0, "gpu_hours": 0.0})
    data = bars.cost_data(load(lab.store))
    assert data[["measure", "hours"]].to_numpy().tolist() == [["trial-hours", 0.5]]


def test_states_count_every_trial(frames: Frames) -> None:
    data = bars.state_data(frames)
    assert data["trials"].sum() == len(frames.trials)
    assert at(data, phase="search", method="darts", state="failed")["trials"] == 1


def test_a_retrain_that_two_methods_share_is_drawn_for_both(lab: Lab) -> None:
    lab.retrain(Origin(method="darts"), Origin(method="fairdarts"))
    data = bars.final_data(load(lab.store))
    assert style.used(data, "row") == ["darts", "fairdarts"]


def test_settings_that_differ_are_not_averaged(lab: Lab) -> None:
    lab.retrain(Origin(method="darts"), accuracies=(0.5,))
    lab.retrain(Origin(method="darts"), accuracies=(0.5, 0.75))
    data = bars.final_data(load(lab.store))
    assert data[data["column"] == BALANCED]["n"].tolist() == [1, 1]
    assert set(style.used(data, "row")) == {"darts\nepochs=1", "darts\nepochs=2"}


def test_one_seed_has_no_band_and_no_whisker(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    frames = load(lab.store)
    assert all(isnan(sd) for sd in bars.final_data(frames)["sd"])
    figure = curves.accuracy_curves(curves.supernet_data(frames))
    assert all(not axes.collections for axes in figure.axes)


@by_name
def test_nothing_is_drawn_of_an_empty_store(entry: FigureEntry, lab: Lab) -> None:
    assert entry.data(load(lab.store)).empty


@by_name
def test_searches_alone_can_be_drawn(entry: FigureEntry, lab: Lab) -> None:
    lab.search("darts", 0, BALANCE, accuracies=(nan, 0.5))
    data = entry.data(load(lab.store))
    retrains = {"figure8a", "figure8b", "classes", "groups", "sizes"}
    assert data.empty == (entry.name in retrains)
    if not data.empty:
        assert entry.describe(data)
        assert entry.draw(data).axes


def test_trials_that_cannot_be_read_are_named_unknown(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    for trial_id in lab.store.states():
        Path(lab.store.layout.trial(trial_id).spec).write_text("{")
    with pytest.warns(UserWarning, match="unreadable"):
        frames = load(lab.store)
    for entry in FIGURES:
        data = entry.data(frames)
        assert data.empty or entry.draw(data).axes
    assert style.used(curves.supernet_data(frames), "where") == ["unknown"]
