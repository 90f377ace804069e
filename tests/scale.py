"""What a driver costs by the trial: ``python -m tests.scale --trials 10000 --slots 256``.

The whole path of a run but the workers: plan, scheduler, loop, lease, the store on this disk, the
estimate, tables. In place of Ray's processes a pool of so many logical GPUs writes for each trial
what a worker's attempt and result are, in this process; that time is taken off. With ``--ray`` the
pool is Ray Tune's, with real worker processes and ``FakeRun``: then there are as many slots as
this machine bears, and what is measured is the driver's process, Tune's loop in it.

A line for each quarter: where costs by the trial rise from quarter to quarter, something grows
faster than linearly.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import nas_sweeps as ns
from nas_sweeps.cost.simulate import Room
from nas_sweeps.space.published import published
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.files import LocalFiles
from nas_sweeps.store.ledger import now
from nas_sweeps.sweep import run as the_run
from nas_sweeps.sweep.executor import Ended, Executor, Pool, Ray, Setting
from nas_sweeps.sweep.job import Job
from nas_sweeps.trial import Resources

FOUND = published("DARTS_V2")
GENOTYPE = [[list(edge) for edge in cell] for cell in (FOUND.normal, FOUND.reduce)]
GPUS = 8  # of a node
TRIAL_S = 300.0  # of which the aim speaks


def grid_of(trials: int, gpus: float) -> ns.Grid:
    """So many trials, half of them searches and half of them retrains."""
    recipe = {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8}
    phase = {"recipe": recipe, "resources": {"gpus": gpus, "cpus": 1}}
    search = {"methods": ["darts"], "distributions": ["balance"], "seeds": trials // 2}
    return ns.Grid.from_dict(
        {
            "name": "scale",
            "data": {"dataset": "digits", "n_max": 40, "test_n_max": 3, "subset_seed": "trial"},
            "search": search | phase,
            "retrain": phase,
        }
    )


class Meter:
    """CPU seconds of this process, its memory, and what it asked of the store, by the quarter."""

    def __init__(self, trials: int) -> None:
        self.trials, self.ended, self.others_s = trials, 0, 0.0
        self.asked: Counter[str] = Counter()
        self.lines: list[tuple[float, ...]] = []
        self._last = self._now()

    def _now(self) -> tuple[float, ...]:
        mine_s = time.process_time() - self.others_s
        kib = psutil.Process().memory_info().rss / 1024
        return self.ended, time.monotonic(), mine_s, kib, *(self.asked[k] for k in ASKED)

    def count(self, n: int) -> None:
        self.ended += n
        if self.ended >= (len(self.lines) + 1) * self.trials // 4:
            here = self._now()
            self.lines.append(tuple(b - a for a, b in zip(self._last, here, strict=True)))
            self._last = here

    def told(self, slots: int) -> str:
        names = "".join(f"{name:>10}" for name in (*ASKED, "more KiB"))
        head = f"{'trials':>8} {'trials/s':>9} {'driver ms':>10}{names}"
        rows = [
            f"{n:8.0f} {n / wall:9.1f} {1000 * cpu / n:10.2f}"
            + "".join(f"{count / n:10.2f}" for count in counts)
            + f"{kib / n:10.1f}"
            for n, wall, cpu, kib, *counts in self.lines
        ]
        cpu_s = sum(line[2] for line in self.lines) / max(1, sum(line[0] for line in self.lines))
        share = cpu_s / (TRIAL_S / slots)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return "\n".join(
            [
                head + "   (a trial each)",
                *rows,
                f"driver: {1000 * cpu_s:.2f} ms of CPU a trial, peak {peak:.0f} MiB; trials of "
                f"{TRIAL_S:.0f} s on {slots} slots end every {TRIAL_S / slots:.2f} s, of which "
                f"that is {share:.2%}",
            ]
        )


ASKED = ("reads", "listings", "stamps", "writes")
_METHODS = {"read": "reads", "names": "listings", "tree": "trees", "mtime_ns": "stamps"}
_METHODS |= {"publish": "writes"}


def watched(meter: Meter) -> None:
    """Count what is asked of files, but by workers."""
    for method, name in _METHODS.items():
        asked = getattr(LocalFiles, method)

        def counted(*args: Any, _asked: Any = asked, _name: str = name, **options: Any) -> Any:
            meter.asked[_name] += not FakePool.writing
            return _asked(*args, **options)

        setattr(LocalFiles, method, counted)


class FakePool(Pool):
    """Trials that end as soon as somebody waits for one, the oldest first."""

    where = "the logical cluster"
    writing = False

    def __init__(self, setting: Setting, slots: int, meter: Meter) -> None:
        self.setting, self.slots, self.meter = setting, slots, meter
        self.running: deque[str] = deque()

    def room(self) -> Room:
        nodes, left = divmod(self.slots, GPUS)
        sizes = [GPUS] * nodes + [left] * bool(left)
        return Room(tuple((64.0, float(gpus)) for gpus in sizes))

    def start(self, trial_id: str, resources: Resources) -> None:
        self.running.append(trial_id)
        assert len(self.running) <= self.slots, "more trials than slots"

    def ended(self, timeout_s: float) -> Sequence[Ended]:
        if not self.running:
            return []
        began, FakePool.writing = time.process_time(), True
        trial_id = self.running.popleft()
        self._compute(trial_id)
        FakePool.writing = False
        self.meter.others_s += time.process_time() - began
        self.meter.count(1)
        return [Ended(trial_id)]

    def _compute(self, trial_id: str) -> None:
        """What a worker leaves of a trial: an attempt and a result."""
        store, moment = Store(self.setting.store.root), now()
        attempt = store.begin(trial_id, device="logical")
        attempt.finish(
            Result(
                trial_id=trial_id,
                phase="search" if trial_id.startswith("s-") else "retrain",
                state=State.DONE,
                attempt=attempt.number,
                started_at=moment,
                finished_at=moment,
                metrics={"accuracy_balanced": 0.5, "accuracy_validation": 0.5, "epochs": 1},
                genotype=GENOTYPE,
                cost={"wall_s": 300.0, "cpu_s": 300.0, "gpu_hours": 1 / 12},
            )
        )


class Logical(Executor):
    """An executor of so many logical GPUs."""

    def __init__(self, slots: int, meter: Meter) -> None:
        object.__setattr__(self, "slots", slots)
        object.__setattr__(self, "meter", meter)

    def pool(self, setting: Setting) -> Pool:
        return FakePool(setting, self.slots, self.meter)  # type: ignore[attr-defined]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--ray", action="store_true", help="Ray Tune and real worker processes")
    parser.add_argument("--profile", action="store_true", help="where the driver's time goes")
    parser.add_argument("--folder", type=Path, help="of the store; None: a temporary one")
    asked = parser.parse_args()
    meter = Meter(asked.trials)
    watched(meter)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        executor: Executor = Logical(asked.slots, meter)
        if asked.ray:
            executor = Ray()
            _start_ray(asked.slots)
            _count_ends(meter)
        grid = grid_of(asked.trials, gpus=0.0 if asked.ray else 1.0)
        try:
            _run(grid, Path(folder), executor, asked.profile)
        finally:  # what was measured until somebody stopped it is something too
            print(meter.told(asked.slots))
        began = time.perf_counter()
        settled = Store(folder).settled()
        print(f"the next run reads {len(settled)} results in {time.perf_counter() - began:.2f} s")


def _run(grid: ns.Grid, folder: Path, executor: Executor, profiled: bool) -> None:
    profile = cProfile.Profile()
    if profiled:
        profile.enable()
    began = time.monotonic()
    the_run._check_images = lambda *_: None  # digits by seed would be drawn ten thousand times
    summary = the_run.run(grid, folder, executor=executor, console="none")
    profile.disable()
    print(f"{summary.started} trials in {time.monotonic() - began:.1f} s, the end included")
    assert summary.complete, str(summary)
    if profiled:
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)


def _start_ray(slots: int) -> None:
    from nas_sweeps.sweep import ray_session  # noqa: F401  it sets what Ray reads

    import ray  # isort: skip

    os.environ["NAS_SWEEPS_RUNS"] = "nas_sweeps.testing.fake:RUNS"
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False)


def _count_ends(meter: Meter) -> None:
    ended = Job.ended

    def counted(job: Job, trial_id: str, *how: Any) -> None:
        ended(job, trial_id, *how)
        meter.count(1)

    Job.ended = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
