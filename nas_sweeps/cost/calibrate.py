"""Time a few real steps of whatever was not measured, on this machine's device.

A trial of each phase, method and recipe runs some short epochs on the grid's own images: so many
batches, and a small test. An epoch of the whole data is then so many images of training and of
testing. The first epoch of a stage warms up and is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from nas_sweeps import methods
from nas_sweeps.cost.epochs import Kind, parts_of
from nas_sweeps.cost.rates import Images, Rates, Sample, pass_length, share_of, work_of
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.grid import Entry, Grid, Slot
from nas_sweeps.grid.expand import method_of
from nas_sweeps.recipes import sampler_of
from nas_sweeps.schedule import Scheduler
from nas_sweeps.space.published import published
from nas_sweeps.train.common import Run, choose_device
from nas_sweeps.train.runs import run_kind
from nas_sweeps.trial import RetrainRecipe, RetrainTrial, SearchRecipe, SearchTrial, Trial

STEPS = {"cpu": 2, "cuda": 20}  # of an epoch; a GPU records its first ones
REPEATS = 3  # epochs that count, of each stage
TESTED = 64  # test images, or one of each class
STAND_IN = "DARTS_V2"  # in the place of a genotype that is yet to be found


def calibrate(grid: Grid, scheduler: Scheduler, rates: Rates) -> Iterator[str]:
    """Time what the rates cannot tell and add it to them, a line before each.

    What was measured has the last word on overhead.

    Raises:
        ValueError: as ``prepare``, a method refuses the recipe, or the GPU is not here that it
            would be timed on.
    """
    overhead_s: dict[str, list[float]] = {}
    for entry in _unknown(scheduler, rates):
        phase: str = entry.phase
        device = choose_device(grid.resources(phase))
        if grid.resources(phase).gpus and device.type == "cpu":
            raise ValueError(
                f"--calibrate: a {phase} trial takes a GPU, and torch sees none here; time it "
                "where there is one, or name a store that was (--from)"
            )
        yield f"timing {phase} {method_of(entry)} on {_name(device)}"
        started = time.perf_counter()
        bundle = prepare(entry.data, entry.distribution, grid.places, device)
        prepared = time.perf_counter() - started
        samples, beside = _time(entry, bundle, device)
        for sample in samples:
            rates.add(sample)
        overhead_s.setdefault(phase, []).append(prepared + beside)
    for phase, each in overhead_s.items():
        rates.overhead_s[phase] = rates.overhead_s.get(phase) or statistics.median(each)
    _count_images(grid, scheduler, rates.images)


def _unknown(scheduler: Scheduler, known: Rates) -> list[Entry]:
    """One of each kind, distributions apart."""
    found: dict[object, Entry] = {}
    for left, _ in scheduler.left():
        entry = (left.stand_in if isinstance(left, Slot) else None) or left
        cost = known.cost(entry)
        timed = isinstance(entry, SearchTrial) or entry.phase == "retrain"  # as they are made short
        if timed and (cost is None or cost.step > 1):
            kinds = tuple(kind[:-1] for kind, _ in parts_of(entry))
            found.setdefault((kinds, work_of(entry.data, entry.recipe)), entry)
    return list(found.values())


def _count_images(grid: Grid, scheduler: Scheduler, images: Images) -> None:
    for data, distribution in {(e.data, e.distribution) for e, _ in scheduler.left()}:
        counts = prepare(data, distribution, grid.places, "cpu").train_counts
        images.add(data, distribution, max(counts), len(counts), sum(counts))


def _time(entry: Entry, whole: DataSplits, device: torch.device) -> tuple[list[Sample], float]:
    """Samples of each stage, and the seconds beside the epochs."""
    part = _part(whole, entry.recipe.batch_size, STEPS[device.type])
    started = time.perf_counter()
    run = _short_run(entry, part, device)
    rows = []
    made = time.perf_counter() - started
    while run.epochs_done < run.epochs_total:
        rows.append(run.run_epoch())
    started = time.perf_counter()
    run.outcome()
    beside = made + time.perf_counter() - started
    samples = []
    for kind, epochs in parts_of(entry):
        counted = [row for row in rows if row["stage"] == kind.stage][1:]
        samples += [_sample(entry, kind, epochs, whole, part, row) for row in counted]
    return samples, beside


def _short_run(entry: Entry, bundle: DataSplits, device: torch.device) -> Run:
    trial: Trial
    if isinstance(entry, SearchTrial):
        trial = _short_search(entry)
    else:
        assert isinstance(entry, Slot)
        found = entry.genotype or published(STAND_IN)
        trial = _short_retrain(cast(RetrainTrial, entry.resolve(found)))
    return run_kind(trial).make(trial, lambda: bundle, device, _nothing_left)


def _nothing_left(trial_id: str) -> dict[str, Any]:
    raise ValueError(f"--calibrate: trial {trial_id} would have to run first; leave it out")


def _short_retrain(trial: RetrainTrial) -> RetrainTrial:
    recipe = _short(trial.recipe)
    if recipe.pretrain is not None:
        recipe = replace(recipe, pretrain=replace(recipe.pretrain, epochs=1 + REPEATS))
    if recipe.classifier_stage is not None:
        stage = replace(recipe.classifier_stage, epochs=1 + REPEATS)
        recipe = replace(recipe, classifier_stage=stage)
    return replace(trial, recipe=recipe)


def _short_search(trial: SearchTrial) -> SearchTrial:
    """The search with the epochs that are timed after a warm-up, itself made as short."""
    recipe, knobs = _short(trial.recipe), dict(trial.method.knobs)
    if knobs.get("warmup_epochs"):
        knobs["warmup_epochs"] = recipe.epochs
    method = replace(trial.method, knobs=tuple(knobs.items()))
    epochs = recipe.epochs + methods.build(method).warmup_epochs
    return replace(trial, method=method, recipe=replace(recipe, epochs=epochs))


R = TypeVar("R", SearchRecipe, RetrainRecipe)


def _short(recipe: R) -> R:
    short = replace(recipe, epochs=1 + REPEATS, test_every=1)
    # What its time does not depend on, and would not go with so few epochs.
    return replace(short, warmup_epochs=0) if isinstance(short, RetrainRecipe) else short


def _part(whole: DataSplits, batch: int, steps: int) -> DataSplits:
    """The same with so many whole batches, spread over the classes, and few test images."""
    each = max(1, TESTED // whole.num_classes)
    places = [torch.nonzero(whole.test_labels == k)[:each, 0] for k in range(whole.num_classes)]
    tested = torch.cat(places)
    return replace(
        whole,
        full_index=_spread(whole.full_index, batch, steps),
        t_index=_spread(whole.t_index, batch, steps),
        v_index=_spread(whole.v_index, batch, steps),
        test_images=whole.test_images[tested],
        test_labels=whole.test_labels[tested],
        lt_test_index=torch.arange(len(tested), device=tested.device),
    )


def _spread(index: Tensor, batch: int, steps: int) -> Tensor:
    images = min(steps, len(index) // batch) * batch
    return index[:: len(index) // images][:images] if images else index


def _sample(
    entry: Entry, kind: Kind, epochs: int, whole: DataSplits, part: DataSplits, row: dict[str, Any]
) -> Sample:
    """An epoch of the whole data, from one of a part of it."""
    image_s = 1 / row["images_per_s"]
    test_s = max(0.0, row["epoch_s"] - image_s * _trained(entry, kind, part))
    per_image = test_s / _tested(entry, part)
    tests = 0.0 if kind.stage == "pretrain" else -(-epochs // entry.recipe.test_every) / epochs
    return Sample(
        kind=kind,
        work=work_of(entry.data, entry.recipe),
        images=_passed(entry, kind, whole, whole.full_index) * share_of(entry.recipe),
        epoch_s=image_s * _trained(entry, kind, whole) + tests * per_image * _tested(entry, whole),
        image_s=image_s,
        timed=True,
    )


def _trained(entry: Entry, kind: Kind, bundle: DataSplits) -> int:
    """Images that an epoch trains on: where Barlow Twins wants whole batches, fewer."""
    batch: int = entry.recipe.batch_size
    if not isinstance(entry, SearchTrial):
        index = bundle.t_index if share_of(entry.recipe) < 1 else bundle.full_index
        return _in_batches(_passed(entry, kind, bundle, index), batch, kind.stage == "pretrain")
    whole = methods.build(entry.method).weight_loss.whole_batches
    passed = _in_batches(_passed(entry, kind, bundle, bundle.t_index), batch, whole)
    if kind.stage == "warmup":  # which takes no batch of V
        return passed
    return passed + -(-passed // batch) * min(batch, len(bundle.v_index))


def _passed(entry: Entry, kind: Kind, bundle: DataSplits, index: Tensor) -> int:
    """Images of a pass over those at ``index``, as the stage's sampler has it."""
    sampler = sampler_of(entry.recipe, kind.stage)
    counts = bundle.labels[index].bincount().tolist()
    return len(index) if sampler is None else pass_length(sampler, counts)


def _in_batches(images: int, batch: int, whole: bool) -> int:
    return images // batch * batch if whole and images > batch else images


def _tested(entry: Entry, bundle: DataSplits) -> int:
    """Images that a test goes through."""
    held_out = isinstance(entry, SearchTrial) or share_of(entry.recipe) < 1
    return len(bundle.test_labels) + (len(bundle.v_index) if held_out else 0)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
