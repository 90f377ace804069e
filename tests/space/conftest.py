from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from nas_sweeps.space import depthwise, kernel


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of extensions that holds the kernel; the processes that run tests share one."""
    cache = tmp_path_factory.getbasetemp().parent / "extensions"
    cache.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FileLock(cache / "lock"):
        patch.setenv("TORCH_EXTENSIONS_DIR", str(cache))
        try:
            if not kernel.library().exists():
                kernel.build()
        except kernel.NotBuilt as why:
            pytest.skip(f"no compiled kernel: {why}")
    return cache


@pytest.fixture(params=["plain", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[kernel.Form]:
    """Run a test in each form of the depthwise gradients."""
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "off")
    monkeypatch.setattr(depthwise, "SMALL", 0)  # the maps of tests are
    if request.param == "compiled":
        monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(request.getfixturevalue("built")))
        monkeypatch.setenv("NAS_SWEEPS_KERNEL", "auto")
    kernel._chosen.cache_clear()
    assert kernel.form() == request.param
    yield request.param
    kernel._chosen.cache_clear()
