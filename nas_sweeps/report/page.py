"""The report: one HTML page that needs nothing else, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nas_sweeps.paths import user_path
from nas_sweeps.publish import publish, publish_text, require_writable
from nas_sweeps.report import sections, style
from nas_sweeps.report.figures import (
    FIGURES,
    FURTHER_FIGURES,
    PAPER_FIGURES,
    TUNING,
    FigureEntry,
)
from nas_sweeps.report.html import inline_svg
from nas_sweeps.report.planned import KeptGrid, kept_grids
from nas_sweeps.report.studies import TunedCell, optuna_study, tuned_cells
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
    "pairs": "Method against method",
    "recipes": "Recipes",
    "tuning": "Tuning",
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


@dataclass(frozen=True, slots=True)
class TunedFigures:
    """The figures of a study."""

    cell: TunedCell
    figures: Sequence[Drawn]


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
    cells = tuned_cells(keeper, frames)
    try:
        drawn = [_written(entry, frames, out / FOLDER) for entry in FIGURES]
        tuned = [_tuned(cell, frames, out / FOLDER) for cell in cells]
        _remove_stale(out / FOLDER, tuned)
        publish_text(out / PAGE, page(frames, grids, drawn, tuned), durable=False)
    except OSError as error:
        raise ValueError(
            f"report '{out}': cannot be written: {error.strerror}; name another folder"
        ) from None
    return out / PAGE


def _tuned(cell: TunedCell, frames: Frames, folder: Path) -> TunedFigures:
    from nas_sweeps.report.tuning_figures import tuning_figures  # Optuna takes a second

    entries = tuning_figures(cell, optuna_study(cell, frames))
    return TunedFigures(cell, [_written(entry, frames, folder) for entry in entries])


def _remove_stale(folder: Path, tuned: Sequence[TunedFigures]) -> None:
    """Figures of studies that this store does not have (any more)."""
    names = {figure.entry.name for cell in tuned for figure in cell.figures}
    for path in folder.glob(f"{TUNING}*"):
        if path.stem not in names and path.suffix.removeprefix(".") in _SUFFIXES:
            path.unlink()


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


def page(
    frames: Frames,
    grids: Sequence[KeptGrid],
    drawn: Sequence[Drawn],
    tuned: Sequence[TunedFigures] = (),
) -> str:
    """The whole page as text."""
    script, css = (files(__package__) / "assets" / name for name in ("page.js", "page.css"))
    code = script.read_text(encoding="utf-8")
    by_name = {figure.entry.name: figure for figure in drawn}
    template = _environment().get_template("page.html")
    return template.render(
        names=" and ".join(dict.fromkeys(grid.name for grid in grids)) or "a store without a grid",
        generator=GENERATOR,
        digest=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        script=Markup(code),
        css=Markup(css.read_text(encoding="utf-8")),
        links={key: title for key, title in _LINKS.items() if tuned or key != "tuning"},
        folder=FOLDER,
        suffixes=_SUFFIXES,
        grids=grids,
        facts=sections.facts(frames, grids),
        missing=[sections.missing(grid) for grid in grids],
        comparison=sections.comparison(frames),
        pairs=sections.pairs(frames),
        effects=sections.effects(frames),
        recipes=sections.recipes(frames),
        tuning=sections.tuning(frames, [one.cell for one in tuned]),
        tuned=tuned,
        figures={
            "paper": [by_name[entry.name] for entry in PAPER_FIGURES],
            "further": [by_name[entry.name] for entry in FURTHER_FIGURES],
        },
        failures=sections.failures(frames),
        trials=sections.trials(frames),
        environment=sections.environment(frames),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inline_svg"] = _inline
    return environment


def _inline(drawn: Drawn) -> Markup:
    assert drawn.svg is not None, "the template asks for what was drawn"
    label = f"{drawn.entry.title}. {drawn.entry.describe(drawn.data)}"
    return inline_svg(drawn.svg, drawn.entry.name, label)
