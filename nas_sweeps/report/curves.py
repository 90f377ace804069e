"""Figures over epochs: Figures 7 and 8a of the paper, skip connections, entropy of alpha.

Every figure is drawn from a tidy frame and nothing else: ``row`` and ``column`` name the panel,
``where`` the line, and at each ``epoch`` there are ``mean``, ``sd`` (NaN for one seed) and ``n``.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nas_sweeps.names import HEADLINES
from nas_sweeps.report import style
from nas_sweeps.report.labels import done, panel_names, retrains, searches
from nas_sweeps.report.spread import spread
from nas_sweeps.tables import Frames

SKIPS = {"num_skip_normal": "normal cell", "num_skip_reduce": "reduction cell"}
ENTROPIES = {"alpha_entropy_normal": "normal cell", "alpha_entropy_reduce": "reduction cell"}
COLLAPSE = 2  # more skip connections than this in a normal cell are read as collapse (DARTS+)


def test_sets(frames: Frames) -> dict[str, str]:
    """Columns of test accuracies with what panels call them: the headline, then the long tail."""
    columns = dict.fromkeys([frames.headline, "accuracy_long_tailed"])
    return {column: HEADLINES[column][1] for column in columns}


def supernet_data(frames: Frames) -> pd.DataFrame:
    """Figure 7: test accuracy of the supernets by search epoch, over the searches that are done."""
    return _by_epoch(frames, done(searches(frames)), test_sets(frames))


def retrained_data(frames: Frames) -> pd.DataFrame:
    """Figure 8a: test accuracy of the retrained networks by epoch of training with labels."""
    return _by_epoch(frames, done(retrains(frames)), test_sets(frames))


def skip_data(frames: Frames) -> pd.DataFrame:
    """Skip connections in the genotype that each search epoch would end with."""
    return _by_epoch(frames, done(searches(frames)), SKIPS)


def entropy_data(frames: Frames) -> pd.DataFrame:
    """Mean entropy (nats) of the operations' weights on an edge, by search epoch."""
    return _by_epoch(frames, done(searches(frames)), ENTROPIES)


def _by_epoch(frames: Frames, trials: pd.DataFrame, values: dict[str, str]) -> pd.DataFrame:
    epochs = _labelled_epochs(frames.epochs[["trial_id", "stage", "epoch", *values]])
    rows = pd.DataFrame({"trial_id": trials["trial_id"], "where": trials["where"]})
    rows["row"] = panel_names(trials)
    joined = rows.merge(epochs, on="trial_id")
    long = joined.melt(["row", "where", "epoch"], [*values], var_name="column")
    long["column"] = pd.Categorical(long["column"].map(values), [*values.values()], ordered=True)
    return spread(long, ["row", "column", "where", "epoch"], "value")


def _labelled_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Without pre-training, whose epochs see no labels; the next epoch counts as the first."""
    before = epochs["stage"] == "pretrain"
    skipped = before.groupby(epochs["trial_id"], observed=True).transform("sum").astype("int64")
    kept = epochs.assign(
        epoch=epochs["epoch"].astype("int64") - skipped, trial_id=epochs["trial_id"].astype(str)
    )
    return kept[~before].drop(columns="stage")


@style.styled
def accuracy_curves(data: pd.DataFrame) -> Figure:
    """Figures 7 and 8a from ``supernet_data`` or ``retrained_data``."""
    figure = _grid(data, "test accuracy (%)")
    for axes in figure.axes:
        style.percent_axis(axes)
    return figure


@style.styled
def skip_curves(data: pd.DataFrame) -> Figure:
    """From ``skip_data``, with the line above which a search counts as collapsed."""
    figure = _grid(data, "skip connections")
    for axes in figure.axes:
        axes.axhline(COLLAPSE, color=style.SOFT, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].set_ylim(-0.3, max(data["mean"].max(), COLLAPSE) + 0.5)
    return figure


@style.styled
def entropy_curves(data: pd.DataFrame) -> Figure:
    """From ``entropy_data``."""
    figure = _grid(data, "entropy (nats)")
    # From zero: a drift of a millionth must not look like a fall.
    figure.axes[0].set_ylim(0, 1.08 * max(data["mean"].max(), 0.1))
    return figure


def _grid(data: pd.DataFrame, ylabel: str) -> Figure:
    rows, columns = style.used(data, "row"), list(data["column"].cat.categories)
    figure = style.new_figure(style.WIDTH, style.PANEL_HEIGHT * len(rows))
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axes = panels[i][j]
            _lines(axes, data[(data["row"] == row) & (data["column"] == column)])
            axes.set_title(style.wrapped(f"{row}\n{column}" if len(rows) > 1 else column))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[i][0].set_ylabel(ylabel)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    style.legend(figure, panels.flat, style.used(data, "where"))
    return figure


def _lines(axes: Axes, data: pd.DataFrame) -> None:
    for where, points in data.groupby("where", observed=True):
        code = style.code_of(data, "where", where)
        x, mean, sd = (points[name].to_numpy(dtype=float) for name in ("epoch", "mean", "sd"))
        axes.plot(x, mean, label=str(where), markevery=max(1, len(x) // 10), **style.line(code))
        if (points["n"] > 1).any():
            axes.fill_between(x, mean - sd, mean + sd, color=style.color(code), alpha=0.18, lw=0)
