"""Clocks and meters: time, peak memory, and the machine's rates.

On a CPU the clock is the process's own CPU time, which others on the machine disturb least, and
all variants of a task take turns, so that what does disturb them disturbs them alike. (With
several threads on a busy machine set ``OMP_WAIT_POLICY=PASSIVE``, or threads that wait for each
other count as working.) Wall time is taken beside it.

Peak memory is that of a fresh process: how much one step raises its largest resident set above
what building the step had needed.

On CUDA the clock is wall time between synchronisations, the memory that of torch's allocator.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import NamedTuple

import torch

from nas_sweeps.bench.options import Options
from nas_sweeps.bench.steps import Step
from nas_sweeps.train.common import peak_memory_gib, reset_peak_memory

GEMM_SIDE, COPY_BYTES, RATE_REPEATS = 2048, 2**28, 5


class Taken(NamedTuple):
    """Seconds of one call, by both clocks."""

    cpu_s: float
    wall_s: float

    def on(self, device: str) -> float:
        """Seconds by the clock that counts on the device."""
        return self.wall_s if device == "cuda" else self.cpu_s


def taken(step: Step, device: str) -> Taken:
    """The time of one call, until the device has done what the call asked of it."""
    settle(device)
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    settle(device)
    return Taken(time.process_time() - cpu, time.perf_counter() - wall)


def settle(device: str) -> None:
    """Wait for what was asked of a device."""
    if device == "cuda":
        torch.cuda.synchronize()


def take_turns(
    steps: Mapping[str, Step], repeats: int, device: str, done: Callable[[], None]
) -> dict[str, Taken]:
    """The median seconds of every step, after one turn that is not counted."""
    turns: dict[str, list[Taken]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            one = taken(step, device)
            if turn:
                turns[name].append(one)
            done()
    return {
        name: Taken(median(one.cpu_s for one in many), median(one.wall_s for one in many))
        for name, many in turns.items()
    }


class Rates(NamedTuple):
    """The rates of a machine, per second of the clock that counts there."""

    gemm_gflops: float
    copy_gbytes: float


def rates(device: str) -> Rates:
    """The best of a large fp32 matrix product, and of a large copy: bytes read and written."""
    a = torch.randn(GEMM_SIDE, GEMM_SIDE, device=device)
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    return Rates(
        2e-9 * GEMM_SIDE**3 / _best(lambda: a @ a, device),
        2e-9 * COPY_BYTES / _best(lambda: target.copy_(source), device),
    )


def _best(step: Step, device: str) -> float:
    return min(taken(step, device).on(device) for _ in range(RATE_REPEATS))


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
    before = peak_memory_gib(device)
    step()
    return peak_memory_gib(device) - before


def first_call(step: Step) -> float:
    """GiB that a step's first call, its recording included, needs of a CUDA device."""
    device = torch.device("cuda")
    reset_peak_memory(device)
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return peak_memory_gib(device) - before / 2**30


def kernels_of(step: Step) -> int:
    """How many a CUDA device ran, copies and fills included; those of a graph one by one."""
    return sum(one.launches for one in profiled(step, "cuda"))


class Spent(NamedTuple):
    """What a kernel took in all of its launches; on a CPU, an operation of torch."""

    name: str
    launches: int
    us: float


def profiled(step: Step, device: str) -> list[Spent]:
    """What a device did in a step, by torch's profiler, longest first."""
    from torch.profiler import ProfilerActivity, profile

    on_cuda = device == "cuda"
    kind = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
    with profile(activities=[kind]) as seen:
        step()
        settle(device)
    field = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    spent = [Spent(e.key, e.count, float(getattr(e, field))) for e in seen.key_averages()]
    return sorted((one for one in spent if one.us > 0), key=lambda one: -one.us)


def empty_cache() -> None:
    """Give back what steps that are gone have held."""
    gc.collect()
    torch.cuda.empty_cache()
