"""The ledger: what was asked, who runs it, how it ended. One folder a trial, no database.

Any number of machines may read while a sweep writes. ``done`` is final. An attempt that was
superseded by a later one, such as a worker that outlived its driver, no longer counts: see
``layout``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
from collections.abc import Collection
from dataclasses import asdict
from os import getpid
from pathlib import Path
from typing import Any

from nas_sweeps.store.files import File, open_files
from nas_sweeps.store.grids import kept_grids
from nas_sweeps.store.index import Index, read_index
from nas_sweeps.store.layout import FOLDERS, AttemptFiles, Layout, TrialFiles, Writer
from nas_sweeps.store.records import METRICS, AttemptRecord, AttemptState, Result, Settled, State
from nas_sweeps.store.trial_files import (
    Asked,
    all_checkpoints,
    now,
    read_asked,
    read_newest_result,
    read_origins,
    read_result,
    read_state,
)
from nas_sweeps.trial import Origin, Trial

LAYOUT_VERSION = 2  # of the files of a store: see ``layout``
KEPT = 2  # checkpoints of a trial that is not done: should the latest be damaged, there is one more


# Names of files of origins, and what they propose: study, proposal and seed, and the trial.
_Proposed = tuple[tuple[str, ...], list[tuple[tuple[str, int, int], Trial]]]


class Overtaken(RuntimeError):
    """A later attempt runs this trial now: this one must publish nothing more."""


class AlreadyDone(RuntimeError):
    """The trial is done, so no attempt was begun."""


class Store:
    """A store of trials in a folder, or at a URI, which need not exist yet to be asked about.

    Args:
        remember: keep results that were read, for who asks often and not for long.

    Raises:
        ValueError: no name, or a URI of no known file system.
    """

    def __init__(self, root: str | Path, *, remember: bool = False) -> None:
        if not str(root).strip():
            raise ValueError("store: its name is empty; name a folder")
        self.layout = Layout(open_files(root), {} if remember else None)
        self._done: set[str] = set()  # final, so never read again
        self._proposed: dict[str, _Proposed] = {}  # by trial, and by what its folder holds

    @property
    def root(self) -> str:
        """The name that ``Store`` takes on any machine that sees the same files."""
        return self.layout.files.root

    def __str__(self) -> str:
        return str(self.layout)

    def clean_up(self) -> None:
        """Remove what killed writers left among the tables. For the driver that holds the store."""
        self.layout.files.clean_up("tables")

    def exists(self) -> bool:
        """Also where its mark was damaged: the next run writes it again."""
        return self.layout.mark.read_json() is not None or bool(self.layout.files.tree("trials"))

    def owns(self, path: Path) -> bool:
        """Whether a path of this machine is one that the store itself writes to."""
        root = Path(self.root).resolve()
        if "://" in self.root or not path.resolve().is_relative_to(root):
            return False
        first, *_ = (*path.resolve().relative_to(root).parts, "")
        return first in (*FOLDERS, self.layout.mark.name)

    def check_version(self) -> None:
        """Raises ValueError where a file, or a store of another version, is in the way."""
        if "://" not in self.root and Path(self.root).is_file():
            raise ValueError(f"store '{self}': there is a file in the way; name a folder")
        mark = self.layout.mark.read_json()
        if mark is not None:
            other = mark.get("layout") != LAYOUT_VERSION
        else:  # before there were marks, a trial had one attempt.json, whoever wrote it
            folders = self.layout.files.tree("trials").values()
            other = any("attempt.json" in f.names or "result.json" in f.names for f in folders)
        if other:
            raise ValueError(
                f"store '{self}': another version of nas_sweeps wrote it, and this one does not "
                "read its files; use that version, or name another store"
            )

    def create(self) -> None:
        """Make the store; nothing happens to one that is there.

        Raises:
            ValueError: a file is in the way, the place cannot be written to, or the store is
                one of an earlier version.
        """
        self.check_version()
        try:  # written each time: it shows that the store can be written to
            self.layout.mark.publish_json({"store": "nas_sweeps", "layout": LAYOUT_VERSION})
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"store '{self}': there is a file in the way; name a folder") from None
        except OSError as error:
            raise ValueError(
                f"store '{self}': cannot be written to ({error.strerror or error}); make room, "
                "change its permissions, or name another store"
            ) from None

    def require(self) -> Store:
        """This store. Raises ValueError where there is none."""
        self.check_version()
        if not self.exists():
            raise ValueError(
                f"'{self}' is no store: it has no file '{self.layout.mark.name}'; check the path, "
                "or start a sweep that writes there"
            )
        return self

    # What was asked

    def keep_grid(self, text: str) -> File:
        """Keep a resolved grid, a JSON object, so that any machine can say what was planned."""
        file = self.layout.grid(grid_digest(text))
        if file.name not in {kept.name for kept in self.layout.grids()} or not file.read_json():
            file.publish_json(json.loads(text))
        return file

    def grids(self) -> list[dict[str, Any]]:
        """Every grid that a run kept, the latest first."""
        return kept_grids(self.layout)

    def register(self, trial: Trial, variant: str = "") -> None:
        """Record a trial, once. ``variant`` names a search method's knobs that are not default."""
        files = self.layout.trial(trial.trial_id)
        if files.spec.name in files.names and files.spec.read_json() is not None:
            return
        files.spec.publish_json(Asked(trial, variant).to_json())

    def asked(self, trial_id: str) -> bool:
        """Whether a trial was asked for."""
        files = self.layout.trial(trial_id)
        return files.spec.name in files.names

    def spec(self, trial_id: str) -> Trial:
        """Raises ``ValueError`` where there is no such trial, or its file cannot be read."""
        asked = read_asked(self.layout.trial(trial_id))
        if asked is None:
            raise ValueError(
                f"store '{self}': no trial '{trial_id}' was asked for here, or its file cannot be "
                "read"
            )
        return asked.trial

    def add_origin(self, trial_id: str, origin: Origin) -> None:
        """Record that ``origin`` asked for this trial. Doing it again changes nothing."""
        files = self.layout.trial(trial_id)
        file = files.origin(origin.key)
        if file.name in files.names and origin in read_origins(files):
            return
        file.publish_json(origin.to_json())

    def remove_origin(self, trial_id: str, origin: Origin) -> None:
        """The contrary of ``add_origin``. Doing it again changes nothing."""
        self.layout.trial(trial_id).origin(origin.key).remove()

    def proposals(self, prefixes: Collection[str]) -> dict[tuple[str, int, int], Trial]:
        """Trials that studies asked for, by study, number of the proposal and seed.

        Args:
            prefixes: those of the ids to look at.
        """
        found: dict[tuple[str, int, int], Trial] = {}
        for files, _ in self.layout.trials():
            if not files.origins or files.trial_id.partition("-")[0] not in prefixes:
                continue
            names = tuple(file.name for file in files.origins)
            if self._proposed.get(files.trial_id, ((), []))[0] != names:
                self._proposed[files.trial_id] = names, _proposed(files)
            for key, trial in self._proposed[files.trial_id][1]:
                found.setdefault(key, trial)
        return found

    def origins(self, retrain_id: str) -> tuple[Origin, ...]:
        """Everyone who asked for a retrain, in a fixed order."""
        return read_origins(self.layout.trial(retrain_id))

    # Who runs it

    def begin(self, trial_id: str, **info: Any) -> Attempt:
        """Start an attempt of this process. ``info`` are fields of ``AttemptRecord``.

        Raises:
            AlreadyDone: the trial has a result that says done.
        """
        before = self.layout.trial(trial_id)
        if read_state(before) == State.DONE:
            raise AlreadyDone(trial_id)
        number = 1 + max((attempt.number for attempt in before.attempts), default=0)
        record = AttemptRecord(
            host=socket.gethostname(), pid=getpid(), started_at=now(), heartbeat=now()
        )
        attempt = Attempt(self, trial_id, Writer(number, secrets.token_hex(3)), record)
        attempt.publish(**info)
        # Whoever was thought dead may have settled the trial since: then it is done. From here
        # on it cannot, because this attempt is newer.
        if before.newest is not None:
            last = read_result(AttemptFiles(self.layout.trial(trial_id), before.newest.writer))
            if last is not None and last.state == State.DONE:
                attempt.files.record.remove()
                raise AlreadyDone(trial_id)
        self.layout.files.clean_up(before.folder)
        return attempt

    def reopen(self, trial_id: str) -> None:
        """Take a result back: some file that belongs to it cannot be read any more.

        The next attempt goes on from the last checkpoint, and so only writes the rows again.
        """
        newest = self.layout.trial(trial_id).newest
        if newest is not None:
            newest.result.remove()
        self._done.discard(trial_id)

    # How it ended

    def mark_failed(self, trial: Trial, error_class: str, error_message: str) -> Result:
        """Settle, as failed, a trial whose workers died without a word.

        It takes an attempt of its own, so that a worker that lives after all is overtaken.
        """
        try:
            attempt = self.begin(trial.trial_id, host=None, pid=None, device=None)
        except AlreadyDone:
            attempt = None
        if attempt is not None:
            result = Result(
                trial_id=trial.trial_id,
                phase=trial.phase,
                state=State.FAILED,
                attempt=attempt.number,
                started_at=now(),
                finished_at=now(),
                error_class=error_class,
                error_message=error_message,
                transient=True,
            )
            attempt.finish(result)
        settled = self.result(trial.trial_id)
        assert settled is not None, "just settled"
        return settled

    def state(self, trial_id: str) -> State:
        """The state of a trial; ``waiting`` where nothing is known, or its result is unreadable."""
        return read_state(self.layout.trial(trial_id))

    def states(self) -> dict[str, State]:
        """The state of every trial that was asked for, by one listing of the store."""
        found: dict[str, State] = {}
        for files, _ in self.layout.trials():
            done = files.trial_id in self._done
            found[files.trial_id] = State.DONE if done else read_state(files)
        self._done.update(t for t, state in found.items() if state == State.DONE)
        return found

    def result(self, trial_id: str) -> Result | None:
        """The result of a trial; None while it is not settled."""
        return read_newest_result(self.layout.trial(trial_id))

    def results(self) -> dict[str, Result]:
        """The result of every settled trial."""
        found = ((files.trial_id, read_newest_result(files)) for files, _ in self.layout.trials())
        return {trial_id: result for trial_id, result in found if result is not None}

    def settled(self, index: Index | None = None) -> dict[str, Settled]:
        """How every settled trial ended, as far as it decides what runs next.

        Of trials that did not change since the tables were compacted nothing is read but the
        index of the tables.

        Args:
            index: of a listing at hand; None: the store is listed now.
        """
        index = index or read_index(self.layout)
        found: dict[str, Settled] = {}
        for files, mtime_ns in index.listed:
            current = index.holds(files.trial_id, mtime_ns)
            held = index.settled.get(files.trial_id) if current else None
            if held is None:
                result = read_newest_result(files)
                held = None if result is None else Settled.of(result)
            if held is not None:
                found[files.trial_id] = held
        return found

    def find(self, start: str) -> str:
        """The one trial whose id begins so. Raises ValueError for none and for several."""
        found = [f.trial_id for f, _ in self.layout.trials() if f.trial_id.startswith(start)]
        if len(found) != 1:
            several = f"; several begin so: {', '.join(found[:5])}" if found else ""
            raise ValueError(f"store '{self}': no one trial '{start}'{several}")
        return found[0]


class Attempt:
    """This process' attempt at a trial: the only writer of the files that carry its name."""

    def __init__(self, store: Store, trial_id: str, writer: Writer, record: AttemptRecord) -> None:
        self.store, self.trial_id, self.writer, self.record = store, trial_id, writer, record

    @property
    def number(self) -> int:
        return self.writer.number

    @property
    def files(self) -> AttemptFiles:
        """The files of the attempt as the folder is now."""
        return self.store.layout.trial(self.trial_id).attempt(self.writer)

    def publish(self, *, durable: bool = True, **facts: Any) -> None:
        """Renew the record. ``facts`` are fields of ``AttemptRecord``."""
        self.record = self.record.with_(heartbeat=now(), **facts)
        self.files.record.publish_json(asdict(self.record), durable=durable)

    def check(self) -> None:
        """Raises Overtaken when a later attempt has begun."""
        newest = self.files.trial.newest
        if newest is None or newest.writer != self.writer:
            raise Overtaken(f"attempt {self.number} was overtaken by a later one; it stops")

    def beat(self, **facts: Any) -> None:
        """Say that this attempt is alive. Raises Overtaken."""
        self.check()
        self.publish(durable=False, **facts)

    def finish(self, result: Result, **facts: Any) -> bool:
        """Publish a result. False, and nothing written: a later attempt has begun.

        ``facts`` are fields of ``AttemptRecord``. Raises OSError.
        """
        assert result.trial_id == self.trial_id, "a result of another trial"
        assert result.attempt == self.number, "a result of another attempt"
        unknown = sorted(set(result.metrics) - METRICS)
        assert not unknown, f"metrics without a column: {unknown}"
        try:
            self.check()
        except Overtaken:
            return False
        self.publish(
            state=AttemptState(result.state),
            error_class=result.error_class,
            error_message=result.error_message,
            **facts,
        )
        self.files.result.publish_json(asdict(result))
        self.discard(keep=1 if result.state == State.DONE else KEPT)
        return True

    def discard(self, keep: int) -> None:
        """Remove all checkpoints but the latest few, and rows that this attempt's replace."""
        trial = self.files.trial
        for checkpoint in all_checkpoints(trial)[keep:]:
            checkpoint.file.remove()
        mine = self.files
        for older in (attempt for attempt in trial.attempts if attempt.writer < self.writer):
            for old, new in ((older.epochs, mine.epochs), (older.classes, mine.classes)):
                if older.holds(old) and mine.holds(new):
                    old.remove()


def _proposed(files: TrialFiles) -> list[tuple[tuple[str, int, int], Trial]]:
    numbers = [(o.study, o.proposal) for o in read_origins(files) if o.proposal is not None]
    asked = read_asked(files) if numbers else None
    return [((*number, asked.trial.seed), asked.trial) for number in numbers] if asked else []


def grid_digest(text: str) -> str:
    """The digest by which a resolved grid is kept."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
