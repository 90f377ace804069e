"""A store of a grid whose sampler is not installed: it is read and shown, and not gone on with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.store import State, Store
from nas_sweeps.sweep.run import run
from tests.sweep.tiny import TINY
from tests.verbs import cli

WEIGHT = {"fairdarts": {"zero_one_weight": {"low": 1, "high": 30, "log": True}}}
TUNE = {"trials": 5, "startup": 2, "parallel": 2, "sampler": "cmaes"}
GRID = TINY | {"search": TINY["search"] | {"methods": [WEIGHT]}, "tune": TUNE}


@pytest.fixture
def no_cmaes(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "nas_sweeps.tuning.study.find_spec", lambda name: None if name == "cmaes" else there(name)
    )


@pytest.fixture
def begun(tmp_path: Path, fake_runs: None) -> Path:
    """Three of five proposals are there."""
    pytest.importorskip("cmaes")
    small = ns.Grid.from_dict(GRID | {"tune": TUNE | {"trials": 3}})
    assert run(small, tmp_path / "store", executor="inline", console="none").complete
    Store(tmp_path / "store").keep_grid(ns.Grid.from_dict(GRID).to_json())
    return tmp_path / "store"


def test_it_is_read_and_shown(begun: Path, no_cmaes: None) -> None:
    said = cli("status", begun)
    assert said.returncode == 0
    assert "3 of 5 proposals tried; best" in said.stdout
    assert "fairdarts" in cli("table", begun).stdout
    assert cli("report", begun, "-o", begun.parent / "page").returncode == 0


def test_it_is_not_gone_on_with(begun: Path, no_cmaes: None, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(ns.Grid.from_dict(GRID).to_json())
    before = len(ns.load(begun).trials)
    for verb in (["run", file, "--store", begun, "--executor", "inline"], ["doctor", file]):
        said = cli(*verb)
        assert "tune.sampler: cmaes needs the package cmaes, which is not" in (
            said.stdout + said.stderr
        ).replace("\n", " ")
        assert said.returncode == {"run": 2, "doctor": 1}[str(verb[0])]
    assert len(ns.load(begun).trials) == before


def test_one_that_is_finished_needs_nothing(begun: Path, no_cmaes: None) -> None:
    small = ns.Grid.from_dict(GRID | {"tune": TUNE | {"trials": 3}})
    again = run(small, begun, executor="inline", console="none")
    assert (again.complete, again.started) == (True, 0)
    assert again.counts["search"][State.DONE] == 4
