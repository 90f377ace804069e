"""The warm-up's tests, where Triton compiles: the session's other processes interpret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def passed(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-n", "0", *arguments]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("readying.py"))],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.system
def test_kernels_are_compiled_ahead_of_time() -> None:
    assert " passed" in passed()


@pytest.mark.slow
def test_all_kernels_of_a_small_supernet_compile() -> None:
    assert "1 passed" in passed("-m", "slow")
