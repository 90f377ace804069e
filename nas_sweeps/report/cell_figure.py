"""Figure 9: cells drawn with matplotlib, the normal one beside the reduction one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from nas_sweeps.report import style
from nas_sweeps.report.cells import TITLES, CellLayout, Place, lay_out
from nas_sweeps.space.genotype import CELLS, OPERATIONS, Genotype

WIDTH = 10.5  # inches, of both cells together
_UNIT = 0.27  # inches between two neighbours of a layer
_SHORT = {
    "max_pool_3x3": "max 3×3",
    "avg_pool_3x3": "avg 3×3",
    "skip_connect": "skip",
    "sep_conv_3x3": "sep 3×3",
    "sep_conv_5x5": "sep 5×5",
    "dil_conv_3x3": "dil 3×3",
    "dil_conv_5x5": "dil 5×5",
}
_FAMILY = {"sep": 0, "dil": 2, "max": 1, "avg": 1, "skip": 6}  # to colours; the text says which


@style.styled
def cells_figure(named: Sequence[tuple[str, Genotype]]) -> Figure:
    """A row per genotype: its name, its normal and its reduction cell."""
    layouts = [[lay_out(genotype.cell(c == "reduce")) for c in CELLS] for _, genotype in named]
    heights = [max(layout.height for layout in row) * _UNIT + 0.75 for row in layouts]
    figure = style.new_figure(WIDTH, sum(heights))
    panels = figure.subplots(len(named), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (name, _), axes_row in zip(layouts, named, panels, strict=True):
        for layout, cell, axes in zip(row, CELLS, axes_row, strict=True):
            _cell(axes, layout)
            axes.set_title(style.wrapped(f"{name}\n{TITLES[cell]}", 70))
    return figure


def _cell(axes: Axes, layout: CellLayout) -> None:
    axes.set_axis_off()
    middle = sum(place.y for place in layout.places.values()) / len(layout.places)
    span = max(layout.height, 3.0) / 2 + 0.6
    axes.set(xlim=(-0.35, layout.width + 0.3), ylim=(middle + span, middle - span))
    for keys in layout.paths:
        axes.add_patch(_edge([layout.places[key] for key in keys]))
    for place in layout.places.values():
        _box(axes, place)


def _edge(places: Sequence[Place]) -> PathPatch:
    """A smooth curve through all places of a path; to the output it is thin."""
    points = [(places[0].x, places[0].y)]
    codes = [Path.MOVETO]
    for a, b in pairwise(places):
        bend = (b.x - a.x) / 2
        points += [(a.x + bend, a.y), (b.x - bend, b.y), (b.x, b.y)]
        codes += [Path.CURVE4] * 3
    plain = places[-1].kind == "output"
    look = {"linewidth": 0.8, "linestyle": (0, (3, 2))} if plain else {"linewidth": 1.1}
    return PathPatch(Path(points, codes), facecolor="none", edgecolor=style.SOFT, zorder=1, **look)


def _box(axes: Axes, place: Place) -> None:
    if place.kind == "point":
        return
    edge, line = style.INK, 0.9
    text = place.text
    if place.kind == "operation":
        assert place.text in OPERATIONS
        text = _SHORT[place.text]
        edge, line = style.color(_FAMILY[text.split()[0]]), 1.4
    shape = "round,pad=0.25" if place.kind == "operation" else "circle,pad=0.3"
    if place.kind in ("input", "output"):
        shape = "square,pad=0.3"
    box = {"boxstyle": shape, "facecolor": style.PAPER, "edgecolor": edge, "linewidth": line}
    axes.text(place.x, place.y, text, ha="center", va="center", fontsize=7, bbox=box, zorder=2)
