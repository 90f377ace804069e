"""A batch that Barlow Twins cannot fill is told by plan, doctor and run, before any trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import nas_sweeps as ns
from nas_sweeps.cli import app
from nas_sweeps.data.profiles import half_size, known_counts
from nas_sweeps.data.splits import prepare
from nas_sweeps.grid.whole_batches import too_large_batches
from nas_sweeps.sweep.doctor import examine
from nas_sweeps.trial import Data, DataPaths, Distribution

GRID = """
data: {dataset: digits, image_size: 8, n_max: 10, test_n_max: 3}
search:
  methods: [darts, {ssf_nas: {barlow_dim: 8, barlow_hidden: 8}}]
  distributions: [balance]
  seeds: [0, 1]
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 64}
retrain:
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 128}
  barlow: {epochs: 1, dim: 8, hidden: 8}
"""
SEARCH = "search ssf_nas balance: search.recipe.batch_size is 64, .*at most 50"
RETRAIN = "retrain ssf_nas \\+ barlow balance: retrain.recipe.batch_size is 128, .*at most 100"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "g.yaml").write_text(GRID)
    return tmp_path / "g.yaml"


def told(*settings: str, file: Path) -> list[str]:
    return too_large_batches(ns.plan(ns.load_grid(file, settings)), known_counts)


def test_run_refuses_before_it_begins_and_makes_no_store(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"(?s){SEARCH}.*\n{RETRAIN}"):
        ns.run(ns.load_grid(file), tmp_path / "store", executor="inline", console="none")
    assert not (tmp_path / "store").exists()


def test_doctor_says_it(file: Path) -> None:
    (found,) = [f for f in examine(ns.load_grid(file), executor="inline") if f.what == "subsets"]
    assert not found.good
    assert "at most 50" in found.text


def test_plan_says_it_once_for_all_seeds(file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(file), "--store", str(tmp_path / "none")])
    assert done.exit_code == 0
    assert done.output.replace("\n", " ").count("search.recipe.batch_size is 64") == 1


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (("search.recipe.batch_size=50", "retrain.recipe.batch_size=100"), 0),
        (("search.recipe.batch_size=51", "retrain.recipe.batch_size=100"), 1),
        (("search.recipe.batch_size=50", "retrain.recipe.batch_size=101"), 1),
        (("retrain.recipe.images=search_half", "retrain.recipe.batch_size=51"), 2),
        (("retrain.pretrain=none",), 1),
        (("search.methods=[darts]",), 0),
        (("search.methods=[darts]", "retrain.pretrain=barlow"), 1),
    ],
)
def test_only_batches_that_no_image_fills_are_told(file: Path, settings, count: int) -> None:
    assert len(told(*settings, file=file)) == count


def test_the_largest_batch_that_is_allowed_runs(file: Path, tmp_path: Path) -> None:
    sizes = ["search.recipe.batch_size=50", "retrain.recipe.batch_size=100"]
    grid = ns.load_grid(file, [*sizes, "search.seeds=[0]"])
    barlow = "method == 'ssf_nas'"
    done = ns.run(grid, tmp_path / "s", executor="inline", console="none", only=barlow)
    assert done.complete


@pytest.mark.parametrize("n_max", [None, 9])
@pytest.mark.parametrize(
    "shape", [{"kind": "balance"}, {"kind": "exp", "mu": 0.3}, {"kind": "uniform", "total": 60}]
)
def test_counts_that_are_known_without_images_are_those_of_the_images(
    shape: dict[str, Any], n_max: int | None
) -> None:
    data, distribution = Data(dataset="digits", label="d", n_max=n_max), Distribution(**shape)
    bundle = prepare(data, distribution, DataPaths(), "cpu")
    known = known_counts(data, distribution)
    assert known == bundle.train_counts
    assert half_size(known) == len(bundle.t_index)


def test_counts_that_only_images_tell_are_not_made_up() -> None:
    balance = Distribution(kind="balance")
    assert known_counts(Data(dataset="custom", label="c", n_max=9), balance) is None
    assert known_counts(Data(dataset="digits", label="d", n_max=5000), balance) is None
