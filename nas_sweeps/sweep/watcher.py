"""Who is told what happens while trials run."""

from __future__ import annotations

from nas_sweeps.cost.simulate import Room
from nas_sweeps.schedule import Task
from nas_sweeps.store import Result
from nas_sweeps.trial import Trial


class Watcher:
    """Told what happens while trials run; it can look, not steer."""

    def begin(self, room: Room) -> None:
        """Called before anything runs, when it is known what trials will run on."""

    def started(self, work: Task) -> None: ...
    def again(self, trial: Trial, why: str) -> None: ...
    def settled(self, trial: Trial, result: Result) -> None: ...
    def told(self, text: str) -> None:
        """Something that a person should know of the run itself."""

    def paused(self, is_paused: bool) -> None: ...
    def stopping(self, how: str) -> None:
        """Called by a signal handler: see ``announce``."""
