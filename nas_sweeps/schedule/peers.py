"""With whom the trials of a plan are compared. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from nas_sweeps.grid import Entry
from nas_sweeps.grid.expand import leads_on, method_of
from nas_sweeps.phases import phase_named
from nas_sweeps.store.records import State
from nas_sweeps.store.terms import Terms
from nas_sweeps.tuning import Stop


class Peers:
    """The entries of a plan by what they are compared with, each with its place among its peers."""

    def __init__(self, entries: Sequence[Entry], stops: Mapping[str, Stop]) -> None:
        self._stops, self._entries = stops, entries

    @cached_property
    def _groups(self) -> dict[Hashable, list[int]]:
        """Made when somebody asks: a plan is counted more often than it is run."""
        groups: dict[Hashable, list[int]] = {}
        for number, entry in enumerate(self._entries):
            if self._stops.get(entry.phase, Stop()).rule != "none":
                groups.setdefault(_key(entry), []).append(number)
        return groups

    def terms(self, numbers: Sequence[int], begun: Callable[[int], str | None]) -> Terms | None:
        """On what terms the trial of some entries runs; None: nothing stops it.

        Args:
            begun: the id of an entry's trial, where that may be compared with others.
        """
        first = self._entries[numbers[0]]
        stop = self._stops.get(first.phase)
        if stop is None:
            return None
        if stop.rule == "none" or any(map(_spared, map(self._entries.__getitem__, numbers))):
            return Terms(stop=replace(stop, rule="none"))
        group = self._groups[_key(first)]
        peers: dict[str, int] = {}
        for place, number in enumerate(group):
            trial_id = begun(number)
            if trial_id is not None and number not in numbers:
                peers.setdefault(trial_id, place)
        return Terms(stop=stop, number=group.index(numbers[0]), peers=peers)


def all_pruned(states: Iterable[tuple[Entry, State]]) -> list[str]:
    """A line for each cell of a plan that comes to nothing because all of its trials were pruned.

    Args:
        states: as ``Scheduler.states`` gives them.
    """
    cells: dict[tuple[str, str, str], set[State]] = {}
    for entry, state in states:
        if phase_named(entry.phase).after is None and leads_on(entry):
            cell = entry.phase, method_of(entry), str(entry.distribution)
            cells.setdefault(cell, set()).add(state)
    return [
        f"{method} {where}: every {phase} was pruned by {phase}.stop, and nothing goes on from it"
        for (phase, method, where), seen in cells.items()
        if seen == {State.PRUNED}
    ]


def _key(entry: Entry) -> Hashable:
    return entry.phase, phase_named(entry.phase).peers(entry)


def _spared(entry: Entry) -> bool:
    return phase_named(entry.phase).spared(entry)
