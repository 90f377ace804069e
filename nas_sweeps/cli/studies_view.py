"""Studies in a terminal: how far each is, its best so far, and what it was before tuning."""

from __future__ import annotations

from collections.abc import Iterator

from nas_sweeps.phases.search import Tried, tried
from nas_sweeps.schedule import Scheduler
from nas_sweeps.tuning import Study, Values


def studies_lines(scheduler: Scheduler, budget: int) -> Iterator[str]:
    """A line for each study of a plan.

    Args:
        budget: how many proposals each has.
    """
    for study, proposals in tried(scheduler.known()).items():
        where = f"{study.method} {study.distribution}"
        yield f"study {study.name} of {where}: {_progress(study, proposals, budget)}"


def _progress(study: Study, proposals: list[Tried], budget: int) -> str:
    known = [one for one in proposals if one.objective is not None]
    pruned = sum(one.pruned for one in proposals)
    counted = f"{len(known) + pruned} of {budget} proposals tried"
    counted += f", {pruned} of them pruned" if pruned else ""
    if not known:
        return counted
    best = max(known, key=lambda one: one.objective or 0.0)
    assert best.objective is not None, "of those that are known"
    said = f"{counted}; best {study.objective} {best.objective:.1%} by #{best.number}"
    said += f" ({values_text(best.values)})"
    default = next((one.objective for one in known if one.number == 0), None)
    if best.number == 0 or default is None:
        return said + (", the defaults" if best.number == 0 else "")
    return f"{said}, {100 * (best.objective - default):+.1f} points against the defaults"


def values_text(values: Values) -> str:
    """``zero_one=l1, zero_one_weight=3.5765``."""
    return ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values
    )
