"""A store on an object store, through ``pyarrow.fs``: every file is one PUT, nothing is renamed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from nas_sweeps.store.files import NOTHING_KNOWN, Folder


@dataclass(frozen=True)
class RemoteFiles:
    """Keys below ``base`` (bucket and prefix) of a pyarrow file system, named by ``root``."""

    root: str
    filesystem: fs.FileSystem
    base: str

    def read(self, key: str) -> bytes:
        with self.filesystem.open_input_stream(self._at(key)) as stream:
            return bytes(stream.read())

    def publish(self, key: str, data: bytes, *, durable: bool = True) -> None:
        """The object appears when the stream is closed.

        An upload that its writer did not live to close stays invisible; a lifecycle rule of the
        bucket removes it. A stream that is left early is closed all the same, half written, so
        it is written by a thread that no signal interrupts.
        """
        whole = bytes(memoryview(data))
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self._put, key, whole).result()

    def _put(self, key: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(self._at(key)) as stream:
            stream.write(data)

    def append(self, key: str, text: str) -> None:
        before = b""
        with suppress(FileNotFoundError):
            before = self.read(key)
        self.publish(key, before + text.encode())

    def remove(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self._at(key))

    def names(self, folder: str) -> tuple[str, ...]:
        found = self._list(folder, recursive=False)
        return tuple(sorted(info.base_name for info in found if info.type is fs.FileType.File))

    def tree(self, folder: str, known: Mapping[str, int] = NOTHING_KNOWN) -> dict[str, Folder]:
        start = len(self._at(folder)) + 1
        below: dict[str, list[fs.FileInfo]] = {}
        for info in self._list(folder, recursive=True):
            name, _, rest = info.path[start:].partition("/")
            if info.type is fs.FileType.File and rest and "/" not in rest:
                below.setdefault(name, []).append(info)
        return {
            name: Folder(
                tuple(sorted(info.base_name for info in infos)),
                max(info.mtime_ns or 0 for info in infos) + len(infos),  # also when one is removed
            )
            for name, infos in sorted(below.items())
        }

    def clean_up(self, folder: str) -> None:
        """Nothing: there are no scratch files."""

    def mtime_ns(self, key: str) -> int:
        info = self.filesystem.get_file_info(self._at(key))
        if info.type is not fs.FileType.File:
            raise FileNotFoundError(self.where(key))
        return info.mtime_ns or time.time_ns()

    def now(self) -> int:
        key = f".clock.{uuid4().hex}"
        self.publish(key, b"")
        try:
            return self.mtime_ns(key)
        finally:
            self.remove(key)

    def where(self, key: str) -> str:
        return f"{_shown(self.root).rstrip('/')}/{key}"

    def _at(self, key: str) -> str:
        return f"{self.base}/{key}"

    def _list(self, folder: str, recursive: bool) -> list[fs.FileInfo]:
        return list(
            self.filesystem.get_file_info(
                fs.FileSelector(self._at(folder), allow_not_found=True, recursive=recursive)
            )
        )


def open_uri(uri: str) -> RemoteFiles:
    """Raises ValueError where pyarrow knows no such file system."""
    try:
        filesystem, base = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, ValueError, OSError, NotImplementedError) as error:
        known = "a folder, or a URI such as s3://bucket/folder"
        raise ValueError(f"store '{_shown(uri)}': {error}; name {known}") from None
    if not base.strip("/"):
        raise ValueError(f"store '{_shown(uri)}': it names no bucket; write s3://bucket/folder")
    return RemoteFiles(uri, filesystem, base.rstrip("/"))


def _shown(uri: str) -> str:
    """Without the keys that a URI may carry."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
