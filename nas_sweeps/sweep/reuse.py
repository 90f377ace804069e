"""Whether a process may run another trial: it gives memory back, and what is left is measured.

A trial that went well leaves a process as it was but for libraries that are loaded, kernels, and
tables of constants. Where it left more, or changed settings that decide how others compute, the
next trial had better have a new process.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
import torch

from nas_sweeps.sweep.stopping import SIGNALS

DEVICE_MIB = 64.0  # that torch may still hold of the GPU: constants, and segments around them
GROWTH_MIB = 512.0  # of private memory beyond what the process had after its first trial


class Held(NamedTuple):
    """Memory that a process has to itself, in MiB.

    Attributes:
        allocated: of the GPU, by tensors.
        reserved: of the GPU, kept by torch's allocator.
        private: of the machine. Files that are mapped, such as decoded images, do not count:
            their pages are the machine's, and all processes share them.
    """

    allocated: float
    reserved: float
    private: float


def held() -> Held:
    """What this process holds now."""
    of_gpu = 0.0, 0.0
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        of_gpu = torch.cuda.memory_allocated() / 2**20, torch.cuda.memory_reserved() / 2**20
    memory = psutil.Process().memory_info()
    return Held(*of_gpu, (memory.rss - getattr(memory, "shared", 0)) / 2**20)


def give_back() -> None:
    """Free what nothing refers to any more: networks, recorded steps, the allocators' stocks."""
    gc.collect()  # a run and its recorded steps refer to each other
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        # A workspace for each stream that a product ran on, and each recorder has one of its own.
        torch._C._cuda_clearCublasWorkspaces()
        torch._C._host_emptyCache()
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc keeps freed memory; other libraries do not
        ctypes.CDLL(None).malloc_trim(0)


class Reuse:
    """A process between its trials.

    Attributes:
        trials: that it has begun.
    """

    def __init__(self) -> None:
        self.trials = 0
        self._first: Held | None = None  # after the first trial
        self._before: dict[str, Any] = {}

    def begin(self) -> None:
        """Called before each trial."""
        self.trials += 1
        self._before = settings()

    def end(self, failed: bool = False) -> str | None:
        """Give memory back after a trial, in a process that does nothing but trials.

        Returns:
            Why no other is to run here; None where one may.
        """
        give_back()
        now, after = held(), settings()
        if self._first is None:
            self._first = now
            # What is loaded stays: to look through it after every trial would take 0.2 s each.
            gc.freeze()
            atexit.register(gc.unfreeze)  # libraries complain of what is never taken down
        if failed:
            return "its trial failed"
        # A variable that is new does not count: libraries set some when they are loaded.
        changed = [name for name, value in self._before.items() if after.get(name) != value]
        return _changed(changed) or _left(now) or _grown(now.private - self._first.private)


def _changed(what: Sequence[str]) -> str | None:
    return f"its trial changed {', '.join(what)}" if what else None


def _left(now: Held) -> str | None:
    if max(now.allocated, now.reserved) <= DEVICE_MIB:
        return None
    return (
        f"of the GPU {now.allocated:.0f} MiB are still allocated and {now.reserved:.0f} reserved; "
        f"{DEVICE_MIB:.0f} may be"
    )


def _grown(mib: float) -> str | None:
    if mib <= GROWTH_MIB:
        return None
    return f"it grew by {mib:.0f} MiB since its first trial; {GROWTH_MIB:.0f} are allowed"


def settings() -> dict[str, Any]:
    """What one trial could change for the next, by its name in words.

    Not here: what every trial sets anew (threads, seeds, cuDNN's deterministic algorithms).
    """
    return {name: look() for name, look in _LOOKS.items()} | {
        f"${name}": value for name, value in os.environ.items()
    }


def _folder() -> str | None:
    with suppress(OSError):  # it may have been removed
        return os.getcwd()
    return None


_LOOKS: dict[str, Callable[[], Any]] = {
    "the working directory": _folder,
    "handlers of signals": lambda: [signal.getsignal(number) for number in SIGNALS],
    "torch's default dtype": torch.get_default_dtype,
    "torch's default device": torch.get_default_device,
    "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "cuDNN's benchmarks": lambda: (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark),
    "oneDNN's switch": lambda: torch.backends.mkldnn.enabled,
    "gradients": torch.is_grad_enabled,
}

PROCESS = Reuse()  # this one


class UsedUp(RuntimeError):
    """The process that raises it had better run no other trial."""


def require_reusable(failed: bool = False) -> None:
    """Called when this process has run a trial.

    Raises:
        UsedUp: no other is to run here.
    """
    if (why := PROCESS.end(failed)) is not None:
        raise UsedUp(f"no other trial runs in this process: {why}")
