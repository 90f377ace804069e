"""What the search loop and the retrain loop share: seeds, devices, precision, evaluation."""

from __future__ import annotations

import hashlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nas_sweeps.data.augment import normalise
from nas_sweeps.data.bundle import Bundle
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.train.metrics import confusion, summarise
from nas_sweeps.trial import Precision, Resources

Row = dict[str, Any]
EPOCH_ACCURACIES = (  # those of a test that every epoch's row carries
    "accuracy_validation",
    "accuracy_balanced",
    "accuracy_long_tailed",
    "accuracy_macro",
)
EVAL_BATCH = 500  # images; bounds the memory of an evaluation pass, not its result


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run leaves behind, beside its rows."""

    metrics: dict[str, float | None]  # None: no class is in that group
    genotype: Genotype
    facts: dict[str, Any]
    classes: list[Row]


class Run(Protocol):
    """A training run that goes one epoch at a time and can be continued bit for bit."""

    @property
    def epochs_done(self) -> int: ...
    @property
    def epochs_total(self) -> int: ...
    def run_epoch(self) -> Row: ...
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
        torch.cuda.set_per_process_memory_fraction(min(1.0, resources.gpus))
        return torch.device("cuda:0")
    return torch.device("cpu")


@contextmanager
def precision(kind: Precision, device: torch.device) -> Iterator[None]:
    """``fp32`` also turns off cuDNN's default TF32; ``bf16`` is autocast.

    Autocast's cache stays off: it would keep the weights of the first step for as long as the
    context is open, however often an optimiser changes them in place.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind != "fp32"
    try:
        bf16 = kind == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@dataclass
class Meter:
    """Counts of one epoch. Sums stay on the device until ``row`` is asked for."""

    device: torch.device
    started: float = field(default_factory=time.perf_counter)
    images: int = 0
    trained_s: float | None = None  # until ``trained``: evaluation is not throughput
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

    def trained(self) -> None:
        """Training is over; what follows in this epoch is evaluation."""
        self.trained_s = time.perf_counter() - self.started

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
        seconds = time.perf_counter() - self.started
        return means | {
            "epoch_s": seconds,
            "images_per_s": self.images / (self.trained_s or seconds),
            "peak_mem_gib": peak_memory_gib(self.device),
        }


def reset_peak_memory(device: torch.device) -> None:
    """Forget earlier trials of this process, where the system lets one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux: proc(5), clear_refs
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib(device: torch.device) -> float:
    """Of the device's allocator on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@torch.inference_mode()
def predict(
    logits: Callable[[Tensor], Tensor], images_NCHW: Tensor, index: Tensor, bundle: Bundle
) -> Tensor:
    """Predicted classes (N,) of the images at ``index``, without augmentation."""
    parts = []
    for part in torch.split(index, EVAL_BATCH):
        x_BCHW = normalise(images_NCHW[part], bundle.mean, bundle.std)
        parts.append(logits(x_BCHW.to(memory_format=torch.channels_last)).argmax(1))
    return torch.cat(parts)


def accuracy(
    logits: Callable[[Tensor], Tensor], images_NCHW: Tensor, index: Tensor, bundle: Bundle
) -> float:
    """The fraction of right predictions among training images."""
    right = predict(logits, images_NCHW, index, bundle) == bundle.labels[index]
    return float(right.double().mean())


def evaluate(logits: Callable[[Tensor], Tensor], bundle: Bundle) -> Row:
    """Every accuracy on the test set, ``recall`` per class included.

    ``accuracy_long_tailed`` is the exact weighted form, ``accuracy_long_tailed_sampled`` the
    accuracy on one drawn long-tailed test set.
    """
    everything = torch.arange(len(bundle.test_labels), device=bundle.test_labels.device)
    predicted = predict(logits, bundle.test_images, everything, bundle)
    table = confusion(bundle.test_labels, predicted, bundle.num_classes)
    sampled = predicted[bundle.lt_test_index] == bundle.test_labels[bundle.lt_test_index]
    return summarise(table, bundle.lt_test_counts, bundle.groups) | {
        "accuracy_long_tailed_sampled": float(sampled.double().mean())
    }


def class_rows(recall: list[float], bundle: Bundle) -> list[Row]:
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
    for weight, gradient in zip(
        weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True
    ):
        weight.grad = gradient
    nn.utils.clip_grad_norm_(weights, limit)
    optimiser.step()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in eval mode inside, in train mode after."""
    module.eval()
    try:
        yield
    finally:
        module.train()
