"""A handful of the rounds that ``python -m tests.chaos`` runs by the hundred.

Fake trials are killed here: of their numbers, each depends on every step before. That real ones go
on from any step with the same bits is shown in tests/train/test_interrupted.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VICTIMS = "point,damage,driver,stop"
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.system
def test_whatever_dies_the_same_command_ends_with_the_same_bits(tmp_path: Path) -> None:
    options = ["--fake", "--rounds", "4", "--seed", "1", "--victims", VICTIMS]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options, "--keep", str(tmp_path / "chaos")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4" in done.stdout
