"""Clocks and meters: time, peak memory, and the machine's rate of matrix products.

On a CPU the clock is the process's own CPU time, which others on the machine disturb least, and
all variants of a task take turns, so that what does disturb them disturbs them alike. (With
several threads on a busy machine set ``OMP_WAIT_POLICY=PASSIVE``, or threads that wait for each
other count as working.)

Peak memory is that of a fresh process: how much one step raises its largest resident set above
what building the step had needed. It is ``VmHWM`` of proc(5) where there is one, because
``getrusage`` hands a parent's peak on to its children.

On CUDA the clock is wall time between synchronisations, the memory that of torch's allocator.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import torch

from nas_sweeps.bench.options import Options
from nas_sweeps.bench.steps import Step
from nas_sweeps.train.common import peak_memory_gib, reset_peak_memory

GEMM_SIDE, GEMM_REPEATS = 2048, 5


def seconds(step: Step, device: str) -> float:
    """Of one call."""
    clock = _cuda_clock if device == "cuda" else time.process_time
    started = clock()
    step()
    return clock() - started


def _cuda_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(
    steps: Mapping[str, Step], repeats: int, device: str, done: Callable[[], None]
) -> dict[str, float]:
    """The median seconds of every step, after one turn that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            taken = seconds(step, device)
            if turn:
                times[name].append(taken)
            done()
    return {name: median(taken) for name, taken in times.items()}


def gemm_gflops(device: str) -> float:
    """The best rate of a large fp32 matrix product, per second of the same clock."""
    a = torch.randn(GEMM_SIDE, GEMM_SIDE, device=device)
    best = min(seconds(lambda: a @ a, device) for _ in range(GEMM_REPEATS))
    return 2e-9 * GEMM_SIDE**3 / best


def peak_of_step(options: Options, make: Callable[[Options], Step]) -> float:
    """GiB that one step needs, in a process of its own. ``make`` must be picklable."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak_here, options, make).result()


def _peak_here(options: Options, make: Callable[[Options], Step]) -> float:
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    step = make(options)
    reset_peak_memory(device)
    before = _peak_gib(device)
    step()
    return _peak_gib(device) - before


def _peak_gib(device: torch.device) -> float:
    status = Path("/proc/self/status")
    if device.type == "cuda" or not status.exists():
        return peak_memory_gib(device)
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 2**20
