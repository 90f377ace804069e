"""Run one trial where it stands: the worker owns its checkpoint, its rows and its result.

Every epoch ends with a published checkpoint that holds the run's state and all rows so far; the
Parquet file beside it is derived from that. ``result.json`` is written last and says done.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nas_sweeps.data.bundle import prepare
from nas_sweeps.publish import publish
from nas_sweeps.store import Result, Store
from nas_sweeps.store.layout import TrialFiles
from nas_sweeps.store.tables import write_classes, write_epochs
from nas_sweeps.train.common import Row, Run, choose_device, reset_peak_memory, stream
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import Places, Resources, SearchTrial, Trial

OnEpoch = Callable[[Row], None]


class Overtaken(RuntimeError):
    """Another attempt runs this trial now: this one must publish nothing more."""


@dataclass
class Attempt:
    """One execution of a trial: what it computed before, what it cost so far."""

    number: int
    started: float = field(default_factory=time.perf_counter)
    cpu_started: float = field(default_factory=time.process_time)
    rows: list[Row] = field(default_factory=list)
    wall_s: float = 0.0  # of earlier attempts, up to the checkpoint that this one goes on from
    cpu_s: float = 0.0
    peak_mem_gib: float = 0.0

    def cost(self, gpus: float) -> dict[str, float]:
        wall = self.wall_s + time.perf_counter() - self.started
        return {
            "wall_s": wall,
            "cpu_s": self.cpu_s + time.process_time() - self.cpu_started,
            "gpu_hours": wall * gpus / 3600,
            "peak_mem_gib": self.peak_mem_gib,
        }


def run_trial(
    trial: Trial,
    store: Store,
    places: Places,
    resources: Resources,
    on_epoch: OnEpoch = lambda row: None,
) -> Result:
    """Run a trial from its last checkpoint to its result, and publish it.

    An exception of the trial's own becomes a failed result: it is recorded, not raised.
    """
    files = store.layout.trial(trial.trial_id)
    started_at = _now()
    attempt = Attempt(store.begin(trial.trial_id, visible_devices=_visible_devices()))
    device = torch.device("cpu")
    with _log(files.log, trial.trial_id) as log:
        log.info("attempt %d of %s on %s", attempt.number, trial.trial_id, socket.gethostname())
        try:
            device = choose_device(resources)
            reset_peak_memory(device)
            if resources.gpus and device.type == "cpu":
                log.warning("a GPU was granted but torch sees none: running on the CPU")
            outcome = _train(trial, store, places, resources, device, attempt, log, on_epoch)
            result = {"state": "done"} | outcome
        except Exception as error:
            log.exception("failed")
            result = {
                "state": "failed",
                "error_class": type(error).__name__,
                "error_message": str(error),
                "traceback": traceback.format_exc(),
            }
        published = Result(
            trial_id=trial.trial_id,
            phase=trial.phase,
            cost=attempt.cost(resources.gpus if device.type == "cuda" else 0.0),
            attempt=attempt.number,
            started_at=started_at,
            finished_at=_now(),
            device=_device_name(device),
            **environment(),
            **result,
        )
        if not store.finish(trial.trial_id, published):
            log.warning("not published: another attempt has settled it or goes on with it")
            return store.result(trial.trial_id) or published
        log.info("%s", published.state)
    return published


def _train(
    trial: Trial,
    store: Store,
    places: Places,
    resources: Resources,
    device: torch.device,
    attempt: Attempt,
    log: logging.Logger,
    on_epoch: OnEpoch,
) -> dict[str, Any]:
    """Every epoch that is missing, then what the result says."""
    files = store.layout.trial(trial.trial_id)
    torch.manual_seed(stream(trial.seed, "global"))
    bundle = prepare(trial.data, trial.distribution, places, device)
    run: Run = (
        SearchRun(trial, bundle, device)
        if isinstance(trial, SearchTrial)
        else RetrainRun(trial, bundle, device)
    )
    _restore(run, files, attempt, device.type, log)
    while run.epochs_done < run.epochs_total:
        row: Row = {"trial_id": trial.trial_id} | run.run_epoch()
        _still_ours(store, trial, attempt)
        attempt.rows.append(row)
        attempt.peak_mem_gib = max(attempt.peak_mem_gib, row["peak_mem_gib"])
        _save(run, files, attempt, resources.gpus, device.type)
        log.info("%s", epoch_text(row, run.epochs_total))
        on_epoch(row | {"epochs_total": run.epochs_total})
    outcome = run.outcome()
    _still_ours(store, trial, attempt)
    write_classes(files, [{"trial_id": trial.trial_id} | row for row in outcome.classes])
    return {
        "metrics": {k: v for k, v in outcome.metrics.items() if v is not None},
        "genotype": [outcome.genotype.normal, outcome.genotype.reduce],
        "genotype_facts": outcome.facts,
    }


def _still_ours(store: Store, trial: Trial, attempt: Attempt) -> None:
    """Called before anything is published. Raises Overtaken."""
    if not store.beat(trial.trial_id, attempt.number):
        raise Overtaken(f"attempt {attempt.number} was overtaken by a later one; it stops")


def _save(run: Run, files: TrialFiles, attempt: Attempt, gpus: float, device_type: str) -> None:
    cost = attempt.cost(gpus)
    state = {
        "device": device_type,
        "run": run.state_dict(),
        "rows": attempt.rows,
        "wall_s": cost["wall_s"],
        "cpu_s": cost["cpu_s"],
        "peak_mem_gib": attempt.peak_mem_gib,
    }
    with publish(files.checkpoint) as scratch:
        torch.save(state, scratch)
    write_epochs(files, attempt.rows)


def _restore(
    run: Run, files: TrialFiles, attempt: Attempt, device_type: str, log: logging.Logger
) -> None:
    if not files.checkpoint.exists():
        return
    try:
        state = torch.load(files.checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything at all for a file that is torn
        log.warning("%s cannot be read (%r): anew", files.checkpoint, error)
        return
    if state["device"] != device_type:  # their random generators have nothing in common
        log.warning("the checkpoint is from %s, this is %s: anew", state["device"], device_type)
        return
    run.load_state_dict(state["run"])
    attempt.rows = state["rows"]
    attempt.wall_s, attempt.cpu_s = state["wall_s"], state["cpu_s"]
    attempt.peak_mem_gib = state["peak_mem_gib"]
    log.info("going on after epoch %d", run.epochs_done)


def epoch_text(row: Row, epochs_total: int) -> str:
    """An epoch in fixed columns, for logs and for progress lines."""
    accuracy = row.get("accuracy_balanced")
    tested = f"acc {accuracy:6.1%}" if accuracy is not None else " " * 10
    return (
        f"{row['stage']:<8} {row['epoch']:>3}/{epochs_total:<3} | loss {row['loss_weights']:7.3f}"
        f" | {tested} | {row['epoch_s']:6.1f} s | {row['peak_mem_gib']:5.1f} GiB"
    )


# Where it ran


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _visible_devices() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return "cpu"
    return torch.cuda.get_device_name(device)


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Host, package versions and the commit that the package was imported from."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "ray", "nas_sweeps"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"host": socket.gethostname(), "versions": versions, "git_sha": _git_sha()}


def _git_sha() -> str | None:
    """The commit of the checkout that tracks this file, with ``+`` where it was changed since."""
    if not _git("ls-files", Path(__file__).name):
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "..")
    return _git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@contextmanager
def _log(path: Path, name: str) -> Iterator[logging.Logger]:
    """A logger that appends to the trial's log file and to nothing else."""
    logger = logging.getLogger(f"nas_sweeps.trial.{name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()
