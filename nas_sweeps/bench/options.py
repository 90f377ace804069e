"""What a benchmark run measures: a plain value that travels to child processes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from nas_sweeps.trial import Precision

Task = Literal[
    "first_order",
    "second_order",
    "evaluation",
    "retrain",
    "augmentation",
    "views",
    "ssf_nas",
    "retrain_darts",
    "test_pass",
    "start",
    "packing",
]
TASKS: tuple[Task, ...] = get_args(Task)
# The others are for GPUs: minutes a step on a CPU, or many processes that may take all memory.
UNASKED = TASKS[:6]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Sizes and repeats. Defaults: the supernet of DARTS train_search.py.

    Attributes:
        channels, layers, batch, image_size: of the supernet and of what it is fed.
        retrain_channels, retrain_layers, retrain_batch: of the evaluation network.
        darts_channels, darts_layers, darts_batch: of the task retrain_darts, the recipe of DARTS
            train.py, which takes minutes a step on a CPU.
        test_images: of the task test_pass.
        threads: of a CPU.
        repeats: timed runs of every variant, after one that is not counted.
        tasks: which to measure, in this order.
        only: variants to measure beside the first of each task; empty is all.
        reference: whether that first one is measured. On a GPU its many convolutions take cuDNN
            up to 20 s to prepare.
        compile: also measure the plain form under ``torch.compile`` (minutes to compile).
        memory: also measure peak memory, one child process for each number.
        processes: of the task packing, one row each; each has ``process_threads`` threads and
            makes ``steps`` timed steps.
        precisions: as in a recipe; all variants in one, then in the next.
    """

    channels: int = 16
    layers: int = 8
    batch: int = 64
    image_size: int = 32
    retrain_channels: int = 16
    retrain_layers: int = 8
    retrain_batch: int = 64
    darts_channels: int = 36
    darts_layers: int = 20
    darts_batch: int = 96
    test_images: int = 10_000
    threads: int = 2
    repeats: int = 3
    tasks: tuple[Task, ...] = UNASKED
    only: tuple[str, ...] = ()
    reference: bool = True
    compile: bool = False
    memory: bool = True
    processes: tuple[int, ...] = (1, 2, 4, 8)
    process_threads: int = 1
    steps: int = 3
    device: Literal["cpu", "cuda"] = "cpu"
    precisions: tuple[Precision, ...] = ("fp32",)

    @property
    def precision(self) -> Precision:
        """The one that is measured now."""
        return self.precisions[0]

    def each_precision(self) -> list[Options]:
        """These options for one precision at a time."""
        return [replace(self, precisions=(one,)) for one in self.precisions]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool):
                self._at_least_one(field.name, value)
        for count in self.processes:
            self._at_least_one("processes", count)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"--device: unknown '{self.device}'; choose from cpu, cuda")
        for kind in self.precisions:
            if kind not in get_args(Precision):
                names = ", ".join(get_args(Precision))
                raise ValueError(f"--precision: unknown '{kind}'; choose from {names}")
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise ValueError(f"--task: unknown '{unknown[0]}'; choose from {', '.join(TASKS)}")

    @staticmethod
    def _at_least_one(name: str, value: int) -> None:
        if value < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option}: {value} is too small; take at least 1")

    def quick(self) -> Options:
        """A minute instead of half an hour, without memory; ratios are lower than real ones."""
        return replace(
            self,
            channels=8,
            layers=3,
            batch=16,
            retrain_channels=8,
            retrain_layers=4,
            retrain_batch=16,
            darts_channels=8,
            darts_layers=4,
            darts_batch=16,
            test_images=256,
            repeats=1,
            memory=False,
            processes=tuple(n for n in self.processes if n <= 4),
        )
