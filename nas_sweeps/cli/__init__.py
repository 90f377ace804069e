"""The command line: verbs, no logic. Everything heavy is imported inside a verb."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from nas_sweeps import __version__
from nas_sweeps.bench.command import bench
from nas_sweeps.cli.asking import cancel, pause, resume
from nas_sweeps.cli.checking import doctor
from nas_sweeps.cli.looking import (
    compare,
    draw,
    export,
    export_study,
    failures,
    logs,
    report,
    status,
    table,
)
from nas_sweeps.cli.options import INTERRUPTED, USER_ERROR, err, out
from nas_sweeps.cli.running import plan, run
from nas_sweeps.watch.streams import use_lasting_streams

_warned: set[str] = set()
app = typer.Typer(
    help="Grids of neural-architecture searches on long-tailed image data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    plan,
    run,
    status,
    pause,
    resume,
    cancel,
    failures,
    logs,
    table,
    report,
    export,
    export_study,
    compare,
    draw,
    bench,
    doctor,
):
    app.command()(verb)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"nas-sweeps {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it, and exit."),
    ] = False,
) -> None: ...


def _warn(message: Warning | str) -> None:
    """Once each: what is damaged is read by several parts of a verb."""
    text = f"warning: {message}"
    if text not in _warned:
        _warned.add(text)
        err.print(text, soft_wrap=True)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, never a traceback."""
    use_lasting_streams()
    warnings.showwarning = lambda message, *_: _warn(message)
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        err.print("stopped before anything was begun")
        sys.exit(INTERRUPTED)
    except ValueError as error:
        err.print(str(error), soft_wrap=True, style="red")
        sys.exit(USER_ERROR)
