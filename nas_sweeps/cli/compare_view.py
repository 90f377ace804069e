"""``compare`` for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nas_sweeps.names import DISTRIBUTION, distribution_name, method_name
from nas_sweeps.report.compare import Comparison, compare
from nas_sweeps.report.tables import is_fraction
from nas_sweeps.store.records import State
from nas_sweeps.tables import load

SHOWN = 10  # lines of one kind


def compare_view(store_a: str, store_b: str, value: str | None) -> Iterator[RenderableType]:
    """What two stores share and how they differ.

    Raises:
        ValueError: there is no store, or ``value`` is no accuracy.
    """
    a, b = load(store_a), load(store_b)
    value = a.headline if value is None else value
    found = compare(a, b, value)
    for side, store, frames in (("A", store_a, a), ("B", store_b, b)):
        done = int((frames.trials["state"] == State.DONE).sum())
        yield Text(f"{side}: {store}, {done} of {len(frames.trials)} trials done")
    yield from _same(found)
    yield from _only(found)
    yield from _cells(found, value)
    yield from _environment(found)


def _same(found: Comparison) -> Iterator[RenderableType]:
    if not found.shared:
        yield "no trial is done in both"
        return
    alike, differ = set(found.alike), set(found.differing["trial_id"])
    others = len(found.shared) - len(alike)
    if not differ and not others:
        yield f"done in both: {_trials(len(alike))}, equal in every result to the last bit"
        return
    yield f"done in both: {_trials(len(found.shared))}, {_with(len(differ))}"
    if alike and others:
        yield f"  {len(alike)} of them computed under equal numerics: {_with(len(alike & differ))}"
    if others:
        yield Text(
            f"  {others} of them computed under other numerics, so equal bits are not to be "
            f"expected: {_with(len(differ - alike))}"
        )
        yield from _few([*_reasons(found.numerics)])
    groups = found.differing.groupby(["trial_id", "name"], sort=False)
    yield from _few([_difference(str(name), rows.to_dict("records")) for (_, name), rows in groups])


def _with(differ: int) -> str:
    return f"{differ} with other results" if differ else "equal in every result"


def _reasons(numerics: pd.DataFrame) -> Iterator[str]:
    """What is not equal, or not known, and for how many trials."""
    counts = Counter(zip(numerics["what"], numerics["a"], numerics["b"], strict=True))
    for (what, a, b), n in counts.items():
        yield f"    {what}: {a} in A, {b} in B ({_trials(n)})"


def _difference(name: str, rows: Sequence[dict[Any, Any]]) -> str:
    """The first result that is not the same, which is the genotype if that is one."""
    first, more = rows[0], len(rows) - 1
    said = f"{first['result']} {_shown(first, 'a')} in A, {_shown(first, 'b')} in B"
    return f"  {first['trial_id']}  {name}: {said}" + (f", and {more} more" if more else "")


def _shown(row: dict[Any, Any], side: str) -> str:
    value = row[side]
    if pd.isna(value):
        return "none"
    fraction = isinstance(value, float) and is_fraction(row["result"])
    return f"{100 * value:.4f} %" if fraction else str(value)


def _only(found: Comparison) -> Iterator[RenderableType]:
    for side in ("A", "B"):
        rows = found.only[found.only["store"] == side].to_dict("records")
        if rows:
            yield f"only in {side}: {_kinds(rows)}"
            yield from _few([f"  {r['trial_id']}  {r['name']}{_elsewhere(r)}" for r in rows])


def _kinds(rows: Sequence[dict[Any, Any]]) -> str:
    counts = Counter(row["state"] for row in rows)
    return ", ".join(f"{n} {state}" for state, n in counts.items())


def _elsewhere(row: dict[Any, Any]) -> str:
    return "" if row["other"] == "absent" else f" ({row['other']} in the other)"


def _cells(found: Comparison, value: str) -> Iterator[RenderableType]:
    if found.cells.empty:
        yield "no cell (method, distribution, settings) has a result in both"
    else:
        yield f"{value}, mean over trials (their number), in percent; B - A by pairs of seeds"
        rows = found.cells.to_dict("records")
        for settings in dict.fromkeys(_settings(row) for row in rows):
            yield Text(f"on {settings}")
            yield _cell_table([row for row in rows if _settings(row) == settings])
    lines = [
        f"  {row['store']}: {_who(row)}, on {_settings(row)} ({row['n']})"
        for row in found.alone.to_dict("records")
    ]
    if lines:
        yield "cells that only one of them has a result in:"
        yield from _few(lines)


def _cell_table(rows: Sequence[dict[Any, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("A", "B", "B - A", "95 %", "pairs"):
        # On a narrow terminal the interval may break, and no other number.
        table.add_column(heading, justify="right", no_wrap=heading != "95 %")
    for row in rows:
        across = f"{_signed(row['low'])} to {_signed(row['high'])}"
        table.add_row(
            _who(row),
            *(f"{100 * row[f'mean_{side}']:.2f} ({row[f'n_{side}']})" for side in "ab"),
            _signed(row["difference"]),
            "-" if pd.isna(row["low"]) else across,
            str(row["pairs"]),
        )
    return table


def _signed(fraction: float) -> str:
    return "-" if pd.isna(fraction) else f"{100 * fraction:+.2f}"


def _who(row: dict[Any, Any]) -> str:
    """Phase, method and distribution of a cell; what is default is left out."""
    method, variant, pretrain, recipe = (
        _text(row, key) for key in ("method", "variant", "pretrain", "recipe")
    )
    parts = [
        _text(row, "phase"),
        method_name(method or None, variant, pretrain, recipe, row["search_epoch"]),
    ]
    parts += [distribution_name(*(row[name] for name in DISTRIBUTION))]
    return " ".join(part for part in parts if part)


def _settings(row: dict[Any, Any]) -> str:
    """Data set, and recipes where they are not default."""
    search = _text(row, "search_setting")
    parts = [_text(row, "dataset"), _text(row, "setting"), f"searched with {search}" * bool(search)]
    return "; ".join(part for part in parts if part)


def _text(row: dict[Any, Any], key: str) -> str:
    return "" if pd.isna(row[key]) else str(row[key])


def _environment(found: Comparison) -> Iterator[RenderableType]:
    rows = found.environment.to_dict("records")
    other = [row for row in rows if row["a"] != row["b"]]
    if not other:
        yield "environment: the same in both"
        return
    table = Table("environment", "A", "B", box=SIMPLE_HEAD, pad_edge=False)
    for row in other:
        table.add_row(row["what"].removesuffix("_version"), row["a"] or "-", row["b"] or "-")
    yield table


def _few(lines: Sequence[str]) -> Iterator[Text]:
    for line in lines[:SHOWN]:
        yield Text(line)
    if len(lines) > SHOWN:
        yield Text(f"  and {len(lines) - SHOWN} more")


def _trials(n: int) -> str:
    return f"{n} trial" if n == 1 else f"{n} trials"
