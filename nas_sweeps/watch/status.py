"""``status --watch``: the view of a run, on any machine that can read its store."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import State
from nas_sweeps.watch.display import Display
from nas_sweeps.watch.draw import spent_text
from nas_sweeps.watch.follow import Follower, Said
from nas_sweeps.watch.lines import span, tally
from nas_sweeps.watch.snapshot import Snapshot

BUSY = 0.1  # at most this share of the time is spent reading, however large the store


def watch(
    store: Store,
    console: Console,
    every_s: float,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Show a store until no run works on it any more, or until Ctrl-C.

    Raises:
        ValueError: there is no store.
    """
    follower = Follower(store.require())
    try:
        follower.poll()
        shown = [follower.snapshot()]  # the newest one, for the thread that draws
        with Display(console, lambda: shown[0]) as display:
            _in_short(display, shown[0])
            if not follower.over:
                _follow(follower, display, shown, every_s, wait)
                _in_short(display, shown[0])
    except KeyboardInterrupt:
        return  # how one leaves


def _follow(
    follower: Follower,
    display: Display,
    shown: list[Snapshot],
    every_s: float,
    wait: Callable[[float], None],
) -> None:
    took_s = 0.0
    while not follower.over:
        wait(max(every_s, took_s / BUSY))
        began = time.monotonic()
        try:
            news = follower.poll()
        except OSError as error:  # a network that fails for a while
            display.say(f"the store does not answer ({error}); asking again", "yellow")
            continue
        shown[0], took_s = follower.snapshot(), time.monotonic() - began
        for said in news:
            _say(display, said)


def _say(display: Display, said: Said) -> None:
    """Of a view that shows the rest, failures only."""
    if said.kind == State.FAILED or not display.moves:
        display.tell(said.name, said.text, "red" if said.kind == State.FAILED else "")


def _in_short(display: Display, snapshot: Snapshot) -> None:
    """What the view shows, where there is none."""
    if display.moves:
        return
    left = f", eta {span(snapshot.left_s)}" if snapshot.left_s else ""
    display.say(f"{tally(snapshot.counts)}{left}, {spent_text(snapshot.spent)}{snapshot.whose}")
    for note in snapshot.notes:
        display.say(note)
