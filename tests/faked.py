"""Runs of no time in the place of real ones, for tests of what happens around a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nas_sweeps.testing import fake

SWITCH = {"NAS_SWEEPS_RUNS": f"{fake.__name__}:RUNS"}


@contextmanager
def faked() -> Iterator[pytest.MonkeyPatch]:
    """Inside, trials are computed by ``FakeRun`` here and in processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SWITCH.items():
            patch.setenv(name, value)
        yield patch
