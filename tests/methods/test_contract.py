"""What every registered method promises the search loop, and what ours promise beyond it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from nas_sweeps.methods import get, names
from nas_sweeps.testing import MethodContract
from nas_sweeps.testing.methods import choices, default, random_parameters, read

QUICK: dict[str, dict[str, Any]] = {
    "ssf_nas": {"barlow_dim": 16, "barlow_hidden": 16},
    "pc_darts": {"warmup_epochs": 1},
}
every_method = pytest.mark.parametrize("name", names())


@every_method
class TestEveryMethod(MethodContract):
    def tiny_knobs(self, name: str) -> dict[str, Any]:
        return QUICK.get(name, {})


@every_method
def test_a_rule_that_keeps_nothing_records_its_fallback_or_refuses(name: str) -> None:
    for knobs in [k for k in choices(name) if "rule" in k]:
        method = default(name, **knobs)
        found = read(method, random_parameters(method, seed=0, scale=0.0))
        if found.fallback_used:
            refusing = default(name, **knobs, fallback="error")
            with pytest.raises(ValueError, match="keeps 0 edges"):
                read(refusing, random_parameters(refusing, seed=0, scale=0.0))
        assert found.rule == knobs["rule"]


@every_method
def test_a_method_is_one_short_file(name: str) -> None:
    lines = Path(inspect.getfile(get(name))).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= (120 if name in ("fairdarts", "ssf_nas") else 80)
