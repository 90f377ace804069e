"""The cache folder of this machine. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from nas_sweeps.paths import user_path
from nas_sweeps.trial import DataPaths

CACHE_VARIABLE = "NAS_SWEEPS_CACHE"
_AT_HOME = "~/.cache/nas_sweeps"


def cache_folder(places: DataPaths) -> Path:
    """Where this machine keeps decoded images: ``places.cache``, $NAS_SWEEPS_CACHE, or home.

    Raises:
        ValueError: nothing was named, and this user has no home folder.
    """
    chosen = places.cache or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return user_path(chosen)
    try:
        return user_path(_AT_HOME)
    except ValueError:
        raise ValueError(
            f"there is no place to keep images: the user with the number {os.getuid()} has no "
            f"home folder; set HOME, or {CACHE_VARIABLE} to a folder that can be written"
        ) from None


def downloads_folder(places: DataPaths) -> Path:
    """Where data sets are downloaded to. Raises ValueError as ``cache_folder``."""
    return user_path(places.downloads) if places.downloads else cache_folder(places) / "downloads"


def arithmetic_folder(places: DataPaths) -> Path:
    """Where this machine keeps which of its devices have passed the arithmetic check.

    Raises ValueError as ``cache_folder``.
    """
    return cache_folder(places) / "arithmetic"
