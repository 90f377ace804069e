"""The cache folder of this machine, and how a file appears in it. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from nas_sweeps.trial import Places

CACHE_VARIABLE = "NAS_SWEEPS_CACHE"


def cache_folder(places: Places) -> Path:
    """Where this machine keeps decoded images: ``places.cache``, $NAS_SWEEPS_CACHE, or home."""
    chosen = places.cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/nas_sweeps"
    return Path(chosen).expanduser()


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """Yield a scratch path that becomes ``target`` on success and vanishes on failure.

    Readers of ``target`` see the old file or the whole new one, never a part.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{uuid4().hex}.tmp")
    try:
        yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
