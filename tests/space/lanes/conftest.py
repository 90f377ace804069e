"""Triton's interpreter takes as long for a small tile as for a large one: here they are large."""

from __future__ import annotations

import pytest

from nas_sweeps.space.lanes import backward, shape


@pytest.fixture(autouse=True)
def _large_tiles(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "small_tiles" not in request.keywords:
        for module in (shape, backward):
            monkeypatch.setattr(module, "PIXELS", 64)
