"""``pause``, ``resume`` and ``cancel``: what a person asks of a run that works, from anywhere.

It goes through the store, so any machine that can write there can ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from nas_sweeps.grid import Grid, GridError, plan
from nas_sweeps.schedule import replay
from nas_sweeps.store import State, Store
from nas_sweeps.store.driver import Driver, DriverMonitor
from nas_sweeps.store.layout import Writer
from nas_sweeps.store.requests import Request, ask
from nas_sweeps.sweep.only import chosen_by

ANSWER_S = 15.0  # a driver looks every second, or every five; a long step may keep it


def pause(store: Store, wait: Callable[[float], None] = time.sleep) -> str:
    """Have the run on a store stop its trials at a checkpoint and start none; what was done.

    Raises:
        ValueError: there is no store, or no run works on it.
    """
    drivers = [one for one in _drivers(store, "pause") if not one[1].paused]
    if not drivers:
        return "it is paused already"
    done = "paused: nothing starts, and what runs stops at a checkpoint"
    return (
        f"{_asked(store, drivers, Request(what='pause'), done, wait)}; `nas-sweeps resume` goes on"
    )


def resume(store: Store, wait: Callable[[float], None] = time.sleep) -> str:
    """Have a paused run go on; what was done. Raises ValueError as ``pause`` does."""
    drivers = [one for one in _drivers(store, "resume") if one[1].paused]
    if not drivers:
        return "it is not paused"
    return _asked(store, drivers, Request(what="resume"), "it goes on", wait)


def cancel(store: Store, only: str, wait: Callable[[float], None] = time.sleep) -> str:
    """Have the run on a store leave some trials, running ones at a checkpoint; what was done.

    Args:
        only: which, as ``--only`` of a run.

    Raises:
        ValueError: as for ``pause``; the query cannot be read, or means nothing that is to be done.
    """
    drivers = _drivers(store, "cancel")
    left = _meant(store, drivers[0][1], only)
    done = f"cancelled: {left} of what is planned and not done; the next run takes them up"
    return _asked(store, drivers, Request(what="cancel", only=only), done, wait)


def _drivers(store: Store, verb: str) -> list[tuple[Writer, Driver]]:
    """Those that work on a store: one, or one a part of the grid. Raises ValueError."""
    store.require()
    monitor = DriverMonitor(store.layout)
    found = monitor.drivers()
    if not found and monitor.doubtful is not None:
        found = [monitor.doubtful]  # which may live, by another clock: it is asked
    named = [(Writer.of(driver.file.name), driver) for driver in found]
    drivers = [(writer, driver) for writer, driver in named if writer is not None]
    if not drivers:
        raise ValueError(
            f"store '{store}': no run works on it, so there is none to {verb}; "
            "`nas-sweeps status` says what is there, and --only limits the next run"
        )
    return drivers


def _meant(store: Store, driver: Driver, only: str) -> int:
    """How many trials of the run's plan a query means that are not done. Raises ValueError."""
    kept = store.layout.grid(str(driver.record.get("grid"))).read_json()
    try:
        planned = plan(Grid.from_dict(kept or {}, source="grid"))
    except GridError as error:
        raise ValueError(
            f"store '{store}': the grid that is run there cannot be read: {error}"
        ) from None
    chosen = chosen_by(only, planned)
    counts = replay(planned, store, chosen=chosen).counts().values()
    left = sum(of[State.WAITING] for of in counts)
    if not left:
        raise ValueError(f"--only {only!r}: nothing that is meant is still to be done")
    return left


def _asked(
    store: Store,
    drivers: Sequence[tuple[Writer, Driver]],
    request: Request,
    done: str,
    wait: Callable[[float], None],
) -> str:
    """Ask each driver, and wait for the answers; what was done, or of which that is not known."""
    answers = {_answer(store, writer, request, done, wait): driver for writer, driver in drivers}
    if len(answers) == 1:
        return next(iter(answers))
    return "; ".join(f"part {driver.record.get('shard')}: {a}" for a, driver in answers.items())


def _answer(
    store: Store, driver: Writer, request: Request, done: str, wait: Callable[[float], None]
) -> str:
    """Ask, and wait for the answer: the driver takes the request away.

    Raises:
        ValueError: the run ended meanwhile, or the store cannot be written to.
    """
    try:
        file = ask(store.layout, driver, request)
    except OSError as error:
        raise ValueError(f"store '{store}': cannot be written to ({error})") from None
    limit = time.monotonic() + ANSWER_S
    while time.monotonic() < limit:
        wait(0.2)
        with suppress(OSError):
            if file.name not in store.layout.files.names("requests"):
                return done
            if driver not in store.layout.drivers():
                file.remove()
                raise ValueError(f"store '{store}': the run ended before it was asked")
    return f"asked, and not answered in {ANSWER_S:.0f} s: it is done when the step that runs ends"
