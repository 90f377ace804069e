"""Figures of points: accuracy per class against its training images, and against network size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from nas_sweeps.report import style
from nas_sweeps.report.bars import two_columns
from nas_sweeps.report.labels import done, panel_names, retrains
from nas_sweeps.report.spread import spread
from nas_sweeps.tables import Frames

SIZES = {"num_params": "parameters", "macs": "multiply-accumulates per image"}


def class_data(frames: Frames) -> pd.DataFrame:
    """Recall of each class after the last epoch, over the retrains that are done."""
    trials = done(retrains(frames))
    rows = trials[["trial_id", "where"]].assign(row=panel_names(trials))
    classes = frames.classes.assign(trial_id=frames.classes["trial_id"].astype(object))
    joined = rows.merge(classes.drop(columns="group"), on="trial_id")
    return spread(joined, ["where", "row", "class_index", "class_name", "train_count"], "recall")


def size_data(frames: Frames) -> pd.DataFrame:
    """Accuracy on the balanced test set of each genotype, against its size.

    ``measure`` is what ``size`` counts; ``front`` marks what no smaller or equal network of the
    same panel reaches: the Pareto front.
    """
    trials = done(retrains(frames))
    rows = trials[["where", "genotype_id", *SIZES, "accuracy_balanced"]].assign(
        row=panel_names(trials)
    )
    keys = ["where", "row", "genotype_id", "accuracy_balanced"]
    long = rows.melt(keys, [*SIZES], var_name="measure", value_name="size").dropna(subset=["size"])
    long["measure"] = pd.Categorical(long["measure"].map(SIZES), [*SIZES.values()], ordered=True)
    long["size"] = long["size"].astype("int64")
    found = spread(long, ["where", "measure", "row", "genotype_id", "size"], "accuracy_balanced")
    panels = found.groupby(["where", "measure"], observed=True)
    fronts = [_on_front(panel) for _, panel in panels]
    return found.assign(front=pd.concat(fronts) if fronts else pd.Series(dtype=bool))


def _on_front(panel: pd.DataFrame) -> pd.Series:
    order = panel.sort_values(["size", "mean"], ascending=[True, False])
    best_so_far = order["mean"].cummax().shift(fill_value=-np.inf)
    return (order["mean"] > best_so_far).reindex(panel.index)


@style.styled
def class_points(data: pd.DataFrame) -> Figure:
    """From ``class_data``: a point per class, a line through the mean at each count."""
    places = style.used(data, "where")
    figure, panels = two_columns(len(places), style.PANEL_HEIGHT)
    low, high = max(1, data["train_count"].min()) / 1.25, max(1, data["train_count"].max()) * 1.25
    for axes, where in zip(panels, places, strict=True):
        _classes(axes, data[data["where"] == where])
        axes.set_xlim(low, high)  # one scale, so that panels compare
        axes.set(title=where, xlabel="training images of the class", ylabel="accuracy (%)")
    style.legend(figure, panels, style.used(data, "row"))
    return figure


def _classes(axes: Axes, data: pd.DataFrame) -> None:
    for row, points in data.groupby("row", observed=True):
        look = style.line(style.code_of(data, "row", row))
        dashes = look.pop("linestyle")
        x, y = points["train_count"].to_numpy(float), points["mean"].to_numpy(float)
        axes.plot(x, y, linestyle="none", alpha=0.8, label=str(row), **look)
        means = points.groupby("train_count")["mean"].mean()
        if len(means) > 1:
            axes.plot(
                means.index.to_numpy(float),
                means.to_numpy(float),
                color=look["color"],
                linestyle=dashes,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylim(-0.04, 1.04)
    style.percent_axis(axes)


@style.styled
def size_points(data: pd.DataFrame) -> Figure:
    """From ``size_data``: a row of panels per distribution, the Pareto front as steps."""
    places, measures = style.used(data, "where"), style.used(data, "measure")
    figure = style.new_figure(style.WIDTH, style.PANEL_HEIGHT * len(places))
    panels = figure.subplots(len(places), len(measures), squeeze=False, sharex="col", sharey="row")
    for i, where in enumerate(places):
        for j, measure in enumerate(measures):
            axes = panels[i][j]
            _sizes(axes, data[(data["where"] == where) & (data["measure"] == measure)])
            axes.set_title(where)
            panels[-1][j].set_xlabel(measure)
            panels[-1][j].xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[i][0].set_ylabel("test accuracy (%)")
    style.legend(figure, panels.flat, style.used(data, "row"))
    return figure


def _sizes(axes: Axes, data: pd.DataFrame) -> None:
    front = data[data["front"]].sort_values("size")
    axes.step(
        front["size"].to_numpy(float),
        front["mean"].to_numpy(float),
        where="post",
        color=style.SOFT,
        linewidth=1,
        marker="o",  # a ring around each point of the front
        markersize=9,
        markerfacecolor="none",
        label="Pareto front",
    )
    for row, points in data.groupby("row", observed=True):
        look = style.line(style.code_of(data, "row", row)) | {"linestyle": "none"}
        x, y = points["size"].to_numpy(float), points["mean"].to_numpy(float)
        axes.errorbar(x, y, points["sd"].fillna(0).to_numpy(float), label=str(row), **look)
    style.percent_axis(axes)
    axes.margins(0.12)
