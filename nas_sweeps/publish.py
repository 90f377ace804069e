"""Publish, never write: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_SUFFIX = ".tmp"


@contextmanager
def publish(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a scratch path beside ``path``; what is written there becomes ``path``.

    The scratch name starts with ".", which scans of a folder of Parquet files skip. Folders on
    the way are made. If the block raises, the scratch is removed and ``path`` stays as it was.

    Args:
        durable: survive a power cut (two fsyncs, milliseconds each). Off for what the next run
            would write again anyway.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid4().hex[:12]}{_SUFFIX}")
    try:
        yield scratch
        if durable:
            _fsync(scratch)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    if durable:
        with suppress(OSError):  # some network file systems cannot sync a folder
            _fsync(path.parent)


def require_writable(path: Path) -> None:
    """That a file can be published there, before much is computed for it. Raises ValueError."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):  # of which a Path has dropped a slash
        raise ValueError(f"'{path}': a URI cannot be written to; name a file of this machine")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{uuid4().hex[:12]}{_SUFFIX}")
        scratch.touch()
        scratch.unlink()
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"'{path}': cannot be written: {why}; name another file") from None


def publish_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Publish a UTF-8 text file."""
    with publish(path, durable=durable) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="")


def remove_scratch(folder: Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(_SUFFIX):
            (folder / name).unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
