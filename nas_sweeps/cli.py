"""The command line: verbs, no logic. Everything heavy is imported inside a verb."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from nas_sweeps.bench.command import bench

if TYPE_CHECKING:
    from nas_sweeps.grid import Grid

app = typer.Typer(
    help="Grids of neural-architecture searches on long-tailed image data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Out(Console):
    """Standard output; a reader that leaves ends the output, not the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


out = Out(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

USER_ERROR, NOT_ALL_DONE, INTERRUPTED = 2, 1, 130

GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="The grid file (YAML).")]
StoreName = Annotated[
    str, typer.Argument(metavar="STORE", help="The folder with results, or its s3:// address.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a grid entry: --set search.seeds=[0,1]"
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Where results go: a folder, or s3://bucket/folder; default runs/<grid name>.",
    ),
]


class ExecutorName(StrEnum):
    """Where trials run."""

    ray = "ray"
    inline = "inline"


class Retry(StrEnum):
    """Which failures of earlier runs are tried again."""

    none = "none"
    lost = "lost"
    failed = "failed"


class TableStyle(StrEnum):
    """How a table is written."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"


class DrawStyle(StrEnum):
    """How cells are drawn."""

    text = "text"
    dot = "dot"
    svg = "svg"
    pdf = "pdf"
    png = "png"


def _grid(path: Path, overrides: list[str] | None) -> Grid:
    from nas_sweeps.grid import load_grid

    return load_grid(path, overrides or [])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _show(parts: Iterable[RenderableType]) -> None:
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, (str, Text)))


@app.command()
def plan(
    grid_file: GridFile,
    overrides: Overrides = None,
    store: StoreOption = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Every trial and every resolved value.")
    ] = False,
) -> None:
    """Show what a grid would run: trials by phase and method, and what is done already."""
    from nas_sweeps.report.text import plan_view
    from nas_sweeps.store import Store

    grid = _grid(grid_file, overrides)
    _show(plan_view(grid, Store(store or Path("runs") / grid.name), verbose))


@app.command()
def run(
    grid_file: GridFile,
    overrides: Overrides = None,
    store: StoreOption = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="ray, or inline: this process, one trial at a time.")
    ] = ExecutorName.ray,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; `auto` finds a local one.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="At most so many trials at once.")
    ] = None,
    retry: Annotated[
        Retry,
        typer.Option(
            help="Failures of earlier runs to try again: `lost` those that were nobody's mistake "
            "(a worker that died, no memory, no space), `failed` all, or `none`."
        ),
    ] = Retry.lost,
    max_retries: Annotated[
        int, typer.Option(min=0, help="How often a lost trial is tried again in this run.")
    ] = 3,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="QUERY",
            help="Run a part of the grid: --only \"method == 'darts' and mu < 0.1\"; columns are "
            "phase, method, variant, distribution, mu, total, seed, pretrain.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first trial that fails.")
    ] = False,
) -> None:
    """Run what is planned and not done. The same command starts, continues and extends a grid."""
    from nas_sweeps.report.text import results_view
    from nas_sweeps.sweep.run import run as run_grid

    grid = _grid(grid_file, overrides)
    signal.signal(signal.SIGTERM, _terminated)  # a batch system's way to stop
    try:
        summary = run_grid(
            grid,
            store,
            executor=executor.value,
            address=address,
            slots=slots,
            retry=retry.value,
            max_retries=max_retries,
            only=only,
            fail_fast=fail_fast,
            console=out,
            last_resort=os._exit,
        )
    except KeyboardInterrupt as stopped:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        err.print("stopped; the same command goes on where the trials are now")
        raise typer.Exit(getattr(stopped, "exit_code", INTERRUPTED)) from None
    except OSError as error:
        err.print(f"the store failed: {error}; what is finished is kept, and the same command")
        err.print("goes on when the cause is mended")
        raise typer.Exit(NOT_ALL_DONE) from None
    if not summary.started:
        out.print("nothing to run: every planned trial is settled")
    _show(results_view(summary.store, "accuracy_balanced"))
    _show([str(summary)])
    if summary.stopped is not None:
        err.print(f"stopped: {summary.stopped}", soft_wrap=True)
    if not summary.complete:
        name = shlex.quote(str(summary.store))
        err.print(f"not all done: `nas-sweeps failures {name}` says why", soft_wrap=True)
        err.print("--retry failed tries mistakes again, and with them the retrains that they block")
        raise typer.Exit(NOT_ALL_DONE)


def _terminated(number: int, frame: FrameType | None) -> None:
    from nas_sweeps.sweep.stopping import Interrupted

    raise Interrupted(number)


@app.command()
def status(store: StoreName) -> None:
    """What is done, running, waiting and failed. Reads the store only, from any machine."""
    from nas_sweeps.report.text import status_view

    _show(status_view(store))


@app.command()
def failures(store: StoreName) -> None:
    """What failed, grouped by cause, and where the logs are."""
    from nas_sweeps.report.failures import failures_view

    _show(failures_view(store))


@app.command()
def logs(
    store: StoreName,
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, or its unique beginning.")
    ],
) -> None:
    """Print the logs of every attempt at a trial."""
    from nas_sweeps.report.failures import logs_view

    _show(logs_view(store, trial))


@app.command()
def table(
    store: StoreName,
    value: Annotated[
        str, typer.Option(metavar="COLUMN", help="A numeric column of the trials table.")
    ] = "accuracy_balanced",
    rows: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns, comma-separated, that make the rows.")
    ] = "method",
    columns: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns that make the table's columns.")
    ] = "distribution,mu",
    style: Annotated[
        TableStyle | None,
        typer.Option("--format", help="Plain lines to paste; without it, for this terminal."),
    ] = None,
) -> None:
    """Retrained networks, method by distribution: mean, standard deviation, number.

    nas-sweeps table runs/table1 --value accuracy_tail --format latex
    """
    if style is None and (rows, columns) == ("method", "distribution,mu"):
        from nas_sweeps.report.text import results_view

        _show(results_view(store, value))
        return
    from nas_sweeps.report.tables import table_text
    from nas_sweeps.store import load

    kind = style or TableStyle.text
    text = table_text(load(store), _names(rows), _names(columns), value, kind.value)
    sys.stdout.write(text)


@app.command()
def report(
    store: StoreName,
    out_dir: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where the page and figures go.")
    ] = Path("report"),
) -> None:
    """Write one HTML page that needs nothing else: Table I, Figures 6-9, and what is missing.

    nas-sweeps report runs/table1 -o report && open report/index.html
    """
    from nas_sweeps.report.page import write_report

    out.print(str(write_report(store, out_dir)), soft_wrap=True)


@app.command()
def draw(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A published genotype (DARTS_V2), a store's folder for its winners, or with "
            "--store the id of a trial or genotype.",
        ),
    ],
    store: Annotated[
        str | None, typer.Option("--store", help="The store that holds the trial or genotype.")
    ] = None,
    picture: Annotated[
        DrawStyle, typer.Option("--format", help="text is for this terminal, dot for Graphviz.")
    ] = DrawStyle.text,
    to: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Else standard output.")
    ] = None,
) -> None:
    """Draw the normal and the reduction cell of a genotype.

    nas-sweeps draw DARTS_V2

    nas-sweeps draw s-3f9a2c --store runs/table1 --format svg -o cells.svg
    """
    from nas_sweeps.publish import publish
    from nas_sweeps.report.draw import draw as drawn

    data = drawn(target, picture.value, store)
    if to is None:
        sys.stdout.buffer.write(data)
        return
    with publish(to, durable=False) as scratch:
        scratch.write_bytes(data)


app.command()(bench)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, never a traceback."""
    warnings.showwarning = lambda message, *_: err.print(f"warning: {message}", soft_wrap=True)
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        err.print("stopped before anything was begun")
        sys.exit(INTERRUPTED)
    except ValueError as error:
        err.print(str(error), soft_wrap=True, style="red")
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
