"""How figures look, and how they become bytes: the same bytes for the same figure.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; line styles,
markers and hatches say the same once more for print without colour.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, ParamSpec

import matplotlib.style
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ImageFormat = Literal["svg", "pdf", "png"]

# Odd values on purpose: a page finds them in an SVG file and makes them follow its theme.
INK, SOFT, RULE, PAPER = "#1b1e23", "#676d75", "#d3d7dc", "#fefefe"
# Without black, which is the ink, and yellow, which is lost on white paper.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f80")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    "-.",
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
HATCHES = ("", "////", "..", "\\\\\\\\", "xxx", "oo", "---")

WIDTH = 7.2  # inches: two columns of a page
PANEL_HEIGHT = 2.3  # inches

_RULES = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so every machine has it
    "font.size": 8.5,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.h_pad": 0.07,  # inches
    "figure.titlesize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # names come from stores, and may hold dollar signs
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "nas_sweeps",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_NO_DATES: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}

P = ParamSpec("P")


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user's own settings are."""
    with matplotlib.style.context(["default", _RULES]):
        yield


@contextmanager
def named(style: str) -> Iterator[None]:
    """Inside, a package that asks matplotlib for a style of this name gets ours, and pyplot's
    figures have it."""
    library: dict[str, Any] = matplotlib.style.library
    theirs = library[style]
    with house_style():
        library[style] = _RULES
        try:
            yield
        finally:
            library[style] = theirs


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function that draws do so in the house style, and lay its figure out."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with house_style():
            figure = draw(*args, **kwargs)
            _lay_out(figure)
            return figure

    return drawn


def _lay_out(figure: Figure) -> None:
    """Once, so that all files agree; rounded, as the solver's last bits depend on addresses."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        x, y, width, height = axes.get_position().bounds
        axes.set_position((round(x, 5), round(y, 5), round(width, 5), round(height, 5)))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) outside of pyplot, so that nothing is left behind."""
    return Figure(figsize=(width, height), layout="constrained")


def to_bytes(figure: Figure, format: ImageFormat) -> bytes:
    """The file of a figure, without dates. PNG has 160 dots per inch."""
    out = io.BytesIO()
    with house_style():
        figure.savefig(out, format=format, metadata=_NO_DATES[format], dpi=160)
    return out.getvalue()


def color(code: int) -> str:
    return COLORS[code % len(COLORS)]


def marker(code: int) -> str:
    """Moves on by one with each round of colours, so that 49 pairs are distinct."""
    return MARKERS[(code + code // len(COLORS)) % len(MARKERS)]


def line(code: int) -> dict[str, Any]:
    """Keyword arguments of a line that stands for category number ``code``."""
    dashes = DASHES[code % len(DASHES)]
    return {"color": color(code), "marker": marker(code), "linestyle": dashes}


def bar(code: int) -> dict[str, Any]:
    """Keyword arguments of a bar that stands for category number ``code``."""
    hatch = HATCHES[code % len(HATCHES)]
    return {"facecolor": color(code), "edgecolor": PAPER, "hatch": hatch, "linewidth": 0.5}


def percent_axis(axes: Axes, along: Literal["x", "y"] = "y") -> None:
    """Fractions on an axis, shown in percent."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.6g}")


def used(data: pd.DataFrame, column: str) -> list[str]:
    """The categories that occur, in their order."""
    return list(data[column].cat.remove_unused_categories().cat.categories)


def code_of(data: pd.DataFrame, column: str, category: object) -> int:
    """The number of a category among all of the store, which decides on its colour."""
    return list(data[column].cat.categories).index(category)


def wrapped(text: str, width: int = 46) -> str:
    """Broken into lines of so many characters; 46 is the title of half a figure."""
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())


def legend(figure: Figure, panels: Iterable[Axes], order: Sequence[str] = ()) -> None:
    """One legend below for all panels, each name once; the figure grows by its height."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    keys = sorted(handles, key=lambda name: order.index(name) if name in order else len(order))
    names = [wrapped(key, 90) for key in keys]
    lines = [line for name in names for line in name.splitlines()]
    columns = min(5, max(1, 100 // (max(map(len, lines)) + 9)))  # 100 characters have room
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.2 + 0.18 * len(lines) / columns)
    figure.legend(
        [handles[key] for key in keys],
        names,
        loc="outside lower center",
        ncols=columns,
        handlelength=3.2,
    )
