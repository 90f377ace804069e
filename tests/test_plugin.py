"""A package of somebody's own adds one of each registry, and touches no file of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import nas_sweeps as ns

PACKAGE = Path(__file__).parent / "example_package"
GRID = {
    "data": {"dataset": "stripes", "image_size": 8, "n_max": 10, "test_n_max": 3},
    "search": {
        "methods": ["masked_darts"],
        "distributions": [{"exp": 0.4}],
        "recipe": {
            "channels": 2,
            "layers": 3,
            "epochs": 1,
            "batch_size": 8,
            "loss": "deferred",
            "sampler": "with_replacement",
        },
    },
    "retrain": {
        "recipe": {
            "channels": 2,
            "layers": 3,
            "epochs": 2,
            "batch_size": 8,
            "loss": "deferred",
            "sampler": "with_replacement",
        }
    },
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed: built as a wheel, and unpacked."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PACKAGE, folder / "source")
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return os.environ | {"PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}


def nas_sweeps(installed: dict[str, str], *arguments: object) -> str:
    command = [sys.executable, "-m", "nas_sweeps.cli", *map(str, arguments)]
    done = subprocess.run(command, env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_from_end_to_end(installed: dict[str, str], tmp_path: Path) -> None:
    file, store = tmp_path / "grid.yaml", tmp_path / "store"
    file.write_text(yaml.safe_dump(GRID))
    nas_sweeps(installed, "run", file, "--store", store, "--executor", "processes: {workers: 1}")
    frames = ns.load(store)  # which is read without the package
    trials = frames.trials
    assert frames.attempts.pid.nunique() == 2, "each trial has a process of its own"
    assert trials.state.tolist() == ["done", "done"]
    assert trials.method.tolist() == ["masked_darts"] * 2
    assert trials.dataset.tolist() == ["stripes"] * 2
    assert trials.setting.str.contains("loss=deferred,sampler=with_replacement").all()


def test_it_passes_the_contract_tests_that_are_shipped(
    installed: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(PACKAGE / "contract.py", tmp_path / "test_contract.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_contract.py"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 49


def test_without_it_its_names_are_mistakes() -> None:
    with pytest.raises(ns.GridError) as refused:
        ns.Grid.from_dict(GRID)
    said = str(refused.value)
    assert "data.dataset: unknown data set 'stripes'" in said
    assert "unknown method 'masked_darts'" in said
    assert "search.recipe.loss: unknown loss 'deferred'" in said
    assert "retrain.recipe.sampler: unknown sampler 'with_replacement'" in said


@pytest.mark.parametrize("part", ["datasets", "executors", "losses", "methods", "samplers"])
def test_each_takes_under_thirty_lines(part: str) -> None:
    lines = (PACKAGE / "example_plugin" / f"{part}.py").read_text().splitlines()
    assert len([line for line in lines if line]) < 30
