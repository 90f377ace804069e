"""What lines say of trials, where it is not pinned by the view that shows them."""

from __future__ import annotations

import math

from nas_sweeps.store.records import State
from nas_sweeps.watch.lines import done_text

COUNTS = {"search": dict.fromkeys(State, 0) | {State.DONE: 1}}


def test_a_search_that_trains_nothing_names_no_accuracy() -> None:
    assert done_text(math.nan, 1.2, COUNTS) == "done, 1 s; search 1/1"
    assert done_text(0.5, 1.2, COUNTS, "accuracy_macro") == "done, macro 50.0, 1 s; search 1/1"
    assert done_text(0.5, 1.2, COUNTS) == "done, bal-acc 50.0, 1 s; search 1/1"
