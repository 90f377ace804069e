"""For all tests: the folder is on the path, torch has one thread, and Ray's workers are not nice.

Tensors as small as in tests are slower on two threads, and far slower on a busy machine; there,
Ray's workers would come after everything else. Without a GPU, Triton interprets its kernels, which
it must know before it is imported. A session has one cache folder, for its processes and those that
they start, so that the device is checked once and not before every first trial.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch
os.environ.setdefault("RAY_worker_niceness", "0")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))

if "NAS_SWEEPS_CACHE" not in os.environ:  # a process that shares out tests hands it on to others
    os.environ["NAS_SWEEPS_CACHE"] = _cache = tempfile.mkdtemp(prefix="nas_sweeps-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)


@pytest.fixture
def fake_runs() -> Iterator[None]:
    """This test's trials are computed by ``nas_sweeps.testing.FakeRun``, here and in processes
    that it starts. A Ray session that began before needs ``fake_actors``."""
    from tests.faked import faked

    with faked():
        yield
