"""README's promises: its commands and what they print, its example of a method, its messages."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import nas_sweeps as ns
from nas_sweeps.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BAD_GRID = """
data: {dataset: cifar11}
search:
  methods: [darts, fair_dart]
  distributions: [balance, {exp: 2}]
  seeds: [0, -1]
"""


QUICKSTART = os.environ.get("NAS_SWEEPS_QUICKSTART")  # a store that the quickstart has written


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


USE_OF_THE_EXAMPLES = """
import sys

import nas_sweeps as ns

recipe = {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 8}
recipe |= {"loss": "smoothed", "sampler": "with_replacement"}
grid = ns.Grid.from_dict({
    "data": {"dataset": "stripes", "image_size": 8, "n_max": 10, "test_n_max": 3},
    "search": {
        "methods": [{"sharp_darts": {"temperature": 0.1}}],
        "distributions": [{"exp": 0.4}],
        "recipe": recipe,
    },
    "retrain": {"recipe": recipe},
})
assert dict(ns.plan(grid).searches[0].method.knobs)["temperature"] == 0.1
summary = ns.run(grid, sys.argv[1], executor="inline", console="none")
assert summary.complete, summary
"""


def test_what_the_readme_adds_runs(tmp_path: Path) -> None:
    examples = [block for block in blocks("python") if "register(" in block]
    assert len(examples) == 3
    program = tmp_path / "program.py"
    program.write_text("\n".join([*examples, USE_OF_THE_EXAMPLES]))
    done = subprocess.run(
        [sys.executable, program, tmp_path / "store"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_grid_files_of_the_readme_exist() -> None:
    named = set(re.findall(r"experiments/\w+\.yaml", README))
    assert {"experiments/quickstart.yaml", "experiments/cifar10_cpu.yaml"} <= named
    assert all((ROOT / name).exists() for name in named)


def test_the_messages_of_the_readme_are_real(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD_GRID)
    try:
        ns.load_grid(file)
    except ns.GridError as error:
        said = str(error).replace(str(file), "bad.yaml")
    assert said in README


def test_the_counts_of_the_readme_are_real() -> None:
    assert re.search(r"len\(ns.plan\(grid\)\) +# 18", README)
    assert len(ns.plan(ns.load_grid(ROOT / "experiments/table1.yaml"))) == 18


def test_the_file_tree_of_the_readme_is_the_house() -> None:
    rooms = {p.name for p in (ROOT / "nas_sweeps").iterdir() if not p.name.startswith("__")}
    for room in rooms:
        assert f"{room}/" in README or room in README, room


def sessions(live: bool = False) -> list[tuple[str, str]]:
    """Commands of the console blocks, each with what README says that it prints.

    ``live``: those that are watched while they work.
    """
    parts = [part for block in blocks("console") for part in re.split(r"^\$ ", block, flags=re.M)]
    split = [tuple(part.split("\n", 1)) for part in parts if part.strip()]
    return [(command, said) for command, said in split if (command.split()[1] == "run") == live]


def shape(line: str) -> str:
    """A line without what differs from machine to machine: numbers, and the widths they give."""
    line = re.sub(r"[0-9a-f]{7,}|\b(\d+[dhms])+\b|[\d.,]*\d", "#", line)
    return re.sub(r"[\s─━═│┃]+", " ", line).strip()


def laid_out(folder: Path, *stores: str) -> Path:
    """Where README's reader works: the grid files, and the quickstart's store by these names."""
    (folder / "experiments").symlink_to(ROOT / "experiments")
    (folder / "runs").mkdir()
    for name in stores:
        (folder / "runs" / name).symlink_to(Path(QUICKSTART or "").resolve())
    return folder


def environment() -> dict[str, str]:
    """That of somebody who has installed nas_sweeps."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": tools, "COLUMNS": "100"}


@pytest.mark.skipif(QUICKSTART is None, reason="needs a store of the quickstart: see .ci/run")
@pytest.mark.parametrize(("command", "said"), sessions())
def test_the_outputs_of_the_readme_are_real(command: str, said: str, tmp_path: Path) -> None:
    where = laid_out(tmp_path, "quickstart")
    done = subprocess.run(
        command, shell=True, cwd=where, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    printed = [shape(line) for line in done.stdout.splitlines()]
    for line in said.splitlines():
        assert line == "…" or shape(line) in printed, f"{command!r} no longer prints {line!r}"


@pytest.mark.skipif(QUICKSTART is None, reason="needs a store of the quickstart: see .ci/run")
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(laid_out(tmp_path, "quickstart", "table1", "a", "b"))
    asked: list[object] = []
    monkeypatch.setattr(ns, "run", lambda grid, store: asked.append(store))  # weeks of GPU time
    code = [block for block in blocks("python") if "ns." in block]
    names: dict[str, object] = {"ns": ns}
    for block in code:
        exec(block, names)
    assert len(code) == 2
    assert asked == ["runs/table1"]


def terminal(process: list[str], cwd: Path) -> tuple[subprocess.Popen[bytes], Iterator[str]]:
    """A process on a terminal of its own, and every line that it draws there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    env = environment() | {"TERM": "xterm-256color", "CI": "", "PYTHONIOENCODING": "utf-8"}
    started = subprocess.Popen(
        process, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs, process_group=0
    )
    os.close(theirs)

    def drawn() -> Iterator[str]:
        with open(ours, encoding="utf-8", newline="") as screen:
            try:
                for text in screen:
                    yield from re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).splitlines()
            except OSError:  # Linux's word for: nobody is left at the other end
                return

    return started, drawn()


@pytest.mark.skipif(QUICKSTART is None, reason="takes half a minute: see .ci/run")
@pytest.mark.parametrize(("command", "said"), sessions(live=True))
def test_the_live_view_of_the_readme_is_real(command: str, said: str, tmp_path: Path) -> None:
    picture = [shape(line) for line in said.splitlines()]
    process, drawn = terminal(shlex.split(command), laid_out(tmp_path))
    seen: list[str] = []
    for line in drawn:
        seen = [*seen[1 - len(picture) :], shape(line)] if line.strip() else seen
        if seen == picture and process.poll() is None:
            process.send_signal(signal.SIGINT)
            picture = []  # seen
    assert process.wait() == 130, "never drawn" if picture else "Ctrl-C did not end it"


@pytest.mark.skipif(QUICKSTART is None, reason="needs what the quickstart printed: see .ci/run")
@pytest.mark.parametrize("run", [1, 2])
def test_the_quickstart_prints_what_the_readme_says(run: int) -> None:
    store = Path(QUICKSTART or "")
    printed = [shape(line) for line in store.with_name(f"printed{run}").read_text().splitlines()]
    for line in blocks("text")[run - 1].splitlines():
        said = shape(line.replace("…/runs/quickstart", str(store)))
        assert line == "…" or said in printed, f"run {run} no longer prints {line!r}"


def test_every_command_that_the_readme_shows_is_one_and_takes_what_it_is_given() -> None:
    """Here without a store; with the quickstart's, what it prints is held against README."""
    shown = [*sessions(), *sessions(live=True)]
    assert {command.split()[1] for command, _ in shown} >= {"plan", "run", "table", "compare"}
    verbs = get_command(app)
    assert isinstance(verbs, TyperGroup)
    for command, said in shown:
        program, verb, *arguments = shlex.split(command)
        assert program == "nas-sweeps", command
        verbs.commands[verb].make_context(verb, arguments)  # raises what typer would print
        assert said.strip(), f"{command!r} shows nothing that it prints"
