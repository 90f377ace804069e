"""The report: one HTML page that needs nothing else, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd

from nas_sweeps.paths import user_path
from nas_sweeps.publish import publish, publish_text, require_writable
from nas_sweeps.report import style
from nas_sweeps.report.figures import FIGURES, FURTHER_FIGURES, PAPER_FIGURES, FigureEntry
from nas_sweeps.report.html import Markup, inline_svg, join, tag
from nas_sweeps.report.planned import KeptGrid, kept_grids
from nas_sweeps.report.sections import (
    environment_section,
    failure_section,
    header_section,
    missing_section,
    table1_section,
    trial_section,
)
from nas_sweeps.store import Store
from nas_sweeps.tables import Frames, load

PAGE = "index.html"
GENERATOR = "nas_sweeps"
SIGNS = (f'<meta name="generator" content="{GENERATOR}">', "<title>nas_sweeps: ")  # of a report
FOLDER = "figures"  # beside the page
_SUFFIXES = ("svg", "pdf", "csv")
_LINKS = {
    "missing": "What is missing",
    "table1": "Table I",
    "paper": "Figures of the paper",
    "further": "Beyond the paper",
    "failures": "Failures",
    "trials": "Trials",
    "environment": "Environment and grids",
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure as files; all are None where a store has nothing to draw."""

    entry: FigureEntry
    data: pd.DataFrame
    svg: bytes | None = None
    pdf: bytes | None = None


def write_report(store: Store | str | Path, out_dir: str | Path) -> Path:
    """Write ``out_dir/index.html`` and ``out_dir/figures/``; returns the page's path.

    The page holds its figures and needs no network; beside it each figure is an SVG and a PDF
    file, and what it draws a CSV file. Equal tables and grids give equal bytes. A figure of an
    earlier report that can no longer be drawn is removed.

    Raises:
        ValueError: there is no store, or ``out_dir`` cannot be written to, holds a page that is no
            report, or is the store's own.
    """
    keeper = store if isinstance(store, Store) else Store(store)
    frames, out = load(keeper), user_path(out_dir)
    _refuse(out, keeper)
    grids = kept_grids(keeper)
    try:
        drawn = [_written(entry, frames, out / FOLDER) for entry in FIGURES]
        publish_text(out / PAGE, page(frames, grids, drawn), durable=False)
    except OSError as error:
        raise ValueError(
            f"report '{out}': cannot be written: {error.strerror}; name another folder"
        ) from None
    return out / PAGE


def _refuse(out: Path, store: Store) -> None:
    if store.owns(out):
        raise ValueError(f"report '{out}': lies among the store's own files; name another folder")
    require_writable(out / PAGE)
    try:
        there = (out / PAGE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if there and not any(sign in there for sign in SIGNS):
        raise ValueError(f"report '{out}': holds another {PAGE}; name another folder")


def _written(entry: FigureEntry, frames: Frames, folder: Path) -> Drawn:
    drawn = render(entry, frames)
    contents = (drawn.svg, drawn.pdf, drawn.data.to_csv(index=False, lineterminator="\n").encode())
    for suffix, content in zip(_SUFFIXES, contents, strict=True):
        path = folder / f"{entry.name}.{suffix}"
        if drawn.svg is None or content is None:
            path.unlink(missing_ok=True)
            continue
        with publish(path, durable=False) as scratch:
            scratch.write_bytes(content)
    return drawn


def render(entry: FigureEntry, frames: Frames) -> Drawn:
    """A figure of these tables."""
    data = entry.data(frames)
    if data.empty:
        return Drawn(entry, data)
    figure = entry.draw(data)
    return Drawn(entry, data, style.to_bytes(figure, "svg"), style.to_bytes(figure, "pdf"))


def page(frames: Frames, grids: Sequence[KeptGrid], drawn: Sequence[Drawn]) -> str:
    """The whole page as text."""
    names = " and ".join(dict.fromkeys(grid.name for grid in grids)) or "a store without a grid"
    figures = {figure.entry.name: _figure(figure) for figure in drawn}
    links = [tag("a", text, href=f"#{key}") for key, text in _LINKS.items()]
    parts = [
        header_section(names, frames, grids),
        tag("nav", *links, aria_label="sections"),
        _section("missing", missing_section(grids)),
        _section("table1", table1_section(frames)),
        _section("paper", _figures(figures, PAPER_FIGURES)),
        _section("further", _figures(figures, FURTHER_FIGURES)),
        _section("failures", failure_section(frames)),
        _section("trials", trial_section(frames)),
        _section("environment", environment_section(frames, grids)),
    ]
    return _document(f"nas_sweeps: {names}", join(parts))


def _section(key: str, content: Markup) -> Markup:
    return tag("section", tag("h2", _LINKS[key], id=key), content)


def _figures(figures: dict[str, Markup], entries: Sequence[FigureEntry]) -> Markup:
    return tag("div", *(figures[entry.name] for entry in entries), class_="figures")


def _figure(drawn: Drawn) -> Markup:
    entry = drawn.entry
    title = tag("h3", entry.title)
    if drawn.svg is None:
        return tag("figure", title, tag("p", f"Nothing to draw: it needs {entry.needs}."))
    label = f"{entry.title}. {entry.describe(drawn.data)}"
    svg = inline_svg(drawn.svg, entry.name, label)
    picture = tag("div", svg, class_="scroll", tabindex=0, role="group", aria_label=entry.title)
    files = join(_file_links(entry.name))
    caption = tag("figcaption", entry.caption, " ", files)
    return tag("figure", title, picture, caption, class_="wide" if entry.wide else None)


def _file_links(name: str) -> Iterator[str]:
    for suffix in _SUFFIXES:
        yield tag("a", suffix.upper(), href=f"{FOLDER}/{name}.{suffix}")
        yield " "


def _document(title: str, body: Markup) -> str:
    """A page that could not fetch anything if it wanted to, and runs no script but ours."""
    script, css = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content=GENERATOR),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(css)),
    )
    whole = tag("html", head, tag("body", body, tag("script", Markup(script))), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _asset(name: str) -> str:
    return (files("nas_sweeps.report") / "assets" / name).read_text(encoding="utf-8")
