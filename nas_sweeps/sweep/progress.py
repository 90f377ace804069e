"""What a run says while it runs: a view that redraws on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console

from nas_sweeps.chain import Chain, Phase, Work
from nas_sweeps.cost.pace import Pace, Parts, kind_at, left_s, parts_of, remaining_s
from nas_sweeps.store import Result, State
from nas_sweeps.sweep.stopping import announce
from nas_sweeps.trial import Resources, Trial
from nas_sweeps.watch.display import Display
from nas_sweeps.watch.lines import done_text, epoch_columns, failed_text, name_of
from nas_sweeps.watch.snapshot import Running, Snapshot, Spent

STARTING = ("the executor is starting",)  # Ray takes some ten seconds


@dataclass
class _Live:
    """A running trial, as far as its worker has told."""

    name: str
    parts: Parts
    gpus: float
    began: float
    row: dict[str, Any] | None = None
    epoch_at: float | None = None  # when the latest epoch ended

    def since_s(self, now: float) -> float:
        """Since the latest epoch, or since it was started."""
        return now - (self.began if self.epoch_at is None else self.epoch_at)

    def spent(self, now: float) -> Spent:
        """For as long as it occupies its resources."""
        hours = (now - self.began) / 3600
        return Spent(hours=hours, gpu_hours=hours * self.gpus)


class Progress:
    """Watches a run. Use as a context manager around it."""

    def __init__(
        self,
        chain: Chain,
        console: Console | None = None,
        resources: Callable[[Phase], Resources] = lambda phase: Resources(),
    ) -> None:
        self.chain, self.resources = chain, resources
        self.console = console or Console()
        self.running: dict[str, _Live] = {}  # by trial id
        self.pace, self.slots = Pace(), 0
        self.notes: tuple[str, ...] = ()
        self.spent = Spent()  # by trials that have ended
        self._parts = [parts_of(entry) for entry, _ in chain.states()]  # their order is fixed
        self._count()
        self.display = Display(self.console, self.snapshot)

    def __enter__(self) -> Progress:
        self.display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.running.clear()
        self.notes = ()
        self._count()
        self.display.__exit__(kind, error, trace)

    # What happens

    def started(self, work: Work) -> None:
        trial = work.trial
        self.running[trial.trial_id] = _Live(
            name=name_of(trial, work.origins),
            parts=parts_of(trial, work.origins),
            gpus=self.resources(work.phase).gpus,
            began=time.monotonic(),
        )
        self.slots = max(self.slots, len(self.running))
        self._count()

    def epoch(self, trial: Trial, row: dict[str, Any]) -> None:
        live = self.running[trial.trial_id]
        self.pace.add(kind_at(live.parts, row["epoch"]), row["epoch_s"])
        live.row, live.epoch_at = row, time.monotonic()
        if row.get("note"):
            self.display.tell(live.name, row["note"], "yellow")
        if not self.display.moves:
            self.display.tell(live.name, epoch_columns(row))

    def again(self, trial: Trial, why: str) -> None:
        self.display.tell(self._ended(trial), f"tried again: {why}", "yellow")

    def settled(self, trial: Trial, result: Result) -> None:
        name = self._ended(trial)
        if result.state == State.FAILED:
            text = failed_text(result.error_class, result.error_message, trial.trial_id)
            self.display.tell(name, text, "red")
        elif not self.display.moves:
            accuracy, wall_s = result.metrics["accuracy_balanced"], result.cost["wall_s"]
            self.display.tell(name, done_text(accuracy, wall_s, self._counts))

    def stopping(self, how: str) -> None:
        if self.display.moves:  # drawn by another thread: a line in between would tear the view
            self.notes = (how,)
        else:
            announce(how)

    def _ended(self, trial: Trial) -> str:
        """The trial's name; it runs no longer."""
        live = self.running.pop(trial.trial_id)
        self.spent += live.spent(time.monotonic())
        self._count()
        return live.name

    def _count(self) -> None:
        """Here and not in ``snapshot``: a large plan is counted only when something happens."""
        states = zip(self.chain.states(), self._parts, strict=True)
        self._waiting = Counter(parts for (_, state), parts in states if state == State.WAITING)
        self._counts = self.chain.counts()

    # What there is to see

    def snapshot(self) -> Snapshot:
        """Also asked for by the thread that draws."""
        live, now = list(self.running.values()), time.monotonic()
        running = tuple(self._shown(trial, now) for trial in live)
        left = remaining_s(self.pace, (r.left_s for r in running), self._waiting, self.slots)
        spent = sum((trial.spent(now) for trial in live), start=self.spent)
        return Snapshot(
            counts=self._counts,
            running=running,
            left_s=left,
            spent=spent,
            whose=" in this run",
            notes=self.notes or (() if self.slots else STARTING),
        )

    def _shown(self, trial: _Live, now: float) -> Running:
        since_s = trial.since_s(now)
        done = trial.row["epoch"] if trial.row else 0
        return Running(
            name=trial.name,
            row=trial.row,
            since_s=since_s,
            left_s=left_s(self.pace, trial.parts, done, since_s),
        )


class Silence:
    """Watches without a word, for calls from Python that want none."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None: ...
    def started(self, work: Work) -> None: ...
    def epoch(self, trial: Trial, row: dict[str, Any]) -> None: ...
    def again(self, trial: Trial, why: str) -> None: ...
    def settled(self, trial: Trial, result: Result) -> None: ...
    def stopping(self, how: str) -> None:
        announce(how)
