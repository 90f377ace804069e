"""``status --watch``: the view of a run, on any machine that can read its store."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from nas_sweeps.store.ledger import Store
from nas_sweeps.watch.display import Display
from nas_sweeps.watch.draw import spent_text
from nas_sweeps.watch.follow import Follower
from nas_sweeps.watch.lines import span, tally
from nas_sweeps.watch.showing import Showing
from nas_sweeps.watch.snapshot import Snapshot


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
        with Showing(follower, console) as showing:
            _in_short(showing.display, showing.shown)
            if follower.over:
                return
            while not follower.over:
                wait(max(every_s, showing.pause_s))
                showing.look()
            _in_short(showing.display, showing.shown)
    except KeyboardInterrupt:
        return  # how one leaves


def _in_short(display: Display | None, snapshot: Snapshot) -> None:
    """What the view shows, where there is none."""
    if display is None or display.moves:
        return
    left = f", eta {span(snapshot.left_s)}" if snapshot.left_s else ""
    display.say(f"{tally(snapshot.counts)}{left}, {spent_text(snapshot.spent)}")
    for note in snapshot.notes:
        display.say(note)
