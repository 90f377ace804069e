"""A benchmark's rows for a person, in tables that fit on eighty columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nas_sweeps.bench.start import UNTIL_FIRST

Row = dict[str, Any]
Cells = Callable[[Row], tuple[str, ...]]
TITLES = {
    "first_order": "first order",
    "second_order": "second order",
    "evaluation": "evaluation",
    "retrain": "retraining",
    "augmentation": "crop, flip",
    "views": "Barlow views",
    "ssf_nas": "SSF-NAS",
    "retrain_darts": "DARTS' own",
    "test_pass": "test pass",
    "start": "start",
    "packing": "packing",
}


def show(rows: Sequence[Row], console: Console) -> None:
    """Print times; then, where there are such rows, what was counted; then packing."""
    timed = [row for row in rows if row["task"] not in ("start", "packing")]
    started = [row for row in rows if row["task"] == "start"]
    counted = [row for row in timed if row["operations"] is not None]
    packed = [row for row in rows if row["task"] == "packing"]
    if timed:
        console.print(_table(timed, ("s", "faster", "wall s", "img/s", "GiB", "less"), _times))
        if any(row["kernels"] for row in timed):
            console.print(_table(timed, ("form", "kernels"), _kernels))
        console.print(_clocks(timed[0]), soft_wrap=True, highlight=False)
    if counted:
        console.print(_table(counted, ("ops", "GFLOP", "GB", "GEMM", "floor s", "of s"), _works))
        console.print(_counts(counted[0]), soft_wrap=True, highlight=False)
    if started:
        columns = ("s", "alloc. MiB", "reserved", "private")
        console.print(_table(started, columns, _phase))
        console.print(_starting(started), soft_wrap=True, highlight=False)
    if packed:
        console.print(_table(packed, ("at once", "steps/h", "in all", "each"), _packs))
        console.print(_packing(packed[0]), soft_wrap=True, highlight=False)


def _table(rows: Sequence[Row], columns: Sequence[str], cells: Cells) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row, before in zip(rows, [None, *rows], strict=False):
        first = before is None or _group(before) != _group(row)
        if first:
            table.add_section()
        name = " ".join(_group(row)) if first else ""
        table.add_row(name, row["variant"], *cells(row))
    return table


def _group(row: Row) -> tuple[str, ...]:
    """The task, and its precision where it is not the default."""
    kind = row.get("precision")
    return (TITLES[row["task"]], *((kind,) if kind not in (None, "fp32") else ()))


def _times(row: Row) -> tuple[str, ...]:
    return (
        _seconds(row["step_s"]),
        f"{row['ratio']:.2f}x",
        _seconds(row["wall_s"]),
        f"{row['images_per_s']:.0f}",
        _maybe(row["peak_mem_gib"], "{:.2f}"),
        _maybe(row["mem_ratio"], "{:.2f}x"),
    )


def _kernels(row: Row) -> tuple[str, ...]:
    return row["form"] or "", _maybe(row["kernels"], "{:,}")


def _works(row: Row) -> tuple[str, ...]:
    return (
        f"{row['operations']:,}",
        f"{row['counted_gflop']:.3g}",
        f"{row['counted_gbyte']:.3g}",
        f"{row['gemm_share']:.0%}",
        _seconds(row["floor_s"]),
        f"{row['floor_share']:.0%}",
    )


def _packs(row: Row) -> tuple[str, ...]:
    return (
        str(row["processes"]),
        f"{row['steps_per_hour']:.0f}",
        f"{row['ratio']:.2f}x",
        f"{row['ratio'] / row['processes']:.2f}x",
    )


def _phase(row: Row) -> tuple[str, ...]:
    memory = (row["allocated_mib"], row["reserved_mib"], row["private_mib"])
    return _seconds(row["wall_s"]), *(f"{mib:.0f}" for mib in memory)


def _clocks(row: Row) -> str:
    clock = "wall time" if row["device"] == "cuda" else "CPU time of all threads"
    return (
        f"{row['image_size']} pixels; {row['device']}, {row['threads']} threads, torch "
        f"{row['torch']}. s is {clock}, images/s are by it; medians of {row['repeats']}. First "
        f"row: B={row['batch']}, C={row['channels']}, L={row['layers']}."
    )


def _counts(row: Row) -> str:
    return (
        f"GEMM: useful FLOPs at the rate of a matrix product, {row['gemm_gflops']:.0f} GFLOP/s. "
        f"floor: counted FLOPs at that rate, or bytes at a copy's, {row['copy_gbytes']:.0f} GB/s; "
        "ops: dispatched, without views."
    )


def _starting(rows: Sequence[Row]) -> str:
    row = rows[0]
    cold, warm = (until_first_s(rows, kind) for kind in ("cold", "warm"))
    notes = dict.fromkeys(r["note"] for r in rows if r["note"])
    return (
        f"Seconds of searches by phase, {row['device']}, {row['precision']}, B="
        f"{row['batch']}, C={row['channels']}, L={row['layers']}; memory at the phase's end. From "
        f"the end of a trial to the first step of the next: {_seconds(cold)} s in a new process "
        f"(cold), {_seconds(warm)} s in the same (warm). "
        + "; ".join(f"A worker would not go on in it: {note}." for note in notes)
    ).rstrip()


def until_first_s(rows: Sequence[Row], kind: str) -> float:
    """Of a cold or a warm trial, the seconds of the phases that end with its first step."""
    names = {f"{kind}: {phase}" for phase in UNTIL_FIRST}
    return float(sum(row["wall_s"] for row in rows if row["variant"] in names))


def _packing(row: Row) -> str:
    return (
        f"First-order steps, B={row['batch']}, C={row['channels']}, L={row['layers']}; "
        f"{row['repeats']} timed steps a process of {row['threads']} threads on {row['device']}."
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds >= 0.01 else f"{1e3 * seconds:.2g}ms"


def _maybe(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
