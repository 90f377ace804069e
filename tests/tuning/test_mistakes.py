"""What a grid that tunes or stops cannot mean is refused, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from nas_sweeps.grid import Grid, GridError

ARCH_LR: dict[str, Any] = {"low": 0.001, "high": 0.01, "log": True}
BOTH = ["accuracy_validation", "macs"]


def grid(search: dict[str, Any] | None = None, tune: dict[str, Any] | None = None) -> Grid:
    given = {"methods": [{"darts": {"arch_lr": ARCH_LR}}], "distributions": ["balance"]}
    given |= {"recipe": {"epochs": 2}} | (search or {})
    data = {"dataset": "digits", "n_max": 10}
    return Grid.from_dict({"data": data, "search": given, "tune": tune or {"trials": 2}})


@pytest.mark.parametrize(
    ("search", "tune", "said"),
    [
        ({"stop": {"collapse": {"alpha_entropy": 1.0}}}, {}, "after 5 of 2 epochs"),
        ({"stop": {"collapse": {"skip_connections": 0}}}, {}, "after 5 of 2 epochs"),
        ({"recipe": {"test_every": {"low": 1, "high": 2}}}, {}, "test_every: trains nothing other"),
        ({}, {"objective": BOTH, "pareto": 0}, "write one from 1, or all"),
        ({}, {"objective": BOTH, "pareto": "most"}, "one from 1, or all"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    search: dict[str, Any], tune: dict[str, Any], said: str
) -> None:
    with pytest.raises(GridError, match=said):
        grid(search, {"trials": 2} | tune)


def test_what_can_be_meant_is_not() -> None:
    # Kept grids say a default that a range leaves out.
    grid({"methods": [{"darts": {"arch_lr": ARCH_LR | {"default": 0.5}}}]})
    grid({"stop": {"collapse": {"not_finite": True}}})  # at any epoch
    grid({}, {"trials": 2, "objective": BOTH, "pareto": "all"})
