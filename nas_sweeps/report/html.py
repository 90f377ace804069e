"""What the page's template is given: tables as cells, figures as markup. The rest is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from nas_sweeps.report import style


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table on the page: ``scale`` and ``digits`` are for numbers."""

    key: str
    title: str
    digits: int | None = None  # after the point; None: as it is
    scale: float = 1.0
    sign: bool = False
    numeric: bool = False


def percent(key: str, title: str, *, sign: bool = False) -> Column:
    """A column of fractions, shown in percent."""
    return Column(key, title, digits=2, scale=100, sign=sign)


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, the cell's CSS classes, and by which number the column sorts."""

    text: str
    style: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns sort and whose rows filter, in a box that scrolls on its own."""

    label: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def data_table(rows: pd.DataFrame, columns: Sequence[Column], label: str) -> Table:
    """The columns of a frame, in this order."""
    typed = [replace(c, numeric=pd.api.types.is_numeric_dtype(rows[c.key])) for c in columns]
    cells = [
        [_cell(value, column) for value, column in zip(values, typed, strict=True)]
        for values in zip(*(rows[column.key] for column in columns), strict=True)
    ]
    return Table(label, typed, cells)


def _cell(value: Any, column: Column) -> Cell:
    if not isinstance(value, str) and pd.isna(value):
        return Cell("–", "missing number" if column.numeric else "missing")
    if not column.numeric:
        return Cell(str(value))
    number = float(value) * column.scale
    form = f"{'+' if column.sign else ''},{'' if column.digits is None else f'.{column.digits}f'}"
    text = format(number if column.digits is not None else value, form)
    return Cell(text, "number", repr(float(value)))


_THEME = {style.INK: "ink", style.SOFT: "soft", style.RULE: "rule", style.PAPER: "paper"} | {
    color: f"c{code}" for code, color in enumerate(style.COLORS)
}


def inline_svg(svg: bytes, name: str, label: str) -> Markup:
    """A figure of ours as part of a page: its colours follow the page, its ids are its own."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda m: _themed(m.group()), text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    opening, rest = text.split(">", 1)
    width = float(re.search(r'width="([\d.]+)pt"', opening)[1]) * 4 / 3  # type: ignore[index]
    box = re.search(r'viewBox="[^"]*"', opening)[0]  # type: ignore[index]
    head = f'<svg {box} style="width: {width:.0f}px" role="img" aria-label="{escape(label)}"'
    return Markup(f'{head} xmlns:xlink="http://www.w3.org/1999/xlink">{rest.rstrip()}')


def _themed(color: str) -> str:
    return f"var(--{_THEME[color]})" if color in _THEME else color
