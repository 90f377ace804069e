#!/usr/bin/env bash
# Everything that ten minutes on a GPU should tell, in under eight; tests/gpu/check.py says what.
#
#     tests/gpu/check.sh --out FOLDER [--images FOLDER_OF_CIFAR10]    on a GPU
#     tests/gpu/check.sh --out FOLDER --device cpu                    every part, tiny, anywhere
set -euo pipefail
cd "$(dirname "$0")/../.."
# Python: PYTHON, or that of this checkout's environment (uv sync), or the one on the path.
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "${PYTHON:-$python}" -m tests.gpu.check "$@"
