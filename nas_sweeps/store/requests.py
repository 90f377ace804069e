"""What a person asks of a driver that works: to pause, to go on, to leave some trials.

A request is a file of its own, addressed to one driver by name. The driver removes it when it has
done what it says, which is the answer. What is addressed to a driver that is gone means nothing to
any other, so a driver that is killed leaves nothing behind that holds up its successor.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from nas_sweeps.store.files import File
from nas_sweeps.store.layout import Layout, Writer

What = Literal["pause", "resume", "cancel"]
EVERY_S = {False: 1.0, True: 5.0}  # between two looks; where each is a request that costs money


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing that is asked."""

    what: What
    only: str | None = None  # of ``cancel``: the trials that are meant, by a query


def ask(layout: Layout, driver: Writer, request: Request) -> File:
    """Ask something of a driver. The file is gone once it was done. Raises OSError."""
    before = [writer.number for of, writer in layout.requests() if of == driver]
    file = layout.request(driver, Writer(1 + max(before, default=0), secrets.token_hex(3)))
    file.publish_json(asdict(request))
    return file


class Inbox:
    """What is asked of one driver. Looking is cheap: one listing of a small folder, seldom."""

    def __init__(self, layout: Layout, driver: Writer, every_s: float | None = None) -> None:
        self.layout, self.driver = layout, driver
        self.every_s = EVERY_S["://" in layout.files.root] if every_s is None else every_s
        self._looked = time.monotonic()
        self._seen: set[Writer] = set()  # also of those that could not be removed

    def clean_up(self) -> None:
        """Remove what was asked of drivers that are gone. Raises OSError."""
        there = set(self.layout.drivers())
        for driver, writer in self.layout.requests():
            if driver not in there:
                self.layout.request(driver, writer).remove()

    def poll(self) -> list[tuple[Request, File]]:
        """What is new, in the order in which it was asked, with the file to remove when done."""
        if time.monotonic() - self._looked < self.every_s:
            return []
        found: list[tuple[Request, File]] = []
        with suppress(OSError):  # a file system that fails for a while: the next look finds it
            for driver, writer in self.layout.requests():
                if driver != self.driver or writer in self._seen:
                    continue
                file = self.layout.request(driver, writer)
                value = file.read_json()
                self._seen.add(writer)
                if value is not None and value.get("what") in get_args(What):
                    found.append((Request(what=value["what"], only=value.get("only")), file))
        self._looked = time.monotonic()
        return found
