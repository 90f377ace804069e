"""A part of a plan for each of several drivers: what hangs together stays together."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nas_sweeps.grid.expand import Entry, Plan, Slot


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``of`` parts of a plan; ``number`` counts from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, text: str) -> Shard:
        """``2/4``. Raises ValueError for anything else."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of:
            raise ValueError(
                f"--shard {text}: write which part of how many, from 1 up: 1/4, 2/4, 3/4 and 4/4 "
                "are the four parts of a grid"
            )
        return cls(number, of)

    def part(self, plan: Plan) -> Plan:
        """The trials and slots of this part, in the plan's order.

        A chain, from a search to the retrains that go on from it, is in one part, and so are the
        searches of which the best goes on, and a study. The chains are dealt out in turn, so each
        part has its share of every method and distribution. A stop rule compares the trials of a
        part.
        """
        chains = _Chains(plan)
        turns: dict[int, int] = {}  # by chain
        mine: dict[str, list[Entry]] = {phase: [] for phase in plan.by_phase}
        for place, entry in enumerate(plan):
            turn = turns.setdefault(chains.of(place), len(turns))
            if turn % self.of == self.number - 1:
                mine[entry.phase].append(entry)
        parts = {phase: tuple(entries) for phase, entries in mine.items()}
        return replace(plan, by_phase=parts)


class _Chains:
    """Which entries of a plan hang together: sets that are united, by the place of one of each."""

    def __init__(self, plan: Plan) -> None:
        self._above: list[int] = []
        places: dict[str, int] = {}
        followed = plan.followed
        for place, entry in enumerate(plan):
            self._above.append(place)
            if entry.phase in followed:
                places[entry.key] = place
            for key in (*entry.parents, *(entry.beside if isinstance(entry, Slot) else ())):
                self._above[self.of(place)] = self.of(places[key])

    def of(self, place: int) -> int:
        """The place that stands for all that hangs together with this one."""
        above = self._above
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place
