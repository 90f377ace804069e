"""A store with studies, computed by runs of no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_sweeps.grid import Grid
from nas_sweeps.sweep.run import run
from tests.faked import faked
from tests.sweep.tiny import TINY

WEIGHT = {"low": 1, "high": 30, "log": True}
FAIRDARTS = {"fairdarts": {"zero_one_weight": WEIGHT, "zero_one": {"choices": ["l1", "l2"]}}}
EPOCHS = 2


def grid(methods: Any = ("fairdarts", FAIRDARTS), recipe: Any = None, **tune: Any) -> Grid:
    """FairDARTS untuned beside it tuned, with three seeds each: one chooses the winner."""
    search: dict[str, Any] = TINY["search"] | {"methods": [*methods], "seeds": 3}  # type: ignore[operator]
    search["recipe"] = search["recipe"] | {"epochs": EPOCHS} | (recipe or {})
    tuned = {"trials": 5, "startup": 2, "parallel": 2} | tune
    return Grid.from_dict(TINY | {"search": search, "tune": tuned})


def failing_grid() -> Grid:
    """DARTS with two seeds a proposal, most of which diverge; its default is outside the range."""
    lr = {"low": 100, "high": 1e6, "log": True, "default": 0.025}
    return grid(["darts"], {"lr": lr}, seeds_per_trial=2, startup=5)


def tuned_into(store: Path) -> None:
    with faked():
        for one in (grid(), failing_grid()):
            run(one, store, executor="inline", console="none")
