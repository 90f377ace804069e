"""Packing: how many steps an hour when several processes share one device.

Each process has a supernet of its own and makes first-order steps, as trials do that share a GPU
or a machine. All begin their timed steps together; the time is wall time from there until the
last one is through.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from typing import Any

import torch

from nas_sweeps.bench.measure import settle
from nas_sweeps.bench.options import Options
from nas_sweeps.bench.steps import make_step
from nas_sweeps.bench.variants import OURS, OURS_GRAPHED

START_S = 600.0  # for processes to import torch and to make one step


def packed_s(options: Options, processes: int) -> float:
    """Wall seconds of a step, counted over the steps of all processes.

    Raises:
        ValueError: a process died, most often because memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(processes), context.SimpleQueue()
    own = replace(options, threads=options.process_threads)
    started = [
        context.Process(target=_steps, args=(own, together, answers), daemon=True)
        for _ in range(processes)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join()
    if failed := [one.exitcode for one in started if one.exitcode]:
        raise ValueError(
            f"packing: of {processes} processes at once {len(failed)} failed (exit code "
            f"{failed[0]}); take fewer with --processes, or a smaller --batch"
        )
    begun, ended = zip(*(answers.get() for _ in started), strict=True)
    return float(max(ended) - min(begun)) / (processes * options.steps)


def _steps(options: Options, together: Any, answers: Any) -> None:
    torch.set_num_threads(options.threads)
    try:
        form = OURS_GRAPHED if options.device == "cuda" else OURS  # what a trial there runs
        step = make_step(options, "first_order", form)
        step()
        settle(options.device)
        together.wait(START_S)
        begun = time.monotonic()  # one clock for all processes
        for _ in range(options.steps):
            step()
        settle(options.device)
        answers.put((begun, time.monotonic()))
    except BaseException:
        together.abort()  # or the others would wait
        raise
