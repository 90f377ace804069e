"""How long a run may go on and what it may spend: nothing is begun that would not end in time.

What a trial is expected to take is what ``cost`` says of it. What is spent is counted from the
moment at which a trial is handed to the executor until its worker has ended, times the GPUs that it
holds meanwhile; where no phase of the grid asks for a GPU, times its CPUs.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa

from nas_sweeps.cost.forecast import Forecast, forecast
from nas_sweeps.cost.measured import epochs_begun, measure, observe
from nas_sweeps.cost.rates import Rates
from nas_sweeps.schedule import Scheduler, Task
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.trial_files import read_attempt
from nas_sweeps.tables.checksum import read_verified
from nas_sweeps.tables.schemas import EPOCH_FILE, conform
from nas_sweeps.trial import Resources
from nas_sweeps.watch.lines import span

# In a job's environment, in seconds since 1970: when Slurm expects to end it (sbatch(1), srun(1)).
SLURM_END = "SLURM_JOB_END_TIME"
# What steps that are running, their checkpoints, the tables and a batch script's last lines need;
# of a short job, no more than a tenth.
SLURM_MARGIN_S, SLURM_SHARE = 120.0, 0.1
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_HOW = "write a duration such as 11h30m, or an instant such as 2026-11-27T08:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What was asked. Each may be None: no such limit."""

    until: float | None = None  # seconds since 1970; from then on nothing runs
    why: str = ""  # what set ``until``, in words, where nobody asked for it
    hours: float | None = None  # GPU-hours, or CPU-hours where no trial asks for a GPU

    @classmethod
    def of(
        cls,
        deadline: str | datetime | timedelta | None = None,
        budget: float | None = None,
        rate: float | None = None,
    ) -> Limits:
        """Limits as a person writes them.

        Args:
            deadline: a duration from now, an instant (local time where it names no zone), or
                ``none``. None: what Slurm says, in a job of Slurm.
            budget: hours; with ``rate``, money.
            rate: the price of an hour.

        Raises:
            ValueError: one of them makes no sense, or the instant has passed.
        """
        until, why = _slurm_end() if deadline is None else (_until(deadline), "")
        return cls(until=until, why=why, hours=_hours(budget, rate))

    def __bool__(self) -> bool:
        return self.until is not None or self.hours is not None


def _until(deadline: str | datetime | timedelta) -> float | None:
    """Raises ValueError."""
    now = time.time()
    if isinstance(deadline, str):
        if deadline.strip().lower() == "none":
            return None
        deadline = _read(deadline.strip())
    until = now + deadline.total_seconds() if isinstance(deadline, timedelta) else _stamp(deadline)
    if until <= now:
        raise ValueError(f"--deadline: {_instant(until)} is over; {_HOW}, or none")
    return until


def _read(text: str) -> datetime | timedelta:
    parts = _DURATION.fullmatch(text)
    try:
        if text and parts is not None:
            days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"--deadline {text!r}: {_HOW}, or none") from None


def _stamp(instant: datetime) -> float:
    try:
        return instant.timestamp()
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"--deadline {instant}: no such instant; {_HOW}") from None


def _instant(stamp: float) -> str:
    return datetime.fromtimestamp(stamp).astimezone().isoformat(timespec="minutes")


def _slurm_end() -> tuple[float | None, str]:
    """When work has to end so that Slurm need not end it, and a sentence about it."""
    said = os.environ.get(SLURM_END)
    if said is None:
        return None, ""
    now = time.time()
    if not said.isdecimal() or not now < int(said) < 1e11:
        # Also that of a job that is over, in a shell that has outlived it.
        warnings.warn(
            f"{SLURM_END}={said} is no time to come: no deadline from Slurm", stacklevel=2
        )
        return None, ""
    margin = min(SLURM_MARGIN_S, SLURM_SHARE * (int(said) - now))
    return int(said) - margin, (
        f"Slurm ends this job at {_instant(int(said))}: {span(margin)} before that this run stops "
        "(--deadline none switches it off)"
    )


def _hours(budget: float | None, rate: float | None) -> float | None:
    """Raises ValueError."""
    if budget is None:
        if rate is not None:
            raise ValueError("--rate: it is the price of an hour of --budget; give that too")
        return None
    for name, value in (("budget", budget), ("rate", rate)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"--{name} {value:g}: it must be above 0; leave it out for none")
    return budget if rate is None else budget / rate


@dataclass
class Limiter:
    """Limits, held against what a run does.

    Args:
        needs: what a trial takes, by phase.
        source: another store with measured trials.
    """

    limits: Limits
    needs: Mapping[str, Resources]
    store: Store
    source: Store | None = None
    rates: Rates = field(default_factory=Rates)
    _begun: dict[str, int] = field(default_factory=dict)  # finished epochs, by trial
    _live: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    _spent_h: float = 0.0  # by trials that have ended

    @property
    def unit(self) -> str:
        """What a budget counts."""
        return "GPU-hours" if any(need.gpus for need in self.needs.values()) else "CPU-hours"

    def begin(self) -> list[str]:
        """Nothing runs yet. What a person should know of the limits, a line each. Raises OSError.

        Rates are those that a plan would take: another recipe's are none.
        """
        stores = [self.store] if self.source is None else [self.store, self.source]
        self.rates, self._begun = measure(stores, self.needs).rates, epochs_begun(self.store)
        told = [self.limits.why] if self.limits.why else []
        if self.limits.until is not None:
            told.append(
                f"deadline {_instant(self.limits.until)}: nothing starts that is not expected to "
                "end by then, and what runs then stops at a checkpoint"
            )
        if self.limits.hours is not None:
            told.append(f"budget {self.limits.hours:.4g} {self.unit}, counted from now")
        return told

    # What happens

    def started(self, work: Task) -> None:
        per_hour = self._per_hour(work.phase)
        self._live[work.trial.trial_id] = time.monotonic(), per_hour, self.expected_s(work) or 0.0

    def ended(self, work: Task, result: Result | None) -> None:
        """Count what a trial has cost, and what there is to learn from it for the next."""
        trial_id = work.trial.trial_id
        since, per_hour, _ = self._live.pop(trial_id)
        self._spent_h += (time.monotonic() - since) / 3600 * per_hour
        newest = self.store.layout.trial(trial_id).newest
        if newest is None:
            return
        if result is None:
            record = read_attempt(newest)
            self._begun[trial_id] = record.epochs_done if record else 0
        elif result.state != State.FAILED and newest.holds(newest.epochs):
            with suppress(OSError, pa.ArrowException):
                table = read_verified(newest.epochs.read(), use_threads=False)
                table = conform(table, EPOCH_FILE, newest.epochs)
                observe(self.rates, work.trial, work.origins, table)

    # What follows

    def reached(self) -> str | None:
        """Why everything has to stop now, in words; None: nothing has to."""
        until, hours = self.limits.until, self.limits.hours
        if until is not None and time.time() >= until:
            return f"the deadline, {_instant(until)}, has come"
        if hours is not None and self.spent_h() >= hours:
            return f"the budget is spent: {hours:.4g} {self.unit}"
        return None

    def spent_h(self) -> float:
        """Hours that this run has spent, those of running trials included."""
        now = time.monotonic()
        live = sum((now - since) / 3600 * per for since, per, _ in self._live.values())
        return self._spent_h + live

    def expected_s(self, work: Task) -> float | None:
        """Seconds that a trial should take from where it is; None: nothing like it was measured."""
        begun = self._begun.get(work.trial.trial_id, 0)
        cost = self.rates.cost(work.trial, begun, work.origins)
        return None if cost is None else cost.seconds.mid

    def allows(self, work: Task, expected_s: float) -> bool:
        """Whether a trial that takes so long may start now."""
        until, hours = self.limits.until, self.limits.hours
        if until is not None and time.time() + expected_s > until:
            return False
        per_hour = self._per_hour(work.phase)
        if hours is None or not per_hour:
            return True
        now = time.monotonic()
        promised = (  # to trials that run
            max(0.0, expected - (now - since)) / 3600 * per
            for since, per, expected in self._live.values()
        )
        return self.spent_h() + sum(promised) + expected_s / 3600 * per_hour <= hours

    def left(self, scheduler: Scheduler) -> Forecast:
        """What the next run has to do. Raises OSError."""
        return forecast(scheduler, self.rates, epochs_begun(self.store))

    def _per_hour(self, phase: str) -> float:
        need = self.needs[phase]
        return need.gpus if self.unit == "GPU-hours" else need.cpus
