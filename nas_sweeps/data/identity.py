"""The fingerprint of a custom data set's content. Torch-free."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from nas_sweeps.data.cache import cache_folder
from nas_sweeps.data.files import Files, find_files
from nas_sweeps.publish import publish_text
from nas_sweeps.trial import Data, DataPaths


def fingerprint(
    path: str | Path, places: DataPaths | None = None, source: Data | None = None
) -> str:
    """SHA-256 (64 hexadecimal digits) over the relative names and contents of a data set.

    ``source`` says which files these are, as ``find_files`` takes it.

    Raises:
        ValueError: as ``find_files`` and ``fingerprint_of``.
    """
    return fingerprint_of(find_files(path, source), places)


def fingerprint_of(files: Files, places: DataPaths | None = None) -> str:
    """``fingerprint`` of files that were found already.

    Remembered in the cache folder by every file's path, size and times of change, so only the
    first call reads the images.

    Raises:
        ValueError: a file cannot be read, is none, or is named in no UTF-8; there is no place
            for a cache.
    """
    memo = cache_folder(places or DataPaths()) / "fingerprints" / _listing_key(files)
    with suppress(OSError, UnicodeDecodeError):
        known = memo.read_text()
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    value = _hash_contents(files)
    with suppress(OSError):  # planning works with a read-only cache
        publish_text(memo, value, durable=False)
    return value


def _listing_key(files: Files) -> str:
    """Changes with every change of a file: a tool may keep a file's mtime, but not its ctime."""
    digest = hashlib.sha256()
    for file in files.all:
        _check_name(file)
        try:
            found = file.stat()
        except OSError as error:
            raise ValueError(
                f"{file}: cannot be read ({error.strerror}); repair or remove it"
            ) from None
        if not stat.S_ISREG(found.st_mode):  # reading a pipe may wait for ever
            raise ValueError(f"{file}: is a device or a pipe, not a file; remove it")
        known = (file.resolve(), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update("".join(f"{part}\0" for part in known).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _check_name(file: Path) -> None:
    """Raises ValueError where a name is another one, or none, to a Python elsewhere."""
    encoding = sys.getfilesystemencoding()
    name = os.fsencode(file)
    if name.isascii():
        return
    try:
        name.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{str(file)!r}: its name is not UTF-8; rename it") from None
    if encoding.lower() != "utf-8":
        raise ValueError(
            f"{str(file)!r}: this Python takes names of files for {encoding} and this one is "
            "UTF-8; set PYTHONUTF8=1 or a UTF-8 locale (LC_ALL=C.UTF-8)"
        )


def _hash_contents(files: Files) -> str:
    digest = hashlib.sha256()
    for file in files.all:
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(
                f"{file}: cannot be read ({error.strerror}); make it readable or remove it"
            ) from None
        digest.update(f"{file.relative_to(files.root).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()
