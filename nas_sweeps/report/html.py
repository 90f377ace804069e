"""HTML that cannot be broken by what is put into it: text is escaped unless it is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from nas_sweeps.report import style

_VOID = {"meta", "link", "input"}


class Markup(str):
    """Text that is HTML already. Only this package makes it, never a store."""

    __slots__ = ()


def safe(content: str) -> Markup:
    """Text as markup: escaped, unless it is markup already."""
    return content if isinstance(content, Markup) else Markup(escape(content))


def join(parts: Iterable[str]) -> Markup:
    return Markup("".join(map(safe, parts)))


def tag(name: str, /, *content: str, **attributes: str | int | bool | None) -> Markup:
    """An element. An underscore ends a keyword and is a hyphen elsewhere; None is left out."""
    pairs = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            pairs.append(f" {key}")
        elif value is not None and value is not False:
            pairs.append(f' {key}="{escape(str(value))}"')
    opened = f"<{name}{''.join(pairs)}>"
    return Markup(opened if name in _VOID else f"{opened}{join(content)}</{name}>")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table on the page: ``scale`` and ``digits`` are for numbers."""

    key: str
    title: str
    digits: int | None = None  # after the point; None: as it is
    scale: float = 1.0
    sign: bool = False


def percent(key: str, title: str, *, sign: bool = False) -> Column:
    """A column of fractions, shown in percent."""
    return Column(key, title, digits=2, scale=100, sign=sign)


def data_table(rows: pd.DataFrame, columns: Sequence[Column], label: str) -> Markup:
    """A table whose columns sort and whose rows filter, in a box that scrolls on its own."""
    numeric = [pd.api.types.is_numeric_dtype(rows[column.key]) for column in columns]
    heads = [
        tag(
            "th",
            tag("button", column.title, type="button"),
            scope="col",
            class_="number" if is_number else None,
        )
        for column, is_number in zip(columns, numeric, strict=True)
    ]
    body = [
        tag("tr", *(_cell(v, c, n) for v, c, n in zip(values, columns, numeric, strict=True)))
        for values in zip(*(rows[column.key] for column in columns), strict=True)
    ]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body), aria_label=label)
    search = tag("input", type="search", placeholder="filter", aria_label=f"filter {label}")
    tools = tag("p", search, " ", tag("output", f"{len(rows)} rows"), class_="tools")
    box = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)
    return tag("div", *([tools] if len(rows) > 5 else []), box, class_="table")


def _cell(value: Any, column: Column, numeric: bool) -> Markup:
    if not isinstance(value, str) and pd.isna(value):
        return tag("td", "–", class_="missing number" if numeric else "missing")
    if not numeric:
        return tag("td", safe(str(value)))
    number = float(value) * column.scale
    form = f"{'+' if column.sign else ''},{'' if column.digits is None else f'.{column.digits}f'}"
    text = format(number if column.digits is not None else value, form)
    return tag("td", text, class_="number", data_value=repr(float(value)))


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
