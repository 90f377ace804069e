"""What a benchmark run measures: a plain value that travels to child processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

Task = Literal["first_order", "second_order", "evaluation", "retrain", "augmentation", "views"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Sizes and repeats. Defaults: the supernet of DARTS train_search.py.

    Attributes:
        channels, layers, batch, image_size: of the supernet and of what it is fed.
        retrain_channels, retrain_layers: of the evaluation network.
        threads: of a CPU.
        repeats: timed runs of every variant, after one that is not counted.
        tasks: which to measure, in this order.
        compile: also measure the plain form under ``torch.compile`` (minutes to compile).
        memory: also measure peak memory, one child process for each number.
    """

    channels: int = 16
    layers: int = 8
    batch: int = 64
    image_size: int = 32
    retrain_channels: int = 16
    retrain_layers: int = 8
    threads: int = 2
    repeats: int = 3
    tasks: tuple[Task, ...] = TASKS
    compile: bool = False
    memory: bool = True
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: {getattr(self, name)} is too small; take at least 1")
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise ValueError(f"--tasks: unknown '{unknown[0]}'; choose from {', '.join(TASKS)}")

    def quick(self) -> Options:
        """A minute instead of a quarter of an hour; its ratios are lower than the real ones."""
        return replace(
            self,
            channels=8,
            layers=4,
            batch=16,
            retrain_channels=8,
            retrain_layers=4,
            repeats=2,
        )
