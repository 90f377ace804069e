"""What was planned and what of it is there: the report says what is missing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas_sweeps.grid import Entry, Grid, GridError, plan
from nas_sweeps.grid.expand import method_of
from nas_sweeps.schedule import replay
from nas_sweeps.store import Store
from nas_sweeps.store.records import State

_OF_A_RUN = (State.RUNNING, State.CANCELLED)  # a report waits for none
STATES = tuple(state for state in State if state not in _OF_A_RUN)
COLUMNS = ["phase", "method", "distribution", "planned", *STATES]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGrid:
    """A grid that was run into a store.

    ``counts`` has a row per phase, method and distribution with the number of trials planned and
    in each state; it is empty, and ``problem`` says why, where the grid cannot be read any more.
    """

    name: str
    text: str  # the grid as indented JSON
    counts: pd.DataFrame
    problem: str = ""


def kept_grids(store: Store) -> list[KeptGrid]:
    """Every grid that a store kept, by name."""
    found = [_counted(kept, store) for kept in store.grids()]
    return sorted(found, key=lambda grid: (grid.name, grid.text))


def _counted(kept: dict[str, Any], store: Store) -> KeptGrid:
    name = str(kept.get("name"))
    text = json.dumps(kept, indent=2, ensure_ascii=False)
    try:
        grid = Grid.from_dict(kept, source=f"grid '{name}'")
    except GridError as error:
        nothing = pd.DataFrame(columns=COLUMNS)
        return KeptGrid(name=name, text=text, counts=nothing, problem=str(error))
    found = Counter((*_cell(entry), state) for entry, state in replay(plan(grid), store).states())
    rows = []
    for cell in dict.fromkeys(key[:3] for key in found):
        numbers = [found[(*cell, state)] for state in STATES]
        rows.append([*cell, sum(numbers), *numbers])
    return KeptGrid(name=name, text=text, counts=pd.DataFrame(rows, columns=COLUMNS))


def _cell(entry: Entry) -> tuple[str, str, str]:
    return entry.phase, method_of(entry), str(entry.distribution)


def shortfalls(counts: pd.DataFrame) -> list[str]:
    """A sentence for each row of ``counts`` of which something is missing."""
    said = []
    missing = counts[State.DONE] + counts[State.PRUNED] < counts["planned"]
    for row in counts[missing].to_dict("records"):
        told = [state for state in STATES if row[state] or state == State.DONE]
        parts = [f"{row[state]} {_WORDS[state]}" for state in told]
        who = f"{row['phase']}, {row['method']}, {row['distribution']}"
        said.append(f"{who}: {row['planned']} planned, {', '.join(parts)}")
    return said


_WORDS = {
    State.DONE: "done",
    State.PRUNED: "pruned",
    State.FAILED: "failed",
    State.WAITING: "not done yet",
    State.BLOCKED: "impossible because searches failed",
}
