"""Run one trial where it stands: the worker owns its checkpoint, its rows and its result.

Every epoch ends with a published checkpoint that holds the run's state and all rows so far; the
Parquet file beside it is derived from that. ``result.json`` is written last and says done.
"""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from nas_sweeps.data.cache import arithmetic_folder
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.names import accuracy_text
from nas_sweeps.numerics import Numerics, changes
from nas_sweeps.space.verified import verify
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.layout import Checkpoint
from nas_sweeps.store.ledger import KEPT, AlreadyDone, Attempt, Overtaken
from nas_sweeps.store.records import AttemptState
from nas_sweeps.store.trial_files import all_checkpoints, now
from nas_sweeps.sweep.checkpoint import Content, Damaged, digest, encode, not_usable, read, state_of
from nas_sweeps.sweep.failures import is_transient
from nas_sweeps.sweep.judge import GivenUp, Judge
from nas_sweeps.sweep.machine import (
    device_name,
    environment,
    keep_threads,
    numerics_of,
    visible_devices,
)
from nas_sweeps.sweep.reuse import PROCESS
from nas_sweeps.sweep.trial_log import trial_log
from nas_sweeps.tables.compaction import write_classes, write_epochs
from nas_sweeps.train.common import (
    Row,
    Run,
    choose_device,
    peak_memory_gib,
    reset_peak_memory,
    stream,
)
from nas_sweeps.train.form import form_of
from nas_sweeps.train.runs import run_kind
from nas_sweeps.train.warming import warm_up_run
from nas_sweeps.trial import DataPaths, Resources, Trial

BEAT_S = 30.0


class Stopped(RuntimeError):
    """The worker was asked to end."""


def never() -> str | None:
    """Nobody asks this worker to stop."""
    return None


@dataclass
class Accounts:
    """What a trial has computed and cost: before this attempt, and by it."""

    gpus: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    cpu_started: float = field(default_factory=time.process_time)
    rows: list[Row] = field(default_factory=list)
    wall_s: float = 0.0  # of earlier attempts, up to the checkpoint that this one goes on from
    cpu_s: float = 0.0
    peak_mem_gib: float = 0.0

    def own(self) -> dict[str, float]:
        """The cost of this attempt."""
        return self._cost(0.0, 0.0)

    def total(self) -> dict[str, float]:
        """The cost of the trial, earlier attempts included."""
        return self._cost(self.wall_s, self.cpu_s)

    def _cost(self, wall_before: float, cpu_before: float) -> dict[str, float]:
        wall = wall_before + time.perf_counter() - self.started
        return {
            "wall_s": wall,
            "cpu_s": cpu_before + time.process_time() - self.cpu_started,
            "gpu_hours": wall * self.gpus / 3600,
            "peak_mem_gib": self.peak_mem_gib,
        }


def run_trial(
    trial: Trial,
    store: Store,
    places: DataPaths,
    resources: Resources,
    stop_reason: Callable[[], str | None] = never,
    driver: str | None = None,
) -> Result | None:
    """Run a trial from its last checkpoint to its result, and publish it.

    An exception of the trial's own becomes a failed result: it is recorded, not raised.
    ``stop_reason`` is asked between steps; when it gives one, the attempt publishes a checkpoint
    of where it is and ends. ``driver`` is who handed the trial out, as the store knows it: by its
    terms a trial is pruned.

    Returns:
        The result; None where the attempt was stopped or a later one has overtaken it.

    Raises:
        OSError: the store cannot be written to.
    """
    PROCESS.begin()
    try:
        attempt = store.begin(
            trial.trial_id, visible_devices=visible_devices(), trials_before=PROCESS.trials - 1
        )
    except AlreadyDone:
        return store.result(trial.trial_id)
    with trial_log(attempt.files.log, trial.trial_id) as log:
        log.info("attempt %d of %s on %s", attempt.number, trial.trial_id, socket.gethostname())
        try:
            judge = Judge(store, trial, driver)
            return _Worker(trial, attempt, places, log, judge).run(resources, stop_reason)
        except Overtaken as error:
            log.warning("%s", error)
            return None


class _Worker:
    """One attempt at one trial."""

    def __init__(
        self,
        trial: Trial,
        attempt: Attempt,
        places: DataPaths,
        log: logging.Logger,
        judge: Judge,
    ) -> None:
        self.trial, self.attempt, self.places, self.log = trial, attempt, places, log
        self.judge = judge
        self.accounts = Accounts()
        self.device = torch.device("cpu")
        self.numerics: list[Numerics] = []  # that the trial had, in order; the last is today's
        self.notes: list[str] = []  # what a person should know of how it goes on
        self.saved = 0
        self.beaten = time.monotonic()

    def run(self, resources: Resources, stop_reason: Callable[[], str | None]) -> Result | None:
        """Raises Overtaken, or OSError where the store cannot be written to."""
        started_at = now()
        try:
            self._choose_device(resources)
            ended = {"state": State.DONE} | self._train(stop_reason)
        except Overtaken:
            raise
        except Stopped as reason:
            self.log.info("stopped: %s", reason)
            self.attempt.publish(state=AttemptState.STOPPED, cost=self.accounts.own())
            return None
        except Exception as error:
            ended = self._ended_by(error)
        result = Result(
            trial_id=self.trial.trial_id,
            phase=self.trial.phase,
            cost=self.accounts.total(),
            attempt=self.attempt.number,
            started_at=started_at,
            finished_at=now(),
            device=device_name(self.device),
            numerics=self.numerics[-1] if self.numerics else None,
            numerics_changed=changes(self.numerics) if self.numerics else None,
            **environment(),
            **ended,
        )
        if not self.attempt.finish(result, cost=self.accounts.own()):
            self.log.warning("not published: a later attempt goes on with it")
            return None
        self.log.info("%s", result.state)
        return result

    def _ended_by(self, error: Exception) -> dict[str, Any]:
        """What the result says of a trial that an exception has ended."""
        rows = self.accounts.rows
        why = error.why if isinstance(error, GivenUp) else self.judge.diverged(rows, error)
        if why is not None:
            self.log.info("pruned: %s", why.why)
            return {"state": State.PRUNED, "stop": why, "metrics": {"epochs": len(rows)}}
        self.log.exception("failed")
        return {
            "state": State.FAILED,
            "error_class": type(error).__name__,
            "error_message": str(error),
            "traceback": traceback.format_exc(),
            "transient": is_transient(error),
        }

    def _choose_device(self, resources: Resources) -> None:
        """Raises WrongArithmetic where it computes something else than it is asked to."""
        self.device = choose_device(resources)
        kind, folder = self.trial.recipe.precision, arithmetic_folder(self.places)
        form, reason = form_of(self.trial, self.device)
        self.log.info("the network is computed in its %s form: %s", form, reason)
        how = run_kind(self.trial)
        if how.note is not None:
            self.log.warning("%s", how.note)
        if how.networks and (checked := verify(self.device, kind, form, folder, self._mention)):
            self.log.info("arithmetic of %s in %s: %s", self.device.type, kind, checked)
        reset_peak_memory(self.device)
        if self.device.type == "cuda":
            self.accounts.gpus = resources.gpus
        elif resources.gpus:
            self.log.warning("a GPU was granted but torch sees none: running on the CPU")

    def _train(self, stop_reason: Callable[[], str | None]) -> dict[str, Any]:
        """Every epoch that is missing, then what the result says."""
        trial, attempt, accounts = self.trial, self.attempt, self.accounts
        self._between_steps(stop_reason)
        run = self._restored()
        warm_up_run(run, self._mention, lambda: self._between_steps(stop_reason))
        attempt.beat(
            device=device_name(self.device),
            numerics=self.numerics[-1],
            note="; ".join(self.notes) or None,
            epochs_from=run.epochs_done,
            epochs_done=run.epochs_done,
        )
        while run.epochs_done < run.epochs_total:
            why = self.judge.verdict(accounts.rows, run.epochs_total)
            if why is not None:
                raise GivenUp(why)
            try:
                row: Row = {"trial_id": trial.trial_id} | run.run_epoch(
                    lambda: self._between_steps(stop_reason)
                )
            except Stopped:
                self._save(run)
                raise
            accounts.rows.append(row)
            self._save(run)
            self.log.info("%s", epoch_text(row, run.epochs_total))
        outcome = run.outcome()
        attempt.check()
        classes = [{"trial_id": trial.trial_id} | row for row in outcome.classes]
        write_classes(attempt.files, classes)
        return {
            "metrics": {k: v for k, v in outcome.metrics.items() if v is not None},
            "genotype": outcome.genotype.to_json(),
            "genotype_facts": outcome.facts,
        }

    def _between_steps(self, stop_reason: Callable[[], str | None]) -> None:
        """Raises Stopped or Overtaken."""
        reason = stop_reason()
        if reason is not None:
            raise Stopped(reason)
        if time.monotonic() - self.beaten > BEAT_S:
            self.beaten = time.monotonic()
            with suppress(OSError):  # a beat that is missed costs nothing
                self.attempt.beat(cost=self.accounts.own())

    def _tell(self, note: str) -> None:
        """Something that is to stand in the log, in the attempts table and on the terminal."""
        self.log.warning("%s", note)
        self.notes.append(note)

    def _mention(self, text: str) -> None:
        """Something that is to stand in the log and in the attempts table, and is no trouble."""
        self.log.info("%s", text)
        self.notes.append(text)

    # Checkpoints

    def _save(self, run: Run) -> None:
        """Publish the run's state, prove it readable, then the rows that follow from it.

        Raises Overtaken, or OSError.
        """
        accounts, cost = self.accounts, self.accounts.total()
        accounts.peak_mem_gib = max(accounts.peak_mem_gib, peak_memory_gib(self.device))
        content = Content(
            device=self.device.type,
            run=run.state_dict(),
            rows=accounts.rows,
            numerics=self.numerics,
            wall_s=cost["wall_s"],
            cpu_s=cost["cpu_s"],
            peak_mem_gib=accounts.peak_mem_gib,
        )
        data = encode(content)
        self.attempt.check()
        checkpoint = self.attempt.files.checkpoint(self.saved + 1, digest(data))
        checkpoint.file.publish(data)
        if digest(checkpoint.file.read()) != checkpoint.digest:
            raise OSError(f"'{checkpoint.file}' does not read back as it was written")
        if self.saved == 0:  # what cannot be gone on from shows now, not when it is needed
            read(checkpoint)
        self.saved += 1
        write_epochs(self.attempt.files, accounts.rows)
        self.attempt.discard(KEPT)
        self.attempt.publish(durable=False, epochs_done=run.epochs_done, cost=accounts.own())
        self.beaten = time.monotonic()

    def _restored(self) -> Run:
        """The run as its latest whole checkpoint left it; a new one where there is none.

        Raises:
            CheckpointNotUsable: a whole checkpoint is there and cannot be gone on from.
            OSError: the store does not answer.
        """
        damaged = 0
        for checkpoint in all_checkpoints(self.attempt.files.trial):
            try:
                content = read(checkpoint)
            except Damaged as error:
                damaged += 1
                self.log.warning("%s cannot be used: %s", checkpoint.file, error)
                continue
            run = self._continued(checkpoint, content)
            if damaged:
                self._tell(f"the newest checkpoint is damaged: going on from {_after(run)}")
            return run
        if damaged:
            self._tell(f"no checkpoint is whole ({damaged} damaged): it starts again")
        self.numerics = [numerics_of(self.trial, self.device)]
        return self._new_run()

    def _continued(self, checkpoint: Checkpoint, content: Content) -> Run:
        """The run that a checkpoint holds. Raises CheckpointNotUsable."""
        if content.device != self.device.type:  # generators have nothing in common
            here = f"it was computed on {content.device}, and this is {self.device.type}"
            raise not_usable(checkpoint.file, here)
        run = self._new_run()
        try:
            run.load_state_dict(content.run)
        except Exception as error:
            if is_transient(error):
                raise
            raise not_usable(checkpoint.file, error) from error
        accounts = self.accounts
        accounts.rows, accounts.peak_mem_gib = content.rows, content.peak_mem_gib
        accounts.wall_s, accounts.cpu_s = content.wall_s, content.cpu_s
        self._continue_numerics(content.numerics)
        self.log.info("going on after %s", _after(run))
        write_epochs(self.attempt.files, content.rows)
        return run

    def _continue_numerics(self, before: list[Numerics]) -> None:
        """Compute as the trial began, as far as that can be, and say what is not the same."""
        lacking = keep_threads(before[0].threads) if before else None
        if lacking is not None:
            self._tell(lacking)
        now = numerics_of(self.trial, self.device)
        self.numerics = before if before[-1:] == [now] else [*before, now]
        changed = changes(self.numerics)
        if changed:
            self._tell(f"it does not round as when it began: {changed}")

    def _new_run(self) -> Run:
        trial = self.trial
        torch.manual_seed(stream(trial.seed, "global"))
        data = trial.data, trial.distribution, self.places, self.device
        left = partial(state_of, self.attempt.store)

        def images() -> DataSplits:
            bundle = prepare(*data)
            for note in bundle.notes:
                self._mention(note)
            return bundle

        return run_kind(trial).make(trial, images, self.device, left)


def _after(run: Run) -> str:
    return f"epoch {run.epochs_done}"


def epoch_text(row: Row, epochs_total: int) -> str:
    """An epoch in fixed columns, for a trial's log."""
    return (
        f"{row['stage']:<8} {row['epoch']:>3}/{epochs_total:<3} | loss {row['loss_weights']:7.3f}"
        f" | {accuracy_text(row)} | {row['epoch_s']:6.1f} s | {row['peak_mem_gib']:5.1f} GiB"
    )


if __name__ == "__main__":
    from nas_sweeps.sweep.entry import main

    main()
