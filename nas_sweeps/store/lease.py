"""Who runs a store, whether it still does, and that it is to stop: one driver at a time.

Several are let in where each has another part of the same parts of one grid: no two of them plan
the same search.

A driver publishes a record under a name of its own and beats. It holds the store if, having
published, it sees no other that lives. Of two that start together the later one sees the
earlier one's record, so they never both hold it; at worst both leave and try again.

Workers watch their driver's record: when it says stop, is superseded, or has not been renewed
for ``DEAD_S``, they publish a checkpoint and end. How that is seen is in ``driver``.
"""

from __future__ import annotations

import math
import os
import random
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from nas_sweeps.store.driver import BEAT_S, DEAD_S, Driver, Heartbeat
from nas_sweeps.store.layout import Layout, Writer

TRIES = 5


class StoreLocked(ValueError):
    """Another driver runs this store."""


class Lease:
    """A driver's hold on a store. Use as a context manager.

    Args:
        doing: the name of the grid that it runs.
        grid: the digest of the grid.
        shard: the part of it that it runs, such as ``1/4``; None: it wants the store alone.
        facts: more to write down for those who look on.
    """

    def __init__(
        self,
        layout: Layout,
        doing: str,
        *,
        grid: str | None = None,
        shard: str | None = None,
        **facts: Any,
    ) -> None:
        self.layout = layout
        self.writer: Writer | None = None
        self.found_paused = False  # the run before, which is dead, had been paused
        self.lost = False  # another driver took the store over: this one was thought dead
        self.alone = True  # no other driver was seen on the store when it was taken
        self._record: dict[str, Any] = facts | {
            "grid": grid,
            "shard": shard,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": _now(),
            "doing": doing,
            "held": False,  # until it is known that nobody else runs the store
            "stop": False,
        }
        self._lock = threading.Lock()  # so that of two records the later one stays
        self._wake = threading.Event()
        self._end = False
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def key(self) -> str:
        """What workers are given to watch."""
        assert self.writer is not None, "not entered"
        return str(self.writer)

    def __enter__(self) -> Lease:
        """Raises Held."""
        other = self._take()
        for _ in range(TRIES):
            if other is None or other.record.get("held"):
                break
            time.sleep(random.uniform(0.1, 0.5))  # two that start together: one will be first
            other = self._take()
        if other is not None:
            raise StoreLocked(
                f"store '{self.layout}' is taken: {other.who}; {self._advice(other)}wait for it, "
                f"stop it, or name another store (a dead one is taken over {DEAD_S:.0f} s after "
                "its last heartbeat)"
            )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end = True
        self._wake.set()
        self._thread.join()
        assert self.writer is not None
        with suppress(OSError):
            self.layout.driver(self.writer).remove()

    def stop(self) -> None:
        """Ask every worker to publish a checkpoint and end. Safe in a signal handler."""
        self._record["stop"] = True
        self._wake.set()

    def tell(self, **facts: Any) -> None:
        """Have workers and those who look on know more, before this returns.

        ``halted`` are ids of trials whose workers are to publish a checkpoint and end. Raises
        OSError.
        """
        self._record.update(facts)  # in one go: ``stop`` may come from a signal handler
        with self._lock:
            self._publish()

    def _take(self) -> Driver | None:
        """Publish a record; the other driver that lives, if there is one, and then no record."""
        seen = self.layout.drivers()
        number = 1 + max((writer.number for writer in seen), default=0)
        self.writer = Writer(number, secrets.token_hex(3))
        self._publish()
        mine = self.layout.driver(self.writer)
        now_ns = self.layout.files.mtime_ns(mine.key)  # just written: the file system's own time
        for writer in self.layout.drivers():
            if writer == self.writer:
                continue
            with suppress(FileNotFoundError):
                other = Heartbeat(self.layout.driver(writer)).look(now_ns)
                if other.record and other.lives:
                    if not self._goes_with(other.record):
                        mine.remove()
                        return other
                    self.alone = False
                    continue
                self.found_paused |= other.paused
            self.layout.driver(writer).remove()
        self._record["held"] = True
        self._publish()
        return None

    def _beat(self) -> None:
        while not self._end:
            self._wake.wait(BEAT_S)
            self._wake.clear()
            # A beat that fails is made up for by the next: workers wait for twelve.
            with suppress(OSError):
                if self.holds() and not self._end:
                    with self._lock:
                        self._publish()

    def holds(self) -> bool:
        """Whether the store is still this driver's. Raises OSError."""
        self.lost = self.lost or self._superseded()
        return not self.lost

    def _superseded(self) -> bool:
        """Whether another driver thought this one dead, as after a night in suspension."""
        assert self.writer is not None
        there = self.layout.drivers()
        later = [self.layout.driver(w).read_json() for w in there if w > self.writer]
        return self.writer not in there or any(
            record.get("held") and not self._goes_with(record) for record in later if record
        )

    # Beside others

    def _goes_with(self, other: dict[str, Any]) -> bool:
        """Whether two drivers have different parts of the same parts of one grid."""
        mine, theirs = self._record["shard"], other.get("shard")
        if mine is None or theirs is None or self._record["grid"] != other.get("grid"):
            return False
        return bool(mine != theirs and mine.partition("/")[2] == str(theirs).partition("/")[2])

    def _advice(self, other: Driver) -> str:
        """What keeps two drivers from working side by side; nothing where neither means to."""
        mine, theirs = self._record["shard"], other.record.get("shard")
        if mine is None:
            return "" if theirs is None else f"take a part as it did, --shard 2/{_of(theirs)} say; "
        if theirs is None:
            return "it has no --shard, so it wants the store alone; "
        if mine == theirs:
            return f"another part than {mine} could run beside it; "
        if _of(mine) != _of(theirs):
            return f"the parts of one store are of one number, and that is {_of(theirs)} there; "
        return "parts of another grid, or of one that is set otherwise, do not go together; "

    def compacts(self) -> bool:
        """Whether this driver writes the tables: the oldest of those that live does.

        Where that one is about to end, this waits for it, and then it is another's turn.
        """
        limit = time.monotonic() + DEAD_S
        while (older := self._older()) is not None:
            if older.record.get("ending") is not True or time.monotonic() > limit:
                return False
            time.sleep(0.2)
        return True

    def _older(self) -> Driver | None:
        """The oldest driver that lives and is older than this one."""
        assert self.writer is not None
        now_ns = self.layout.files.mtime_ns(self.layout.driver(self.writer).key)
        for writer in self.layout.drivers():
            if writer >= self.writer:
                break
            with suppress(FileNotFoundError):
                other = Heartbeat(self.layout.driver(writer)).look(now_ns)
                if other.record.get("held") and other.lives:
                    return other
        return None

    def _publish(self) -> None:
        assert self.writer is not None
        record = self._record | {"heartbeat": _now()}
        self.layout.driver(self.writer).publish_json(record, durable=False)


class Watch:
    """The eye of a trial's worker on its driver. Asking is cheap: it looks once in ``every_s``."""

    def __init__(self, layout: Layout, key: str, trial_id: str, every_s: float = 1.0) -> None:
        writer = Writer.of(key)
        assert writer is not None, f"'{key}' names no driver"
        self.trial_id, self.every_s = trial_id, every_s
        self._heartbeat = Heartbeat(layout.driver(writer))
        self._looked = -math.inf
        self._why: str | None = None

    def stop_reason(self) -> str | None:
        """Why a worker has to stop, in words for a log; None: it goes on."""
        now = time.monotonic()
        if self._why is None and now - self._looked >= self.every_s:
            self._looked = now
            self._why = self._look()
        return self._why

    def _look(self) -> str | None:
        try:
            driver = self._heartbeat.look(None)
        except FileNotFoundError:
            return "its driver has left"
        except OSError:  # a file system that fails for a while is no reason to stop
            driver = self._heartbeat.last()
        if driver.record.get("stop") is True or self.trial_id in driver.record.get("halted", ()):
            return "its driver asked it to stop"
        return None if driver.lives else "its driver is dead"


def _of(shard: Any) -> str:
    """How many parts there are."""
    return str(shard).partition("/")[2]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
