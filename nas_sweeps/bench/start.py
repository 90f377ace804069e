"""Seconds of trials by phase, in a process of their own: what they wait for, and when they work.

``python -m nas_sweeps.bench.start JSON`` runs a trial as any worker does, in a store that is thrown
away, and then more of its kind in the same process. On its last line it prints a list with a JSON
object a trial. The first, cold, begins when the process does; a later one, warm, when
the one before has ended. Phases: ``imports`` (until torch and the package are there), ``memory``
(given back after the trial before), ``device`` (the attempt's first files, and the device's first
use with the arithmetic check where it is due), ``data`` (decoded, or read from the cache),
``network``, ``kernels`` (compiled, or a look at their marker), ``first step``, ``recorded`` (until
the step is replayed), then ``training``, ``evaluation`` and ``checkpoint`` of the epochs, less the
steps before. Ray's own time, from an ending to the next trial's worker, is not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

UNTIL_FIRST = ("imports", "memory", "device", "data", "network", "kernels", "first step")
AFTER = ("recorded", "checkpoint")
COLD = tuple(phase for phase in (*UNTIL_FIRST, *AFTER) if phase != "memory")
WARM = tuple(phase for phase in (*UNTIL_FIRST, *AFTER) if phase != "imports")
LIMIT_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which trial. ``path`` is a folder of images; None is the digits of scikit-learn."""

    device: str = "cpu"
    precision: str = "fp32"
    phase: str = "search"  # or retrain
    method: str = "darts"
    path: str | None = None
    channels: int = 16
    layers: int = 8
    batch: int = 64
    image_size: int = 32
    epochs: int = 0  # 0: until the step is recorded
    warm: int = 0  # more trials in the same process
    n_max: int | None = None
    threads: int = 2  # of the CPU


@dataclass
class Started:
    """One trial.

    Attributes:
        seconds: by phase.
        allocated, reserved, private: MiB at the end of each phase, as in ``sweep.reuse.Held``.
        why_not: why a worker would take a new process after it; None where this one may go on.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    allocated: dict[str, float] = field(default_factory=dict)
    reserved: dict[str, float] = field(default_factory=dict)
    private: dict[str, float] = field(default_factory=dict)
    why_not: str | None = None

    @property
    def until_first_s(self) -> float:
        """From the end of the trial before, or the start of the process, to the first step's."""
        return sum(s for phase, s in self.seconds.items() if phase in UNTIL_FIRST)


def seconds_by_phase(subject: Subject) -> dict[str, float]:
    """Of one trial in a new process. Raises ValueError as ``started``."""
    return started(subject)[0].seconds


def started(subject: Subject) -> list[Started]:
    """Run it in a new process, and ``subject.warm`` more after it.

    Raises:
        ValueError: a trial failed; the message ends with what it said last.
    """
    given = json.dumps({"started": time.time(), "subject": asdict(subject)})
    command = [sys.executable, "-m", __name__, given]
    environment = os.environ | {"NAS_SWEEPS_RUNS": f"{__name__}:RUNS"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
    )
    if done.returncode:
        raise ValueError(f"start: a trial failed: {done.stderr.strip()[-500:]}")
    return [Started(**one) for one in json.loads(done.stdout.splitlines()[-1])]


class _Clock:
    """What a trial's phases take, told by the child that runs it."""

    def __init__(self, subject: Subject, since: float) -> None:
        self.subject, self.since = subject, since
        self.trial = Started()
        self.steps = 0

    def phase(self, name: str) -> None:
        """What has passed since the last one was called so."""
        import torch

        from nas_sweeps.sweep.reuse import held

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        now, trial = time.time(), self.trial
        trial.seconds[name] = trial.seconds.get(name, 0.0) + now - self.since
        trial.allocated[name], trial.reserved[name], trial.private[name] = held()
        self.since = time.time()

    def next_trial(self) -> None:
        """What follows is of another trial."""
        self.trial, self.steps = Started(), 0


_clock: _Clock  # of the child


def main(given: str) -> None:
    """A child's life."""
    global _clock
    read = json.loads(given)
    subject = Subject(**read["subject"])
    _clock = _Clock(subject, read["started"])
    from nas_sweeps.store import Store
    from nas_sweeps.sweep.reuse import PROCESS
    from nas_sweeps.sweep.worker import run_trial
    from nas_sweeps.train.common import choose_device
    from nas_sweeps.trial import DataPaths, Resources

    _clock.phase("imports")
    resources = Resources(gpus=float(subject.device == "cuda"), cpus=subject.threads)
    device = choose_device(resources).type
    assert device == subject.device, "torch sees another device than was asked for"
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        for seed in range(1 + subject.warm):
            trial = trial_of(subject, seed)
            store.register(trial)
            result = run_trial(trial, store, DataPaths(path=subject.path), resources, _enough)
            if result is not None and result.error_message:
                sys.exit(f"{result.error_class}: {result.error_message}")
            _clock.phase("checkpoint")
            trials.append(_clock.trial)
            _clock.next_trial()
            trials[-1].why_not = PROCESS.end()
            _clock.phase("memory")
    print(json.dumps([asdict(one) for one in trials]))


def _enough() -> str | None:
    """Why the trial is to stop: as a worker is asked between steps."""
    is_recorded = "recorded" in _clock.trial.seconds
    return "its step is recorded" if is_recorded and not _clock.subject.epochs else None


def _timed(
    trial: Any, images: Callable[[], Any], device: Any, state_of: Callable[[str], Any]
) -> Any:
    """The run that a worker would make, which tells the clock how far it is."""
    from nas_sweeps.phases import phase_named

    _clock.phase("device")

    def bundle() -> Any:
        found = images()
        _clock.phase("data")
        return found

    run = phase_named(trial.phase).make_run(trial, bundle, device, state_of)
    _clock.phase("network")
    _tell_steps(run)
    return run


def _tell_steps(run: Any) -> None:
    from nas_sweeps.train.common import nothing
    from nas_sweeps.train.recorded import REHEARSALS

    until = 2 if run.recorder is None else REHEARSALS + 2
    run_epoch = run.run_epoch

    def epoch(between: Callable[[], None] = nothing) -> Any:
        _clock.phase("checkpoint" if run.epochs_done else "kernels")
        run.meter.trained = mark(run.meter.trained)  # each epoch has a meter of its own

        def counted() -> None:
            _clock.steps += 1
            if _clock.steps in (1, until):
                _clock.phase("first step" if _clock.steps == 1 else "recorded")
            between()

        row = run_epoch(counted)
        _clock.phase("evaluation")
        return row

    def mark(trained: Callable[[], None]) -> Callable[[], None]:
        def marked() -> None:
            _clock.phase("training")
            trained()

        return marked

    run.run_epoch = epoch


def trial_of(subject: Subject, seed: int = 0) -> Any:
    """The trial that a grid file would make; exp mu=0.1, as in Table I, of a person's images. Of
    the few digits all, or an epoch would end before its step is recorded."""
    from nas_sweeps import methods
    from nas_sweeps.data.identity import fingerprint
    from nas_sweeps.space.published import published
    from nas_sweeps.trial import (
        Data,
        Distribution,
        RetrainRecipe,
        RetrainTrial,
        SearchRecipe,
        SearchTrial,
    )

    if subject.path:
        own = fingerprint(Path(subject.path))
        data = Data(dataset="custom", label="images", fingerprint=own, n_max=subject.n_max)
    else:
        size = subject.image_size
        data = Data(dataset="digits", label="digits", image_size=size, n_max=subject.n_max)
    drawn = Distribution(kind="exp", mu=0.1) if subject.path else Distribution(kind="balance")
    sizes = {"channels": subject.channels, "layers": subject.layers, "batch_size": subject.batch}
    common: dict[str, Any] = {"data": data, "distribution": drawn, "seed": seed}
    settings: dict[str, Any] = sizes | {
        "precision": subject.precision,
        "epochs": subject.epochs or 1,
    }
    if subject.phase == "retrain":
        recipe = RetrainRecipe(**settings)
        genotype = published("DARTS_V2")
        return RetrainTrial(genotype=genotype, recipe=recipe, **common)
    method = methods.resolve(subject.method, {})
    recipe_of_search = replace(SearchRecipe(), **settings)
    return SearchTrial(method=method, recipe=recipe_of_search, **common)


class _Runs:
    """What ``NAS_SWEEPS_RUNS`` names: the run of any phase, timed."""

    def __getitem__(self, phase: str) -> Any:
        from nas_sweeps.train.runs import RunKind

        return RunKind(_timed)


RUNS = _Runs()

if __name__ == "__main__":
    from nas_sweeps.bench import start  # the module that ``NAS_SWEEPS_RUNS`` names is another one

    start.main(sys.argv[1])
