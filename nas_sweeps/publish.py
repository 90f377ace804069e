"""Publish, never write: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
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
    scratch = path.with_name(f"{_scratch_prefix(path)}{uuid4().hex[:12]}{_SUFFIX}")
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


def publish_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Publish a UTF-8 text file."""
    with publish(path, durable=durable) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="")


def publish_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Publish a JSON file. JSON has no NaN and no infinity: both become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=1)
    publish_text(path, text + "\n", durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is no file, or (with a warning) none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        warn_skipped(path, error)
        return None
    if not isinstance(value, dict):
        warn_skipped(path, "not a JSON object")
        return None
    return value


def warn_skipped(path: Path, why: object) -> None:
    """One file that cannot be read is reported and hides nothing else."""
    warnings.warn(f"skipped unreadable file '{path}': {why}", stacklevel=3)


def remove_scratch(path: Path) -> None:
    """Remove what writers of ``path`` that were killed left behind."""
    for name in os.listdir(path.parent):
        if name.startswith(_scratch_prefix(path)) and name.endswith(_SUFFIX):
            (path.parent / name).unlink(missing_ok=True)


def _scratch_prefix(path: Path) -> str:
    return f".{path.name}."


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
