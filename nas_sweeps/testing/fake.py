"""A run of a millisecond, for tests of what happens around a run.

``NAS_SWEEPS_RUNS=nas_sweeps.testing.fake:RUNS`` computes every trial by it, also in the processes
that a run starts. It needs no images and no network. What it finds follows from the trial and the
steps that were done, each exactly once and in order: a step that is lost or done twice changes
every later number.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from nas_sweeps import methods
from nas_sweeps.phases import phase_named
from nas_sweeps.space.discretise import Discretised
from nas_sweeps.space.genotype import EDGES
from nas_sweeps.train.common import EPOCH_ACCURACIES, Outcome, Row, TrainingDiverged, nothing
from nas_sweeps.train.runs import RunKind
from nas_sweeps.trial import RetrainTrial, SearchTrial
from nas_sweeps.tuning import MEASURES

STEP_S = "NAS_SWEEPS_FAKE_STEP_S"  # how long a step takes, in seconds: 0 where it is not set
FAILS = "NAS_SWEEPS_FAKE_FAILS"  # methods or phases, joined by commas, whose first epoch raises
DIES = "NAS_SWEEPS_FAKE_DIES"  # the same, and the process ends there, without a word
DIVERGES = 1e3  # a learning rate above it diverges in the first epoch
STEPS = 4  # of an epoch
IMAGES, CLASSES = 64, 10
TESTED = (
    *(name for name in EPOCH_ACCURACIES if name not in MEASURES),
    *("accuracy_head", "accuracy_medium", "accuracy_tail", "macro_f1"),
    "accuracy_long_tailed_sampled",
)


T = TypeVar("T", SearchTrial, RetrainTrial)


class FakeRun(Generic[T]):
    """A ``Run``: four steps an epoch, and numbers that are drawn from a hash of the steps.

    Raises:
        TrainingDiverged: in the first epoch, where the recipe's lr is above 1000.
        RuntimeError: in the first epoch, where ``NAS_SWEEPS_FAKE_FAILS`` has the run's ``name``.
    """

    def __init__(self, trial: T) -> None:
        self.trial: T = trial
        self.epochs_done = 0
        self.bits = trial.trial_id  # the hash of all steps so far
        self.steps, self.seconds = 0, 0.0  # of the epoch that is under way
        self.best = 0.0
        self.tested: Row = {}

    @property
    def name(self) -> str:
        """The name by which it is asked to fail."""
        return self.trial.phase

    @property
    def stages(self) -> list[tuple[str, int]]:
        """Names and epochs of what the real run goes through."""
        return list(phase_named(self.trial.phase).stages(self.trial))

    @property
    def epochs_total(self) -> int:
        return sum(epochs for _, epochs in self.stages)

    # One epoch

    def run_epoch(self, between: Callable[[], None] = nothing) -> Row:
        """See ``Run``."""
        began = time.perf_counter()
        try:
            while self.steps < STEPS:
                time.sleep(float(os.environ.get(STEP_S, 0)))
                self._fail_if_asked()
                self.bits = hashlib.sha256(f"{self.bits} {self.steps}".encode()).hexdigest()
                self.steps += 1
                between()
        finally:
            self.seconds += time.perf_counter() - began
        row = self._row()
        self.epochs_done, self.steps, self.seconds = self.epochs_done + 1, 0, 0.0
        return row

    def _fail_if_asked(self) -> None:
        lr = self.trial.recipe.lr
        if lr > DIVERGES:
            raise TrainingDiverged(f"loss_weights is nan; lower the recipe's lr, which is {lr:g}")
        if self.name in os.environ.get(DIES, "").split(","):
            os._exit(1)
        if self.name in os.environ.get(FAILS, "").split(","):
            raise RuntimeError(f"{FAILS} names {self.name}")

    def _row(self) -> Row:
        recipe, draw = self.trial.recipe, random.Random(self.bits)
        epoch, stage = self.epochs_done + 1, self._stage()
        row: Row = {"stage": stage, "epoch": epoch, "lr": recipe.lr / epoch}
        row["loss_weights"] = draw.uniform(0.5, 2.5)
        if stage != "pretrain":
            row["accuracy_train"] = draw.random()
            if epoch % recipe.test_every == 0 or epoch == self.epochs_total:
                self.tested = {name: draw.random() for name in self._accuracies()}
                self.best = max(self.best, self.tested["accuracy_balanced"])
                row |= {k: v for k, v in self.tested.items() if k in EPOCH_ACCURACIES}
        row |= self._columns(stage, draw)
        speed = {"epoch_s": self.seconds, "images_per_s": IMAGES / self.seconds}
        return row | speed | {"peak_mem_gib": 0.5}

    def _stage(self) -> str:
        """The stage of the epoch that is under way."""
        left = self.epochs_done
        for name, epochs in self.stages:
            if left < epochs:
                return name
            left -= epochs
        raise AssertionError("an epoch after the last one")

    def _accuracies(self) -> tuple[str, ...]:
        """Names of what a test measures."""
        return TESTED

    def _columns(self, stage: str, draw: random.Random) -> Row:
        """What this phase's rows have besides."""
        return {}

    # What it found

    def outcome(self) -> Outcome:
        """See ``Run``."""
        raise NotImplementedError

    def _metrics(self) -> Row:
        return self.tested | {"epochs": self.epochs_done, "num_params": 1000, "macs": 2000}

    def _classes(self) -> list[Row]:
        draw = random.Random(f"recall {self.bits}")
        fixed = {"train_count": IMAGES, "group": "head"}
        return [
            {"class_index": k, "class_name": str(k), "recall": draw.random()} | fixed
            for k in range(CLASSES if self.tested else 0)
        ]

    # Checkpoint

    def state_dict(self) -> dict[str, Any]:
        """See ``Run``; plain values."""
        names = ("epochs_done", "bits", "steps", "seconds", "best", "tested")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Run``."""
        for name in self.state_dict():
            setattr(self, name, state[name])


class FakeSearch(FakeRun[SearchTrial]):
    """A search that finds what its method reads from weights that are drawn."""

    def __init__(self, trial: SearchTrial) -> None:
        super().__init__(trial)
        self.method = methods.build(trial.method)

    @property
    def name(self) -> str:
        return self.trial.method.name

    def _accuracies(self) -> tuple[str, ...]:
        return (*TESTED, *MEASURES)

    def _columns(self, stage: str, draw: random.Random) -> Row:
        found, weights = self.discretise()
        warming, genotype = stage == "warmup", found.genotype
        arch = {} if warming else {"loss_arch": draw.uniform(0.5, 2.5), "regulariser": 0.0}
        return arch | {
            "arch_lr": 0.0 if warming else self.method.arch_lr,
            "operations": ",".join(self.method.operations),
            "edge_weights": weights,
            "alpha_entropy_normal": found.entropy_normal,
            "alpha_entropy_reduce": found.entropy_reduce,
            "margin_normal": found.margin_normal,
            "margin_reduce": found.margin_reduce,
            "num_skip_normal": genotype.count("skip_connect"),
            "num_skip_reduce": genotype.count("skip_connect", reduction=True),
            "genotype_id": genotype.genotype_id,
            "genotype": json.dumps([genotype.normal, genotype.reduce]),
        }

    def discretise(self) -> tuple[Discretised, list[float]]:
        """What the method reads from weights as the steps left them, and the weights, flat."""
        draw = random.Random(self.bits)
        cells = [[[draw.random() for _ in self.method.operations] for _ in EDGES] for _ in range(2)]
        flat = [weight for cell in cells for edge in cell for weight in edge]
        return self.method.discretise(*cells), flat

    def outcome(self) -> Outcome:
        """See ``Run``."""
        found, _ = self.discretise()
        return Outcome(
            metrics=self._metrics(),
            genotype=found.genotype,
            facts={name: value for name, value in asdict(found).items() if name != "genotype"},
            classes=self._classes(),
        )


class FakeRetrain(FakeRun[RetrainTrial]):
    """A retraining of a genotype, with its pre-training where the recipe has one."""

    def _accuracies(self) -> tuple[str, ...]:
        halved = self.trial.recipe.images == "search_half"
        return (*TESTED, *MEASURES) if halved else TESTED

    def outcome(self) -> Outcome:
        """See ``Run``."""
        return Outcome(
            metrics=self._metrics() | {"accuracy_best": self.best},
            genotype=self.trial.genotype,
            facts={},
            classes=self._classes(),
        )


NOTE = "nothing is trained: every number is made up (nas_sweeps.testing.fake)"
RUNS = {
    "search": RunKind(lambda trial, *_: FakeSearch(trial), False, NOTE),
    "retrain": RunKind(lambda trial, *_: FakeRetrain(trial), False, NOTE),
}
