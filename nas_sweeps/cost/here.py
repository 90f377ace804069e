"""What this machine holds, without asking torch or Ray."""

from __future__ import annotations

import os
from pathlib import Path

from nas_sweeps.cost.simulate import Node

_DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder for each


def this_machine() -> Node:
    """Its CPUs and GPUs, as far as this process may use them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    else:
        gpus = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return float(len(affinity(0)) if affinity else os.cpu_count() or 1), float(gpus)
