"""An optional compiled kernel for the gradients of depthwise convolutions on a CPU.

Nothing needs it: without it ``depthwise.py`` computes the same from torch's own convolutions,
some 15 % slower for a whole step. It pays backward only; forward oneDNN is as fast as memory
allows.

    python -m nas_sweeps.space.kernel      builds it, once per machine and version of its source

NAS_SWEEPS_KERNEL, read once per process, decides when it is used:

    auto    if it has been built; nothing is ever compiled unasked. The default.
    on      built at first use (seconds, in a child process) if it has not been
    off     never

Whatever goes wrong, no compiler, a full disk, a compiler that hangs, ends in plain PyTorch; which
of both it is, and why, is logged once per process by the logger ``nas_sweeps.space``.

Bits. The forms round differently, so a trial keeps the form that it began with: its checkpoints
name it (``sweep/worker.py``), and so does its result. Going on without a kernel that is gone
is possible, and warned of. Within a form the bits do not depend on the number of threads.

Building. ``torch.utils.cpp_extension.load`` compiles ``depthwise.cpp`` in a scratch folder and a
child process, which is killed after ``BUILD_S``. The child compares the kernel with torch's
gradients; then the library is renamed into torch's cache for extensions (TORCH_EXTENSIONS_DIR).
So processes that build at once do not wait for each other, a killed one leaves no lock behind,
and what is found there is whole. Its name holds a hash of the source and of the processor's
vector instructions: machines that share a home folder may differ in them.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nas_sweeps.paths import user_path

Form = Literal["compiled", "plain"]
BUILD_S = 120.0  # measured: 5 on a slow core, most of it for importing torch
SOURCE = Path(__file__).with_name("depthwise.cpp")
NAME, MODULE = "nas_sweeps_depthwise", "nas_sweeps.space.kernel"
FLAGS = {  # as torch names what it found; elsewhere the compiler's default
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
SIDES = {3, 5}
TYPES = {torch.float32: "float32", torch.float64: "float64"}
_log = logging.getLogger("nas_sweeps.space")
_follows: list[Form] = []  # the form that the running trial began with


class NotBuilt(RuntimeError):
    """Why there is no kernel."""


class Kernel:
    """The compiled functions, as ``depthwise.cpp`` declares them.

    Raises:
        OSError, AttributeError: the file is not such a library.
    """

    def __init__(self, path: Path) -> None:
        self.path, library = path, ctypes.CDLL(str(path))
        for function in ("input_gradient", "filter_gradients"):
            for name in TYPES.values():
                getattr(library, f"{function}_{name}").restype = None
        self._library = library

    def input_gradient(
        self, x_BCHW: Tensor, weights: list[Tensor], forms: list[int], slopes: list[Tensor]
    ) -> Tensor:
        """The gradient of the map: the sum over all filters."""
        out_BCHW = torch.empty_like(x_BCHW, memory_format=torch.channels_last)
        weights, slopes = [w.contiguous() for w in weights], [_last(d) for d in slopes]
        pointers = _addresses(weights), _addresses(slopes), ctypes.c_void_p(out_BCHW.data_ptr())
        self._call("input_gradient", x_BCHW, forms, *pointers)
        return out_BCHW

    def filter_gradients(
        self, x_BCHW: Tensor, weights: list[Tensor], forms: list[int], slopes: list[Tensor]
    ) -> list[Tensor]:
        """The gradient of every filter."""
        x_BCHW, slopes = _last(x_BCHW), [_last(d) for d in slopes]
        out = [torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights]
        pointers = ctypes.c_void_p(x_BCHW.data_ptr()), _addresses(slopes), _addresses(out)
        self._call("filter_gradients", x_BCHW, forms, *pointers)
        return out

    def _call(self, function: str, x_BCHW: Tensor, forms: list[int], *pointers: Any) -> None:
        batch, channels, height, width = x_BCHW.shape
        getattr(self._library, f"{function}_{TYPES[x_BCHW.dtype]}")(
            (ctypes.c_int * 3)(height, width, channels),
            batch,
            len(forms) // 3,
            (ctypes.c_int * len(forms))(*forms),
            *pointers,
            torch.get_num_threads(),
        )


def _addresses(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _last(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.contiguous(memory_format=torch.channels_last)


# As torch operators, so that profilers and counters see them. ``forms`` holds side, stride and
# dilation of every filter; ``depthwise.py`` asks ``serves`` before it calls them.

_ARGUMENTS = "(Tensor x, Tensor[] weights, int[] forms, Tensor[] slopes)"
_operators: Any = torch.library.Library("nas_sweeps", "FRAGMENT")  # type: ignore[no-untyped-call]
for _name, _out in (("input_gradient", "Tensor"), ("filter_gradients", "Tensor[]")):
    _operators.define(f"{_name}{_ARGUMENTS} -> {_out}")
    _operators.impl(_name, lambda *given, name=_name: _run(name, *given), "CPU")
input_gradient = torch.ops.nas_sweeps.input_gradient.default
filter_gradients = torch.ops.nas_sweeps.filter_gradients.default


def serves(x_BCHW: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether the kernel is to be used, and can take these."""
    kernel = compiled()
    return kernel is not None and x_BCHW.dtype in TYPES and {w.shape[-1] for w in weights} <= SIDES


def _run(name: str, *given: Any) -> Any:
    return getattr(_chosen(), name)(*given)


# Which form


def compiled() -> Kernel | None:
    """The kernel, where it is to be used; None is plain PyTorch."""
    return None if "plain" in _follows else _chosen()


def form() -> Form:
    """Which of both this process computes with on a CPU."""
    return "plain" if compiled() is None else "compiled"


def outlook() -> str:
    """What a new search here would compute with, without building or loading anything."""
    wanted = os.environ.get("NAS_SWEEPS_KERNEL", "auto")
    with suppress(NotBuilt):
        if wanted in ("auto", "on") and library().exists():
            return "compiled"
    return "compiled, once the first search has built it" if wanted == "on" else "plain"


def follow(begun: Form | None) -> bool:
    """Compute as a trial began to; None is a new trial. False where that kernel is gone."""
    _follows[:] = [begun] if begun else []
    return begun is None or form() == begun


@lru_cache(maxsize=1)
def _chosen() -> Kernel | None:
    try:
        kernel = _wanted()
    except (NotBuilt, OSError, AttributeError) as why:
        _log.info("depthwise: plain PyTorch, because %s", why)
        return None
    _log.info("depthwise: compiled kernel %s", kernel.path)
    return kernel


def _wanted() -> Kernel:
    wanted = os.environ.get("NAS_SWEEPS_KERNEL", "auto")
    if wanted not in ("auto", "on", "off"):
        raise NotBuilt(f"NAS_SWEEPS_KERNEL is '{wanted}'; it can be auto, on or off")
    if wanted == "off":
        raise NotBuilt("NAS_SWEEPS_KERNEL is off")
    path = library()
    if path.exists():
        return Kernel(path)
    if wanted == "auto":
        raise NotBuilt(f"no kernel is built; python -m {MODULE} builds it")
    return Kernel(build())


# Building


def library() -> Path:
    """Where the built kernel is, or would be. Raises NotBuilt where there is no place for it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or f"{cache}/torch_extensions"
    what = "\n".join([SOURCE.read_text(), platform.machine(), *_flags()])
    key = hashlib.sha256(what.encode()).hexdigest()[:12]
    try:
        return user_path(root) / f"{NAME}_{key}.so"
    except ValueError as error:
        raise NotBuilt(str(error)) from None


def _flags() -> tuple[str, ...]:
    return FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())


def build() -> Path:
    """Compile and check the kernel, and put it where ``auto`` finds it.

    Raises:
        NotBuilt: no compiler, one that fails, or does not end within ``BUILD_S``.
        OSError: the cache cannot be written to.
    """
    for tool, hint in ((_compiler(), "set CXX"), ("ninja", "pip install ninja")):
        if shutil.which(tool) is None:
            raise NotBuilt(f"'{tool}' was not found ({hint})")
    path = library()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{NAME}_") as scratch:
        _run_child(Path(scratch))
        os.replace(Path(scratch, f"{NAME}.so"), path)
    return path


def _compiler() -> str:
    return (os.environ.get("CXX") or "c++").split()[0]


def _run_child(scratch: Path) -> None:
    """Compile and check in a process group of its own, which ends here in any case."""
    command = [sys.executable, "-c", f"from {MODULE} import _compile; _compile()", str(scratch)]
    said = scratch / "said.txt"
    with said.open("w") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = child.wait(BUILD_S)
        except subprocess.TimeoutExpired:
            raise NotBuilt(f"compiling it took longer than {BUILD_S:.0f} s") from None
        finally:
            if child.poll() is None:  # its compiler is in its group
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if code:
        raise NotBuilt(f"'{_compiler()}' failed:\n{said.read_text(errors='replace')[-2000:]}")


def _compile() -> None:
    """What the child does."""
    from torch.utils.cpp_extension import load

    scratch = sys.argv[1]
    load(
        NAME,
        [str(SOURCE)],
        extra_cflags=["-O3", "-fopenmp", *_flags()],
        extra_ldflags=["-fopenmp"],
        build_directory=scratch,
        with_cuda=False,
        is_python_module=False,
    )
    check(Kernel(Path(scratch, f"{NAME}.so")))


def check(kernel: Kernel) -> None:
    """Compare with torch's gradients in float64. Raises AssertionError."""
    forms = [(side, s, d) for side in SIDES for s in (1, 2) for d in (1, 2)]
    x = _last(torch.randn(2, 19, 9, 12, dtype=torch.float64)).requires_grad_()
    weights = [x.new_empty(19, 1, side, side).normal_().requires_grad_() for side, _, _ in forms]
    outs = [
        torch.conv2d(x, w, None, s, d * (side // 2), d, 19)
        for w, (side, s, d) in zip(weights, forms, strict=True)
    ]
    slopes = [torch.randn_like(out) for out in outs]
    truth = torch.autograd.grad(outs, [x, *weights], slopes)
    given = x.detach(), [w.detach() for w in weights], [n for one in forms for n in one], slopes
    found = kernel.input_gradient(*given), *kernel.filter_gradients(*given)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)


def main() -> None:
    """Build the kernel, or say why that cannot be."""
    try:
        print(f"depthwise: compiled kernel {build()}")
    except (NotBuilt, OSError) as why:
        sys.exit(f"depthwise: plain PyTorch, because {why}")


if __name__ == "__main__":
    main()
