"""With NAS_SWEEPS_CI set, a test that is skipped is a failure, but for reasons that are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

def test_one():
    pytest.skip("there is a GPU")

@pytest.mark.skipif(True, reason="no browser is installed")
def test_two(): ...
"""
MODULE = "import pytest\npytest.importorskip('no_such_package')\n"


@pytest.mark.parametrize(("ci", "failed"), [("1", {"test_two", "test_module"}), ("", set())])
def test_only_known_reasons_skip_in_ci(
    ci: str, failed: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_functions.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("NAS_SWEEPS_CI", ci)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE"]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors"], cwd=tmp_path, capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))]
    assert len(lines) == len(failed), done.stdout
    assert all(any(name in line for line in lines) for name in failed), done.stdout
    assert done.returncode == (1 if failed else 0)
