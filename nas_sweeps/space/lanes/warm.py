"""Compile every kernel that a network's step needs, ahead of time and in parallel.

A step is run once on torch's meta device, where launches are only noted; what differs in types or
sizes that a kernel is compiled for is a variant, and processes share the variants out. Triton keeps
what it compiled in its cache folder, by source, version and chip, so a machine does this once: a
trial finds everything there. No GPU is needed (``Target`` says for which one to compile), so the
tests compile all variants too.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas_sweeps.space.lanes.launch import Launch, noting

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


def variants(step: Callable[[], Any], maps: torch.dtype | None = None) -> list[Variant]:
    """The distinct variants of all kernels that ``step`` launches, on the meta device.

    ``maps`` is the type that autocast would give to maps, or None.
    """
    with noting(maps) as launches:
        step()
    return sorted(set(map(_variant, launches)), key=str)


def _variant(launch: Launch) -> Variant:
    function = launch.kernel.fn
    fixed = {p.name for p in launch.kernel.params if p.do_not_specialize}
    arguments = tuple(
        _argument(value, name in fixed)
        for name, value in zip(launch.kernel.arg_names, launch.arguments, strict=False)
    )
    keywords = tuple(
        (name, _argument(value, True) if name in fixed else value)
        for name, value in sorted(launch.keywords.items())
    )
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

    The processes import this package and nothing of the caller's: multiprocessing would run a
    script again that has no ``if __name__ == "__main__"``.

    Raises:
        RuntimeError: a kernel does not compile; the message names it and its variant.
    """
    count = min(len(wanted), workers or cpus())
    out: list[Compiled] = []
    if not wanted:
        return out
    with ExitStack() as ending, ThreadPoolExecutor(count) as threads:
        idle: SimpleQueue[_Compiler] = SimpleQueue()
        for _ in range(count):
            idle.put(ending.enter_context(_Compiler(target)))
        jobs = {threads.submit(_compile_by, idle, one): one for one in wanted}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                answer = job.result()
                if not isinstance(answer, Compiled):
                    raise RuntimeError(f"{jobs[job]} does not compile: {answer}")
                out.append(answer)
                on_each(done, answer)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return out


def cpus() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compile_by(idle: SimpleQueue[_Compiler], variant: Variant) -> Compiled | str:
    compiler = idle.get()
    try:
        return compiler.ask(variant)
    finally:
        idle.put(compiler)


class _Compiler:
    """A process that compiles one variant after the other, and ends with this one's pipe."""

    def __init__(self, target: Target) -> None:
        code = f"from {__name__} import _serve; _serve({target.capability})"
        paths = os.pathsep.join(path or os.curdir for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )

    def __enter__(self) -> _Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # Triton writes its cache by renaming: nothing is left half done
        self._process.communicate()

    def ask(self, variant: Variant) -> Compiled | str:
        """What came of it; in words where it does not compile."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "it is a pipe"
        assert stdout is not None, "it is a pipe"
        try:
            pickle.dump(variant, stdin)
            stdin.flush()
            answer: Compiled | str = pickle.load(stdout)
        except (EOFError, OSError):
            return f"the compiler ended with exit code {self._process.wait()}"
        return answer


def _serve(capability: int) -> None:
    """A compiler's life: variants from standard input, answers to what was standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed is no answer
    with suppress(EOFError, BrokenPipeError):
        while True:
            variant = pickle.load(sys.stdin.buffer)
            try:
                answer: Compiled | str = compile_variant(variant, Target(capability))
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            pickle.dump(answer, answers)
            answers.flush()
