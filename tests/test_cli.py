"""The command line as a person meets it: subprocesses, exit codes, what is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TINY = """
data: {dataset: digits, image_size: 8, n_max: 10, test_n_max: 3}
search:
  methods: [darts]
  distributions: [{exp: 0.4}]
  seeds: [0]
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 8}
retrain:
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 8}
"""


def cli(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nas_sweeps.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
        timeout=240,
    )


def numbers(line: str) -> list[int]:
    return [int(n) for n in re.findall(r"\b\d+\b", line)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("grids") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.mark.parametrize(
    ("name", "searches", "retrains"),
    [("quickstart", 6, 6), ("table1", 9, 9), ("verification", 12, 12), ("paper", 18, 18)],
)
def test_plan_counts_every_trial(name: str, searches: int, retrains: int, tmp_path: Path) -> None:
    done = cli("plan", ROOT / f"experiments/{name}.yaml", "--store", tmp_path / "none")
    assert done.returncode == 0, done.stderr
    assert f"{searches + retrains} trials" in done.stdout
    totals = next(line for line in done.stdout.splitlines() if " all " in line)
    assert numbers(totals) == [0, searches + retrains, searches + retrains]
    assert not (tmp_path / "none").exists(), "planning makes no store"


def test_planning_and_help_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from nas_sweeps import cli\n"
        "sys.argv = ['nas-sweeps', 'plan', 'experiments/paper.yaml', "
        f"'--store', {str(tmp_path)!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'ray', 'pandas', 'pyarrow', 'sklearn', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_verbose_plan_shows_what_was_resolved(tmp_path: Path) -> None:
    done = cli("plan", "experiments/table1.yaml", "--verbose", "--store", tmp_path)
    assert done.stdout.count("s-") == 9
    assert "zero_one_weight" in done.stdout
    assert '"weight_decay": 0.0003' in done.stdout


def test_a_bad_grid_is_all_its_mistakes_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "data: {dataset: cifar11}\n"
        "search: {methods: [fair_dart], distributions: [{exp: 2}], seeds: [-1], speed: 9}\n"
    )
    done = cli("plan", file)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for place in ("data.dataset", "search.methods", "search.distributions", "search.seeds"):
        assert f"bad.yaml: {place}" in done.stderr
    assert "fairdarts" in done.stderr
    assert "speed" in done.stderr


@pytest.mark.parametrize("verb", ["status", "table"])
def test_what_is_no_store_is_said_to_be_none(verb: str, tmp_path: Path) -> None:
    done = cli(verb, tmp_path)
    assert done.returncode == 2
    assert "is no store" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_status_table_and_run_again(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "it's a store"
    first = cli("run", tiny, "--store", store, "--executor", "inline")
    assert first.returncode == 0, first.stderr
    assert "1 of 1 search trials done, 1 of 1 retrain trials done; 2 run now" in first.stdout
    assert "exp mu=0.4" in first.stdout
    second = cli("run", tiny, "--store", store, "--executor", "inline")
    assert second.returncode == 0
    assert "nothing to run" in second.stdout
    status = cli("status", store)
    totals = next(line for line in status.stdout.splitlines() if " all " in line)
    assert numbers(totals) == [2, 0, 2]
    table = cli("table", store, "--value", "num_params")
    assert re.search(r"darts.*\d+\.00 \(1\)", table.stdout)
    assert cli("table", store, "--value", "beauty").returncode == 2
    planned = cli("plan", tiny, "--store", store)
    assert numbers(next(x for x in planned.stdout.splitlines() if " all " in x)) == [2, 0, 2]


def test_missing_images_are_one_message(tmp_path: Path) -> None:
    done = cli("run", "experiments/cifar10_cpu.yaml", "--store", tmp_path / "s")
    assert done.returncode == 2
    assert "data.path" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_ray_cluster_at_the_address_is_one_message(tiny: Path, tmp_path: Path) -> None:
    done = cli("run", tiny, "--store", tmp_path / "s", "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "--address 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_ctrl_c_is_130_and_the_same_command_goes_on(executor: str, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(TINY.replace("epochs: 1", "epochs: 30", 1))
    store = tmp_path / "store"
    where = ["--store", store, "--executor", executor]
    running = subprocess.Popen(
        [sys.executable, "-m", "nas_sweeps.cli", "run", file, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    assert running.stdout is not None
    first = running.stdout.readline()
    assert "search darts" in first, first
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    again = cli("run", file, "--store", store, "--executor", "inline")
    assert again.returncode == 0, again.stderr
    assert "search     1/30" not in again.stdout, "a finished epoch is not computed again"
