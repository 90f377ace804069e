"""README's promises: its commands and what they print, its example of a method, its messages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nas_sweeps as ns

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


def test_the_method_of_the_readme_can_be_planned() -> None:
    (example,) = [block for block in blocks("python") if "@register" in block]
    code = example + (
        "\nimport nas_sweeps as ns\n"
        "grid = ns.Grid.from_dict({'data': {'dataset': 'digits'}, 'search': {'methods': "
        "[{'sharp_darts': {'temperature': 0.1}}], 'distributions': ['balance'], 'seeds': [0]}})\n"
        "assert dict(ns.plan(grid).searches[0].method.knobs)['temperature'] == 0.1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
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


def sessions() -> list[tuple[str, str]]:
    """Commands of the console blocks, each with what README says that it prints."""
    parts = [part for block in blocks("console") for part in re.split(r"^\$ ", block, flags=re.M)]
    return [tuple(part.split("\n", 1)) for part in parts if part.strip()]


def shape(line: str) -> str:
    """A line without what differs from machine to machine: numbers, and the widths they give."""
    line = re.sub(r"[0-9a-f]{7,}|\b(\d+[dhms])+\b|[\d.,]*\d", "#", line)
    return re.sub(r"[\s─━═│┃]+", " ", line).strip()


@pytest.mark.skipif(QUICKSTART is None, reason="needs a store of the quickstart: see .ci/run")
@pytest.mark.parametrize(("command", "said"), sessions())
def test_the_outputs_of_the_readme_are_real(command: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/quickstart").symlink_to(Path(QUICKSTART or "").resolve())
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": tools, "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = [shape(line) for line in done.stdout.splitlines()]
    for line in said.splitlines():
        assert line == "…" or shape(line) in printed, f"{command!r} no longer prints {line!r}"


@pytest.mark.skipif(QUICKSTART is None, reason="needs what the quickstart printed: see .ci/run")
@pytest.mark.parametrize("run", [1, 2])
def test_the_quickstart_prints_what_the_readme_says(run: int) -> None:
    store = Path(QUICKSTART or "")
    printed = [shape(line) for line in store.with_name(f"printed{run}").read_text().splitlines()]
    for line in blocks("text")[run - 1].splitlines():
        said = shape(line.replace("…/runs/quickstart", str(store)))
        assert line == "…" or said in printed, f"run {run} no longer prints {line!r}"


def test_the_readme_shows_what_commands_print() -> None:
    assert {command.split()[1] for command, _ in sessions()} >= {"plan", "table", "compare"}
