"""What the files of one trial say: its state, attempts, result, origins and checkpoints."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nas_sweeps.store.driver import is_alive
from nas_sweeps.store.files import warn_skipped
from nas_sweeps.store.layout import AttemptFiles, TrialFiles
from nas_sweeps.store.records import AttemptRecord, AttemptState, Result, State
from nas_sweeps.trial import Origin, Trial, trial_from_json

TRIAL_FILE_VERSION = 1

# A worker beats between steps, at least once in half a minute if its steps are shorter than
# that. The longest step foreseen, second order on a slow CPU, takes a few minutes.
STALE_S = 1800.0


def all_checkpoints(trial: TrialFiles) -> list[Any]:
    """The checkpoints of every attempt, the latest first."""
    return [c for attempt in reversed(trial.attempts) for c in attempt.checkpoints()]


def read_state(files: TrialFiles) -> State:
    """A trial's state, from its newest attempt."""
    newest = files.newest
    if newest is None:
        return State.WAITING
    result = read_result(newest)
    return state_of(result, None if result else read_attempt(newest))


def state_of(result: Result | None, attempt: AttemptRecord | None) -> State:
    """A trial's state from what its newest attempt's files say."""
    if result is not None:
        return result.state
    return State.RUNNING if attempt is not None and is_live(attempt) else State.WAITING


def read_newest_result(files: TrialFiles) -> Result | None:
    """The result that counts; None while there is none."""
    return None if files.newest is None else read_result(files.newest)


def read_result(files: AttemptFiles) -> Result | None:
    """The result; None for none, or (with a warning) for one that cannot be read."""
    if not files.holds(files.result):
        return None
    known, key = files.trial.results, files.result.key
    if known is not None and key in known:
        return known[key]  # type: ignore[no-any-return]
    value = files.result.read_json()
    try:
        result = None if value is None else Result.from_json(value)
    except ValueError as error:
        warn_skipped(files.result, error)
        return None
    if known is not None and result is not None:
        known[key] = result
    return result


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial as it was asked for; ``variant`` names a search's knobs that are not defaults."""

    trial: Trial
    variant: str = ""

    def to_json(self) -> dict[str, Any]:
        """What the trial's file says."""
        spec = json.loads(self.trial.to_json())
        return {"schema": TRIAL_FILE_VERSION, "variant": self.variant, "spec": spec}


def read_asked(files: TrialFiles) -> Asked | None:
    """What was asked for; None for nothing, or (with a warning) for a file that cannot be read."""
    value = files.spec.read_json()
    if value is None:
        return None
    try:
        trial = trial_from_json(json.dumps(value.get("spec")))
    except ValueError as error:
        warn_skipped(files.spec, error)
        return None
    return Asked(trial, str(value.get("variant", "")))


def read_attempt(files: AttemptFiles) -> AttemptRecord | None:
    """The record; None for none, or (with a warning) for one that cannot be read."""
    value = files.record.read_json()
    try:
        return None if value is None else AttemptRecord.from_json(value)
    except ValueError as error:
        warn_skipped(files.record, f"not an attempt: {error}")
        return None


def read_origins(files: TrialFiles) -> tuple[Origin, ...]:
    """In the order of their keys; one that cannot be read is reported and left out."""
    found: list[Origin] = []
    for file in files.origins:
        value = file.read_json()
        try:
            found += [] if value is None else [Origin.from_json(value)]
        except ValueError as error:
            warn_skipped(file, error)
    return tuple(found)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def is_live(attempt: AttemptRecord) -> bool:
    """Whether an attempt still runs, as far as this machine can tell."""
    if attempt.state != AttemptState.RUNNING:
        return False
    if attempt.host == socket.gethostname() and not is_alive(attempt.pid):
        return False
    age = datetime.fromisoformat(now()) - datetime.fromisoformat(attempt.heartbeat)
    return age.total_seconds() < STALE_S
