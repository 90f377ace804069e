"""The benchmark: every task, its variants in turn, one row each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nas_sweeps.bench.images import image_steps
from nas_sweeps.bench.measure import gemm_gflops, peak_of_step, take_turns
from nas_sweeps.bench.options import Options
from nas_sweeps.bench.steps import PASSES, Step, gflop, make_step, variants
from nas_sweeps.publish import publish

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("variant", pa.string()),
        ("step_s", pa.float64()),  # CPU seconds of all threads; on CUDA wall seconds
        ("ratio", pa.float64()),  # seconds of the task's first variant over these
        ("images_per_s", pa.float64()),
        ("peak_mem_gib", pa.float64()),  # null where it was not measured
        ("mem_ratio", pa.float64()),
        ("gflop", pa.float64()),  # counted, of the whole step
        ("gemm_share", pa.float64()),  # achieved rate over that of a large matrix product
        ("gemm_gflops", pa.float64()),
        ("channels", pa.int64()),
        ("layers", pa.int64()),
        ("batch", pa.int64()),
        ("threads", pa.int64()),
        ("repeats", pa.int64()),
        ("device", pa.string()),
        ("torch", pa.string()),
    ]
)
Row = dict[str, Any]
# What one step trains or tests on: a bilevel step takes a training and a validation batch.
BATCHES = {"first_order": 2, "second_order": 2}
TITLES = {
    "first_order": "first-order step",
    "second_order": "second-order alphas",
    "evaluation": "evaluation",
    "retrain": "retrain step",
    "augmentation": "crop and flip",
    "views": "Barlow views",
}


def run(options: Options, out: Path | None = None, console: Console | None = None) -> list[Row]:
    """Measure, print a table, and write it to ``out`` as Parquet. Returns the rows.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
    console = console or Console()
    torch.set_num_threads(options.threads)
    rate = gemm_gflops(options.device)
    rows: list[Row] = []
    with console.status("") as status:
        for task in options.tasks:
            rows += _task(options, task, rate, status.update)
    console.print(as_table(rows))
    if out is not None:
        with publish(out) as scratch:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), scratch)
    return rows


def _task(options: Options, task: str, rate: float, say: Callable[[str], None]) -> list[Row]:
    makers = _makers(options, task)
    steps = {name: make(options) for name, make in makers.items()}
    turns = 0

    def turned() -> None:
        nonlocal turns
        turns += 1
        say(f"{TITLES[task]}: {turns} of {(options.repeats + 1) * len(steps)}")

    times = take_turns(steps, options.repeats, options.device, turned)
    steps.clear()
    peaks: dict[str, float | None] = dict.fromkeys(times)
    if options.memory and task in PASSES:
        for name, make in makers.items():
            say(f"{TITLES[task]}: memory of {name}")
            peaks[name] = peak_of_step(options, make)
    return _rows(options, task, times, peaks, rate)


def _makers(options: Options, task: str) -> dict[str, Callable[[Options], Step]]:
    if task not in PASSES:
        return {name: partial(_image_step, task=task, name=name) for name in _image_names()}
    return {
        variant.name: partial(make_step, task=task, variant=variant)
        for variant in variants(options, task)
    }


def _image_names() -> tuple[str, ...]:
    return ("PIL, per image", "ours")


def _image_step(options: Options, task: str, name: str) -> Step:
    return image_steps(options, task)[name]


def _rows(
    options: Options,
    task: str,
    times: dict[str, float],
    peaks: dict[str, float | None],
    rate: float,
) -> list[Row]:
    first = next(iter(times))
    work = gflop(options, task) if task in PASSES else None
    rows = []
    for name, step_s in times.items():
        peak, base = peaks[name], peaks[first]
        rows.append(
            {
                "task": task,
                "variant": name,
                "step_s": step_s,
                "ratio": times[first] / step_s,
                "images_per_s": options.batch * BATCHES.get(task, 1) / step_s,
                "peak_mem_gib": peak,
                "mem_ratio": base / peak if base and peak else None,
                "gflop": work,
                "gemm_share": work / step_s / rate if work else None,
                "gemm_gflops": rate,
                "torch": torch.__version__,
            }
            | _setting(options)
        )
    return rows


def _setting(options: Options) -> Row:
    names = ("channels", "layers", "batch", "threads", "repeats", "device")
    return {name: getattr(options, name) for name in names}


def as_table(rows: list[Row]) -> Table:
    """The rows for a person."""
    head = rows[0]
    table = Table(
        caption=(
            f"B={head['batch']}, C={head['channels']}, L={head['layers']}; {head['device']}, "
            f"{head['threads']} threads, torch {head['torch']}; matrix products: "
            f"{head['gemm_gflops']:.0f} GFLOP/s. Seconds are {_clock(head['device'])}, medians of "
            f"{head['repeats']}."
        ),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for name in ("s", "faster", "images/s", "GiB", "smaller", "GEMM"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, before in zip(rows, [None, *rows], strict=False):
        first = before is None or before["task"] != row["task"]
        if first:
            table.add_section()
        table.add_row(TITLES[row["task"]] if first else "", row["variant"], *_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row['step_s']:.3g}",
        f"{row['ratio']:.2f}x",
        f"{row['images_per_s']:.0f}",
        _maybe(row["peak_mem_gib"], "{:.2f}"),
        _maybe(row["mem_ratio"], "{:.2f}x"),
        _maybe(row["gemm_share"], "{:.0%}"),
    )


def _clock(device: str) -> str:
    return "wall time" if device == "cuda" else "CPU time of all threads"


def _maybe(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
