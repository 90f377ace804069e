"""Puts ``tests/`` on the path, so every room's tests can import ``golden_fill``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
