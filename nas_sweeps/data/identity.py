"""Which files make up a custom data set, and the fingerprint of their content. Torch-free.

Two layouts are read: Parquet (files named ``train*.parquet`` and ``test*.parquet``, anywhere
under the folder) and image folders (``train/<class>/...`` and ``test/<class>/...``). Hidden
files and everything else, a README say, are neither read nor part of the fingerprint.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas_sweeps.data.cache import cache_folder
from nas_sweeps.publish import publish_text
from nas_sweeps.trial import Places

__all__ = ["LAYOUTS", "Files", "cache_folder", "find_files", "fingerprint"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
LAYOUTS = "train*.parquet and test*.parquet, or train/<class>/ and test/<class>/ full of images"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a custom data set, each split sorted by path."""

    layout: Literal["parquet", "folder"]
    root: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]


def find_files(path: str | Path) -> Files:
    """List what ``path`` holds.

    Raises:
        ValueError: ``path`` is missing, a file, empty, of neither layout, or lacks a split; or a
            folder in it cannot be read, or leads back to a folder that holds it.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"data path {root} {problem}; name a folder with {LAYOUTS}")
    everything = sorted(_walk(root))
    if not everything:
        raise ValueError(f"data path {root} is empty; it needs {LAYOUTS}")
    for layout, belongs in (("parquet", _in_parquet_split), ("folder", _in_folder_split)):
        train, test = (
            tuple(file for file in everything if belongs(file.relative_to(root), split))
            for split in ("train", "test")
        )
        if train and test:
            return Files(layout, root, train, test)  # type: ignore[arg-type]
        if train or test:
            found, lacking = ("train", "test") if train else ("test", "train")
            raise ValueError(f"data path {root} has {found} images but no {lacking}: add {LAYOUTS}")
    raise ValueError(f"data path {root} holds no data set that can be read; it needs {LAYOUTS}")


def fingerprint(path: str | Path, places: Places | None = None) -> str:
    """SHA-256 (64 hexadecimal digits) over the relative names and contents of a data set.

    Remembered in the cache folder by every file's path, size and times of change, so only the
    first call reads the images.

    Raises:
        ValueError: as ``find_files``; or a file cannot be read, is none, or is named in no UTF-8.
    """
    files = find_files(path)
    memo = cache_folder(places or Places()) / "fingerprints" / _listing_key(files)
    with suppress(OSError, UnicodeDecodeError):
        known = memo.read_text()
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    value = _hash_contents(files)
    with suppress(OSError):  # planning works with a read-only cache
        publish_text(memo, value, durable=False)
    return value


def _walk(root: Path) -> Iterator[Path]:
    """Every file that is not hidden, through links to folders.

    ``os.walk`` would leave out what it cannot read, and list files again for every turn of a loop.
    """
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(root), ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            own = os.stat(folder)
            here = (own.st_dev, own.st_ino)
            if here in above:
                raise ValueError(f"{folder} is a link to a folder that holds it; remove the link")
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "lost+found":
                        continue
                    if entry.is_dir():
                        waiting.append((entry.path, (*above, here)))
                    else:
                        yield Path(entry.path)
        except OSError as error:
            raise ValueError(
                f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it"
            ) from None


def _in_parquet_split(relative: Path, split: str) -> bool:
    return relative.suffix == ".parquet" and relative.name.startswith(split)


def _in_folder_split(relative: Path, split: str) -> bool:
    deep_enough = len(relative.parts) >= 3 and relative.parts[0] == split
    return deep_enough and relative.suffix.lower() in IMAGE_SUFFIXES


def _listing_key(files: Files) -> str:
    """Changes with every change of a file: a tool may keep a file's mtime, but not its ctime."""
    digest = hashlib.sha256()
    for file in files.train + files.test:
        try:
            str(file).encode()
            found = file.stat()
        except UnicodeEncodeError:
            raise ValueError(f"{str(file)!r}: its name is not UTF-8; rename it") from None
        except OSError as error:
            raise ValueError(
                f"{file}: cannot be read ({error.strerror}); repair or remove it"
            ) from None
        if not stat.S_ISREG(found.st_mode):  # reading a pipe may wait for ever
            raise ValueError(f"{file}: is a device or a pipe, not a file; remove it")
        known = (file.resolve(), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update("".join(f"{part}\0" for part in known).encode())
    return digest.hexdigest()


def _hash_contents(files: Files) -> str:
    digest = hashlib.sha256()
    for file in files.train + files.test:
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(
                f"{file}: cannot be read ({error.strerror}); make it readable or remove it"
            ) from None
        digest.update(f"{file.relative_to(files.root).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()
