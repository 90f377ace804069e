"""Whether a driver lives: the one place that says so, and it only reads.

A driver renews its record every few seconds (``lease``). Whoever looks on has no clock in common
with it, and asking a file system for its time would mean to write there. So a beat that is seen
to change is a sign of life by any clock; until one is seen, the file's time is compared with the
best clock at hand, and an old one may only mean that the clocks differ.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Any

from nas_sweeps.store.files import File
from nas_sweeps.store.layout import Layout, Writer

BEAT_S = 5.0
DEAD_S = 60.0  # without a beat; a driver of this host is known to be dead at once
PATIENCE_S = 3 * BEAT_S  # in which a driver that lives has been seen to beat


class Driver:
    """What a driver's record says, for those who are not it."""

    def __init__(self, file: File, record: dict[str, Any], age_s: float) -> None:
        self.file, self.record, self.age_s = file, record, age_s

    @property
    def lives(self) -> bool:
        """Whether the driver lives, as far as this machine can tell."""
        if self.here and not is_alive(self.record.get("pid")):
            return False
        return abs(self.age_s) < DEAD_S  # a beat of the future is no sign of life either

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this host."""
        return bool(self.record.get("host") == socket.gethostname())

    @property
    def who(self) -> str:
        r = self.record
        return (
            f"a run of {self._part}grid '{r.get('doing')}' works on it: host {r.get('host')}, "
            f"process {r.get('pid')}, last heartbeat {self.age_s:.0f} s ago, since {r.get('since')}"
            f"{', paused' if self.paused else ''}"
        )

    @property
    def _part(self) -> str:
        shard = self.record.get("shard")
        return "" if shard is None else f"part {shard} of "

    @property
    def paused(self) -> bool:
        """Whether it starts nothing until somebody has it go on."""
        return self.record.get("paused") is True

    @property
    def cancelled(self) -> tuple[str, ...]:
        """The queries for trials that it was asked to leave."""
        return tuple(map(str, self.record.get("cancelled") or ()))


class Heartbeat:
    """One driver's record, looked at again and again."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.first = self._at = time.monotonic()  # first look, and when it was last seen to change
        self._mtime_ns: int | None = None
        self._record: dict[str, Any] = {}

    def look(self, now_ns: int | None) -> Driver:
        """The driver as it is now.

        Args:
            now_ns: the time by which a beat that was not seen to change is judged, in ns by the
                clock of the file system or the nearest there is; None: as if it had just come.

        Raises:
            FileNotFoundError: the driver has left.
            OSError: the file system does not answer; ``last`` says what was known.
        """
        mtime_ns = self.file.files.mtime_ns(self.file.key)
        if mtime_ns != self._mtime_ns:
            now = time.monotonic()
            known = self._mtime_ns is not None or now_ns is None
            self._at = now if known else now - ((now_ns or 0) - mtime_ns) / 1e9
            if self._mtime_ns is None:
                self.first = now
            self._mtime_ns = mtime_ns
            self._record = self.file.read_json() or self._record
        return self.last()

    def last(self) -> Driver:
        """The driver as it was when it was last seen."""
        return Driver(self.file, self._record, time.monotonic() - self._at)

    @property
    def unsure(self) -> bool:
        """Whether it is too early to say that it does not beat: its clock may be another."""
        return not self.last().here and time.monotonic() - self.first < PATIENCE_S


class DriverMonitor:
    """Looks for the driver that runs a store, once or again and again."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.doubtful: Driver | None = None  # none was seen to live, and this one may
        self._heartbeats: dict[Writer, Heartbeat] = {}

    def driver(self) -> Driver | None:
        """The newest one that lives and holds the store, or a part of its grid."""
        return next(iter(self.drivers()), None)

    def drivers(self) -> list[Driver]:
        """Those that live and hold the store, or parts of one grid, the newest first."""
        self.doubtful, living = None, []
        for writer in reversed(self.layout.drivers()):
            found = self.look(writer)
            if found is None or not found.record.get("held"):
                continue
            if found.lives:
                living.append(found)
            elif self.doubtful is None and self._heartbeats[writer].unsure:
                self.doubtful = found
        if living:
            self.doubtful = None
        return living

    def look(self, writer: Writer) -> Driver | None:
        """One driver, dead or alive; None where it has left or its record cannot be read."""
        if writer not in self._heartbeats:
            self._heartbeats[writer] = Heartbeat(self.layout.driver(writer))
        with suppress(OSError):
            found = self._heartbeats[writer].look(time.time_ns())
            return found if found.record else None
        return None


def is_alive(pid: Any) -> bool:
    """Whether a process of this host is there."""
    if not isinstance(pid, int):
        return False
    with suppress(PermissionError):  # somebody else's process, but there
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError, ValueError):
            return False
    return True
