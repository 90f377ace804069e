"""Steps of whole trials, augmentation, projector and probe included, on images made of noise.

They are the product's own: what ``SearchRun`` and ``RetrainRun`` call once a batch, in the form of
a variant, recorded or not. ``ssf_nas`` is a step of SSF-NAS with the knobs of the paper; in
``retrain_darts`` a network of DARTS_V2 is trained as by DARTS train.py (auxiliary head, drop path,
cutout); ``test_pass`` is the pass over the test set that ends an epoch of a search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from nas_sweeps import methods
from nas_sweeps.bench.options import Options
from nas_sweeps.bench.variants import Variant
from nas_sweeps.data.longtail import Group
from nas_sweeps.data.splits import DataSplits
from nas_sweeps.space.precision import precision
from nas_sweeps.space.published import published
from nas_sweeps.train.common import nothing
from nas_sweeps.train.recorded import REHEARSALS, CudaGraphs, Recorder
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import (
    Data,
    Distribution,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
)

R = TypeVar("R", SearchRun, RetrainRun)
CLASSES = 10
HEAD: Group = "head"
DATA = Data(dataset="digits", label="noise")  # names nothing that is loaded
BALANCE = Distribution(kind="balance")


def noise(options: Options) -> DataSplits:
    """A balanced data set of two batches a half, on the device."""
    device, side = options.device, options.image_size
    half = 2 * max(options.batch, options.darts_batch) + CLASSES
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> torch.Tensor:
        return torch.randint(256, (count, 3, side, side), generator=draw).byte().to(device)

    count = max(CLASSES, options.test_images)  # no class without any
    tested = torch.arange(count) % CLASSES
    each = tuple(range(0, half, CLASSES))
    return DataSplits(
        images=images(2 * half),
        labels=(torch.arange(2 * half) % CLASSES).to(device),
        full_index=torch.arange(2 * half, device=device),
        t_index=torch.arange(half, device=device),
        v_index=torch.arange(half, 2 * half, device=device),
        test_images=images(count),
        test_labels=tested.to(device),
        lt_test_index=torch.arange(count, device=device),
        class_names=tuple(map(str, range(CLASSES))),
        num_classes=CLASSES,
        train_counts=(2 * len(each),) * CLASSES,
        t_counts=(len(each),) * CLASSES,
        v_counts=(len(each),) * CLASSES,
        lt_test_counts=(1,) * CLASSES,
        groups=(HEAD,) * CLASSES,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        image_size=side,
    )


def trial_step(options: Options, task: str, variant: Variant) -> Callable[[], object]:
    """The step of one variant, ready to be called again and again; recorded by its first call."""
    run = _retrain(options, variant) if task == "retrain_darts" else _search(options, variant)
    indices = [run.bundle.t_index[: run.recipe.batch_size]]
    if isinstance(run, SearchRun):
        indices.append(run.bundle.v_index[: run.recipe.batch_size])
    calls = iter([REHEARSALS + 1 if variant.graphed else 1])

    def step() -> object:
        with precision(options.precision, run.device):
            for _ in range(next(calls, 1)):
                means = run.step(*indices)
            return means

    def test() -> object:
        assert isinstance(run, SearchRun), "its supernet is tested"
        with precision(options.precision, run.device):
            return run._test(nothing)

    return test if task == "test_pass" else step


def _search(options: Options, variant: Variant) -> SearchRun:
    recipe = SearchRecipe(
        channels=options.channels,
        layers=options.layers,
        batch_size=options.batch,
        precision=options.precision,
    )
    method = methods.resolve("ssf_nas", {})
    trial = SearchTrial(data=DATA, distribution=BALANCE, method=method, recipe=recipe, seed=0)
    run = SearchRun(trial, noise(options), torch.device(options.device), _recorder(variant))
    run.model.supernet.form = variant.form_on(options.device, supernet=True)
    return _called_as(run, variant)


def _retrain(options: Options, variant: Variant) -> RetrainRun:
    recipe = RetrainRecipe(
        channels=options.darts_channels,
        layers=options.darts_layers,
        batch_size=options.darts_batch,
        auxiliary=0.4,
        drop_path=0.2,
        cutout=16,
        precision=options.precision,
    )
    genotype = published("DARTS_V2")
    trial = RetrainTrial(data=DATA, distribution=BALANCE, genotype=genotype, recipe=recipe, seed=0)
    run = RetrainRun(trial, noise(options), torch.device(options.device), _recorder(variant))
    run.network.form = variant.form_on(options.device, supernet=False)
    run.drop_path.fill_(recipe.drop_path)
    return _called_as(run, variant)


def _recorder(variant: Variant) -> Recorder | None:
    return CudaGraphs() if variant.graphed else None


def _called_as(run: R, variant: Variant) -> R:
    """Recorded or not, whatever trials do on this device."""
    if not variant.graphed:
        run.recorder = None
        run._make_step()
    return run
