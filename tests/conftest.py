"""For all tests: the folder is on the path, torch has one thread, and Ray's workers are not nice.

Tensors as small as in tests are slower on two threads, and far slower on a busy machine; there,
Ray's workers would come after everything else. Without a GPU, Triton interprets its kernels, which
it must know before it is imported. A session has one cache folder, for its processes and those that
they start, so that the device is checked once and not before every first trial.

Where Python may not keep bytecode beside sources, as in many containers, it is kept with pytest's
cache: otherwise each of the hundreds of processes that tests start compiles torch's sources again.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

BYTECODE = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch
os.environ.setdefault("RAY_worker_niceness", "0")
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(BYTECODE)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
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


# With NAS_SWEEPS_CI=1 (.ci/run) a test may be skipped for these reasons only.
SKIPPED_IN_CI = (
    "root may write anywhere",
    "no CIFAR-10",  # images that this repository does not have
    "see .ci/run",  # which runs these in a step of their own
    "there is a GPU",
    "is an extra that is not installed",
    "trains nothing",  # a contract's test that is not for this method
    "its trials run in this process",  # the same, for this executor
    "this Pillow was built without JPEG 2000",
)


def _fail_unless_expected(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("NAS_SWEEPS_CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        if not any(known in reason for known in SKIPPED_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"no test is skipped for this where NAS_SWEEPS_CI is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_unless_expected(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_unless_expected(report)
    return report
