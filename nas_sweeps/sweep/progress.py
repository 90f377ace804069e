"""What a run says while it runs: its store, followed, and what its driver alone knows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from threading import Event, Thread
from types import TracebackType

from rich.console import Console

from nas_sweeps.schedule import Task
from nas_sweeps.store import Result
from nas_sweeps.sweep.stopping import announce
from nas_sweeps.sweep.watcher import Watcher
from nas_sweeps.trial import Trial
from nas_sweeps.watch.follow import Follower
from nas_sweeps.watch.showing import Showing
from nas_sweeps.watch.trackers import Tracking

STARTING = ("the executor is starting",)  # Ray takes some ten seconds
PAUSED = "paused: nothing starts until `nas-sweeps resume` has it go on"
EVERY_S = {False: 1.0, True: 5.0}  # between two looks; where each is a request that costs money
ENDING_S = 3.0  # for a look that is under way when the run ends


class Progress(Watcher):
    """Watches a run from a thread of its own. Use as a context manager around it.

    Args:
        console: None: nothing is shown, and trackers alone are told.
    """

    def __init__(
        self, follower: Follower, console: Console | None, trackers: Sequence[Tracking] = ()
    ) -> None:
        self.showing = Showing(follower, console, trackers, lambda: self.notes)
        self.notes: tuple[str, ...] = STARTING
        self._handed_out: dict[str, None] = {}
        self._settled: list[str] = []
        self._again: list[tuple[str, str]] = []  # trials, and why
        self._told: list[str] = []
        self._over = Event()
        self._thread = Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self.showing.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(ENDING_S)
        self.notes = ()
        if not self._thread.is_alive():
            self._look()
        self.showing.__exit__(kind, error, trace)

    def started(self, work: Task) -> None:
        self._handed_out[work.trial.trial_id] = None

    def again(self, trial: Trial, why: str) -> None:
        self._again.append((trial.trial_id, why))

    def settled(self, trial: Trial, result: Result) -> None:
        self._settled.append(trial.trial_id)

    def told(self, text: str) -> None:
        self._told.append(text)

    def paused(self, is_paused: bool) -> None:
        self._told.append(PAUSED if is_paused else "it goes on")
        self.notes = (PAUSED,) if is_paused else ()

    def stopping(self, how: str) -> None:
        if self.showing.display is not None and self.showing.display.moves:
            self.notes = (how,)  # drawn by another thread: a line in between would tear the view
        else:
            announce(how)

    def _follow(self) -> None:
        remote = "://" in self.showing.follower.store.root
        while not self._over.wait(max(EVERY_S[remote], self.showing.pause_s)):
            self._look()

    def _look(self) -> None:
        """What happened to the trials in the store, then what the driver did about it."""
        settled, again = len(self._settled), len(self._again)
        while self._told and self.showing.display is not None:
            self.showing.display.say(self._told.pop(0), "yellow")
        try:
            news = self.showing.look(list(self._handed_out))
            if news is None:
                return
            if news and self.notes == STARTING:
                self.notes = ()
            for trial_id, why in self._again[:again]:
                self._tell(trial_id, f"tried again: {why}")
        except Exception as error:  # no view is worth a run
            warnings.warn(f"the run goes on unseen: {error}", stacklevel=2)
            self._over.set()
        for trial_id in self._settled[:settled]:
            self._handed_out.pop(trial_id, None)
        del self._settled[:settled], self._again[:again]

    def _tell(self, trial_id: str, text: str) -> None:
        if self.showing.display is not None:
            known = self.showing.follower.trials.get(trial_id)
            self.showing.display.tell(known.name if known else trial_id, text, "yellow")


class Silence(Watcher):
    """Watches without a word, for calls from Python that want none."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stopping(self, how: str) -> None:
        announce(how)
