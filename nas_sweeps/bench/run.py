"""The benchmark: every task, its variants in turn, one row each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from nas_sweeps.bench.count import Work, count
from nas_sweeps.bench.measure import (
    Rates,
    Taken,
    empty_cache,
    first_call,
    kernels_of,
    peak_of_step,
    rates,
    take_turns,
)
from nas_sweeps.bench.options import Options
from nas_sweeps.bench.packing import packed_s
from nas_sweeps.bench.start import Started, Subject, started
from nas_sweeps.bench.steps import PASSES, Step, gflop, images_of, make_step
from nas_sweeps.bench.table import TITLES, show
from nas_sweeps.bench.variants import UNCOUNTED, variants
from nas_sweeps.paths import user_path
from nas_sweeps.publish import publish, require_writable

_F, _I, _S = pa.float64(), pa.int64(), pa.string()
SCHEMA = pa.schema(
    [
        ("task", _S),
        ("variant", _S),  # of the task start: cold or warm, and a phase
        ("form", _S),  # of the network, where there is one
        ("step_s", _F),  # CPU seconds of all threads; on CUDA, and of packing, wall seconds
        ("cpu_s", _F),
        ("wall_s", _F),
        ("ratio", _F),  # step_s of the task's first variant over this one's
        ("images_per_s", _F),  # per second of step_s
        ("peak_mem_gib", _F),  # null where it was not measured
        ("mem_ratio", _F),
        ("gflop", _F),  # useful: those of the plain form's convolutions and linear layers
        ("gemm_share", _F),  # useful FLOPs a second over the rate of a large matrix product
        ("kernels", _I),  # on CUDA, that the device ran in a step
        ("operations", _I),  # dispatched in a step, as count.py says
        ("counted_gflop", _F),  # of this variant, everything that is a product
        ("counted_gbyte", _F),
        ("floor_s", _F),
        ("floor_share", _F),  # floor_s over step_s
        ("allocated_mib", _F),  # of the GPU at the end of the phase; start only, like the next
        ("reserved_mib", _F),
        ("private_mib", _F),  # of the machine's memory, mapped files left out
        ("note", _S),  # why a worker would take a new process now; null where it would not
        ("processes", _I),  # packing only, like the next
        ("steps_per_hour", _F),  # of all processes together
        ("gemm_gflops", _F),
        ("copy_gbytes", _F),
        ("channels", _I),
        ("layers", _I),
        ("batch", _I),
        ("image_size", _I),
        ("threads", _I),
        ("repeats", _I),
        ("device", _S),
        ("precision", _S),
        ("torch", _S),
    ]
)
_log = logging.getLogger(__name__)
Row = dict[str, Any]
Say = Callable[[str], None]


def run(options: Options, out: Path | None = None, console: Console | None = None) -> list[Row]:
    """Measure, print tables, and write the rows to ``out`` as Parquet. Returns the rows.

    Raises:
        ValueError: CUDA is asked for and cannot be had, or ``out`` cannot be written.
    """
    if out is not None:
        out = user_path(out)
        require_writable(out)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
    console = console or Console()
    torch.set_num_threads(options.threads)
    with console.status("") as status:
        rows = [row for one in options.each_precision() for row in _all(one, status.update)]
    show(rows, console)
    if out is not None:
        with publish(out) as scratch:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), scratch)
    return rows


def _all(options: Options, say: Say) -> list[Row]:
    """Every task in one precision."""
    # Other processes first: this one keeps what a large step took, and would double it.
    peaks = {task: _peaks(options, task, say) for task in options.tasks}
    packed = _packing(options, say) if "packing" in options.tasks else []
    begun = _start(options, say) if "start" in options.tasks else []
    machine, rows = rates(options.device), []
    for task in options.tasks:
        if task not in ("packing", "start"):
            measure = _on_cuda if options.device == "cuda" and task in PASSES else _task
            rows += measure(options, task, machine, peaks[task], say)
    rows += begun + packed
    return [dict.fromkeys(SCHEMA.names) | _setting(options, row, machine) | row for row in rows]


def _peaks(options: Options, task: str, say: Say) -> dict[str, float]:
    if not options.memory or task not in PASSES or options.device == "cuda":
        return {}
    peaks = {}
    for name, make in makers_of(options, task).items():
        say(f"{TITLES[task]}: memory of {name}")
        peaks[name] = peak_of_step(options, make)
    return peaks


def _task(
    options: Options, task: str, machine: Rates, peaks: dict[str, float], say: Say
) -> list[Row]:
    makers = makers_of(options, task)
    steps = {name: make(options) for name, make in makers.items()}
    turns = 0

    def turned() -> None:
        nonlocal turns
        turns += 1
        say(f"{TITLES[task]}: {turns} of {(options.repeats + 1) * len(steps)}")

    times = take_turns(steps, options.repeats, options.device, turned)
    works = {n: count(step) for n, step in steps.items() if task in PASSES and n not in UNCOUNTED}
    return _rows(options, task, times, works, peaks, machine)


def _on_cuda(
    options: Options, task: str, machine: Rates, peaks: dict[str, float], say: Say
) -> list[Row]:
    """One variant after the other, as the device's memory holds one; what fails has no row."""
    times: dict[str, Taken] = {}
    kernels: dict[str, int] = {}
    for name, make in makers_of(options, task).items():
        say(f"{TITLES[task]}: {name}")
        try:
            peaks[name], times[name], kernels[name] = _alone(options, make)
        except Exception as error:  # memory, most often: the others are still worth their time
            say(f"{TITLES[task]}: {name}: {type(error).__name__}: {error}")
            _log.warning("%s, %s: %s", TITLES[task], name, error)
        empty_cache()
    rows = _rows(options, task, times, {}, peaks, machine) if times else []
    return [row | {"kernels": kernels.get(row["variant"])} for row in rows]


def _alone(options: Options, make: Callable[[Options], Step]) -> tuple[float, Taken, int]:
    """GiB, seconds and kernels of one step, of which nothing is left."""
    step = make(options)
    peak = first_call(step)
    times = take_turns({"": step}, options.repeats, options.device, lambda: None)
    return peak, times[""], kernels_of(step)


def makers_of(options: Options, task: str) -> dict[str, Callable[[Options], Step]]:
    """How to make the step of every variant; picklable, and the first is the reference."""
    if task not in PASSES:
        return {
            name: partial(_image_step, task=task, name=name) for name in ("PIL, per image", "ours")
        }
    return {
        variant.name: partial(make_step, task=task, variant=variant)
        for variant in variants(options, task)
    }


def _image_step(options: Options, task: str, name: str) -> Step:
    from nas_sweeps.bench.images import image_steps  # torchvision is imported where it is used

    return image_steps(options, task)[name]


def _rows(
    options: Options,
    task: str,
    times: dict[str, Taken],
    works: dict[str, Work],
    peaks: dict[str, float],
    machine: Rates,
) -> list[Row]:
    first = next(iter(times))
    base_s = times[first].on(options.device)
    useful = gflop(options, task) if task in PASSES else None
    rows = []
    for name, taken in times.items():
        step_s, peak = taken.on(options.device), peaks.get(name)
        row = {
            "task": task,
            "variant": name,
            "form": _form(options, task, name),
            "step_s": step_s,
            "cpu_s": taken.cpu_s,
            "wall_s": taken.wall_s,
            "ratio": base_s / step_s,
            "images_per_s": images_of(options, task) / step_s,
            "peak_mem_gib": peak,
            "mem_ratio": peaks[first] / peak if peak and first in peaks else None,
            "gflop": useful,
            "gemm_share": useful / step_s / machine.gemm_gflops if useful else None,
        }
        rows.append(row | (_counted(works[name], step_s, machine) if name in works else {}))
    return rows


def _form(options: Options, task: str, name: str) -> str | None:
    if task not in PASSES:
        return None
    supernet = task not in ("retrain", "retrain_darts")
    known = {variant.name: variant for variant in variants(options, task)}
    return known[name].form_on(options.device, supernet)


def _counted(work: Work, step_s: float, machine: Rates) -> Row:
    floor_s = work.floor_s(*machine)
    return {
        "operations": work.operations,
        "counted_gflop": work.gflop,
        "counted_gbyte": work.gbyte,
        "floor_s": floor_s,
        "floor_share": floor_s / step_s,
    }


def _start(options: Options, say: Say) -> list[Row]:
    """A row for each phase of a trial in a new process, and of the next one in the same."""
    say(TITLES["start"])
    names = ("device", "precision", "channels", "layers", "batch", "image_size", "threads")
    subject = Subject(**{name: getattr(options, name) for name in names}, warm=1)
    cold, warm = started(subject)
    return [*_phases("cold", cold), *_phases("warm", warm)]


def _phases(kind: str, trial: Started) -> Iterator[Row]:
    for phase, seconds in trial.seconds.items():
        yield {
            "task": "start",
            "variant": f"{kind}: {phase}",
            "step_s": seconds,
            "wall_s": seconds,
            "allocated_mib": trial.allocated[phase],
            "reserved_mib": trial.reserved[phase],
            "private_mib": trial.private[phase],
            "note": trial.why_not,
            "repeats": 1,
        }


def _packing(options: Options, say: Say) -> list[Row]:
    rows: list[Row] = []
    for processes in options.processes:
        say(f"{TITLES['packing']}: {processes} at once")
        step_s = packed_s(options, processes)
        rows.append(
            {
                "task": "packing",
                "variant": "ours",
                "step_s": step_s,
                "wall_s": step_s,
                "ratio": rows[0]["step_s"] / step_s if rows else 1.0,
                "images_per_s": images_of(options, "packing") / step_s,
                "processes": processes,
                "steps_per_hour": 3600 / step_s,
                "threads": options.process_threads,
                "repeats": options.steps,
            }
        )
    return rows


def _setting(options: Options, row: Row, machine: Rates) -> Row:
    prefix = {"retrain": "retrain_", "retrain_darts": "darts_"}.get(row["task"], "")
    sizes = {name: getattr(options, prefix + name) for name in ("channels", "layers", "batch")}
    names = ("image_size", "threads", "repeats", "device", "precision")
    others = {name: getattr(options, name) for name in names}
    return sizes | others | machine._asdict() | {"torch": torch.__version__}
