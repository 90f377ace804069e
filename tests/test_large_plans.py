"""Plans of very many trials: what is shared is made once, and work grows with the kinds of trials.

Objects and calls are counted in place of seconds.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_sweeps.cost.forecast import forecast
from nas_sweeps.cost.rates import Cost, Interval, Rates
from nas_sweeps.cost.simulate import Floor, Room
from nas_sweeps.grid import Grid, plan
from nas_sweeps.grid.expand import alike
from nas_sweeps.schedule import Scheduler
from nas_sweeps.trial import Resources, SearchTrial
from nas_sweeps.trial.spec import SCHEMA_VERSION, _plain

GRID: dict[str, Any] = {
    "name": "large",
    "data": {"dataset": "digits"},
    "search": {"methods": ["darts", "fairdarts"], "distributions": ["balance", {"exp": [0.1]}]},
    "retrain": {"recipes": {"short": {"epochs": 1}, "long": {"epochs": 2}}},
}


def grid_of(seeds: int, **data: Any) -> Grid:
    search = GRID["search"] | {"seeds": seeds}
    return Grid.from_dict(GRID | {"search": search, "data": GRID["data"] | data})


def test_a_plan_holds_what_its_trials_share_once() -> None:
    planned = plan(grid_of(seeds=50))
    assert len(planned) == 200 + 400
    kinds = {alike(entry) for entry in planned}
    assert len(kinds) == 4 + 2 * 4, "method x distribution, and these by recipe"
    assert len({id(entry.data) for entry in planned}) == 1
    assert len({id(entry.origin) for entry in planned.retrains}) == 4 * 2
    assert len({id(entry.parents) for entry in planned.retrains}) == 200, "of both recipes"


def test_where_seeds_draw_the_images_their_data_differ() -> None:
    planned = plan(grid_of(seeds=5, subset_seed="trial"))
    assert {entry.data.subset_seed for entry in planned.searches} == set(range(5))
    assert len({id(entry.data) for entry in planned}) == 5


def test_a_forecast_prices_a_kind_of_trial_once(monkeypatch: pytest.MonkeyPatch) -> None:
    priced = []

    def cost(rates: Rates, entry: Any, done: int = 0) -> Cost:
        priced.append(entry)
        return Cost(Interval(60.0, 50.0, 70.0), 1, 0)

    monkeypatch.setattr(Rates, "cost", cost)
    found = forecast(Scheduler(plan(grid_of(seeds=100))), Rates())
    assert (found.trials, len(priced)) == (1200, 12)
    assert found.work().mid == pytest.approx(1200 * 60)
    wall, schedule = found.wall(
        dict.fromkeys(("search", "retrain"), Resources(gpus=1)), Room(((math.inf, 100.0),))
    )
    assert (wall.mid, wall.low, wall.high) == (720, 600, 840)
    assert schedule.bound_s == 720


def test_a_digest_is_that_of_the_whole_spec_however_it_is_put_together() -> None:
    import hashlib

    for trial in plan(grid_of(seeds=2)).searches:
        assert isinstance(trial, SearchTrial)
        spec = _plain(trial, identity=True) | {"schema": SCHEMA_VERSION}
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        assert trial.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


NEEDS = [Resources(gpus=1), Resources(gpus=0.5, cpus=2), Resources(cpus=1), Resources(gpus=2)]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(NEEDS), st.booleans(), st.integers(0)), max_size=60),
)
def test_a_trial_goes_to_the_first_node_that_has_room(
    nodes: list[tuple[int, int]], moves: list[tuple[Resources, bool, int]]
) -> None:
    floor = Floor(Room(tuple((float(cpus), float(gpus)) for cpus, gpus in nodes)))
    free = [[float(cpus), float(gpus)] for cpus, gpus in nodes]
    placed: list[tuple[int, Resources]] = []
    for need, leaves, which in moves:
        if leaves and placed:
            node, gone = placed.pop(which % len(placed))
            floor.leave(node, gone)
            free[node][0] += gone.cpus
            free[node][1] += gone.gpus
            continue
        first = (n for n, (c, g) in enumerate(free) if c >= need.cpus and g >= need.gpus)
        expected = next(first, None)
        assert floor.place(need) == expected
        if expected is not None:
            placed.append((expected, need))
            free[expected][0] -= need.cpus
            free[expected][1] -= need.gpus
