"""Streams of index batches: shuffled, seeded, and resumable bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Positions of the images of a pass, drawn from a generator: a sampler with its labels.
Order = Callable[[torch.Generator], Tensor]


def epoch_batches(
    index: Tensor,
    batch_size: int,
    generator: torch.Generator,
    drop_last: bool = False,
    order: Order | None = None,
) -> tuple[Tensor, ...]:
    """One pass over ``index`` (1-D, on the generator's device), shuffled, cut into batches.

    With ``order`` the pass goes through the positions that it draws.

    The last batch is smaller unless ``drop_last`` (Barlow Twins' statistics want full ones);
    a last batch of a single image, of which BatchNorm can take no variance, is left out.

    Raises:
        ValueError: ``drop_last`` would leave no batch at all.
    """
    if drop_last and len(index) < batch_size:
        raise ValueError(
            f"batch_size {batch_size} is larger than the {len(index)} training images and this "
            f"loss drops incomplete batches; lower batch_size to at most {len(index)}"
        )
    taken = index[order(generator)] if order else _shuffled(index, generator)
    batches = torch.split(taken, batch_size)
    rest = len(taken) % batch_size
    return batches[:-1] if rest and len(batches) > 1 and (drop_last or rest == 1) else batches


class EpochSampler:
    """Shuffled passes over ``index``, one after the other, resumable between any two batches.

    The state is that of the generator before it shuffled the present pass, and how many batches
    were taken since: the order is shuffled again, not stored. Nothing else may draw from the
    generator.
    """

    def __init__(self, index: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self._index, self._size, self._generator = index, batch_size, generator
        self._start = generator.get_state()
        self._taken = 0

    def rest(self, drop_last: bool = False, order: Order | None = None) -> Iterator[Tensor]:
        """The batches of the present pass that nobody took yet, as ``epoch_batches`` cuts them.

        A batch counts as taken when it is handed out.
        """
        self._generator.set_state(self._start)
        batches = epoch_batches(self._index, self._size, self._generator, drop_last, order)
        for batch in batches[self._taken :]:
            self._taken += 1
            yield batch

    def next_epoch(self) -> None:
        """On to the next pass; ``rest`` has given this one's last batch."""
        self._start, self._taken = self._generator.get_state(), 0

    def state_dict(self) -> dict[str, Any]:
        """What the batches to come depend on."""
        return {"generator": self._start.clone(), "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self._start, self._taken = state["generator"].cpu(), state["taken"]


class InfiniteSampler:
    """Full batches from ``index`` for ever, reshuffled when a pass has too few images left.

    The remainder of a pass (fewer than ``batch_size`` images, others each time) is skipped, so
    every batch has the same shape and no image occurs twice in one; where ``index`` is shorter
    than ``batch_size`` a batch is all of it. DARTS draws ``next(iter(loader))``, a fresh
    shuffle for every batch: the same distribution batch by batch, without the even coverage.
    """

    def __init__(self, index: Tensor, batch_size: int, generator: torch.Generator) -> None:
        assert len(index) > 0, "an endless stream needs an image"
        self._index = index
        self._size = min(batch_size, len(index))
        self._generator = generator
        self._order = _shuffled(index, generator)
        self._position = 0

    def next(self) -> Tensor:
        """The next batch of indices, shape (min(batch_size, len(index)),)."""
        if self._position + self._size > len(self._order):
            self._order = _shuffled(self._index, self._generator)
            self._position = 0
        start, self._position = self._position, self._position + self._size
        return self._order[start : self._position]

    def state_dict(self) -> dict[str, Any]:
        """Order, position and generator: what ``next`` depends on."""
        return {
            "order": self._order.clone(),
            "position": self._position,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken. The generator is set too."""
        self._order = state["order"].to(self._index.device, copy=True)
        self._position = state["position"]
        self._generator.set_state(state["generator"].cpu())


def _shuffled(index: Tensor, generator: torch.Generator) -> Tensor:
    return index[torch.randperm(len(index), generator=generator, device=index.device)]
