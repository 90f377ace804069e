"""Where everything in a store is. No other module spells a file name.

Every file has one writer for as long as it is there. What an attempt at a trial writes carries
the attempt's name, a number and a random token; so does what a driver writes. **The newest
attempt speaks for its trial**, and what older ones still write is read by nobody. So a worker
that outlived its driver cannot spoil what its successor computed, on any file system, without
locks and without renames.

    store.json                             that this is a store, and its version
    grids/<digest>.json                    grids that were run into it, resolved
    drivers/0001-3f9a2c.json               who runs it now
    requests/0001-3f9a2c.0001-77aa10.json  what a person asks of that driver
    estimates/0001-3f9a2c.json             what that run was estimated at, and what it took
    trials/<trial_id>/
        trial.json                         what was asked
        origin-<key>.json                  a search or grid that asked for this retrain
        claim-0001-3f9a2c.json             a driver, of several, that runs it
        terms-0001-3f9a2c.json             what stops it, by the driver that handed it out
        0001-3f9a2c.attempt.json           who ran it, when, at what cost, and how that ended
        0001-3f9a2c.0007-<digest>.checkpoint.pt   the seventh; everything needed to go on
        0001-3f9a2c.epochs.parquet         one row per epoch, of earlier attempts too
        0001-3f9a2c.classes.parquet
        0001-3f9a2c.log.txt
        0001-3f9a2c.result.json            written last: the trial is settled
    tables/                                compacted tables, all derived from the trials' files
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nas_sweeps.store.files import NOTHING_KNOWN, File, Files

FOLDERS = ("tables", "trials", "grids", "drivers", "requests", "estimates")
_WRITER = re.compile(r"(\d{4,})-([0-9a-f]{6})")
_TRIAL = re.compile(r"[a-z]+-")  # the prefix of a phase; nothing else that lies there counts
_CHECKPOINT = re.compile(r"(\d{4,})-([0-9a-f]{16})\.checkpoint\.pt")


@dataclass(frozen=True, slots=True, order=True)
class Writer:
    """The name of a writer. Later ones are greater; equal numbers are told apart by the token."""

    number: int
    token: str

    def __str__(self) -> str:
        return f"{self.number:04d}-{self.token}"

    @classmethod
    def of(cls, name: str) -> Writer | None:
        """The writer whose name a file's name begins with."""
        found = _WRITER.match(name)
        return cls(int(found[1]), found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint file. Its name holds the digest of its bytes, so damage shows."""

    file: File
    number: int  # of the save, counting from 1 within the attempt
    digest: str  # first 16 hexadecimal digits of SHA-256


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """The files of one attempt at a trial. Nothing here says that they exist."""

    trial: TrialFiles
    writer: Writer

    @property
    def number(self) -> int:
        return self.writer.number

    def _file(self, what: str) -> File:
        return self.trial.file(f"{self.writer}.{what}")

    @property
    def record(self) -> File:
        """The file that says who runs the attempt, or did, and how that ended."""
        return self._file("attempt.json")

    @property
    def epochs(self) -> File:
        return self._file("epochs.parquet")

    @property
    def classes(self) -> File:
        return self._file("classes.parquet")

    @property
    def log(self) -> File:
        return self._file("log.txt")

    @property
    def result(self) -> File:
        """Written last: the trial is settled exactly when its newest attempt has one."""
        return self._file("result.json")

    def checkpoint(self, number: int, digest: str) -> Checkpoint:
        return Checkpoint(self._file(f"{number:04d}-{digest}.checkpoint.pt"), number, digest)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those in the listing, the latest first."""
        start = f"{self.writer}."
        found = (
            _CHECKPOINT.fullmatch(name.removeprefix(start))
            for name in self.trial.names
            if name.startswith(start)
        )
        kept = [self.checkpoint(int(match[1]), match[2]) for match in found if match]
        return tuple(sorted(kept, key=lambda checkpoint: -checkpoint.number))

    def holds(self, file: File) -> bool:
        """Whether the listing shows one of these files."""
        return file.name in self.trial.names


@dataclass(frozen=True, slots=True)
class TrialFiles:
    """The files of one trial, as its folder was listed."""

    files: Files
    trial_id: str
    names: tuple[str, ...]
    results: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def folder(self) -> str:
        return f"trials/{self.trial_id}"

    def file(self, name: str) -> File:
        return File(self.files, f"{self.folder}/{name}")

    @property
    def spec(self) -> File:
        """What was asked."""
        return self.file("trial.json")

    @property
    def origins(self) -> tuple[File, ...]:
        """One file for each search or baseline that asked for a retrain."""
        return tuple(self.file(name) for name in self.names if name.startswith("origin-"))

    def origin(self, key: str) -> File:
        return self.file(f"origin-{key}.json")

    def claim(self, driver: Writer) -> File:
        """That a driver runs the trial, where several work on the store."""
        return self.file(f"claim-{driver}.json")

    @property
    def claims(self) -> tuple[Writer, ...]:
        """Drivers that have claimed the trial, or did."""
        names = (name.removeprefix("claim-") for name in self.names if name.startswith("claim-"))
        return tuple(writer for writer in map(Writer.of, names) if writer is not None)

    def terms(self, driver: str) -> File:
        """What a driver says of when the trial stops."""
        return self.file(f"terms-{driver}.json")

    @property
    def old_terms(self) -> tuple[File, ...]:
        """Those in the listing."""
        return tuple(self.file(name) for name in self.names if name.startswith("terms-"))

    @property
    def attempts(self) -> tuple[AttemptFiles, ...]:
        """Oldest first."""
        writers = {Writer.of(name) for name in self.names if name.endswith(".attempt.json")}
        return tuple(AttemptFiles(self, w) for w in sorted(w for w in writers if w is not None))

    @property
    def newest(self) -> AttemptFiles | None:
        """The attempt that speaks for the trial."""
        return max(self.attempts, key=lambda attempt: attempt.writer, default=None)

    def attempt(self, writer: Writer) -> AttemptFiles:
        return AttemptFiles(self, writer)


@dataclass(frozen=True, slots=True)
class Layout:
    """The names in a store.

    ``results`` keeps what was read of results, by key, for those who ask for them again and
    again: an attempt publishes one result and never changes it. None: they are read anew.
    """

    files: Files
    results: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.files.where("").rstrip("/")

    @property
    def mark(self) -> File:
        """That this is a store, and of which version."""
        return File(self.files, "store.json")

    def probe(self, token: str) -> File:
        """For a doctor, who writes it, reads it and removes it. No listing shows it."""
        return File(self.files, f".doctor.{token}.json")

    @property
    def index(self) -> File:
        """Which trials the compacted tables hold, and as of when."""
        return File(self.files, "tables/index.json")

    def table(self, name: str) -> File:
        return File(self.files, f"tables/{name}.parquet")

    def grid(self, digest: str) -> File:
        """A resolved grid, by the digest of its content."""
        return File(self.files, f"grids/{digest}.json")

    def grids(self) -> list[File]:
        return [File(self.files, f"grids/{name}") for name in self.files.names("grids")]

    def driver(self, writer: Writer) -> File:
        return File(self.files, f"drivers/{writer}.json")

    def drivers(self) -> list[Writer]:
        """Oldest first."""
        found = (Writer.of(name) for name in self.files.names("drivers"))
        return sorted(writer for writer in found if writer is not None)

    def request(self, driver: Writer, writer: Writer) -> File:
        """What somebody asks of a driver."""
        return File(self.files, f"requests/{driver}.{writer}.json")

    def requests(self) -> list[tuple[Writer, Writer]]:
        """Drivers of whom something is asked, and the writers who ask; the oldest first."""
        found = (map(Writer.of, name.split(".")[:2]) for name in self.files.names("requests"))
        return sorted((d, w) for d, w in found if d is not None and w is not None)

    def estimate(self, writer: Writer) -> File:
        """The estimate of a driver's run; it stays when the driver leaves."""
        return File(self.files, f"estimates/{writer}.json")

    def estimates(self) -> list[Writer]:
        """Oldest first."""
        found = (Writer.of(name) for name in self.files.names("estimates"))
        return sorted(writer for writer in found if writer is not None)

    def trial(self, trial_id: str) -> TrialFiles:
        """A trial's files, by one listing of its folder."""
        names = self.files.names(f"trials/{trial_id}")
        return TrialFiles(self.files, trial_id, names, self.results)

    def trials(self, known: Mapping[str, int] = NOTHING_KNOWN) -> Iterator[tuple[TrialFiles, int]]:
        """Every trial with the stamp of its folder, sorted.

        Whatever is published into a folder changes its stamp, so an equal stamp means that
        nothing in it needs to be opened again: then, and only then, names may be left out.
        """
        for name, folder in self.files.tree("trials", known).items():
            if _TRIAL.match(name):
                yield TrialFiles(self.files, name, folder.names, self.results), folder.mtime_ns
