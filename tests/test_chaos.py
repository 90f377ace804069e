"""A handful of the rounds that ``python -m tests.chaos`` runs by the hundred."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_whatever_dies_the_same_command_ends_with_the_same_bits(tmp_path: Path) -> None:
    options = ["--rounds", "3", "--seed", "1", "--victims", "point,damage,driver"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options, "--keep", str(tmp_path / "chaos")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3" in done.stdout
