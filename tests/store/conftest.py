"""A store with little trials in it, written as workers write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nas_sweeps.space.genotype import EDGES, Genotype
from nas_sweeps.store import Origin, Result, Store
from nas_sweeps.store.ledger import Attempt
from nas_sweeps.tables.compaction import write_classes, write_epochs
from nas_sweeps.trial import (
    Data,
    Distribution,
    MethodSpec,
    Pretrain,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
    Trial,
)

HOSTILE = "a store 'with' \"quotes\"\nand ümläut 漢字 #?%*[x]"
CELL = Genotype((("sep_conv_3x3", 0, 2), ("skip_connect", 1, 2)), (("max_pool_3x3", 0, 2),))
OTHER = Genotype((("dil_conv_5x5", 0, 2),), (("skip_connect", 1, 3),))
EXP = Distribution(kind="exp", mu=0.1)
TIMES = {"started_at": "2025-01-02T03:04:05+00:00", "finished_at": "2025-01-02T04:04:05+00:00"}


def weighed(share: float) -> dict[str, Any]:
    """Two operations on every edge; the second one weighs ``share`` in the normal cell."""
    normal, reduce = [1 - share, share] * len(EDGES), [0.75, 0.25] * len(EDGES)
    return {"operations": "none,skip_connect", "edge_weights": normal + reduce}


@dataclass
class Lab:
    store: Store
    begun: dict[str, Attempt] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return Path(self.store.root)

    def begin(self, trial: Trial, **facts: Any) -> Attempt:
        attempt = self.store.begin(trial.trial_id)
        if facts:
            attempt.publish(**facts)
        self.begun[trial.trial_id] = attempt
        return attempt

    def file(self, trial: Trial, name: str) -> Path:
        """The spec, or of the newest attempt: record, epochs, classes, log or result."""
        files = self.store.layout.trial(trial.trial_id)
        return Path(files.spec if name == "spec" else getattr(files.newest, name))

    def search(self, seed: int = 0, method: str = "darts", variant: str = "") -> SearchTrial:
        trial = SearchTrial(
            data=Data(dataset="digits", label="digits"),
            distribution=EXP,
            method=MethodSpec(name=method),
            recipe=SearchRecipe(epochs=2),
            seed=seed,
        )
        self.store.register(trial, variant)
        return trial

    def retrain(
        self,
        seed: int = 0,
        *origins: Origin,
        genotype: Genotype = CELL,
        distribution: Distribution = EXP,
        pretrain: Pretrain | None = None,
        epochs: int = 2,
    ) -> RetrainTrial:
        trial = RetrainTrial(
            data=Data(dataset="digits", label="digits"),
            distribution=distribution,
            genotype=genotype,
            recipe=RetrainRecipe(epochs=epochs, pretrain=pretrain),
            seed=seed,
        )
        self.store.register(trial)
        for origin in origins:
            self.store.add_origin(trial.trial_id, origin)
        return trial

    def result(self, trial: Trial, attempt: int = 1, **fields: Any) -> Result:
        values: dict[str, Any] = {"state": "done", **TIMES} | fields
        if values["state"] == "done" and "genotype" not in values:
            cell = trial.genotype if isinstance(trial, RetrainTrial) else OTHER
            values["genotype"] = [[list(e) for e in c] for c in (cell.normal, cell.reduce)]
        return Result(trial_id=trial.trial_id, phase=trial.phase, attempt=attempt, **values)

    def epochs(self, trial: Trial, accuracies: tuple[float, ...] = (0.5, 0.25)) -> None:
        stage = "search" if trial.phase == "search" else "train"
        attempt = self.begun.get(trial.trial_id) or self.begin(trial)
        write_epochs(
            attempt.files,
            [
                {"stage": stage, "epoch": i, "accuracy_balanced": a, "epoch_s": 1.5}
                | (weighed(a) if stage == "search" else {})
                for i, a in enumerate(accuracies, 1)
            ],
        )

    def finish(self, trial: Trial, accuracy: float = 0.25, **fields: Any) -> Trial:
        """A whole attempt, rows and all."""
        attempt = self.begin(trial)
        self.epochs(trial)
        write_classes(
            attempt.files,
            [
                {"class_index": k, "class_name": name, "train_count": 9 - k, "recall": 0.5}
                for k, name in enumerate(("zero", "näull"))
            ],
        )
        metrics = {"accuracy_balanced": accuracy, "epochs": 2}
        assert attempt.finish(self.result(trial, attempt.number, metrics=metrics, **fields))
        return trial

    def sweep(self) -> None:
        """Trials in every state and phase."""
        found = self.finish(self.search(0), cost={"wall_s": 2.0}, host="n1", versions={"ray": "2"})
        origin = Origin(method="darts", search_id=found.trial_id, seed=0)
        self.finish(self.retrain(0, origin))
        self.finish(self.retrain(1, origin, Origin(method="DARTS_V2"), genotype=OTHER))
        failure: dict[str, Any] = {
            "state": "failed",
            "error_class": "ValueError",
            "error_message": "no",
        }
        self.finish(self.search(1, "ssf_nas", "where=joint"), **failure)
        running = self.search(2)
        self.begin(running)
        self.epochs(running)
        self.search(3)

    def age(self) -> None:
        """As if everything had been written an hour ago."""
        for folder in (self.root / "trials").iterdir():
            past = folder.stat().st_mtime_ns - 3600 * 10**9
            os.utime(folder, ns=(past, past))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    store = Store(tmp_path / HOSTILE)
    store.create()
    return Lab(store)
