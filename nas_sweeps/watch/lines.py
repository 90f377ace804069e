"""One line each: a trial's name, an epoch, an ending. What logs and plain outputs get."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nas_sweeps.names import HEADLINE, HEADLINES, accuracy_text, method_name, trial_name
from nas_sweeps.phases import phase_named
from nas_sweeps.store.records import State
from nas_sweeps.trial import Origin, Trial
from nas_sweeps.watch.snapshot import Counts, Row

NAME_WIDTH = 46


def name_of(trial: Trial, origins: Iterable[Origin] = ()) -> str:
    """A trial in a few words, as in every line that a person reads.

    What a study proposed has its number: ``search fairdarts #7 exp mu=0.1 s0``.
    """
    origins = tuple(origins)
    called = phase_named(trial.phase).labels(trial, origins)
    what = method_name(called.method, "", *called[2:])
    numbers = sorted({f"#{o.proposal}" for o in origins if o.proposal is not None})
    what = " ".join([what, *numbers])
    before = (origin.seed for origin in origins)
    return trial_name(trial.phase, what, str(trial.distribution), trial.seed, before)


def line(name: str, text: str) -> str:
    """What happened to a trial."""
    return f"{name:<{NAME_WIDTH}} | {text}"


def epoch_columns(row: Row, left_s: float | None, headline: str = HEADLINE) -> str:
    """An epoch in fixed columns, with the seconds that the trial has left after it."""
    reached = accuracy_text(row, headline)
    return (
        f"{row['stage']:<8} {row['epoch']:>3}/{row['epochs_total']:<3} | "
        f"loss {row['loss_weights']:7.3f} | {reached} | {row['epoch_s']:5.1f} s | "
        f"eta {'-' if left_s is None else span(left_s)}"
    )


def done_text(accuracy: float, wall_s: float, counts: Counts, headline: str = HEADLINE) -> str:
    """That a trial is done, and how far the grid is."""
    called = HEADLINES[headline][0]
    reached = "" if math.isnan(accuracy) else f" {called} {100 * accuracy:.1f},"  # nothing trained
    return f"done,{reached} {wall_s:.0f} s; {tally(counts)}"


def failed_text(error_class: str | None, error_message: str | None, trial_id: str) -> str:
    """That a trial failed, and its cause: the first line of it."""
    said = (error_message or "").strip().splitlines()
    return f"FAILED {error_class}: {said[0] if said else ''} (trial {trial_id})"


def pruned_text(why: str, counts: Counts) -> str:
    """That a trial was given up, why, and how far the grid is."""
    return f"pruned by {why}; {tally(counts)}"


def tally(counts: Counts) -> str:
    """Done of planned, by phase, and how many were pruned."""
    pruned = {phase: of.get(State.PRUNED, 0) for phase, of in counts.items()}
    return ", ".join(
        f"{phase} {of[State.DONE]}/{sum(of.values())}"
        + (f" ({pruned[phase]} pruned)" if pruned[phase] else "")
        for phase, of in counts.items()
    )


def span(seconds: float) -> str:
    """Seconds as 45s, 2m45s, 12m, 3h05m or 4d06h."""
    whole, minutes = round(seconds), round(seconds / 60)
    if whole < 100:
        return f"{whole}s"
    if whole < 600 and whole % 60:
        return f"{whole // 60}m{whole % 60:02d}s"
    if minutes < 100:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(minutes / 60)
    return f"{hours // 24}d{hours % 24:02d}h"
