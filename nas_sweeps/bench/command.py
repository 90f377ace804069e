"""The benchmark's options as a command; nothing heavy is imported before they are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nas_sweeps.bench.options import TASKS, Options

DEFAULT = Options()


def bench(
    channels: Annotated[int, typer.Option(help="Of the first cells.")] = DEFAULT.channels,
    layers: Annotated[int, typer.Option(help="Cells of the supernet.")] = DEFAULT.layers,
    batch: Annotated[int, typer.Option(help="Images of a step.")] = DEFAULT.batch,
    image_size: Annotated[int, typer.Option(help="Pixels of a side.")] = DEFAULT.image_size,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = DEFAULT.threads,
    repeats: Annotated[int, typer.Option(help="Timed turns of each variant.")] = DEFAULT.repeats,
    task: Annotated[
        list[str] | None, typer.Option(help=f"Only this one; repeatable. {', '.join(TASKS)}.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Small sizes: a minute.")] = False,
    compile: Annotated[bool, typer.Option(help="Also the plain form, compiled.")] = False,
    memory: Annotated[bool, typer.Option(help="Also peak memory.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = DEFAULT.device,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as Parquet.")] = None,
) -> None:
    """Time the supernet that searches run against the plain form of the same computation."""
    chosen: dict[str, Any] = {
        "channels": channels,
        "layers": layers,
        "batch": batch,
        "image_size": image_size,
        "threads": threads,
        "repeats": repeats,
        "tasks": tuple(task or TASKS),
        "compile": compile,
        "memory": memory,
        "device": device,
    }
    try:
        options = Options(**chosen)
        from nas_sweeps.bench.run import run

        run(options.quick() if quick else options, out)
    except ValueError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


def main() -> None:
    """Run the command on this process's arguments."""
    typer.run(bench)
