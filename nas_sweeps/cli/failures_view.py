"""What failed, by cause, and the logs of a trial's attempts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from nas_sweeps.store.layout import AttemptFiles
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import Result, State

SHOWN = 5  # trials of one cause


def failures_view(store: str) -> Iterator[RenderableType]:
    """Failed trials grouped by cause, the most frequent first.

    Raises:
        ValueError: there is no store.
    """
    keeper = Store(store).require()
    groups: dict[str, list[Result]] = {}
    failed = [t for t, settled in keeper.settled().items() if settled.state == State.FAILED]
    for result in filter(None, map(keeper.result, failed)):
        groups.setdefault(result.cause, []).append(result)
    if not groups:
        yield f"nothing failed in {keeper}"
        return
    for group in sorted(groups.values(), key=lambda group: (-len(group), group[0].cause)):
        yield Text(_heading(group), style="bold")
        for result in group[:SHOWN]:
            log = _newest_log(keeper, result)
            yield Text(f"  {result.trial_id}  attempt {result.attempt}  {log}")
        if len(group) > SHOWN:
            yield f"  and {len(group) - SHOWN} more"
    where = shlex.quote(store)
    yield Text(f"a log: `nas-sweeps logs {where} TRIAL`; `run --retry failed` tries them again")


def _heading(group: list[Result]) -> str:
    first = group[0]
    again = "; the next run tries again" if first.transient else ""
    what = f"{first.error_class}: {first.error_message}"
    return f"{len(group)} failed{again}: {what}"


def _newest_log(keeper: Store, result: Result) -> str:
    """The newest attempt's log: that of a worker that died; the driver's word on it has none."""
    logs = [a.log for a in keeper.layout.trial(result.trial_id).attempts if a.holds(a.log)]
    return str(logs[-1]) if logs else "(no log)"


def logs_view(store: str, trial: str) -> Iterator[RenderableType]:
    """The logs of every attempt at a trial, oldest first.

    Args:
        trial: a trial's id, or as much of its beginning as is unique.

    Raises:
        ValueError: there is no store, or no one such trial.
    """
    keeper = Store(store).require()
    attempts = keeper.layout.trial(keeper.find(trial)).attempts
    if not attempts:
        yield f"{trial} has not been started yet"
    for attempt in attempts:
        yield Text(f"attempt {attempt.number}: {attempt.log}", style="bold")
        yield Text(_log_text(attempt))


def _log_text(attempt: AttemptFiles) -> str:
    if not attempt.holds(attempt.log):
        return "(no log)"
    return attempt.log.read().decode(errors="replace").rstrip()
