"""Who runs a store, as one sees it who only reads: nothing is written to ask for the time."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nas_sweeps.store.layout import Layout, Writer
from nas_sweeps.store.lease import BEAT_S, Driver

PATIENCE_S = 3 * BEAT_S  # in which a driver that lives has been seen to beat


@dataclass
class _Seen:
    first: float  # by this machine's monotonic clock, as is ``at``
    at: float  # when it last changed
    stamp: int
    record: dict[str, Any]


@dataclass
class Sight:
    """Looks for a living driver again and again.

    A beat that is seen to change is a sign of life by any clock. Until one is seen, the file's
    time is compared with this machine's, and an old one may only mean that the clocks differ.
    """

    layout: Layout
    doubtful: bool = False  # none was seen to live, and it is too early to say that none does
    _seen: dict[Writer, _Seen] = field(default_factory=dict)

    def driver(self) -> Driver | None:
        """The newest one that lives."""
        self.doubtful = False
        for writer in reversed(self.layout.drivers()):
            with suppress(OSError):
                driver = self._look(writer)
                if driver.lives and driver.record.get("held"):
                    return driver
                here = driver.record.get("host") == socket.gethostname()
                young = time.monotonic() - self._seen[writer].first < PATIENCE_S
                self.doubtful = self.doubtful or (young and not here)
        return None

    def _look(self, writer: Writer) -> Driver:
        """Raises OSError when it has just left."""
        file, now = self.layout.driver(writer), time.monotonic()
        stamp, seen = self.layout.files.stamp(file.key), self._seen.get(writer)
        if seen is None:
            age_s = time.time() - stamp / 1e9
            seen = _Seen(now, now - age_s, stamp, file.read_json() or {})
            self._seen[writer] = seen
        elif stamp != seen.stamp:
            seen.stamp, seen.at = stamp, now
            seen.record = file.read_json() or seen.record
        return Driver(file, seen.record, now - seen.at)
