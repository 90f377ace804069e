"""A package of somebody's own adds one of each registry, and touches no file of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.store.trial_files import all_checkpoints
from nas_sweeps.sweep.checkpoint import read

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
    "classifier": {"epochs": 2},
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


def network_of(store: Path, trial_id: str) -> dict[str, torch.Tensor]:
    """The weights and statistics that a trial ended with."""
    (checkpoint,) = all_checkpoints(Store(store).layout.trial(trial_id))
    state: dict[str, torch.Tensor] = read(checkpoint).run["network"]
    return state


@pytest.mark.system
def test_it_runs_from_end_to_end(installed: dict[str, str], tmp_path: Path) -> None:
    file, store = tmp_path / "grid.yaml", tmp_path / "store"
    file.write_text(yaml.safe_dump(GRID))
    own = ("--executor", "processes: {workers: 1}")
    said = nas_sweeps(installed, "run", file, "--store", store, *own)
    assert "search 1/1, retrain 1/1, classifier 1/1" in said
    frames = ns.load(store)  # which is read without the package
    assert frames.attempts.pid.nunique() == 3, "each trial has a process of its own"
    trials = frames.trials.set_index("phase").loc[["search", "retrain", "classifier"]]
    assert trials.state.tolist() == ["done"] * 3
    assert trials.method.tolist() == ["masked_darts"] * 3
    assert trials.dataset.tolist() == ["stripes"] * 3
    assert trials.setting[:2].str.contains("loss=deferred,sampler=with_replacement").all()
    # The classifier went on from the retrained network, and the retraining from the search.
    search, retrain, classifier = trials.trial_id
    assert classifier.startswith("c-")
    assert trials.parents.tolist() == [[], [search], [retrain]]
    stages = frames.epochs[frames.epochs.trial_id == classifier].stage
    assert stages.tolist() == ["classifier"] * 2
    before, after = (network_of(store, trial_id) for trial_id in (retrain, classifier))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert ns.summarise(frames, phase="classifier")["exp", 0.4, "n"].tolist() == [1]


def test_its_phase_is_planned_and_counted(installed: dict[str, str], tmp_path: Path) -> None:
    file, store = tmp_path / "grid.yaml", tmp_path / "store"
    file.write_text(yaml.safe_dump(GRID))
    fake = installed | {"NAS_SWEEPS_RUNS": "nas_sweeps.testing.fake:RUNS"}
    planned = nas_sweeps(installed, "plan", file, "--store", store)
    assert "3 trials" in planned
    assert "a classifier trial takes 0 GPU and 1 CPU" in planned
    others = ("--executor", "inline", "--only", "phase != 'classifier'")
    nas_sweeps(fake, "run", file, "--store", store, *others)
    table = nas_sweeps(installed, "status", store).splitlines()
    rows = {line.split()[1]: line.split()[5:12:2] for line in table if "masked_darts" in line}
    assert rows["classifier"] == ["0", "1", "1"]
    assert rows["retrain"] == ["1", "0", "1"]


@pytest.mark.system
def test_it_passes_the_contract_tests_that_are_shipped(
    installed: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(PACKAGE / "contract.py", tmp_path / "test_contract.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_contract.py"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 55


def test_without_it_its_names_are_mistakes() -> None:
    with pytest.raises(ns.GridError) as refused:
        ns.Grid.from_dict(GRID)
    said = str(refused.value)
    assert "classifier: unknown setting 'classifier'; choose from name, data, search, retr" in said
    assert "data.dataset: unknown data set 'stripes'" in said
    assert "unknown method 'masked_darts'" in said
    assert "search.recipe.loss: unknown loss 'deferred'" in said
    assert "retrain.recipe.sampler: unknown sampler 'with_replacement'" in said


@pytest.mark.parametrize("part", ["datasets", "executors", "losses", "methods", "samplers"])
def test_each_takes_under_thirty_lines(part: str) -> None:
    assert lines_of(part) < 30


def test_a_phase_takes_forty_lines() -> None:
    assert lines_of("phases") <= 40


def lines_of(part: str) -> int:
    lines = (PACKAGE / "example_plugin" / f"{part}.py").read_text().splitlines()
    return len([line for line in lines if line])
