"""Who asked for the trials of a store, written down as a run finds out.

A retrain is keyed by its genotype: a later search, or another grid, may find the same one. And what
a study led to may change: under another stop rule other proposals come to an end, and another one
may win. The store then says of the winner before, and of what goes on from it, that it was one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from nas_sweeps.grid import Entry
from nas_sweeps.grid.expand import Seen
from nas_sweeps.grid.tuned import TunedSlot, tried, undominated
from nas_sweeps.schedule import Scheduler
from nas_sweeps.store import Result, Store
from nas_sweeps.sweep.watcher import Watcher
from nas_sweeps.trial import Origin, Trial
from nas_sweeps.tuning import Study, Values

Link = tuple[str, Origin]  # the id of a trial, and one who asked for it


class Links(Watcher):
    """What a run finds out, and what its store says of it.

    Args:
        known: what is written down there.
    """

    def __init__(self, store: Store, scheduler: Scheduler, known: Iterable[Link]) -> None:
        self.store, self.scheduler = store, scheduler
        self._known = dict.fromkeys(known)
        self.changed = False  # something was written

    def settled(self, trial: Trial, result: Result) -> None:
        """A study may have led to something by this. Raises OSError."""
        self._supersede(self.scheduler.filled())

    def write(self, there: Callable[[str], bool]) -> None:
        """Write down everything that the run knows by now. Raises OSError.

        Args:
            there: whether a trial is in the store.
        """
        for trial_id, origin in self.scheduler.links():
            if (trial_id, origin) not in self._known and there(trial_id):
                self._add(trial_id, origin)
            if origin.study:
                self._remove(trial_id, replace(origin, superseded=True))
        self._supersede(self.scheduler.known())

    def _supersede(self, seen: Iterable[tuple[Entry, Seen]]) -> None:
        """Where studies have led to these, say of what they had led to before that they did."""
        won = _winners(self.scheduler, seen)
        for trial_id, origin in self._superseded(won) if won else ():
            self._add(trial_id, replace(origin, superseded=True))
            self._remove(trial_id, origin)

    def _superseded(self, won: Mapping[tuple[str, str], _Won]) -> list[Link]:
        """The winners before, and what went on from there."""
        studies, wanted = {name for name, _ in won}, set(self.scheduler.links())
        held = {link for link in self._known if link[1].study and link[1].is_result}
        doubted = [link for link in held - wanted if link[1].study in studies]
        lost = [link for link in doubted if link[1].is_winner and self._lost(*link, won)]
        stand = {(of, by.study, by.variant) for of, by in (held | wanted).difference(lost)}
        return lost + [
            (trial_id, by)
            for trial_id, by in doubted
            if not by.is_winner and (by.search_id, by.study, by.variant) not in stand
        ]

    def _lost(self, trial_id: str, origin: Origin, won: Mapping[tuple[str, str], _Won]) -> bool:
        """Whether a study that had led to a trial has led to other values, or searches, now."""
        now = won.get(_name(origin))
        if now is None:
            return False
        try:
            values = now.study.values_of(self.store.spec(trial_id))
        except ValueError:  # nobody can tell what was asked
            return True
        return (origin.search_id, values) not in now.led_to

    def _add(self, trial_id: str, origin: Origin) -> None:
        self.store.add_origin(trial_id, origin)
        self._known[trial_id, origin] = None
        self.changed = True

    def _remove(self, trial_id: str, origin: Origin) -> None:
        if (trial_id, origin) in self._known:
            self.store.remove_origin(trial_id, origin)
            del self._known[trial_id, origin]
            self.changed = True


class _Won(NamedTuple):
    """What a study has led to: values, and the search whose genotype they are for, if any."""

    study: Study
    led_to: set[tuple[str | None, Values]]


def _winners(
    scheduler: Scheduler, seen: Iterable[tuple[Entry, Seen]]
) -> dict[tuple[str, str], _Won]:
    """By study and name of its winners, what it has led to by these entries."""
    found: dict[tuple[str, str], _Won] = {}
    proposals = cache(lambda: tried(scheduler.known(chosen=False)))
    for entry, of in seen:
        if not isinstance(entry, TunedSlot) or entry.number is not None or of.origin is None:
            continue
        study, search_id = entry.study, of.origin.search_id
        won = found.setdefault(_name(of.origin), _Won(study, set()))
        won.led_to.add((search_id, study.values_of(of.trial)))
        if study.cost:  # a point that no other beats stays one, whether or not it is asked for
            points = undominated(proposals()[study][: entry.budget])
            won.led_to.update((search_id, values) for values in points)
    return found


def _name(winner: Origin) -> tuple[str, str]:
    """The study, and what it calls its winners: with two objectives, without the proposal."""
    return winner.study, (winner.recipe or winner.variant).removesuffix(f" #{winner.point}")
