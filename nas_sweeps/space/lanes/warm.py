"""Compile every kernel that a network's step needs, ahead of time and in parallel.

A step is run once on torch's meta device, where launches are only noted; what differs in types or
sizes that a kernel is compiled for is a variant, and processes share the variants out. Triton keeps
what it compiled in its cache folder, by source, version and chip, so a machine does this once: a
trial finds everything there. No GPU is needed (``Target`` says for which one to compile), so the
tests compile all variants too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas_sweeps.space.lanes.launch import Launch, noting

_log = logging.getLogger(__name__)
ALIGNED = 16  # bytes: what Triton may assume of a pointer


class Target(NamedTuple):
    """The chip to compile for: compute capability 80 is an A100, 90 an H100 or H200."""

    capability: int

    @classmethod
    def here(cls) -> Target:
        """The current CUDA device."""
        major, minor = torch.cuda.get_device_capability()
        return cls(10 * major + minor)


class Variant(NamedTuple):
    """A kernel and what it is compiled for; arguments are types of tensors, or numbers."""

    kernel: str  # module and name
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return self.kernel.rsplit(".", 1)[-1]


class Compiled(NamedTuple):
    """What the compiler said of a variant."""

    variant: Variant
    seconds: float
    shared: int  # bytes of shared memory a program


def variants(step: Callable[[], Any]) -> list[Variant]:
    """The distinct variants of all kernels that ``step`` launches, on the meta device."""
    with noting() as launches:
        step()
    return sorted(set(map(_variant, launches)), key=str)


def _variant(launch: Launch) -> Variant:
    function = launch.kernel.fn
    fixed = {p.name for p in launch.kernel.params if p.do_not_specialize}
    arguments = tuple(
        _argument(value, name in fixed)
        for name, value in zip(launch.kernel.arg_names, launch.arguments, strict=False)
    )
    keywords = tuple(sorted(launch.keywords.items()))
    return Variant(f"{function.__module__}.{function.__name__}", arguments, keywords)


def _argument(value: Any, fixed: bool) -> Any:
    """What Triton specialises for: the type of a tensor; 1, multiples of 16, or any number."""
    if isinstance(value, Tensor):
        offset = value.storage_offset() * value.element_size()
        return value.dtype, offset % ALIGNED == 0
    if fixed or isinstance(value, bool):
        return 2 if fixed else value
    wide = 2**40 if abs(value) >= 2**31 else 0  # a 64-bit argument is another type
    return 1 if value == 1 else 16 + wide if value % 16 == 0 else 2 + wide


class _Pointer:
    """Stands for a tensor when nothing runs."""

    def __init__(self, dtype: torch.dtype, aligned: bool) -> None:
        self.dtype, self._at = dtype, 0 if aligned else 8

    def data_ptr(self) -> int:
        return self._at

    def ptr_range(self) -> int:
        return 0


class _Driver:
    """Stands for a CUDA driver where there is none, or none is wanted."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._capability, 32)


def compile_variant(variant: Variant, target: Target) -> Compiled:
    """Compile one variant into Triton's cache.

    Raises:
        Exception: whatever Triton raises for a kernel that does not compile.
    """
    import importlib

    from triton.runtime.driver import driver

    started = time.perf_counter()
    driver.set_active(_Driver(target.capability))
    module, name = variant.kernel.rsplit(".", 1)
    kernel = getattr(importlib.import_module(module), name)
    arguments = [_Pointer(*a) if isinstance(a, tuple) else a for a in variant.arguments]
    binary = kernel.warmup(*arguments, grid=(1,), **dict(variant.keywords))
    return Compiled(variant, time.perf_counter() - started, binary.metadata.shared)


def compile_all(
    wanted: Sequence[Variant],
    target: Target,
    workers: int | None = None,
    on_each: Callable[[int, Compiled], None] = lambda done, compiled: None,
) -> list[Compiled]:
    """Compile variants in processes of their own; ``on_each`` is told how many are done.

    Raises:
        RuntimeError: a kernel does not compile; the message names it and its variant.
    """
    context = multiprocessing.get_context("spawn")
    count = min(len(wanted), workers or os.cpu_count() or 1)
    out: list[Compiled] = []
    if not wanted:
        return out
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        jobs = {pool.submit(compile_variant, one, target): one for one in wanted}
        for done, job in enumerate(as_completed(jobs), 1):
            try:
                out.append(job.result())
            except Exception as error:
                pool.shutdown(wait=False, cancel_futures=True)
                raise RuntimeError(f"{jobs[job]} does not compile: {error}") from error
            on_each(done, out[-1])
    return out
