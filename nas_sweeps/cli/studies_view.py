"""Studies in a terminal: how far each is, its best so far, and what it was before tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nas_sweeps.grid.tuned import Tried, TunedSlot, pareto_set, tried
from nas_sweeps.names import values_text
from nas_sweeps.schedule import Scheduler
from nas_sweeps.tuning import Study


def studies_lines(scheduler: Scheduler) -> Iterator[str]:
    """A line for each study of a plan that has proposed something."""
    numbers = {(e.study, e.number) for e, _ in scheduler.states() if isinstance(e, TunedSlot)}
    budgets = Counter(study for study, number in numbers if number is not None)
    for study, proposals in tried(scheduler.known()).items():
        progress = _progress(study, proposals, budgets[study])
        yield f"study {study.name} of {study.cell}: {progress}"


def _progress(study: Study, proposals: list[Tried], budget: int) -> str:
    known = [one for one in proposals if one.objective is not None]
    pruned = sum(one.pruned for one in proposals)
    counted = f"{len(known) + pruned} of {budget} proposals tried"
    counted += f", {pruned} of them pruned" if pruned else ""
    if not known:
        return counted
    if study.cost:
        return f"{counted}; Pareto set {_points(study, known)}"
    best = max(known, key=lambda one: one.objective or 0.0)
    assert best.objective is not None, "of those that are known"
    said = f"{counted}; best {study.objective} {best.objective:.1%} by #{best.number}"
    said += f" ({values_text(best.values)})"
    default = next((one.objective for one in known if one.number == 0), None)
    if best.number == 0 or default is None:
        return said + (", the defaults" if best.number == 0 else "")
    return f"{said}, {100 * (best.objective - default):+.1f} points against the defaults"


def _points(study: Study, known: list[Tried]) -> str:
    """``#3 (61.2 %, 43,786 num_params), #0 (…)``: from the best to the smallest."""
    measured = {one.number: (one.objective or 0.0, one.cost or 0.0) for one in known}
    return ", ".join(
        f"#{number} ({measured[number][0]:.1%}, {measured[number][1]:,.0f} {study.cost})"
        for number in pareto_set((n, *both) for n, both in measured.items())
    )
