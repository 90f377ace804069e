"""Which of several drivers on one store runs a trial that more than one of them wants.

Searches of two parts of a grid may find one genotype, and then lead to one retraining. A driver
that is about to start one publishes a claim, under its own name, and then looks: where another that
lives has claimed it, it withdraws. Of two that come together one at least sees the other; where
both do, both withdraw, and try again after times that differ.
"""

from __future__ import annotations

from contextlib import suppress

from nas_sweeps.store.driver import Heartbeat
from nas_sweeps.store.files import File
from nas_sweeps.store.layout import Layout, TrialFiles, Writer


class Claims:
    """Of one driver."""

    def __init__(self, layout: Layout, mine: Writer) -> None:
        self.layout, self.mine = layout, mine
        self._heartbeats: dict[Writer, Heartbeat] = {}

    def taken(self, trial_id: str) -> int | None:
        """None: the trial is this driver's, from now on. Else another has it, and this says how
        many attempts there were before. Raises OSError."""
        files = self.layout.trial(trial_id)
        own = files.claim(self.mine)
        if own.name in files.names:
            return None
        own.publish_json({"attempts": len(files.attempts)}, durable=False)
        now_ns = self.layout.files.mtime_ns(own.key)  # the file system's own time
        files = self.layout.trial(trial_id)
        for writer in files.claims:
            if writer != self.mine and self._lives(writer, now_ns):
                own.remove()
                return _attempts(files, writer)
        return None

    def _lives(self, writer: Writer, now_ns: int) -> bool:
        record = self.layout.driver(writer)
        with suppress(FileNotFoundError):
            return self._heartbeats.setdefault(writer, Heartbeat(record)).look(now_ns).lives
        return False


def _attempts(files: TrialFiles, writer: Writer) -> int:
    file: File = files.claim(writer)
    return int((file.read_json() or {}).get("attempts", len(files.attempts)))
