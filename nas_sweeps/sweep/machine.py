"""Where a trial runs: its device, what decides its rounding, versions and the commit."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nas_sweeps.numerics import Numerics
from nas_sweeps.train.form import form_of
from nas_sweeps.trial import Trial


def numerics_of(trial: Trial, device: torch.device) -> Numerics:
    """What decides the rounding of a trial that this process runs now."""
    form = form_of(trial, device).form
    return Numerics(
        device_kind=device.type,
        device_model=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model(),
        threads=torch.get_num_threads(),
        precision=trial.recipe.precision,
        form=form,
        torch=str(torch.__version__),  # a class of its own, which no checkpoint may hold
        triton=_version("triton") if form == "triton" else None,
    )


def keep_threads(begun: int | None) -> str | None:
    """Compute with the number of threads that a trial began with.

    Returns:
        Why that cannot be, in words; None where it can, or where the number is not known.
    """
    if begun is None or begun == torch.get_num_threads():
        return None
    if begun > cpu_count():
        return (
            f"it began with {begun} threads and goes on with {torch.get_num_threads()}, because "
            f"this machine has {cpu_count()} CPUs for it"
        )
    torch.set_num_threads(begun)
    return None


def cpu_count() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def cpu_model() -> str:
    """The processor's name, and the vector instructions that torch uses on it."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
                break
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES as it is."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def device_name(device: torch.device) -> str:
    """``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Host, package versions and the commit that the package was imported from."""
    found = {name: _version(name) for name in ("torch", "ray", "nas_sweeps")}
    versions = {"python": platform.python_version()} | {k: v for k, v in found.items() if v}
    return {"host": socket.gethostname(), "versions": versions, "git_sha": _git_sha()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_sha() -> str | None:
    """The commit of the checkout that tracks this file, with ``+`` where it was changed since."""
    if not _git("ls-files", Path(__file__).name):
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "..")
    return _git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
