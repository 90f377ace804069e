"""Figures of bars: Figures 6 and 8b of the paper, class groups, states and cost of trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nas_sweeps.names import UNKNOWN
from nas_sweeps.phases import in_order
from nas_sweeps.report import style
from nas_sweeps.report.curves import test_sets
from nas_sweeps.report.labels import done, panel_names, places, retrains, sources
from nas_sweeps.report.spread import spread
from nas_sweeps.store.records import State
from nas_sweeps.tables import Frames

GROUPS = {"accuracy_head": "head", "accuracy_medium": "medium", "accuracy_tail": "tail"}
FEW = 12  # bars of a panel that still have room for their numbers


def label_data(frames: Frames) -> pd.DataFrame:
    """Figure 6: training images (``train_count``) of the classes under each distribution.

    Classes are by ``rank`` from the largest, 1: which class is how large may depend on the seed.
    """
    trials = frames.trials
    rows = trials[["trial_id"]].assign(where=places(trials, frames), source=sources(trials))
    classes = frames.classes[["trial_id", "train_count"]].astype({"trial_id": object}).dropna()
    order = classes.groupby("trial_id")["train_count"].rank("first", ascending=False)
    joined = rows.merge(classes.assign(rank=order.astype("int64")), on="trial_id")
    keys = ["source", "where", "rank", "train_count"]
    return joined[keys].drop_duplicates().sort_values(keys, ignore_index=True)


def final_data(frames: Frames) -> pd.DataFrame:
    """Figure 8b: accuracy after the last epoch; ``row`` is the panel's, as in ``curves``."""
    return _by_value(done(retrains(frames)), test_sets(frames))


def group_data(frames: Frames) -> pd.DataFrame:
    """Accuracy after the last epoch on the head, medium and tail classes."""
    return _by_value(done(retrains(frames)), GROUPS)


def _by_value(trials: pd.DataFrame, values: dict[str, str]) -> pd.DataFrame:
    rows = trials[["where", *values]].assign(row=panel_names(trials))
    long = rows.melt(["row", "where"], [*values], var_name="column")
    long["column"] = pd.Categorical(long["column"].map(values), [*values.values()], ordered=True)
    return spread(long, ["row", "column", "where"], "value")


def state_data(frames: Frames) -> pd.DataFrame:
    """How many trials of each ``phase`` and ``method`` are in each ``state``."""
    trials = frames.trials.assign(method=frames.trials["method"].fillna(UNKNOWN))
    found = trials.groupby(["phase", "method", "state"]).size().reset_index(name="trials")
    found["phase"] = _by_phase(found["phase"])
    found["state"] = pd.Categorical(found["state"], list(State), ordered=True)
    return found.sort_values(["phase", "method", "state"], ignore_index=True)


def cost_data(frames: Frames) -> pd.DataFrame:
    """Hours that the trials of each ``method`` and ``phase`` took, failed ones included.

    ``measure`` is GPU-hours, or trial-hours (wall time, summed over trials) in a store that used
    no GPU. ``method`` of a retrain that several methods share names all of them.
    """
    trials = frames.trials.assign(method=frames.trials["method"].fillna(UNKNOWN))
    on_gpu = bool((trials["gpu_hours"] > 0).any())
    hours = trials["gpu_hours"] if on_gpu else trials["wall_s"] / 3600
    costs = trials.assign(hours=hours, measure="GPU-hours" if on_gpu else "trial-hours")
    cells = costs.dropna(subset=["hours"]).groupby(["measure", "method", "phase"])["hours"]
    found = pd.DataFrame({"hours": cells.sum(), "trials": cells.count()}).reset_index()
    found["phase"] = _by_phase(found["phase"])
    return found.sort_values(["measure", "method", "phase"], ignore_index=True)


def _by_phase(phases: pd.Series[str]) -> pd.Categorical[str]:
    """In the order of the phases; those of packages that are not here come last."""
    order = dict.fromkeys([*in_order(), *sorted(set(phases))])
    return pd.Categorical(phases, [*order], ordered=True)


@style.styled
def label_bars(data: pd.DataFrame) -> Figure:
    """Figure 6 from ``label_data``: a panel per data set, its rules, and distribution."""
    panels = list(data.groupby(["source", "where"], observed=True))
    several = data["source"].nunique() > 1
    figure, axes_of = two_columns(len(panels), 1.9)
    for axes, ((source, where), rows) in zip(axes_of, panels, strict=True):
        look = style.bar(style.code_of(data, "where", where))
        bars = axes.bar(rows["rank"].to_numpy(int), rows["train_count"].to_numpy(int), **look)
        if len(rows) <= FEW:  # a tail of 50 beside a head of 5000 is no more than a line
            axes.bar_label(bars, fontsize=6, padding=1)
            axes.margins(y=0.12)
        axes.set_title(style.wrapped(f"{source}: {where}" if several else str(where)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(False, axis="x")
        axes.set(xlabel="class, from the largest", ylabel="training images")
    return figure


def two_columns(number: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of two columns with room for so many panels."""
    rows = -(-number // 2)
    figure = style.new_figure(style.WIDTH, height * rows)
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for spare in axes[number:]:
        spare.remove()
    return figure, axes[:number]


@style.styled
def final_bars(data: pd.DataFrame) -> Figure:
    """Figure 8b from ``final_data``: a panel per test set, methods side by side."""
    return _grouped(data, "column", "row", "where", "test accuracy (%)")


@style.styled
def group_bars(data: pd.DataFrame) -> Figure:
    """From ``group_data``: a panel per distribution, methods side by side."""
    return _grouped(data, "where", "row", "column", "accuracy (%)")


def _grouped(data: pd.DataFrame, panel: str, tick: str, bar: str, ylabel: str) -> Figure:
    """Bars with their standard deviation: one panel, tick and bar per category of each."""
    panels, ticks, bars = (style.used(data, name) for name in (panel, tick, bar))
    figure = style.new_figure(style.WIDTH, style.PANEL_HEIGHT * len(panels))
    places = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    width = 0.8 / len(bars)
    for axes, name in zip(places, panels, strict=True):
        for i, kind in enumerate(bars):
            rows = data[(data[panel] == name) & (data[bar] == kind)]
            x = np.array([ticks.index(t) for t in rows[tick]]) + width * (i - (len(bars) - 1) / 2)
            look = style.bar(style.code_of(data, bar, kind))
            _bars_with_errors(axes, x, rows, width, label=str(kind), **look)
        axes.set(title=style.wrapped(name, 90), ylabel=ylabel)
        crowded = sum(map(len, ticks)) > 75
        slanted = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(ticks)), [tick.replace("\n", ", ") for tick in ticks], **slanted)
        axes.grid(False, axis="x")
        style.percent_axis(axes)
    style.legend(figure, places, bars)
    return figure


def _bars_with_errors(
    axes: Axes, x: np.ndarray, rows: pd.DataFrame, width: float, **look: object
) -> None:
    mean, sd = rows["mean"].to_numpy(float), rows["sd"].to_numpy(float)
    axes.bar(x, mean, width, **look)  # type: ignore[arg-type]
    known = np.isfinite(sd)
    axes.errorbar(x[known], mean[known], sd[known], fmt="none", ecolor=style.INK, capsize=2, lw=1)


@style.styled
def state_bars(data: pd.DataFrame) -> Figure:
    """From ``state_data``."""
    names = [f"{phase}: {method}" for phase, method in _pairs(data, "phase", "method")]
    rows = data.assign(
        name=[f"{p}: {m}" for p, m in zip(data["phase"], data["method"], strict=True)]
    )
    return _stacked(rows, names, "state", "trials", "trials")


@style.styled
def cost_bars(data: pd.DataFrame) -> Figure:
    """From ``cost_data``."""
    names = list(dict.fromkeys(data["method"]))
    return _stacked(
        data.assign(name=data["method"]), names, "phase", "hours", data["measure"].iloc[0]
    )


def _pairs(data: pd.DataFrame, *columns: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(zip(*(data[name] for name in columns), strict=True)))


def _stacked(
    data: pd.DataFrame, names: Sequence[str], part: str, value: str, xlabel: str
) -> Figure:
    """Horizontal bars: one per name, stacked by ``part``; the first name on top."""
    figure = style.new_figure(style.WIDTH, 0.3 * len(names) + 0.6)
    axes = figure.subplots()
    left = dict.fromkeys(names, 0.0)
    for kind, rows in data.groupby(part, observed=True):
        length = rows[value].to_numpy(float)
        y = [names.index(name) for name in rows["name"]]
        start = [left[name] for name in rows["name"]]
        look = style.bar(style.code_of(data, part, kind))
        axes.barh(y, length, 0.7, left=start, label=str(kind), **look)
        for name, step in zip(rows["name"], length, strict=True):
            left[name] += step
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel(xlabel)
    if pd.api.types.is_integer_dtype(data[value]):  # a count
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend(figure, [axes], list(data[part].cat.categories))
    return figure
