"""Kernels compile for GPUs that are not here, and are noted without running anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LANES = ROOT / "nas_sweeps" / "space" / "lanes"
LAUNCHES = "".join((LANES / f"{name}.py").read_text() for name in ("forward", "backward"))
KERNELS = sorted(set(re.findall(r"\b(?:filters|filter_gradients|mixing)\.(\w+)", LAUNCHES)))


def compiled(tmp_path: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.space.lanes.compile", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.system
def test_every_kernel_compiles(tmp_path: Path) -> None:
    printed = compiled(tmp_path)
    for name in KERNELS:
        assert f" {name} " in printed
    assert f"{len(KERNELS)} variants of {len(KERNELS)} kernels for sm_90" in printed
    assert len(list((tmp_path / "triton").rglob("*.cubin"))) == len(KERNELS)


ASK = """
import importlib, sys
for name in sys.argv[1:]:
    module, kernel = name.split(".")
    found = getattr(importlib.import_module("nas_sweeps.space.lanes." + module), kernel)
    print(name, found.cache_key)
"""


def test_what_one_process_compiled_the_next_finds_whatever_it_launches_first() -> None:
    """Triton's own keys depend on the order in which they are asked for (``key_in_order``)."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    names = sorted(set(re.findall(r"\b((?:filters|filter_gradients|mixing)\.\w+)", LAUNCHES)))

    def keys(order: list[str]) -> set[str]:
        command = [sys.executable, "-c", ASK, *order]
        printed = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=-1, text=True, check=True
        )
        return set(printed.stdout.splitlines())

    assert len(names) == len(KERNELS)
    assert keys(names) == keys(names[::-1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("capability", [80, 90])
def test_every_variant_compiles(capability: int, tmp_path: Path) -> None:
    printed = compiled(tmp_path, "--every", "--capability", str(capability))
    assert f"of {len(KERNELS)} kernels for sm_{capability}" in printed
