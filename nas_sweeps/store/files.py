"""The bytes of a store: on a file system, or on an object store.

All that is asked of either: a file appears under its name whole or not at all, and who lists or
reads afterwards sees it. No rename, no lock and no exclusive creation is asked for, because no
file of a store has two writers: see ``layout``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from nas_sweeps.paths import user_path
from nas_sweeps.publish import publish, remove_scratch


class Folder(NamedTuple):
    """What one listing says of a folder: names, and a number that changes whenever it does."""

    names: tuple[str, ...]
    mtime_ns: int  # of the last change, in ns by the clock of the file system


NOTHING_KNOWN: Mapping[str, int] = MappingProxyType({})


class Files(Protocol):
    """Files by key, a relative path with ``/``. A folder is there when something is in it."""

    @property
    def root(self) -> str:
        """The name that a person gives it and that ``open_files`` takes."""

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError, or another OSError."""

    def publish(self, key: str, data: bytes, *, durable: bool = True) -> None:
        """Readers see the old bytes or the new ones. ``durable`` survives a power cut."""

    def append(self, key: str, text: str) -> None:
        """For a log: one writer, and a reader may see half a line."""

    def remove(self, key: str) -> None:
        """Remove a file; nothing happens where there is none."""

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the files in a folder, sorted; scratch files of writers are left out."""

    def tree(self, folder: str, known: Mapping[str, int] = NOTHING_KNOWN) -> dict[str, Folder]:
        """The folders in a folder, by name, sorted.

        Names may be left out of a folder whose stamp is the one in ``known``.
        """

    def clean_up(self, folder: str) -> None:
        """Remove what killed writers left in a folder and no listing shows."""

    def mtime_ns(self, key: str) -> int:
        """When a file last changed, in ns by the clock of the file system. Raises OSError."""

    def now(self) -> int:
        """The time by that clock, which need not be this machine's."""

    def where(self, key: str) -> str:
        """A file's full name, for messages."""


def open_files(root: str | Path) -> Files:
    """Files below a folder, or below a URI that ``pyarrow.fs`` knows, such as ``s3://bucket/x``.

    Raises:
        ValueError: no file system answers to the URI, or there is no home folder for ``~``.
    """
    if "://" not in str(root):
        return LocalFiles(user_path(root).absolute())
    from nas_sweeps.store.remote import open_uri

    return open_uri(str(root))


@dataclass(frozen=True)
class LocalFiles:
    """A folder of this machine, or one that a network file system shows here."""

    path: Path

    @property
    def root(self) -> str:
        return str(self.path)

    def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def publish(self, key: str, data: bytes, *, durable: bool = True) -> None:
        with publish(self.path / key, durable=durable) as scratch:
            scratch.write_bytes(data)

    def append(self, key: str, text: str) -> None:
        with (self.path / key).open("a", encoding="utf-8") as file:
            file.write(text)

    def remove(self, key: str) -> None:
        (self.path / key).unlink(missing_ok=True)

    def names(self, folder: str) -> tuple[str, ...]:
        try:
            return _shown(os.listdir(self.path / folder))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def tree(self, folder: str, known: Mapping[str, int] = NOTHING_KNOWN) -> dict[str, Folder]:
        found = {}
        # The time is taken before the names: a change between the two shows in the next time.
        for name, mtime_ns in self._folders(folder):
            names = () if known.get(name) == mtime_ns else self.names(f"{folder}/{name}")
            found[name] = Folder(names, mtime_ns)
        return found

    def clean_up(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            remove_scratch(self.path / folder)

    def mtime_ns(self, key: str) -> int:
        return (self.path / key).stat().st_mtime_ns

    def now(self) -> int:
        with NamedTemporaryFile(dir=self.path, prefix=".clock.") as file:
            return os.stat(file.name).st_mtime_ns

    def where(self, key: str) -> str:
        return str(self.path / key)

    def _folders(self, folder: str) -> list[tuple[str, int]]:
        try:
            with os.scandir(self.path / folder) as entries:
                return sorted((e.name, e.stat().st_mtime_ns) for e in entries if e.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if not name.startswith(".")))


@dataclass(frozen=True, slots=True)
class File:
    """One file of a store, which need not be there."""

    files: Files
    key: str

    def __str__(self) -> str:
        return self.files.where(self.key)

    def __fspath__(self) -> str:
        """For people and tests that look into a local store with tools of their own."""
        if not isinstance(self.files, LocalFiles):
            raise TypeError(f"{self} is not on a file system of this machine")
        return str(self)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def read(self) -> bytes:
        """Raises OSError."""
        return self.files.read(self.key)

    def publish(self, data: bytes, *, durable: bool = True) -> None:
        self.files.publish(self.key, data, durable=durable)

    def publish_json(self, value: dict[str, Any], *, durable: bool = True) -> None:
        """Write JSON with a digest of its content. NaN and infinity become null."""
        finite = _finite(value)
        text = json.dumps(finite | {_SEAL: _digest(finite)}, ensure_ascii=False, indent=1)
        self.publish((text + "\n").encode(), durable=durable)

    def read_json(self) -> dict[str, Any] | None:
        """The JSON object in it; None if there is none, or (with a warning) none to read."""
        try:
            value = json.loads(self.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            warn_skipped(self, error)
            return None
        if not isinstance(value, dict):
            warn_skipped(self, "not a JSON object")
            return None
        checksum = value.pop(_SEAL, None)
        if checksum is not None and checksum != _digest(value):
            warn_skipped(self, "its content is not what was written")
            return None
        return value

    def remove(self) -> None:
        self.files.remove(self.key)


def warn_skipped(file: File, why: object) -> None:
    """One file that cannot be read is reported and hides nothing else."""
    warnings.warn(f"skipped unreadable file '{file}': {why}", stacklevel=3)


_SEAL = "sealed"


def _digest(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
