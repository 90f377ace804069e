"""README's promises: its commands, its example of a method, its messages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
