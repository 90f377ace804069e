"""The verb that looks whether a run would work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from nas_sweeps.cli.options import NOT_ALL_DONE, USER_ERROR, Overrides, StoreOption, out

if TYPE_CHECKING:
    from nas_sweeps.grid import Grid

WIDEST = 10_000  # columns: rich measures no wider than the screen, unless it is told of this one


def doctor(
    grid_file: Annotated[
        Path | None,
        typer.Argument(metavar="[GRID]", help="The grid file (YAML) that is to be run."),
    ] = None,
    overrides: Overrides = None,
    store: StoreOption = None,
    executor: Annotated[
        str, typer.Option(help="As for run; ray starts a session for some seconds.")
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: each of its nodes is looked at.")
    ] = None,
    every_node: Annotated[
        bool,
        typer.Option(
            "--every-node", help="The nodes as a table; --address auto where none is named."
        ),
    ] = False,
) -> None:
    """Look whether a run would work, one line for each thing it needs.

    nas-sweeps doctor

    nas-sweeps doctor experiments/table1.yaml --store /shared/t1 --every-node

    Give it the grid, --set, --store, --executor and --address of the run.
    It looks at versions, devices, the images and their hash, free space,
    whether the store can be written to, what Ray sees, and by a small task
    on each node of the cluster its versions, GPUs, images and clock, and
    that it reads what every other node writes into the store. A line that
    begins with ✗ says what to do; with …, what a run fetches by itself.

    To start a Ray session takes some ten seconds; --executor inline needs
    none, and --address names one that is there.

    Exit code 0: all is well; 1: something is not; 2: a mistake in the grid,
    and the rest was looked at without it.
    """
    from nas_sweeps.sweep.doctor import examine

    grid, mistaken = _grid(grid_file, overrides)
    well, nodes = True, {}
    for finding in examine(grid, store, executor, (address or "auto") if every_node else address):
        well = well and finding.good
        if every_node and finding.row is not None:
            nodes[finding.what] = finding.row
        if not finding.good or finding.what not in nodes:
            _line(finding.what, finding.good, finding.text, finding.later)
    if nodes:
        _show(nodes)
    if mistaken or not well:
        raise typer.Exit(USER_ERROR if mistaken else NOT_ALL_DONE)


def _show(nodes: Mapping[str, Mapping[str, str]]) -> None:
    """A line of what is the same on all nodes that answered, and a table of the rest.

    Where the table is too wide for the terminal its rows are lines. A node that did not answer has
    none but its name.
    """
    from nas_sweeps.sweep.finding import WRONG

    answers = [row for row in nodes.values() if row]
    columns = list(dict.fromkeys(what for row in answers for what in row))
    if len(answers) > 1:
        looked_at = [what for what in columns if what != "clock"]  # which is no two nodes' own
        held = {what: {row.get(what, WRONG) for row in answers} for what in looked_at}
        alike = [what for what in looked_at if len(held[what]) == 1 and WRONG not in held[what]]
        same = ", ".join(f"{what} {answers[0][what]}" for what in alike)
        _line("nodes", True, f"{len(answers)} answered" + (same and f", all with {same}"))
        columns = [what for what in columns if what not in alike]
    if not columns:
        return
    table = Table("node", *columns)
    for name, row in nodes.items():
        table.add_row(name.removeprefix("node "), *(row.get(what, "") for what in columns))
    if out.measure(table, options=out.options.update(width=WIDEST)).maximum <= out.width:
        out.print(table)
        return
    for name, row in nodes.items():
        told = ", ".join(f"{what} {row[what]}" for what in columns if what in row)
        out.print(Text(f"  {name:<10} {told}".rstrip()), soft_wrap=True)


def _grid(grid_file: Path | None, overrides: list[str] | None) -> tuple[Grid | None, bool]:
    """A grid, and whether what is wrong with it was said instead."""
    from nas_sweeps.grid import load_grid

    if grid_file is None:
        return None, False
    try:
        return load_grid(grid_file, overrides or []), False
    except ValueError as error:
        for line in str(error).splitlines():
            _line("grid", False, line)
        return None, True


def _line(what: str, good: bool, text: str, later: bool = False) -> None:
    wrong, well, comes = ("!!", "ok", "..") if out.options.ascii_only else ("✗", "✓", "…")
    mark = comes if later else well if good else wrong
    line = f"{mark} {what:<10} {' '.join(text.split())}"
    out.print(Text(line, style="" if good else "red"), soft_wrap=True)
