"""Stores whose every second is known, written as workers write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps import methods
from nas_sweeps.grid import Entry, Grid, Slot
from nas_sweeps.space.published import published
from nas_sweeps.store import Result, Store
from nas_sweeps.store.records import State
from nas_sweeps.tables.compaction import write_classes, write_epochs
from nas_sweeps.trial import Origin, SearchTrial

COUNTS = {"balance": (100, 100), "exp": (100, 10)}
LONG_AGO = "2020-01-01T00:00:00+00:00"  # all at once, so none takes another's place
NORMAL = published("DARTS_V2")
FOUND = [[list(edge) for edge in cell] for cell in (NORMAL.normal, NORMAL.reduce)]


def grid_of(**changes: Any) -> Grid:
    """Two methods on two distributions; ``search__seeds=3`` changes a setting of a section."""
    tree: dict[str, Any] = {
        "name": "g",
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts", "fairdarts"],
            "distributions": ["balance", {"exp": 0.1}],
            "recipe": {"epochs": 10},
        },
        "retrain": {"winners": "none"},
    }
    for name, value in changes.items():
        section, setting = name.split("__")
        tree[section] = tree[section] | {setting: value}
    return Grid.from_dict(tree)


@dataclass
class Shop:
    """Every epoch of a search takes ``epoch_s``, of which an image takes ``image_s``."""

    store: Store

    def search(
        self,
        entry: Entry,
        epoch_s: float,
        image_s: float = 0.01,
        device: str = "cpu",
        beside: float = 0.0,
    ) -> None:
        """Run a search that takes so long."""
        assert isinstance(entry, SearchTrial)
        self.store.register(entry, methods.variant(entry.method))
        epochs = entry.recipe.epochs if methods.build(entry.method).trains else 0
        self._run(entry, [("search", epoch_s)] * epochs, image_s, device, beside)

    def retrain(self, entry: Entry, stages: Mapping[str, tuple[int, float]]) -> None:
        """Run a retrain of so many epochs of so many seconds, by stage."""
        assert isinstance(entry, Slot)
        trial = entry.resolve(NORMAL)
        self.store.register(trial)
        self.store.add_origin(trial.trial_id, Origin(method=entry.origin.method))
        rows = [(stage, s) for stage, (n, s) in stages.items() for _ in range(n)]
        self._run(trial, rows, 0.01, "cpu", 0.0)

    def _run(
        self, trial: Any, rows: list[tuple[str, float]], image_s: float, device: str, beside: float
    ) -> None:
        attempt = self.store.begin(trial.trial_id, device=device, started_at=LONG_AGO)
        write_epochs(
            attempt.files,
            [
                {"stage": stage, "epoch": i, "epoch_s": s, "images_per_s": 1 / image_s}
                for i, (stage, s) in enumerate(rows, 1)
            ],
        )
        counts = COUNTS[trial.distribution.kind]
        write_classes(
            attempt.files,
            [{"class_index": k, "train_count": n} for k, n in enumerate(counts)],
        )
        result = Result(
            trial_id=trial.trial_id,
            phase=trial.phase,
            state=State.DONE,
            attempt=attempt.number,
            started_at="2025-01-02T03:04:05+00:00",
            finished_at="2025-01-02T04:04:05+00:00",
            device=device,
            host="n1",
            genotype=FOUND,
            metrics={"epochs": len(rows)},
            cost={"wall_s": sum(s for _, s in rows) + beside},
        )
        assert attempt.finish(result, epochs_done=len(rows))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    store = Store(tmp_path / "a shop")
    store.create()
    return Shop(store)


def searches(grid: Grid) -> dict[tuple[str, str, int], SearchTrial]:
    """By method, distribution and seed."""
    return {(s.method.name, s.distribution.kind, s.seed): s for s in ns.plan(grid).searches}
