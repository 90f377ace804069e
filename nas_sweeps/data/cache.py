"""The cache folder of this machine. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from nas_sweeps.trial import Places

CACHE_VARIABLE = "NAS_SWEEPS_CACHE"


def cache_folder(places: Places) -> Path:
    """Where this machine keeps decoded images: ``places.cache``, $NAS_SWEEPS_CACHE, or home."""
    chosen = places.cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/nas_sweeps"
    return Path(chosen).expanduser()


def arithmetic_folder(places: Places) -> Path:
    """Where this machine keeps which of its devices have passed the arithmetic check."""
    return cache_folder(places) / "arithmetic"
