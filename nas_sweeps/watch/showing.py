"""One follower, and those who are told what it finds: a display and trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console

from nas_sweeps.watch.display import Display
from nas_sweeps.watch.follow import Follower
from nas_sweeps.watch.known import News
from nas_sweeps.watch.snapshot import Snapshot
from nas_sweeps.watch.trackers import Tracking

BUSY = 0.1  # at most this share of the time is spent reading, however large the store


class Showing:
    """Looks at a store and shows it, while it is entered.

    Args:
        console: None: nothing is shown.
        trackers: told of every epoch.
        notes: what is said below the view, where that is not what the store says.
    """

    def __init__(
        self,
        follower: Follower,
        console: Console | None,
        trackers: Sequence[Tracking] = (),
        notes: Callable[[], tuple[str, ...] | None] = lambda: None,
    ) -> None:
        self.follower, self.trackers, self.notes = follower, trackers, notes
        self.pause_s = 0.0  # to be kept before the next look
        self.display = None if console is None else Display(console, lambda: self.shown)
        self.shown: Snapshot  # the newest one, for the thread that draws

    def __enter__(self) -> Showing:
        self.follower.poll()
        self.shown = self.follower.snapshot(self.notes())
        if self.display is not None:
            self.display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for tracker in self.trackers:
            tracker.close()
        if self.display is not None:
            self.display.__exit__(kind, error, trace)

    def look(self, trial_ids: list[str] | None = None) -> list[News] | None:
        """What is new, told to all; None where the store did not answer.

        ``trial_ids`` as for ``Follower.poll``.
        """
        began = time.monotonic()
        try:
            news = self.follower.poll(trial_ids)
        except OSError as error:  # a network that fails for a while
            if self.display is not None:
                self.display.say(f"the store does not answer ({error}); asking again", "yellow")
            return None
        self.shown = self.follower.snapshot(self.notes())
        self.pause_s = (time.monotonic() - began) / BUSY
        for each in news:
            if self.display is not None:
                self.display.show(each, self.follower.text_of(each))
            for tracker in self.trackers:
                tracker.tell(each)
        return news
