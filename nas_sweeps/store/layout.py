"""Where everything in a store is. No other module spells a file name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrialFiles:
    """The files of one trial. Nothing here says that they exist."""

    dir: Path

    @property
    def trial_id(self) -> str:
        return self.dir.name

    @property
    def spec(self) -> Path:
        """What was asked."""
        return self.dir / "trial.json"

    @property
    def attempt(self) -> Path:
        """Who is running it, or was last."""
        return self.dir / "attempt.json"

    @property
    def checkpoint(self) -> Path:
        return self.dir / "checkpoint.pt"

    @property
    def epochs(self) -> Path:
        return self.dir / "epochs.parquet"

    @property
    def classes(self) -> Path:
        return self.dir / "classes.parquet"

    @property
    def log(self) -> Path:
        return self.dir / "log.txt"

    @property
    def result(self) -> Path:
        """Written last: the trial is settled exactly when it is there."""
        return self.dir / "result.json"

    @property
    def origins(self) -> Path:
        """A folder with one file for each search or baseline that asked for a retrain."""
        return self.dir / "origins"


@dataclass(frozen=True, slots=True)
class Layout:
    """The names in a store, by its root folder."""

    root: Path

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def tables(self) -> Path:
        """Compacted tables, all derived from the trials' files."""
        return self.root / "tables"

    @property
    def index(self) -> Path:
        """Which trials the compacted tables hold, and as of when."""
        return self.tables / "index.json"

    @property
    def grids(self) -> Path:
        """Resolved grids as JSON, one file per content hash."""
        return self.root / "grids"

    def table(self, name: str) -> Path:
        return self.tables / f"{name}.parquet"

    def trial(self, trial_id: str) -> TrialFiles:
        return TrialFiles(self.trials / trial_id)

    def trial_ids(self) -> list[str]:
        """Every trial in the store, sorted; none if there is no store yet."""
        return sorted(entry.name for entry in self._entries())

    def stamps(self) -> dict[str, int]:
        """When each trial's folder last changed (file system's clock, ns), sorted by trial.

        Whatever is published into a folder changes its time, so an equal stamp means that
        nothing in it needs to be opened again.
        """
        return dict(sorted((entry.name, entry.stat().st_mtime_ns) for entry in self._entries()))

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.trials) as entries:
                yield from (e for e in entries if e.name[:2] in ("s-", "r-") and e.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return
