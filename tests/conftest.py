"""For all tests: the folder is on the path, and torch has one thread.

Tensors as small as in tests are slower on two threads, and far slower on a busy machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch
sys.path.insert(0, str(Path(__file__).parent))
