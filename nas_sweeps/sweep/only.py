"""``--only``: which planned trials a run is limited to, by a query in pandas' words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from nas_sweeps.grid import Entry, Plan
from nas_sweeps.names import DISTRIBUTION
from nas_sweeps.phases import phase_named

COLUMNS = (
    *("phase", "method", "variant", *DISTRIBUTION, "seed", "pretrain"),
    *("recipe", "search_epoch"),  # the name that the grid gives it; of a genotype along the way
)


def chosen_by(query: str, plan: Plan) -> Callable[[Entry], bool]:
    """Whether a planned trial or slot is meant.

    Args:
        query: a condition for ``DataFrame.eval`` over ``COLUMNS``, such as
            ``method == 'darts' and mu < 0.1``; names are those of the tables.

    Raises:
        ValueError: the query cannot be read, or chooses nothing.
    """
    entries = list(plan)
    frame = _frame(entries)
    try:
        meant_rows = frame.eval(query, engine="python")
        if not (isinstance(meant_rows, pd.Series) and meant_rows.dtype == bool):
            raise ValueError("that is no condition")
    except Exception as error:  # pandas raises whatever its parser met
        raise ValueError(
            f"--only {query!r}: {error}; write a condition on {', '.join(COLUMNS)}, such as "
            "\"method == 'darts' and seed < 2\""
        ) from None
    if not meant_rows.any():
        raise ValueError(f"--only {query!r}: none of the {len(entries)} planned trials is meant")
    meant = {entry for entry, is_meant in zip(entries, meant_rows, strict=True) if is_meant}
    return lambda entry: entry in meant


def _frame(entries: Iterable[Entry]) -> pd.DataFrame:
    return pd.DataFrame([_row(entry) for entry in entries], columns=list(COLUMNS))


def _row(entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {**entry.distribution.columns, "seed": entry.seed}
    return row | {"phase": entry.phase} | phase_named(entry.phase).labels(entry)._asdict()
