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
    retrain_channels: Annotated[
        int, typer.Option(help="Of the evaluation network.")
    ] = DEFAULT.retrain_channels,
    retrain_layers: Annotated[int, typer.Option(help="Its cells.")] = DEFAULT.retrain_layers,
    retrain_batch: Annotated[int, typer.Option(help="Its images.")] = DEFAULT.retrain_batch,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = DEFAULT.threads,
    repeats: Annotated[int, typer.Option(help="Timed turns of each variant.")] = DEFAULT.repeats,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only this one; repeatable. {', '.join(TASKS)}. Unasked: the first six."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Beside the first only this one; repeatable. 'ours', 'channels last', …"),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Small sizes: a minute.")] = False,
    compile: Annotated[bool, typer.Option(help="Also the plain form, compiled.")] = False,
    processes: Annotated[
        list[int] | None, typer.Option(help="Of packing: at once; repeatable. 1, 2, 4, 8.")
    ] = None,
    process_threads: Annotated[
        int, typer.Option(help="Of packing: CPU threads of each.")
    ] = DEFAULT.process_threads,
    steps: Annotated[int, typer.Option(help="Of packing: timed steps of each.")] = DEFAULT.steps,
    memory: Annotated[bool, typer.Option(help="Also peak memory.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = DEFAULT.device,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, tf32, bf16; repeatable. Unasked: fp32.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as Parquet.")] = None,
) -> None:
    """Time the supernet that searches run against the plain form of the same computation.

    nas-sweeps bench --quick

    nas-sweeps bench --task first_order --out bench.parquet

    nas-sweeps bench --device cuda --precision tf32 --precision bf16 --task ssf_nas
    """
    chosen: dict[str, Any] = {
        "channels": channels,
        "layers": layers,
        "batch": batch,
        "image_size": image_size,
        "retrain_channels": retrain_channels,
        "retrain_layers": retrain_layers,
        "retrain_batch": retrain_batch,
        "threads": threads,
        "repeats": repeats,
        "tasks": tuple(task or DEFAULT.tasks),
        "only": tuple(variant or ()),
        "compile": compile,
        "processes": tuple(processes or DEFAULT.processes),
        "process_threads": process_threads,
        "steps": steps,
        "memory": memory,
        "device": device,
        "precisions": tuple(precision or DEFAULT.precisions),
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
