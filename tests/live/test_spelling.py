"""Nothing that is printed stops a program, whatever the terminal's code page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas_sweeps.live.spelling import spell

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "encoding", "spelled"),
    [
        ("93.1 ± 0.2, exp μ=0.1", "utf-8", "93.1 ± 0.2, exp μ=0.1"),
        ("93.1 ± 0.2, exp μ=0.1", "cp1252", "93.1 ± 0.2, exp mu=0.1"),
        ("93.1 ± 0.2, exp μ=0.1", "ascii", "93.1 +/- 0.2, exp mu=0.1"),
        ("✓ ümläut 漢 …", "ascii", "ok umlaut ? ..."),
        ("a name of half a character: \udce4", "utf-8", "a name of half a character: ?"),
    ],
)
def test_what_an_encoding_lacks_is_spelled(text: str, encoding: str, spelled: str) -> None:
    assert spell(text, encoding) == spelled
    spelled.encode(encoding)


@pytest.mark.parametrize(
    ("arguments", "encoding"),
    [
        (["plan", "experiments/paper.yaml", "--verbose"], "cp1252"),
        (["doctor", "--help"], "ascii"),
    ],
)
def test_a_verb_prints_in_any_code_page(arguments: list[str], encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nas_sweeps.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert done.stdout.decode(encoding)
