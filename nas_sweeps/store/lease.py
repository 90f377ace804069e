"""One driver at a time: who runs a store, whether it still does, and that it is to stop.

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
        facts: more to write down for those who look on.
    """

    def __init__(self, layout: Layout, doing: str, **facts: Any) -> None:
        self.layout = layout
        self.writer: Writer | None = None
        self.found_paused = False  # the run before, which is dead, had been paused
        self.lost = False  # another driver took the store over: this one was thought dead
        self._record: dict[str, Any] = facts | {
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
                f"store '{self.layout}' is taken: {other.who}; wait for it, "
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
                    mine.remove()
                    return other
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
        return self.writer not in there or any(record.get("held") for record in later if record)

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
