"""An output that ends, by a full device or a closed terminal, ends nothing else."""

from __future__ import annotations

import errno
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.watch.streams import quiet_after_failure

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
GRID = """
data: {dataset: digits, image_size: 8, n_max: 10, test_n_max: 3}
search:
  methods: [darts]
  distributions: [{exp: 0.4}]
  recipe: {channels: 2, layers: 3, epochs: 2, batch_size: 8}
retrain: {winners: none}
"""
pytestmark = [
    pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full"),
    pytest.mark.usefixtures("fake_runs"),
]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(GRID)
    return tmp_path / "tiny.yaml"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "nas_sweeps.cli", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["draw", "DARTS_V2"], ["draw", "DARTS_V2", "--format", "svg"],
     ["plan", "experiments/table1.yaml", "--verbose"]],
)  # fmt: skip
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_verb_whose_output_is_full_ends_as_if_it_had_been_read(
    arguments: list[str], unbuffered: str
) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONUNBUFFERED=unbuffered),
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_verb_prints_in_any_code_page(encoding: str) -> None:
    done = subprocess.run(
        command("plan", "experiments/paper.yaml", "--verbose"),
        cwd=ROOT,
        capture_output=True,
        env=environment(PYTHONIOENCODING=encoding),
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert done.stdout.decode(encoding)


def test_a_console_of_somebody_elses_goes_on_where_its_encoding_lacks_a_character() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    quiet = quiet_after_failure(file)
    quiet.write("Größe 漢 … ")
    quiet.write("and more")
    quiet.flush()
    assert file.buffer.getvalue() == b"Gr??e ? ? and more"  # type: ignore[attr-defined]


def test_a_mistake_that_cannot_be_told_is_still_one() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            command("plan", "nowhere.yaml"), stdout=full, stderr=full, env=environment()
        )
    assert done.returncode == 2


@pytest.mark.system
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_run_whose_outputs_are_full_goes_on(tiny: Path, tmp_path: Path, executor: str) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            command("run", tiny, "--store", tmp_path / "s", "--executor", executor),
            stdout=full,
            stderr=full,
            env=environment(),
            timeout=240,
        )
    assert done.returncode == 0
    assert ns.load(tmp_path / "s").attempts.state.tolist() == ["done"]


def test_a_run_whose_terminal_is_closed_goes_on(tiny: Path, tmp_path: Path) -> None:
    """As after ``disown`` or in a session that ended: writing gives an I/O error from then on."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        command("run", tiny, "--store", tmp_path / "s", "--executor", "inline"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", CI=""),
        start_new_session=True,
    )
    os.close(theirs)
    assert os.read(ours, 1)
    os.close(ours)
    assert running.wait(timeout=240) == 0
    assert ns.load(tmp_path / "s").attempts.state.tolist() == ["done"]


def test_a_verb_without_any_output_works(tmp_path: Path) -> None:
    file = tmp_path / "cells.txt"
    words = " ".join(command("draw", "DARTS_V2", "-o", file))
    done = subprocess.run(f"{words} >&- 2>&-", shell=True, env=environment())
    assert done.returncode == 0
    assert "c[k-2]" in file.read_text()


class _Failing(io.StringIO):
    """Takes a line, and fails from then on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        if self.getvalue():
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_a_run_from_python_goes_on_without_its_console(
    tiny: Path, tmp_path: Path, number: int
) -> None:
    said = _Failing(number)
    summary = ns.run(
        ns.load_grid(tiny), tmp_path / "s", executor="inline", console=Console(file=said)
    )
    assert summary.complete
    assert "search     1/2" in said.getvalue()
    assert ns.load(tmp_path / "s").attempts.state.tolist() == ["done"]
