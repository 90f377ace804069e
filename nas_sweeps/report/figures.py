"""Every figure of a report: its data, its drawing, and what to say of it in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from nas_sweeps.report import bars, curves, points, weights, winners
from nas_sweeps.tables import Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureEntry:
    """One figure. ``draw`` needs nothing but what ``data`` gives, and data that is not empty."""

    name: str  # of its files
    title: str
    caption: str
    needs: str  # what a store without this figure lacks
    data: Callable[[Frames], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    describe: Callable[[pd.DataFrame], str]  # for those who do not see it
    wide: bool = False


def last_values(data: pd.DataFrame, unit: str = " %", scale: float = 100) -> str:
    """Where each line of a figure over epochs ends."""
    ends = data.sort_values("epoch").groupby(["row", "column", "where"], observed=True).tail(1)
    ends = ends.sort_values(["row", "column", "where"])
    return "Last values: " + "; ".join(
        f"{' '.join(str(e['row']).split())}, {e['column']}, {e['where']}: "
        f"{scale * e['mean']:.2f}{unit} at epoch {e['epoch']}"
        for e in ends.to_dict("records")
    )


def bar_values(data: pd.DataFrame) -> str:
    """The height of each bar of an accuracy figure."""
    return "; ".join(
        f"{' '.join(str(b['row']).split())}, {b['column']}, {b['where']}: {100 * b['mean']:.2f} %"
        for b in data.to_dict("records")
    )


def _label_values(data: pd.DataFrame) -> str:
    panels = data.groupby(["source", "where"], observed=True)["train_count"]
    return "; ".join(
        f"{source}, {where}: from {counts.max()} down to {counts.min()} images per class"
        for (source, where), counts in panels
    )


def _front_values(data: pd.DataFrame) -> str:
    front = data[data["front"]].sort_values(["where", "measure", "size"])
    return "On the Pareto front: " + "; ".join(
        f"{p['where']}: {' '.join(str(p['row']).split())} with {p['size']:,} {p['measure']}, "
        f"{100 * p['mean']:.2f} %"
        for p in front.to_dict("records")
    )


def _class_values(data: pd.DataFrame) -> str:
    lines = data.groupby(["where", "row"], observed=True)["mean"]
    return "Best and worst class: " + "; ".join(
        f"{where}, {' '.join(str(row).split())}: {100 * m.max():.1f} and {100 * m.min():.1f} %"
        for (where, row), m in lines
    )


def _stack_values(part: str, value: str) -> Callable[[pd.DataFrame], str]:
    def describe(data: pd.DataFrame) -> str:
        return "; ".join(
            f"{row['phase']} {row['method']}: {row[value]:g} {row[part]}"
            for row in data.to_dict("records")
        )

    return describe


def _winner_values(data: pd.DataFrame) -> str:
    named = winners.named_winners(data)
    return "; ".join(
        f"{name}: {len(genotype.normal)} and {len(genotype.reduce)} operations"
        for name, genotype in named
    )


TUNING = "tuning-"  # before the names of a study's figures: a store decides how many there are

_DONE_SEARCH = "a search that is done"
_DONE_RETRAIN = "a retrain that is done"

PAPER_FIGURES = (
    FigureEntry(
        name="figure6",
        title="Figure 6: label distributions",
        caption="Training images per class under each distribution.",
        needs="a trial that is done",
        data=bars.label_data,
        draw=bars.label_bars,
        describe=_label_values,
    ),
    FigureEntry(
        name="figure7",
        title="Figure 7: supernets by search epoch",
        caption="Test accuracy of the supernet: the headline (a, left) and on the long-tailed test "
        "set (b, right); mean over seeds, the band is one standard deviation.",
        needs=_DONE_SEARCH,
        data=curves.supernet_data,
        draw=curves.accuracy_curves,
        describe=last_values,
    ),
    FigureEntry(
        name="figure8a",
        title="Figure 8a: retrained networks by epoch",
        caption="Test accuracy of the networks trained from scratch; epochs of pre-training "
        "without labels are not counted. Mean over seeds, the band is one standard deviation.",
        needs=_DONE_RETRAIN,
        data=curves.retrained_data,
        draw=curves.accuracy_curves,
        describe=last_values,
    ),
    FigureEntry(
        name="figure8b",
        title="Figure 8b: retrained networks at the end",
        caption="Accuracy after the last epoch, never the best one; whiskers are one standard "
        "deviation over seeds.",
        needs=_DONE_RETRAIN,
        data=bars.final_data,
        draw=bars.final_bars,
        describe=bar_values,
    ),
    FigureEntry(
        name="figure9",
        title="Figure 9: winning cells",
        caption="For each method and distribution the cells of the search with the best "
        "validation accuracy. Dashed lines lead to the concatenation.",
        needs=_DONE_SEARCH,
        data=winners.winner_data,
        draw=winners.winner_cells,
        describe=_winner_values,
        wide=True,
    ),
)

FURTHER_FIGURES = (
    FigureEntry(
        name="classes",
        title="Accuracy per class against its training images",
        caption="A point per class, mean over seeds; a line joins the means at each count.",
        needs=_DONE_RETRAIN,
        data=points.class_data,
        draw=points.class_points,
        describe=_class_values,
    ),
    FigureEntry(
        name="groups",
        title="Head, medium and tail classes",
        caption="Mean accuracy of the classes of each group after the last epoch; whiskers are "
        "one standard deviation over seeds.",
        needs=_DONE_RETRAIN,
        data=bars.group_data,
        draw=bars.group_bars,
        describe=bar_values,
    ),
    FigureEntry(
        name="skips",
        title="Skip connections by search epoch",
        caption="In the genotype that the search would end with at each epoch. A normal cell with "
        "more than two (dotted line) is read as collapse.",
        needs=_DONE_SEARCH,
        data=curves.skip_data,
        draw=curves.skip_curves,
        describe=lambda data: last_values(data, " skip connections", 1),
    ),
    FigureEntry(
        name="alphas",
        title="Weights of the operations by search epoch",
        caption="What each operation weighs in the supernet, after softmax or sigmoid: mean over "
        "the 14 edges of a cell, and over seeds. Skip connections (thick) above all others in a "
        "normal cell are how a search collapses.",
        needs="a search that is done and wrote down its weights",
        data=weights.weight_data,
        draw=weights.weight_curves,
        describe=weights.weight_values,
        wide=True,
    ),
    FigureEntry(
        name="entropy",
        title="Entropy of the architecture weights",
        caption="Mean over the edges of a cell, in nats: log 8 = 2.08 is undecided among eight "
        "operations, 0 is decided.",
        needs=_DONE_SEARCH,
        data=curves.entropy_data,
        draw=curves.entropy_curves,
        describe=lambda data: last_values(data, " nats", 1),
    ),
    FigureEntry(
        name="sizes",
        title="Accuracy against size",
        caption="A point per genotype on the balanced test set; rings mark the Pareto front: no "
        "network of the same size or smaller does better.",
        needs=_DONE_RETRAIN,
        data=points.size_data,
        draw=points.size_points,
        describe=_front_values,
    ),
    FigureEntry(
        name="cost",
        title="Cost by method",
        caption="All trials with a result, failed ones included. A retrain that methods share "
        "counts once, under all their names.",
        needs="a trial with a result",
        data=bars.cost_data,
        draw=bars.cost_bars,
        describe=_stack_values("measure", "hours"),
    ),
    FigureEntry(
        name="states",
        title="Trials by state",
        caption="Every trial that was asked for so far.",
        needs="a trial",
        data=bars.state_data,
        draw=bars.state_bars,
        describe=_stack_values("state", "trials"),
    ),
)
FIGURES = PAPER_FIGURES + FURTHER_FIGURES
