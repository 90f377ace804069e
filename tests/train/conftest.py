"""Puts this folder on the path, so that its tests can import ``tiny_runs``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tensors this small are slower on two, far slower on a busy machine."""
    torch.set_num_threads(1)
