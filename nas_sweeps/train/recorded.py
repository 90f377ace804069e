"""A training step recorded once and replayed: on a GPU one launch in place of thousands.

A supernet's step is tens of thousands of small kernels, and a GPU runs them faster than Python
can name them. A CUDA graph records which kernels ran on which memory, and runs them again
without Python. So what is recorded must be a function of tensors alone:

* indices come in as tensors, and are copied into those that were recorded;
* what changes from epoch to epoch (learning rates, the probability of drop path) is a tensor
  that is written to, not a Python number;
* what comes out are tensors, valid until the next call;
* nothing in it asks the device for a value.

A step that asks anyway (that of somebody's own method, say) is noticed before it is recorded,
and runs as it is, with the reason logged. The first calls of every shape are rehearsals: real
steps, after which optimisers have their state and libraries their workspaces. The last, smaller
batch of an epoch is another shape, and a step called with fewer inputs (a search's warm-up, without
a batch of V) is another step; each has a recording of its own in the same memory.

On a CPU nothing is recorded: a step there is a call. ``NAS_SWEEPS_GRAPHS=off`` makes it one on
a GPU too, which changes how fast a trial is and, but for rounding, nothing else.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

Means = dict[str, Tensor | float]  # what a step measured; a number is the same in every step
Body = Callable[..., Means]

SWITCH = "NAS_SWEEPS_GRAPHS"
REHEARSALS = 3
_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """What can record a step; the step takes nothing, and works on tensors that stay."""

    def rehearse(self, step: Callable[[], Means]) -> tuple[Means, str | None]:
        """Run it. Also what in it cannot be recorded, or None."""
        ...

    def record(
        self, step: Callable[[], Means], generators: Sequence[torch.Generator]
    ) -> tuple[Means, Callable[[], None]]:
        """Run it. Also what runs it again, with results in the same tensors."""
        ...


def default_recorder(device: torch.device) -> Recorder | None:
    """CUDA graphs on a GPU unless they are switched off; None: steps are called as they are.

    Raises:
        ValueError: the switch is neither ``on`` nor ``off``.
    """
    switch = os.environ.get(SWITCH, "on")
    if switch not in ("on", "off"):
        raise ValueError(f"{SWITCH}: unknown choice '{switch}'; choose from on, off")
    return CudaGraphs() if device.type == "cuda" and switch == "on" else None


class Step:
    """A training step, recorded where a recorder is given.

    Args:
        body: takes tensors of indices and returns scalars by name. See the rules above.
        optimisers: those whose learning rates change from one call to the next.
        generators: all that ``body`` draws from.
    """

    def __init__(
        self,
        body: Body,
        recorder: Recorder | None,
        optimisers: Sequence[Optimizer],
        generators: Sequence[torch.Generator],
    ) -> None:
        self._body, self._recorder, self._generators = body, recorder, generators
        self._groups = [group for optimiser in optimisers for group in optimiser.param_groups]
        self._rates: list[Tensor] = []
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._refused = False

    def __call__(self, *inputs: Tensor) -> Means:
        """One step; what it returns holds until the next."""
        if self._recorder is None:
            return self._body(*inputs)
        self._set_rates(inputs[0].device)
        shapes = tuple(x.shape for x in inputs)
        if shapes in self._recordings:
            return self._recordings[shapes].replay(inputs)
        self._calls[shapes] += 1
        with self._rates_as_tensors():
            if self._refused or self._calls[shapes] <= REHEARSALS:
                return self._rehearse(self._recorder, inputs, self._calls[shapes] == REHEARSALS)
            return self._record(self._recorder, shapes, inputs)

    def _rehearse(self, recorder: Recorder, inputs: Sequence[Tensor], last: bool) -> Means:
        means, complaint = recorder.rehearse(lambda: self._body(*inputs))
        if last and complaint is not None and not self._refused:  # first calls fill caches
            self._refused = True
            _log.warning("the training step is not recorded, and slower for it: %s", complaint)
        return means

    def _record(
        self, recorder: Recorder, shapes: tuple[torch.Size, ...], inputs: Sequence[Tensor]
    ) -> Means:
        held = [x.clone() for x in inputs]
        means, again = recorder.record(lambda: self._body(*held), self._generators)
        self._recordings[shapes] = _Recording(held, means, again)
        return means

    def _set_rates(self, device: torch.device) -> None:
        if not self._rates:
            self._rates = [torch.zeros((), device=device) for _ in self._groups]
        for rate, group in zip(self._rates, self._groups, strict=True):
            rate.fill_(group["lr"])

    @contextmanager
    def _rates_as_tensors(self) -> Iterator[None]:
        """Inside, optimisers read rates that a recording can be told to change; outside, and
        so for schedules and checkpoints, they are numbers."""
        numbers = [group["lr"] for group in self._groups]
        try:
            for rate, group in zip(self._rates, self._groups, strict=True):
                group["lr"] = rate
            yield
        finally:
            for number, group in zip(numbers, self._groups, strict=True):
                group["lr"] = number


class _Recording(NamedTuple):
    """The tensors a recording reads, those it writes its results to, and what runs it."""

    held: list[Tensor]
    means: Means
    again: Callable[[], None]

    def replay(self, inputs: Sequence[Tensor]) -> Means:
        for kept, new in zip(self.held, inputs, strict=True):
            kept.copy_(new)
        self.again()
        return self.means


class CudaGraphs:
    """Records on one stream of its own, into one pool of memory."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def rehearse(self, step: Callable[[], Means]) -> tuple[Means, str | None]:
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                means = self._beside(step)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        asked = [w for w in caught if "called a synchronizing" in str(w.message)]
        where = [f"it waits for the device in {w.filename}:{w.lineno}" for w in asked]
        return means, where[0] if where else None

    def _beside(self, step: Callable[[], Means]) -> Means:
        """On the stream that will record, as libraries keep workspaces for each."""
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            means = step()
        present.wait_stream(self._stream)
        return means

    def record(
        self, step: Callable[[], Means], generators: Sequence[torch.Generator]
    ) -> tuple[Means, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():  # newer versions of torch register by themselves
            warnings.simplefilter("ignore")
            for generator in generators:
                graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                means = step()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise RuntimeError(
                f"a training step could not be recorded as a CUDA graph ({error}); set "
                f"{SWITCH}=off and run the same command again: it goes on from the checkpoint"
            ) from error
        graph.replay()
        return means, graph.replay
