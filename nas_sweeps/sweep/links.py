"""Who asked for the trials of a store, written down as a run finds out.

A retrain is keyed by its genotype: a later search, or another grid, may find the same one. And what
a study led to may change: under another stop rule other proposals come to an end, and another one
may win. The store then says of the winner before, and of what goes on from it, that it was one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from nas_sweeps.grid.tuned import TunedSlot
from nas_sweeps.schedule import Scheduler
from nas_sweeps.store import Store
from nas_sweeps.trial import Origin
from nas_sweeps.tuning import Study, Values

Link = tuple[str, Origin]  # the id of a trial, and one who asked for it


class Links:
    """Of one store.

    Args:
        known: what is written down there.
    """

    def __init__(self, store: Store, known: Iterable[Link]) -> None:
        self.store, self._known = store, dict.fromkeys(known)
        self.changed = False  # something was written

    def write(self, scheduler: Scheduler, there: Callable[[str], bool]) -> None:
        """Write down what a run knows by now.

        Args:
            there: whether a trial is in the store.
        """
        wanted = dict.fromkeys(scheduler.links())
        for link in wanted:
            if link not in self._known and there(link[0]):
                self._add(*link)
            if link[1].study:
                self._remove(link[0], replace(link[1], superseded=True))
        for trial_id, origin in list(self._superseded(scheduler, wanted.keys())):
            self._add(trial_id, replace(origin, superseded=True))
            self._remove(trial_id, origin)

    def _superseded(self, scheduler: Scheduler, wanted: Collection[Link]) -> Iterator[Link]:
        """What a study led to once, and what went on from there, where it has led elsewhere now."""
        won = _winners(scheduler)
        held = [link for link in self._known if link[1].study and link[1].is_result]
        doubted = [link for link in held if link not in wanted]
        lost = {link for link in doubted if link[1].is_winner and self._lost(*link, won)}
        yield from lost
        stand = {(of, by.study, by.variant) for of, by in {*held, *wanted} - lost}
        studies = {name for name, _ in won}
        for trial_id, origin in doubted:
            before = origin.search_id, origin.study, origin.variant
            if origin.study in studies and not origin.is_winner and before not in stand:
                yield trial_id, origin

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


def _winners(scheduler: Scheduler) -> dict[tuple[str, str], _Won]:
    """By study and name of its winners."""
    found: dict[tuple[str, str], _Won] = {}
    for entry, seen in scheduler.known():
        if isinstance(entry, TunedSlot) and entry.number is None and seen.origin is not None:
            won = found.setdefault(_name(seen.origin), _Won(entry.study, set()))
            won.led_to.add((seen.origin.search_id, entry.study.values_of(seen.trial)))
    return found


def _name(winner: Origin) -> tuple[str, str]:
    """The study, and what it calls its winners: with two objectives, without the proposal."""
    return winner.study, (winner.recipe or winner.variant).removesuffix(f" #{winner.point}")
