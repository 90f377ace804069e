"""Seconds of a trial by phase, in a process of its own: what it waits for, and when it works.

``python -m nas_sweeps.bench.start JSON`` runs a trial as a worker does, without a store, and prints
one JSON object of seconds on its last line. Phases: ``imports`` (from the process's start until
torch and the package are there), ``device`` (its first use, with the arithmetic check where it is
due), ``data`` (decoded, or read from the cache), ``network``, ``kernels`` (compiled, or a look at
their marker), ``first step``, ``recorded`` (until the step is replayed), then ``training`` and
``evaluation`` of the epochs, less the steps before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

BEFORE = ("imports", "device", "data", "network", "kernels", "first step", "recorded")
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
    n_max: int | None = None
    threads: int = 2  # of the CPU


def seconds_by_phase(subject: Subject) -> dict[str, float]:
    """Run it in a new process.

    Raises:
        ValueError: it failed; the message ends with what it said last.
    """
    started = time.time()
    given = json.dumps({"started": started, "subject": asdict(subject)})
    command = [sys.executable, "-m", __name__, given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise ValueError(f"start: a trial failed: {done.stderr.strip()[-500:]}")
    phases: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return phases


class _Clock:
    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._since = started

    def phase(self, name: str, device: Any = None) -> None:
        """What has passed since the last one was called so."""
        if device is not None and device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        now = time.time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


class _Enough(Exception):
    """The step is recorded, and no more is asked for."""


def main(given: str) -> None:
    """A child's life."""
    read = json.loads(given)
    clock, subject = _Clock(read["started"]), Subject(**read["subject"])
    import torch

    from nas_sweeps.data.cache import arithmetic_folder
    from nas_sweeps.data.splits import prepare
    from nas_sweeps.space.verified import verify
    from nas_sweeps.train.common import choose_device
    from nas_sweeps.train.form import form_of
    from nas_sweeps.train.retrain import RetrainRun
    from nas_sweeps.train.search import SearchRun
    from nas_sweeps.train.warming import warm_up_run
    from nas_sweeps.trial import DataPaths, Resources, SearchTrial

    clock.phase("imports")
    trial, places = trial_of(subject), DataPaths(path=subject.path)
    device = choose_device(Resources(gpus=float(subject.device == "cuda"), cpus=subject.threads))
    assert device.type == subject.device, "torch sees another device than was asked for"
    verify(device, trial.recipe.precision, form_of(trial, device).form, arithmetic_folder(places))
    torch.zeros(1, device=device)
    clock.phase("device", device)
    bundle = prepare(trial.data, trial.distribution, places, device)
    clock.phase("data", device)
    kind: Callable[..., Any] = SearchRun if isinstance(trial, SearchTrial) else RetrainRun
    run = kind(trial, bundle, device)
    clock.phase("network", device)
    warm_up_run(run, lambda text: print(text, file=sys.stderr))
    clock.phase("kernels", device)
    _train(run, subject.epochs, clock)
    print(json.dumps(clock.seconds))


def _train(run: Any, epochs: int, clock: _Clock) -> None:
    from nas_sweeps.train.recorded import REHEARSALS

    steps = 0
    until = REHEARSALS + 2 if run.recorder is not None else 2

    def between() -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            clock.phase("first step", run.device)
        elif steps == until:
            clock.phase("recorded", run.device)
            if not epochs:
                raise _Enough

    trained = run.meter.trained

    def mark() -> None:
        clock.phase("training", run.device)
        trained()

    try:
        while run.epochs_done < run.epochs_total:
            trained = run.meter.trained
            run.meter.trained = mark
            run.run_epoch(between)
            clock.phase("evaluation", run.device)
    except _Enough:
        pass


def trial_of(subject: Subject) -> Any:
    """The trial that a grid file would make; exp mu=0.1, as in Table I."""
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
    exp = Distribution(kind="exp", mu=0.1)
    sizes = {"channels": subject.channels, "layers": subject.layers, "batch_size": subject.batch}
    common: dict[str, Any] = sizes | {"precision": subject.precision, "epochs": subject.epochs or 1}
    if subject.phase == "retrain":
        recipe = RetrainRecipe(**common)
        genotype = published("DARTS_V2")
        return RetrainTrial(data=data, distribution=exp, genotype=genotype, recipe=recipe, seed=0)
    method = methods.resolve(subject.method, {})
    recipe_of_search = replace(SearchRecipe(), **common)
    return SearchTrial(data=data, distribution=exp, method=method, recipe=recipe_of_search, seed=0)


if __name__ == "__main__":
    main(sys.argv[1])
