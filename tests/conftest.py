"""For all tests: the folder is on the path, torch has one thread, and Ray's workers are not nice.

Tensors as small as in tests are slower on two threads, and far slower on a busy machine; there,
Ray's workers would come after everything else. Without a GPU, Triton interprets its kernels, which
it must know before it is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch
os.environ.setdefault("RAY_worker_niceness", "0")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))
