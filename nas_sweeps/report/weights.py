"""How much each operation weighs while the search runs: alpha over epochs.

A collapse shows as the line of ``skip_connect`` rising above all others in the normal cell.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nas_sweeps.report import style
from nas_sweeps.report.labels import done, panel_names, searches
from nas_sweeps.report.spread import spread
from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.tables import Frames, operation_weights

_CELLS = {"normal": "normal cell", "reduce": "reduction cell"}
_ACROSS = 4  # panels side by side: two pairs of cells
_PANEL_HEIGHT = 1.9  # inches


def weight_data(frames: Frames) -> pd.DataFrame:
    """Weight of each operation, mean over a cell's edges and then over seeds, by search epoch.

    Columns: row (method), where, column (cell), operation, epoch, mean, sd, n.
    """
    trials = done(searches(frames))
    rows = pd.DataFrame({"trial_id": trials["trial_id"], "where": trials["where"]})
    rows["row"] = panel_names(trials)
    joined = rows.merge(operation_weights(frames), on="trial_id").rename(columns={"cell": "column"})
    joined["column"] = pd.Categorical(
        joined["column"].map(_CELLS), [*_CELLS.values()], ordered=True
    )
    known = dict.fromkeys([*OPERATIONS, *sorted(set(joined["operation"]))])
    joined["operation"] = pd.Categorical(joined["operation"], [*known], ordered=True)
    return spread(joined, ["row", "where", "column", "operation", "epoch"], "weight")


@style.styled
def weight_curves(data: pd.DataFrame) -> Figure:
    """From ``weight_data``: a panel per method, distribution and cell, a line per operation."""
    panels = list(data.groupby(["row", "where", "column"], observed=True))
    high = -(-len(panels) // _ACROSS)
    figure = style.new_figure(style.WIDTH, _PANEL_HEIGHT * high + 0.2)
    grid = figure.subplots(high, _ACROSS, squeeze=False, sharex=True).ravel()
    for axes, ((row, where, column), lines) in zip(grid, panels, strict=False):
        _operations(axes, lines)
        # One scale a method: a softmax shares one among all operations, a sigmoid does not.
        means = data[data["row"] == row]["mean"]
        room = 0.08 * float(means.max() - means.min()) or 0.01
        axes.set_ylim(float(means.min()) - room, float(means.max()) + room)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_title(style.wrapped(f"{row}\n{where}\n{column}", 23))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[::_ACROSS]:
        axes.set_ylabel("mean weight")
    for axes in grid[max(0, len(panels) - _ACROSS) : len(panels)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    style.legend(figure, grid[: len(panels)], style.used(data, "operation"))
    return figure


def _operations(axes: Axes, data: pd.DataFrame) -> None:
    for operation, points in data.groupby("operation", observed=True):
        look = style.line(style.code_of(data, "operation", operation))
        x, mean = points["epoch"].to_numpy(float), points["mean"].to_numpy(float)
        width = 2.4 if operation == "skip_connect" else 1.2
        axes.plot(
            x,
            mean,
            label=str(operation),
            linewidth=width,
            markersize=3.2,
            markevery=max(1, len(x) // 6),
            **look,
        )


def weight_values(data: pd.DataFrame) -> str:
    """Which operation weighs most in each panel at the end."""
    ends = data[
        data["epoch"] == data.groupby(["row", "where"], observed=True)["epoch"].transform("max")
    ]
    best = ends.sort_values("mean", ascending=False, kind="stable")
    best = best.groupby(["row", "where", "column"], observed=True).head(1)
    best = best.sort_values(["row", "where", "column"])
    return "Heaviest at the end: " + "; ".join(
        f"{' '.join(str(b['row']).split())}, {b['where']}, {b['column']}: {b['operation']} "
        f"{b['mean']:.3f}"
        for b in best.to_dict("records")
    )
