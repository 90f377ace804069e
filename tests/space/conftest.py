from __future__ import annotations

import pytest

from nas_sweeps.space import depthwise


@pytest.fixture
def every_map_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have gradients rearranged whatever the size of a map: those of tests are small."""
    monkeypatch.setattr(depthwise, "SMALL", 0)
