"""``summarise`` as a table to paste: into a terminal, Markdown, LaTeX, or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from rich.cells import cell_len

from nas_sweeps.choices import TABLE_FORMATS, TableFormat
from nas_sweeps.tables import Frames, summarise

Lines = list[list[str]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "μ": r"$\mu$",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def table_text(
    frames: Frames,
    rows: Sequence[str] = ("method",),
    columns: Sequence[str] = ("distribution", "mu"),
    value: str | None = None,
    format: TableFormat = "text",
    phase: str = "retrain",
) -> str:
    """The trials of a phase that are done, as mean ± sample standard deviation (their number).

    Accuracies are in percent, but in ``csv`` every number is in full and as it is stored.

    Args:
        rows, columns, value, phase: as for ``summarise``.
        format: ``latex`` needs no package; each line of ``csv`` is a row of the table.

    Raises:
        ValueError: a name is no column, ``value`` is not numeric, ``rows`` is empty, or there is
            no such format.
    """
    if format not in TABLE_FORMATS:
        raise ValueError(f"format '{format}': choose from {', '.join(TABLE_FORMATS)}")
    value = frames.headline if value is None else value
    table = summarise(frames, value, rows, columns, phase)
    if format == "csv":
        return _csv(table)
    return formatted(entries(table, is_fraction(value)), format)


def tuning_text(found: pd.DataFrame, format: TableFormat = "text") -> str:
    """The winners of studies against the defaults, a line each.

    Args:
        found: of ``against_default``.
        format: as for ``table_text``; ``csv`` has every column, and numbers in full.
    """
    if format == "csv":
        return found.to_csv(index=False, lineterminator="\n")
    return formatted(tuning_entries(found), format)


def tuning_entries(found: pd.DataFrame) -> Lines:
    """A line of headings, then one per winner and measure."""
    several = found["what"].nunique() > 1
    lines = [["cell", "winner", "measure", *(["setting"] if several else [])]]
    lines[0] += ["default", "tuned", "difference (95 %)"]
    for row in found.to_dict("records"):
        measure = f"{spoken(row['measure'])}, {row['of']}"
        means = [
            shown(row[of], row[f"{of}_sd"], row[f"{of}_n"], is_fraction(row["measure"]))
            for of in ("default", "tuned")
        ]
        named = [row["cell"], row["variant"], measure, *([row["what"]] if several else [])]
        lines.append([*named, *means, _difference(row)])
    return lines


def _difference(row: Mapping[Hashable, Any]) -> str:
    """``+1.20 (-0.30 to +2.70)``."""
    percent = is_fraction(row["measure"])
    low, high = (_points(row[end], percent) for end in ("low", "high"))
    interval = "" if pd.isna(row["low"]) else f" ({low} to {high})"
    return _points(row["difference"], percent) + interval


def _points(x: float, percent: bool) -> str:
    return "-" if pd.isna(x) else f"{100 * x if percent else x:+.2f}"


def formatted(lines: Lines, format: Literal["text", "markdown", "latex"]) -> str:
    """Headings and entries as something to paste."""
    head, *body = lines
    return {"text": _plain, "markdown": _markdown, "latex": _latex}[format](head, body)


def is_fraction(value: str) -> bool:
    """Whether people read this column in percent."""
    return value.startswith("accuracy") or value == "macro_f1"


def spoken(value: str) -> str:
    """``macro validation`` for the column ``accuracy_macro_validation``."""
    return value.removeprefix("accuracy_").replace("_", " ")


def shown(mean: float, sd: float, n: int, percent: bool) -> str:
    """``78.26 ± 0.41 (3)``, or a dash for nothing."""
    if not n > 0:
        return "-"
    middle, spread = (f"{100 * x:.2f}" if percent else _number(x) for x in (mean, sd))
    return middle + (f" ± {spread}" if n > 1 else "") + f" ({n})"


def _number(x: float) -> str:
    return f"{x:.6g}" if abs(x) < 1e5 else f"{x:,.0f}"


def entries(table: pd.DataFrame, percent: bool) -> Lines:
    """What ``summarise`` gave as a line of headings, then one per row: names, then cells."""
    headings = list(dict.fromkeys(_heading(table, key[:-1]) for key in _keys(table.columns)))
    lines = [[*map(str, table.index.names), *(headings or ["all"])]]
    for names, numbers in zip(_keys(table.index), table.to_numpy(dtype=float), strict=True):
        cells = [
            shown(numbers[i], numbers[i + 1], int(numbers[i + 2]), percent)
            for i in range(0, len(numbers), 3)
        ]
        lines.append([*map(_name, names), *cells])
    return lines


def _heading(table: pd.DataFrame, key: Sequence[Any]) -> str:
    """A column's place: the distribution by its value, everything else with its name."""
    named = [(n, p) for n, p in zip(table.columns.names, key, strict=False) if not pd.isna(p)]
    parts = [_name(p) if n == "distribution" else f"{n}={_name(p)}" for n, p in named]
    missing = [f"no {name}" for name in table.columns.names[:-1]]
    return " ".join(parts or missing) or "all"


def _keys(index: pd.Index[Any]) -> list[tuple[Any, ...]]:
    return [key if isinstance(key, tuple) else (key,) for key in index.tolist()]


def _name(part: Any) -> str:
    if isinstance(part, float):
        return "" if pd.isna(part) else f"{part:g}"
    return "" if pd.isna(part) else str(part)


def _csv(table: pd.DataFrame) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{_heading(table, key[:-1])} {key[-1]}" for key in _keys(table.columns)]
    writer.writerow([*map(str, table.index.names), *columns])
    for names, numbers in zip(_keys(table.index), table.itertuples(index=False), strict=True):
        writer.writerow([*map(_name, names), *("" if pd.isna(x) else x for x in numbers)])
    return out.getvalue()


def _flat(text: str) -> str:
    return " ".join(text.split())


def _plain(head: list[str], body: Lines) -> str:
    lines = [[_flat(entry) for entry in line] for line in (head, *body)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    return "".join(
        "  ".join(e + " " * (w - cell_len(e)) for e, w in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in (lines[0], rule, *lines[1:])
    )


def _markdown(head: list[str], body: Lines) -> str:
    lines = [[_for_markdown(entry) for entry in line] for line in (head, *body)]
    lines.insert(1, ["---"] * len(head))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _for_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#&$~])", r"\\\1", _flat(text))


def _latex(head: list[str], body: Lines) -> str:
    lines = [" & ".join(map(_for_latex, line)) + r" \\" for line in (head, *body)]
    opening, rule = rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\hline"
    whole = [opening, rule, lines[0], rule, *lines[1:], rule, r"\end{tabular}", ""]
    return "\n".join(whole)


def _for_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _flat(text))
