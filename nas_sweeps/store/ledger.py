"""The ledger: what was asked, who runs it, how it ended. One folder a trial, no database.

Each file has one writer at a time and is published whole, so any number of machines may read
while a sweep writes. ``done`` is final. An attempt that was overtaken by a later one, such as a
worker that outlived its driver, can no longer settle the trial.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas_sweeps.publish import (
    publish_json,
    publish_text,
    read_json,
    remove_scratch,
    warn_skipped,
)
from nas_sweeps.store.layout import Layout, TrialFiles
from nas_sweeps.store.records import METRICS, Result, State
from nas_sweeps.trial import Origin, Trial, trial_from_json

TRIAL_FILE_VERSION = 1
# A worker beats once an epoch; the longest epoch foreseen (second order, CIFAR, an old GPU)
# takes under half an hour.
STALE_S = 1800.0


class Store:
    """A store of trials in the folder ``root``, which need not exist yet to be asked about."""

    def __init__(self, root: str | Path) -> None:
        self.layout = Layout(Path(root).absolute())
        self._done: set[str] = set()  # final, so never read again

    @property
    def root(self) -> Path:
        return self.layout.root

    def create(self) -> None:
        """Make the folder; nothing happens to one that is there.

        Raises:
            ValueError: the path is a file, or cannot be written to.
        """
        try:
            self.layout.trials.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(
                f"store '{self.root}': there is a file in the way; name a folder"
            ) from None
        except OSError as error:
            raise ValueError(f"store '{self.root}': cannot be made: {error.strerror}") from None
        if not os.access(self.layout.trials, os.W_OK | os.X_OK):
            raise ValueError(
                f"store '{self.root}': cannot be written to; change its permissions or "
                "name another folder"
            )

    # What was asked

    def keep_grid(self, text: str) -> Path:
        """Keep a resolved grid, a JSON object, so that any machine can say what was planned."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self.layout.grids / f"{digest}.json"
        if not path.exists():
            publish_text(path, text)
        return path

    def grids(self) -> list[dict[str, Any]]:
        """Every grid that a run kept, the latest first."""
        paths = [p for p in self.layout.grids.glob("*.json") if not p.name.startswith(".")]
        paths.sort(key=lambda path: (-path.stat().st_mtime_ns, path.name))
        return [grid for grid in map(read_json, paths) if grid is not None]

    def ask(self, trial: Trial, variant: str = "") -> None:
        """Record a trial, once. ``variant`` names a search method's knobs that are not default."""
        files = self.layout.trial(trial.trial_id)
        if files.spec.exists() and read_json(files.spec) is not None:
            return
        asked = {"schema": TRIAL_FILE_VERSION, "variant": variant}
        # Not durable: every run asks again.
        publish_json(files.spec, asked | {"spec": json.loads(trial.to_json())}, durable=False)

    def spec(self, trial_id: str) -> Trial:
        """Raises ``ValueError`` where there is no such trial, or its file cannot be read."""
        path = self.layout.trial(trial_id).spec
        asked = read_json(path)
        if asked is None:
            raise ValueError(f"store '{self.root}': no trial '{trial_id}' was asked for here")
        return trial_from_json(json.dumps(asked.get("spec")))

    def link(self, retrain_id: str, origin: Origin) -> None:
        """Record that ``origin`` led to this retrain. Doing it again changes nothing."""
        files = self.layout.trial(retrain_id)
        path = files.origins / f"{origin.key}.json"
        if path.exists() and read_json(path) is not None:
            return
        files.origins.mkdir(parents=True, exist_ok=True)
        # The trial folder's time tells readers that something in it changed. Set before as
        # well: a writer killed in between must not leave a file that nobody notices.
        os.utime(files.dir)
        publish_json(path, asdict(origin), durable=False)
        os.utime(files.dir)

    def origins(self, retrain_id: str) -> tuple[Origin, ...]:
        """Everyone who asked for a retrain, in a fixed order."""
        return read_origins(self.layout.trial(retrain_id))

    # Who runs it

    def begin(
        self, trial_id: str, *, host: str | None = None, pid: int | None = None, **info: Any
    ) -> int:
        """Start an attempt, by default of this process; returns its number, from 1.

        A failed result is taken back, a done one stays. ``info`` is kept for people to read.
        """
        files = self.layout.trial(trial_id)
        last, now = read_attempt(files), _now()
        number = 1 + (last["attempt"] if last else 0)
        attempt = {
            "attempt": number,
            "host": host or socket.gethostname(),
            "pid": pid or os.getpid(),
            "started_at": now.isoformat(),
            "heartbeat": now.isoformat(),
        }
        publish_json(files.attempt, attempt | info)
        for path in (files.checkpoint, files.epochs, files.classes):
            remove_scratch(path)
        if self.state(trial_id) is State.FAILED:
            files.result.unlink(missing_ok=True)
        return number

    def beat(self, trial_id: str, attempt: int) -> bool:
        """Say that this attempt is alive. False: a later one has taken over."""
        files = self.layout.trial(trial_id)
        held = read_attempt(files)
        if held is None or held["attempt"] != attempt:
            return False
        publish_json(files.attempt, held | {"heartbeat": _now().isoformat()}, durable=False)
        return True

    # How it ended

    def finish(self, trial_id: str, result: Result) -> bool:
        """Publish a result. False, and nothing written: already done, or overtaken."""
        assert result.trial_id == trial_id, "a result of another trial"
        unknown = sorted(set(result.metrics) - METRICS)
        assert not unknown, f"metrics without a column: {unknown}"
        files = self.layout.trial(trial_id)
        held, before = read_attempt(files), read_result(files)
        if before is not None and before.state == "done":
            return False
        last = held["attempt"] if held else 0
        if result.attempt is None:
            result = replace(result, attempt=last)
        elif result.attempt < last:
            return False
        publish_json(files.result, asdict(result))
        return True

    def state(self, trial_id: str) -> State:
        """Of one trial; ``waiting`` where nothing is known, or its result cannot be read."""
        files = self.layout.trial(trial_id)
        return state_of(read_result(files), read_attempt(files))

    def states(self) -> dict[str, State]:
        """Of every trial that was asked for, by one listing of the store."""
        found: dict[str, State] = {}
        for trial_id in self.layout.trial_ids():
            found[trial_id] = State.DONE if trial_id in self._done else self.state(trial_id)
        self._done.update(t for t, state in found.items() if state is State.DONE)
        return found

    def result(self, trial_id: str) -> Result | None:
        """None while a trial is not settled."""
        return read_result(self.layout.trial(trial_id))

    def results(self) -> dict[str, Result]:
        """Of every settled trial."""
        found = ((t, self.result(t)) for t in self.layout.trial_ids())
        return {trial_id: result for trial_id, result in found if result is not None}


def state_of(result: Result | None, attempt: dict[str, Any] | None) -> State:
    """A trial's state from what its files say."""
    if result is not None:
        return State(result.state)
    return State.RUNNING if attempt is not None and _is_live(attempt) else State.WAITING


def read_result(files: TrialFiles) -> Result | None:
    """None for none, or (with a warning) for one that cannot be read."""
    value = read_json(files.result)
    try:
        return None if value is None else Result.from_json(value)
    except ValueError as error:
        warn_skipped(files.result, error)
        return None


def read_attempt(files: TrialFiles) -> dict[str, Any] | None:
    """None for none, or (with a warning) for one that cannot be read."""
    value = read_json(files.attempt)
    if value is None:
        return None
    try:
        for time in (value["heartbeat"], value["started_at"]):
            if datetime.fromisoformat(time).tzinfo is None:
                raise ValueError("a time without its zone")
        if not isinstance(value["host"], str):
            raise ValueError("host is no text")
        return value | {"attempt": int(value["attempt"]), "pid": int(value["pid"])}
    except (KeyError, TypeError, ValueError) as error:
        warn_skipped(files.attempt, f"not an attempt: {error!r}")
        return None


def read_origins(files: TrialFiles) -> tuple[Origin, ...]:
    """In the order of their keys; one that cannot be read is reported and left out."""
    try:
        names = sorted(os.listdir(files.origins))
    except FileNotFoundError:
        return ()
    found = []
    for path in (files.origins / name for name in names if not name.startswith(".")):
        value = read_json(path)
        try:
            found += [] if value is None else [Origin.from_json(value)]
        except ValueError as error:
            warn_skipped(path, error)
    return tuple(found)


def _now() -> datetime:
    return datetime.now(UTC)


def _is_live(attempt: dict[str, Any]) -> bool:
    """Whether an attempt still runs, as far as this machine can tell."""
    if attempt["host"] == socket.gethostname() and not _is_alive(attempt["pid"]):
        return False
    age = _now() - datetime.fromisoformat(attempt["heartbeat"])
    return age.total_seconds() < STALE_S


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):  # somebody else's process, but there
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
