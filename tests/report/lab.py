"""A store whose every number is known, written as workers write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from nas_sweeps.numerics import Numerics
from nas_sweeps.space.genotype import EDGES, OPERATIONS, Genotype
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Origin, Result, Store
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

BALANCE = Distribution(kind="balance")
EXP = Distribution(kind="exp", mu=0.1)
STEP = Distribution(kind="step", mu=0.01)
COUNTS = {"balance": (100, 100, 100), "exp": (100, 31, 10), "step": (100, 1, 1)}
TIMES = {"started_at": "2025-01-02T03:04:05+00:00", "finished_at": "2025-01-02T04:04:05+00:00"}
VERSIONS = {"python": "3.11.7", "torch": "2.15.0", "ray": "2.60.0", "nas_sweeps": "0.1.0"}
FINALS = {"darts": 0.5, "fairdarts": 0.55, "ssf_nas": 0.625}
NUMERICS = Numerics(
    device_kind="cuda",
    device_model="NVIDIA H100",
    threads=2,
    precision="fp32",
    form="arranged",
    torch="2.15.0",
)
GENOTYPES = {"darts": "DARTS_V1", "fairdarts": "FairDARTS_a", "ssf_nas": "PC_DARTS"}
HOSTILE = "<script>alert('x')</script>\n\"&$_{}|\\%# ümläut"


@dataclass
class Lab:
    """Writes trials whose accuracies are given."""

    store: Store

    def search(
        self,
        method: str = "darts",
        seed: int = 0,
        distribution: Distribution = EXP,
        *,
        accuracies: Sequence[float | None] = (0.2, 0.4),
        genotype: Genotype = PUBLISHED["DARTS_V1"],
        state: str = "done",
        variant: str = "",
        recalls: Sequence[float] | None = None,
        label: str = "digits",
        **result: Any,
    ) -> SearchTrial:
        trial = SearchTrial(
            data=Data(dataset="digits", label=label),
            distribution=distribution,
            method=MethodSpec(name=method),
            recipe=SearchRecipe(epochs=2),
            seed=seed,
        )
        self.store.register(trial, variant)
        rows = [
            {
                "stage": "search",
                "epoch": epoch,
                "accuracy_balanced": a,
                "accuracy_long_tailed": None if a is None else a + 0.1,
                "num_skip_normal": epoch,
                "num_skip_reduce": 0,
                "alpha_entropy_normal": 2 / epoch,
                "alpha_entropy_reduce": 1.0,
                "operations": ",".join(OPERATIONS),
                "edge_weights": self._weights(epoch, seed),
            }
            for epoch, a in enumerate(accuracies, 1)
        ]
        self._settle(trial, rows, state, genotype, recalls, **result)
        return trial

    @staticmethod
    def _weights(epoch: int, seed: int) -> list[float]:
        """Skip connections gain 1/8 an epoch in the normal cell, and as much with each seed."""
        edge = [0.0625] * len(OPERATIONS)
        normal = list(edge)
        normal[OPERATIONS.index("skip_connect")] += 0.125 * (epoch + seed)
        return normal * len(EDGES) + edge * len(EDGES)

    def retrain(
        self,
        *origins: Origin,
        seed: int = 0,
        distribution: Distribution = EXP,
        accuracies: Sequence[float | None] = (0.3, 0.5),
        genotype: Genotype = PUBLISHED["DARTS_V1"],
        pretrain: int = 0,
        state: str = "done",
        recalls: Sequence[float] | None = None,
        label: str = "digits",
        **result: Any,
    ) -> RetrainTrial:
        how = Pretrain(epochs=pretrain) if pretrain else None
        trial = RetrainTrial(
            data=Data(dataset="digits", label=label),
            distribution=distribution,
            genotype=genotype,
            recipe=RetrainRecipe(epochs=len(accuracies), pretrain=how),
            seed=seed,
        )
        self.store.register(trial)
        for origin in origins:
            self.store.add_origin(trial.trial_id, origin)
        rows: list[dict[str, Any]] = [
            {"stage": "pretrain", "epoch": i + 1} for i in range(pretrain)
        ]
        rows += [
            {
                "stage": "finetune" if pretrain else "train",
                "epoch": pretrain + epoch,
                "accuracy_balanced": a,
                "accuracy_long_tailed": None if a is None else a + 0.1,
            }
            for epoch, a in enumerate(accuracies, 1)
        ]
        self._settle(trial, rows, state, genotype, recalls, **result)
        return trial

    def chain(self, method: str, seed: int, distribution: Distribution, final: float) -> None:
        """A search and the retrain that it led to."""
        genotype = PUBLISHED[GENOTYPES[method]]
        search = self.search(
            method, seed, distribution, accuracies=(final / 3, final / 2), genotype=genotype
        )
        self.retrain(
            Origin(method=method, search_id=search.trial_id, seed=seed),
            seed=seed,
            distribution=distribution,
            accuracies=(final / 2, final),
            genotype=genotype,
            pretrain=1 if method == "ssf_nas" else 0,
        )

    def _settle(
        self,
        trial: Trial,
        rows: list[dict[str, Any]],
        state: str,
        genotype: Genotype,
        recalls: Sequence[float] | None = None,
        **fields: Any,
    ) -> None:
        if state == "waiting":
            return
        attempt = self.store.begin(trial.trial_id)
        attempt.publish(host="node1")
        write_epochs(attempt.files, rows)
        if state == "running":
            return
        final = rows[-1].get("accuracy_balanced") if rows else None
        metrics: dict[str, Any] = {"epochs": len(rows), "accuracy_validation": final or 0.0}
        if final is not None:
            metrics |= {"accuracy_balanced": final, "accuracy_long_tailed": final + 0.1}
            metrics |= {"accuracy_head": final + 0.2, "accuracy_tail": final - 0.2}
        if trial.phase == "retrain":
            size = len(genotype.normal) + len(genotype.reduce)
            metrics |= {"num_params": 1000 * size, "macs": 70_000 * size}
        if state == "done":
            write_classes(attempt.files, self._classes(trial, recalls))
        values: dict[str, Any] = {
            "state": state,
            "metrics": metrics if state == "done" else {},
            "genotype": [[list(e) for e in c] for c in (genotype.normal, genotype.reduce)],
            "cost": {"wall_s": 1800.0, "gpu_hours": 0.5},
            "host": "node1",
            "device": "NVIDIA H100",
            "versions": VERSIONS,
            "git_sha": "0123456789ab",
            "numerics": NUMERICS,
            "numerics_changed": "",
        }
        values["genotype"] = values["genotype"] if state == "done" else None
        who: dict[str, Any] = {
            "trial_id": trial.trial_id,
            "phase": trial.phase,
            "attempt": attempt.number,
        }
        assert attempt.finish(Result(**who | TIMES | values | fields))

    def _classes(self, trial: Trial, recalls: Sequence[float] | None) -> list[dict[str, Any]]:
        counts = COUNTS[trial.distribution.kind]
        return [
            {"class_index": k, "class_name": f"class {k}", "train_count": n, "recall": r}
            for k, (n, r) in enumerate(zip(counts, recalls or (0.9, 0.5, 0.1), strict=True))
        ]


def new_lab(folder: Path) -> Lab:
    store = Store(folder / "a store 'with' \"quotes\" <b>")
    store.create()
    return Lab(store)


def sweep_into(lab: Lab) -> None:
    """Two seeds of three methods on two distributions; failed, running and hostile trials."""
    for method, final in FINALS.items():
        for seed in (0, 1):
            lab.chain(method, seed, EXP, final + 0.0625 * seed)
            lab.chain(method, seed, BALANCE, final + 0.25)
    failure: dict[str, Any] = {
        "error_class": "RuntimeError",
        "error_message": HOSTILE,
        "host": HOSTILE,
    }
    lab.search("darts", 2, EXP, state="failed", **failure)
    lab.search("ssf_nas", 2, EXP, state="running")
    found = lab.search(HOSTILE, 0, STEP, accuracies=(0.25, None))
    origin = Origin(method=HOSTILE, search_id=found.trial_id, seed=0)
    lab.retrain(origin, distribution=STEP, accuracies=(None, 0.25), recalls=(0.5, nan, 0.0))
