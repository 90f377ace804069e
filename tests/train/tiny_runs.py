"""Searches and retrains of seconds, one of each kind there is, and what to compare of them."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch

from nas_sweeps import methods
from nas_sweeps.bench.options import Options
from nas_sweeps.bench.trials import noise
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.methods import Method
from nas_sweeps.space.genotype import Operation
from nas_sweeps.space.published import published
from nas_sweeps.train.common import Outcome
from nas_sweeps.train.recorded import Recorder
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import (
    Barlow,
    Choice,
    ClassifierStage,
    Data,
    DataPaths,
    Distribution,
    MethodSpec,
    Pretrain,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
)

CPU = torch.device("cpu")
DATA = Data(dataset="digits", label="digits", image_size=8, n_max=14, test_n_max=4)
EXP = Distribution(kind="exp", mu=0.25)
SEARCH = SearchRecipe(channels=2, layers=3, epochs=2, batch_size=16)
RETRAIN = RetrainRecipe(channels=4, layers=3, epochs=2, batch_size=16)
SMALL_BARLOW = {"barlow_dim": 16, "barlow_hidden": 16}
FEW: tuple[Operation, ...] = ("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3")
SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "darts": ("darts", {}),
    "darts second fd": ("darts", {"order": "second"}),
    "darts second exact": ("darts", {"order": "second", "hvp": "exact"}),
    "fairdarts": ("fairdarts", {}),
    "ssf_nas": ("ssf_nas", SMALL_BARLOW),
    "ssf_nas joint": ("ssf_nas", SMALL_BARLOW | {"where": "joint"}),
    "ssf_nas w_only": ("ssf_nas", SMALL_BARLOW | {"where": "w_only"}),
    "ssf_nas alpha_only": ("ssf_nas", SMALL_BARLOW | {"where": "alpha_only"}),
    "pc_darts": ("pc_darts", {"partial_channels": 2, "warmup_epochs": 1}),
    "beta_darts": ("beta_darts", {}),
    "gdas": ("gdas", {}),
}
UNTRAINED: dict[str, tuple[str, dict[str, Any]]] = {"random": ("random", {})}
RETRAINS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all the trimmings": {"drop_path": 0.3, "cutout": 3, "loss": "ldam"},
    "auxiliary": {"auxiliary": 0.4, "drop_path": 0.3, "cutout": 8, "image_size": 32},
    "barlow then all": {"pretrain": Pretrain(epochs=2, barlow=Barlow(dim=16, hidden=16))},
    "barlow then linear": {
        "pretrain": Pretrain(epochs=1, then="linear", barlow=Barlow(dim=16, hidden=16))
    },
    "search half": {"images": "search_half"},
    "cut, averaged and fixed": {
        "cutmix": 1.0,
        "mix_probability": 0.7,
        "ema": 0.9,
        "classifier": "etf",
        "loss": "drw",
        "sampler": "over",
        "nesterov": True,
        "warmup_epochs": 1,
    },
    "mixed, then the classifier": {
        "epochs": 1,
        "mixup": 0.4,
        "ema": 0.9,
        "loss": Choice(name="logit_adjust", knobs=(("tau", 2.0),)),
        "schedule": "one_cycle",
        "policy": "trivial_augment",
        "classifier_stage": ClassifierStage(epochs=1, lr=0.1),
    },
    "its scale": {
        "epochs": 1,
        "policy": "rand_augment",
        "loss": "ldam",
        "sampler": "under",
        "classifier_stage": ClassifierStage(epochs=1, learn="scale", loss="label_aware_smoothing"),
    },
}


@cache
def bundle(image_size: int = 8, device: torch.device = CPU) -> DataSplits:
    torch.set_num_threads(1)
    if importlib.util.find_spec("sklearn") is None:  # a machine that is lent for its GPU
        return noise(
            Options(
                device="cpu" if device.type == "cpu" else "cuda",
                image_size=image_size,
                batch=64,
                darts_batch=64,
                test_images=40,
            )
        )
    return prepare(replace(DATA, image_size=image_size), EXP, DataPaths(), device)


def search_run(
    name: str,
    seed: int = 0,
    recorder: Recorder | None = None,
    device: torch.device = CPU,
    **recipe: Any,
) -> SearchRun:
    with pytest.MonkeyPatch.context() as patch:
        if device.type != "cuda":
            patch.setattr(methods, "build", _with_few_operations)
        trial = search_trial(name, seed, **recipe)
        return SearchRun(trial, bundle(trial.data.image_size, device), device, recorder)


def _with_few_operations(spec: MethodSpec, build: Any = methods.build) -> Method:
    """The method over ``FEW`` of its operations.

    Every kind of state and of arithmetic is there, and a step takes a third of the time: at this
    size it is the number of operations that counts. All of them are trained in tests of methods.
    """
    method: Method = build(spec)
    few: Method = _over_few(type(method))(**asdict(method))
    return few


@cache
def _over_few(method: type[Method]) -> type[Method]:
    class Few(method):  # type: ignore[valid-type, misc]
        __slots__ = ()

        @property
        def operations(self) -> tuple[Operation, ...]:
            own = super().operations
            return tuple(name for name in FEW if name in own)

    return Few


def search_trial(name: str, seed: int = 0, **recipe: Any) -> SearchTrial:
    method, knobs = (SEARCHES | UNTRAINED)[name]
    image_size = recipe.pop("image_size", 8)
    return SearchTrial(
        data=replace(DATA, image_size=image_size),
        distribution=EXP,
        method=methods.resolve(method, knobs),
        recipe=replace(SEARCH, **recipe),
        seed=seed,
    )


def retrain_run(
    name: str = "plain",
    recorder: Recorder | None = None,
    device: torch.device = CPU,
    **recipe: Any,
) -> RetrainRun:
    trial = retrain_trial(name, **recipe)
    return RetrainRun(trial, bundle(trial.data.image_size, device), device, recorder)


def retrain_trial(name: str = "plain", **recipe: Any) -> RetrainTrial:
    knobs: dict[str, Any] = RETRAINS[name] | recipe
    image_size = knobs.pop("image_size", 8)
    return RetrainTrial(
        data=replace(DATA, image_size=image_size),
        distribution=EXP,
        genotype=published("DARTS_V2"),
        recipe=replace(RETRAIN, **knobs),
        seed=3,
    )


def make(name: str, recorder: Recorder | None = None, **recipe: Any) -> SearchRun | RetrainRun:
    if name in SEARCHES:
        return search_run(name, recorder=recorder, **recipe)
    return retrain_run(name, recorder=recorder, **recipe)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("epoch_s", "images_per_s", "peak_mem_gib")}


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint travels: loading must need no code from the file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def finish(run: SearchRun | RetrainRun) -> list[dict[str, Any]]:
    rows = []
    while run.epochs_done < run.epochs_total:
        rows.append(timeless(run.run_epoch()))
    return rows


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


@dataclass
class Finished:
    """What a run leaves behind that must not depend on how often it was stopped."""

    rows: list[dict[str, Any]]
    state: list[torch.Tensor]
    outcome: Outcome

    @classmethod
    def of(cls, run: SearchRun | RetrainRun, rows: list[dict[str, Any]]) -> Finished:
        return cls(rows, tensors(run.state_dict()), run.outcome())

    def assert_same_bits(self, other: Finished) -> None:
        assert self.rows == other.rows
        assert len(self.state) == len(other.state) > 50
        assert all(torch.equal(a, b) for a, b in zip(self.state, other.state, strict=True))
        assert self.outcome == other.outcome


@cache
def undisturbed(name: str, **recipe: Any) -> Finished:
    """A run from start to end without a stop."""
    run = make(name, **recipe)
    return Finished.of(run, finish(run))
