"""Trainings of seconds on scikit-learn's digits, and what must not depend on how they are run."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nas_sweeps import methods
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.space.published import published
from nas_sweeps.train.common import Row, Run
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import (
    Data,
    DataPaths,
    Distribution,
    MethodSpec,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
)

DATA = Data(dataset="digits", label="digits", image_size=8, n_max=14, test_n_max=4)
EXP = Distribution(kind="exp", mu=0.25)
CPU = torch.device("cpu")
TIMES = ("epoch_s", "images_per_s", "peak_mem_gib")


@cache
def tiny_bundle() -> DataSplits:
    """Digits of 8 x 8 pixels, 14 of the largest class and 3 of the smallest."""
    return prepare(DATA, EXP, DataPaths(), CPU)


def tiny_search(method: MethodSpec, **recipe: Any) -> SearchRun:
    """A search of two epochs after the method's warm-up, two steps each."""
    built = methods.build(method)
    small: dict[str, Any] = {
        "channels": 2 * built.partial_channels,
        "layers": 3,
        "epochs": built.warmup_epochs + 2,
        "batch_size": 24,
    }
    trial = SearchTrial(
        data=DATA,
        distribution=EXP,
        method=method,
        recipe=SearchRecipe(**small | recipe),
        seed=0,
    )
    return SearchRun(trial, tiny_bundle(), CPU)


def tiny_retrain(**recipe: Any) -> RetrainRun:
    """A retraining of two epochs, five steps each."""
    small: dict[str, Any] = {"channels": 4, "layers": 3, "epochs": 2, "batch_size": 16}
    trial = RetrainTrial(
        data=DATA,
        distribution=EXP,
        genotype=published("DARTS_V2"),
        recipe=RetrainRecipe(**small | recipe),
        seed=0,
    )
    return RetrainRun(trial, tiny_bundle(), CPU)


def finish(run: Run) -> list[Row]:
    """Every epoch that is left; the rows without times."""
    rows = []
    while run.epochs_done < run.epochs_total:
        row = run.run_epoch()
        rows.append({name: value for name, value in row.items() if name not in TIMES})
    return rows


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a checkpoint's way to disk and back, loaded without code from the file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def tensors(value: object) -> list[Tensor]:
    """Every tensor in a state."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def assert_goes_on(whole: Run, first: Run, second: Run) -> None:
    """``second`` goes on from ``first``'s checkpoint after an epoch as ``whole`` never stopped."""
    rows = finish(whole)
    if not rows:
        return
    first.run_epoch()
    second.load_state_dict(through_a_file(first.state_dict()))
    assert finish(second) == rows[1:]
    pairs = zip(tensors(whole.state_dict()), tensors(second.state_dict()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert second.outcome() == whole.outcome()


def heavy_imports(statements: str) -> list[str]:
    """Which of torch, torchvision and ray a fresh process has after these statements."""
    heavy = "{'torch', 'torchvision', 'ray'} & set(sys.modules)"
    asked = f"import sys\n{statements}\nprint(*({heavy}))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
