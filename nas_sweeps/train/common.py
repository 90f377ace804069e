"""What the search loop and the retrain loop share: seeds, devices, evaluation."""

from __future__ import annotations

import hashlib
import math
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from nas_sweeps.data.augment import normalise
from nas_sweeps.data.batches import Order
from nas_sweeps.data.samplers import SAMPLERS
from nas_sweeps.data.splits import DataSplits
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.train.metrics import confusion, mean_recall, summarise
from nas_sweeps.trial import Chosen, Resources, name_and_knobs

Row = dict[str, Any]
EPOCH_ACCURACIES = (  # those of a test that every epoch's row carries
    "accuracy_validation",
    "accuracy_macro_validation",
    "accuracy_balanced",
    "accuracy_long_tailed",
    "accuracy_macro",
)
EVAL_BATCH = {"cpu": 500, "cuda": 2048}  # images: bounds the memory of a pass, not its result


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run leaves behind, beside its rows."""

    metrics: dict[str, float | None]  # None: no class is in that group
    genotype: Genotype
    facts: dict[str, Any]
    classes: list[Row]


def nothing() -> None:
    """What a caller does between two steps who has nothing to do there."""


class Run(Protocol):
    """A training run that goes one epoch at a time and can be continued bit for bit.

    ``run_epoch`` calls ``between`` after every training step and after every batch of an
    evaluation, and at no other time. There, and between epochs, ``state_dict`` is a place that
    a new run of the same trial can go on from: its next row, the later ones and all it learns
    are those of a run never stopped, but for times and memory. ``between`` may take the
    state, and it may raise: the exception leaves ``run_epoch``, the state stays at that place,
    and this run or a new one goes on from there by calling ``run_epoch`` again. It must not
    touch the model. No training step runs twice; an evaluation starts over. After an exception
    from anywhere else the run is in the middle of a step, and its state is no place at all.

    ``state_dict`` shares tensors with the run: write it to a file before the run goes on.

    Every random number comes from the trial's own generators, all in the state; torch's, numpy's
    and Python's global ones are neither read nor moved. "The same bits" is a promise for a CPU
    with a fixed number of threads. On CUDA the generators live on the device, and their state is
    a seed and an offset: the same random numbers follow, but sums there may be taken in another
    order each time, stopped or not. The states of the two kinds of device do not mix.
    """

    @property
    def epochs_done(self) -> int: ...
    @property
    def epochs_total(self) -> int: ...
    def run_epoch(self, between: Callable[[], None] = nothing) -> Row: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def outcome(self) -> Outcome: ...


class TrainingDiverged(ValueError):
    """A loss stopped being a number."""


def stream(seed: int, name: str) -> int:
    """An independent 63-bit seed for one purpose of a trial, from the trial's seed."""
    digest = hashlib.sha256(f"{name}:{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, name: str, device: torch.device) -> torch.Generator:
    """A generator on ``device`` for one purpose of a trial."""
    return torch.Generator(device=device).manual_seed(stream(seed, name))


def sampled(sampler: Chosen, labels_N: Tensor) -> Order:
    """The order that a recipe names, over images with these labels. Raises ``ValueError``."""
    return partial(SAMPLERS.build(*name_and_knobs(sampler)).order, labels_N)


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Inside, torch's global CPU generator is that of one purpose; outside it is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream(seed, name))
        yield


def choose_device(resources: Resources) -> torch.device:
    """The first visible CUDA device if a GPU was asked for and is there, else the CPU.

    Sets torch's thread count to ``resources.cpus``: with it fixed, torch on a CPU computes the
    same bits in every process.
    """
    torch.set_num_threads(resources.cpus)
    if resources.gpus and torch.cuda.is_available():
        # The same trial twice, the same bits: cuDNN's own choice may add by atomics. Our kernels
        # add in a fixed order (space/lanes).
        torch.backends.cudnn.deterministic = True
        torch.cuda.set_per_process_memory_fraction(min(1.0, resources.gpus))
        return torch.device("cuda:0")
    return torch.device("cpu")


@dataclass
class Meter:
    """Counts of one epoch, over all its parts where it was interrupted.

    Sums stay on the device until ``row`` is asked for.
    """

    device: torch.device
    images: int = 0
    trained_s: float | None = None  # until ``trained``: evaluation is not throughput
    earlier_s: float = 0.0  # of the parts before the present one
    started: float | None = None  # the present part, by the clock; None: the clock is stopped
    sums: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor | float, count: int) -> None:
        """Add a mean over ``count`` images."""
        if not isinstance(value, Tensor):  # filled on the device: a copy would wait for it
            value = torch.full((), value, dtype=torch.float64, device=self.device)
        total = value.detach().double() * count
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.weights[name] = self.weights.get(name, 0) + count

    def means(self) -> Row:
        return {name: float(total) / self.weights[name] for name, total in self.sums.items()}

    @contextmanager
    def running(self) -> Iterator[None]:
        """The clock runs inside; what passes outside is none of the epoch's time."""
        self.started = time.perf_counter()
        try:
            yield
        finally:
            self.earlier_s, self.started = self.seconds(), None

    def seconds(self) -> float:
        """How long the clock has run."""
        present = 0.0 if self.started is None else time.perf_counter() - self.started
        return self.earlier_s + present

    def trained(self) -> None:
        """Training is over, now or in an earlier part; what follows is evaluation."""
        if self.trained_s is None:
            self.trained_s = self.seconds()

    def row(self) -> Row:
        """Means, seconds in all, images per second of training, and peak memory.

        Memory is that of the trial: on CUDA its tensors, on a CPU its whole process.
        """
        means = self.means()
        for name, value in means.items():
            if name.startswith("loss") and not math.isfinite(value):
                raise TrainingDiverged(
                    f"{name} is {value}; lower the recipe's lr or grad_clip, or check the images"
                )
        seconds = self.seconds()
        return means | {
            "epoch_s": seconds,
            "images_per_s": self.images / (self.trained_s or seconds),
            "peak_mem_gib": peak_memory_gib(self.device),
        }

    def state_dict(self) -> dict[str, Any]:
        """The counts so far, and the seconds without the clock's present reading."""
        return {
            "images": self.images,
            "trained_s": self.trained_s,
            "seconds": self.seconds(),
            "sums": dict(self.sums),
            "weights": dict(self.weights),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count on from ``state_dict``'s value, with the clock stopped."""
        self.images, self.trained_s = state["images"], state["trained_s"]
        self.earlier_s, self.started = state["seconds"], None
        self.sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self.weights = dict(state["weights"])


def reset_peak_memory(device: torch.device) -> None:
    """Forget earlier trials of this process, where the system lets one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux: proc(5), clear_refs
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib(device: torch.device) -> float:
    """The peak of the device's allocator on CUDA, else of this process's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with suppress(OSError, StopIteration):  # unlike getrusage's, forgets its parent's and resets
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def predict(
    logits: Callable[[Tensor], Tensor],
    images_NCHW: Tensor,
    index: Tensor,
    bundle: DataSplits,
    between: Callable[[], None] = nothing,
) -> Tensor:
    """Predicted classes (N,) of the images at ``index``, without augmentation.

    ``between`` is called after every batch, outside of inference mode. A batch that does not fit
    into the memory is halved, and so are those after it.
    """
    parts: list[Tensor] = []
    done, size = 0, min(len(index), EVAL_BATCH[index.device.type])
    while done < len(index):
        try:
            parts.append(_classes(logits, images_NCHW[index[done : done + size]], bundle))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        done += size
        between()
    return torch.cat(parts)


@torch.inference_mode()
def _classes(logits: Callable[[Tensor], Tensor], images_BCHW: Tensor, bundle: DataSplits) -> Tensor:
    x_BCHW = normalise(images_BCHW, bundle.mean, bundle.std)
    return logits(x_BCHW.to(memory_format=torch.channels_last)).argmax(1)


def plain_batches(bundle: DataSplits, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Training images without augmentation, as the network takes them, and their labels."""
    for part in torch.split(index, EVAL_BATCH[index.device.type]):
        x_BCHW = normalise(bundle.images[part], bundle.mean, bundle.std)
        yield x_BCHW.to(memory_format=torch.channels_last), bundle.labels[part]


def validate(
    logits: Callable[[Tensor], Tensor], bundle: DataSplits, between: Callable[[], None] = nothing
) -> dict[str, float]:
    """Both accuracies on V.

    ``accuracy_validation`` is the fraction of right predictions, ``accuracy_macro_validation`` the
    mean recall of the classes that have images there.
    """
    index = bundle.v_index
    predicted, labels = predict(logits, bundle.images, index, bundle, between), bundle.labels[index]
    return {
        "accuracy_validation": float((predicted == labels).double().mean()),
        "accuracy_macro_validation": mean_recall(confusion(labels, predicted, bundle.num_classes)),
    }


def evaluate(
    logits: Callable[[Tensor], Tensor], bundle: DataSplits, between: Callable[[], None] = nothing
) -> Row:
    """Every accuracy on the test set, ``recall`` per class included.

    ``accuracy_long_tailed`` is the exact weighted form, ``accuracy_long_tailed_sampled`` the
    accuracy on one drawn long-tailed test set.
    """
    everything = torch.arange(len(bundle.test_labels), device=bundle.test_labels.device)
    predicted = predict(logits, bundle.test_images, everything, bundle, between)
    table = confusion(bundle.test_labels, predicted, bundle.num_classes)
    sampled = predicted[bundle.lt_test_index] == bundle.test_labels[bundle.lt_test_index]
    return summarise(table, bundle.lt_test_counts, bundle.groups) | {
        "accuracy_long_tailed_sampled": float(sampled.double().mean())
    }


def class_rows(recall: list[float], bundle: DataSplits) -> list[Row]:
    """The rows of the classes table, less the trial's id.

    Counts and groups are those of the whole long-tailed training set, also for a trial that
    trained on a half of it.
    """
    return [
        {
            "class_index": k,
            "class_name": bundle.class_names[k],
            "train_count": bundle.train_counts[k],
            "recall": recall[k],
            "group": bundle.groups[k],
        }
        for k in range(bundle.num_classes)
    ]


def clip_and_step(
    loss: Tensor, weights: list[Tensor], optimiser: torch.optim.Optimizer, limit: float
) -> None:
    """One clipped step on ``weights`` alone; a weight the loss does not reach stays as it is."""
    set_gradients(weights, torch.autograd.grad(loss, weights, allow_unused=True))
    nn.utils.clip_grad_norm_(weights, limit)
    optimiser.step()


def set_gradients(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Each in the memory order of its weight: fused optimisers go through both as they lie."""
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None and gradient.stride() != weight.stride():
            if _lies_alike(gradient, weight):  # but for sizes of 1, whose strides say nothing
                gradient = gradient.as_strided(weight.shape, weight.stride())
            else:
                gradient = torch.empty_like(weight).copy_(gradient)
        weight.grad = gradient


def _lies_alike(a: Tensor, b: Tensor) -> bool:
    strides = zip(a.stride(), b.stride(), a.shape, strict=True)
    return a.shape == b.shape and all(x == y for x, y, size in strides if size > 1)


def step_schedule(schedule: LRScheduler) -> None:
    """To the next epoch's rate, also where all of this epoch's steps lie before an interruption.

    Torch sees only the steps of this process, and warns of a schedule that has none before it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        schedule.step()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in eval mode inside, in train mode after."""
    module.eval()
    try:
        yield
    finally:
        module.train()
