"""A run that was asked to stop ends by its own code, whatever a library does to the handlers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import ctypes, os, signal, sys, time
from nas_sweeps.sweep import stopping
stopping.GRACE_S = 0.1
try:
    with stopping.stopped_by_signals(lambda reason: None):
        os.kill(os.getpid(), signal.SIGTERM)
        ctypes.CDLL(None).signal(signal.SIGTERM, None)  # as Ray's C++ does when it shuts down
        time.sleep(60)
except stopping.Interrupted as stopped:
    sys.exit(stopped.exit_code)
"""


def test_a_library_that_takes_sigterm_away_does_not_change_how_a_run_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 128 + 15, done.stderr
    assert "stopping after the steps" in done.stderr
