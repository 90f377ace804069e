"""A forecast in words: what trials take, the work, the clock, the bounds, the price."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Column, Table

from nas_sweeps.cost.forecast import Forecast, Line, forecast
from nas_sweeps.cost.here import this_machine
from nas_sweeps.cost.rates import HOW, Interval, Rates
from nas_sweeps.cost.record import EstimateRecord, latest
from nas_sweeps.cost.simulate import Room, Schedule
from nas_sweeps.grid import Grid
from nas_sweeps.schedule import Scheduler
from nas_sweeps.store import Store
from nas_sweeps.store.driver import DriverMonitor
from nas_sweeps.store.layout import Layout
from nas_sweeps.trial import Resources
from nas_sweeps.watch.lines import span

if TYPE_CHECKING:
    from nas_sweeps.cost.measured import Measured
    from nas_sweeps.cost.used import Used

Needs = Mapping[str, Resources]
TWO_WAYS = (
    "--from STORE takes the times of trials that ran elsewhere, --calibrate times some steps here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateOptions:
    """What ``plan`` was asked beside the grid."""

    source: str | None = None  # a store with measured trials, beside the grid's own
    calibrate: bool = False
    rate: float | None = None  # a price, of a GPU-hour or else of a CPU-hour
    gpus: int | None = None  # of another cluster, as are
    cpus: int | None = None
    slots: int | None = None

    def require(self) -> None:
        """Raises ValueError where ``source`` is no store."""
        if self.source is not None:
            Store(self.source).require()

    def room(self) -> tuple[Room, str]:
        """Where trials are to run, and how to call it."""
        cpus, gpus = this_machine()
        if self.gpus is None and self.cpus is None:
            return Room(((cpus, gpus),), self.slots), "this machine"
        node = float(self.cpus or math.inf), float(self.gpus or 0)
        told = [_count(n, what) for n, what in ((self.gpus, "GPU"), (self.cpus, "CPU")) if n]
        return Room((node,), self.slots), " and ".join(told)


def estimate_view(
    grid: Grid, scheduler: Scheduler, store: Store, question: EstimateOptions
) -> Iterator[RenderableType]:
    """What is left of a grid, and what it will take.

    Raises:
        ValueError: images that are to be timed on are missing.
    """
    stores = [store] if store.exists() else []
    stores += [] if question.source is None else [Store(question.source)]
    if next(scheduler.left(), None) is None:
        yield "nothing is left to run"
        return
    needs = {phase: grid.resources(phase) for phase in grid.phases}
    gpus = any(need.gpus for need in needs.values())
    if not stores and not question.calibrate:
        yield f"no estimate: nothing was measured yet; {TWO_WAYS}"
        return
    measured = _measured(stores, needs)
    rates = measured.rates if measured else Rates()
    yield from _sources(measured, stores) if measured else ()
    if question.calibrate:
        from nas_sweeps.cost.calibrate import calibrate

        yield from calibrate(grid, scheduler, rates)
    yield from _told(forecast(scheduler, rates, _begun(store)), needs, question, gpus)


def _begun(store: Store) -> dict[str, int]:
    if not store.exists():
        return {}
    from nas_sweeps.cost.measured import epochs_begun

    return epochs_begun(store)


def _measured(stores: list[Store], needs: Needs) -> Measured | None:
    if not stores:
        return None
    from nas_sweeps.cost.measured import measure

    return measure(stores, needs)


def _sources(measured: Measured, stores: list[Store]) -> Iterator[str]:
    where = " and ".join(map(str, stores))
    if measured.trials:
        hosts = ", ".join(measured.hosts)
        on = f"{', '.join(measured.devices)} of {hosts}" if hosts else ", ".join(measured.devices)
        yield f"measured: {_count(measured.trials, 'trial')} in {where}, on {on}"
    if measured.elsewhere:
        yield f"left out: {_counted(measured.elsewhere)} in {where}"


def _told(
    found: Forecast, needs: Needs, question: EstimateOptions, gpus: bool
) -> Iterator[RenderableType]:
    if any(line.costs for line in found.lines):
        yield table_of(found)
    if not found.complete:
        unknown = [line for line in found.lines if line.unknown]
        named = ", ".join(f"{line.phase} {line.method} ({line.unknown})" for line in unknown)
        yield f"no estimate in all: nothing like these trials was measured: {named}; {TWO_WAYS}"
        return
    yield f"work      {work_text(found, needs, gpus)}"
    yield from _clock(found, needs, question, gpus)
    if found.unreleased:
        yield (
            f"at worst: {_count(found.unreleased, 'retrain')} of cells yet to be found, of which "
            "those that turn out equal are one trial"
        )
    how = "assumed, as nothing was measured twice" if found.assumed_spread else "80 %"
    yield f"in brackets: {how}, as if all trials erred the same way; without failures"


def _clock(found: Forecast, needs: Needs, question: EstimateOptions, gpus: bool) -> Iterator[str]:
    """Wall time against its bounds, and the price."""
    room, where = question.room()
    wall: Interval | None = None
    try:
        wall, schedule = found.wall(needs, room)
    except ValueError as error:
        yield f"wall time: {error} on {where}; --gpus N and --cpus N ask about another cluster"
    else:
        at_once = at_once_text(found, needs, room)
        yield f"wall time {band_text(wall)} on {where}, {at_once} at once"
        yield bounds_text(schedule)
    if question.gpus and not question.cpus and not gpus:
        yield "          (no trial takes a GPU: --cpus N says how large that cluster is)"
    if question.rate is not None:
        yield price_text(found, needs, gpus, question.rate, wall, room)


def table_of(found: Forecast) -> Table:
    """Trials by phase and method, what one takes and where that is from."""
    table = Table("phase", Column("method", overflow="fold"))
    for name in ("to do", "a trial", "all"):
        table.add_column(name, justify="right")
    table.add_column("from")
    for line in found.lines:
        known = len(line.costs)
        each, every = (
            (band_text(line.work * (1 / known)), span(line.work.mid)) if known else ("?", "?")
        )
        table.add_row(line.phase, line.method, str(line.trials), each, every, source_text(line))
    return table


def source_text(line: Line) -> str:
    """What a line's seconds were taken from."""
    if not line.costs:
        return "nothing"
    weakest = max(line.costs, key=lambda cost: (cost.step, -cost.samples))
    if weakest.samples == 0:
        return "no training"
    if weakest.timed:
        return f"timed, {weakest.samples} times"
    if weakest.step:
        return f"{weakest.samples} {HOW[weakest.step]}"
    return _count(weakest.samples, "trial")


def work_text(found: Forecast, needs: Needs, gpus: bool) -> str:
    """The number of trials, and what they hold meanwhile."""
    name, what = ("GPU", "gpus") if gpus else ("CPU", "cpus")
    hours = found.hours(needs, what)
    held = f"{hours.mid:.3g} {name}-hours ({hours.low:.3g}–{hours.high:.3g})"
    return f"{band_text(found.work())} of {_count(found.trials, 'trial')}; {held}"


def left_text(found: Forecast, needs: Needs) -> str:
    """What a run has left behind; of some of it, it may not be known what it takes."""
    unknown = sum(line.unknown for line in found.lines)
    gpus = any(need.gpus for need in needs.values())
    if unknown == found.trials:
        return f"{_count(unknown, 'trial')}; nothing like them was measured"
    text = work_text(found, needs, gpus)
    return text if not unknown else f"{text}, without {unknown} of which nothing was measured"


def at_once_text(found: Forecast, needs: Needs, room: Room) -> str:
    """How many trials run together, by phase where that differs."""
    most = {line.phase: room.holds(needs[line.phase]) for line in found.lines}
    trials = {p: sum(line.trials for line in found.lines if line.phase == p) for p in most}
    holds = {phase: min(trials[phase], most[phase]) for phase in most}
    if len(set(most.values())) == 1:
        return _count(max(holds.values()), "trial")
    return " or ".join(f"{n} {phase}" for phase, n in holds.items()) + " trials"


def bounds_text(schedule: Schedule) -> str:
    """How far the schedule is from the best there could be."""
    over = schedule.wall_s / schedule.bound_s - 1 if schedule.bound_s else 0.0
    over = max(over, 0.0)  # sums in another order may round to less
    return (
        f"          {over:.0%} above the lower bound {span(schedule.bound_s)} "
        f"(work / slots {span(schedule.work_bound_s)}, longest chain {span(schedule.path_bound_s)})"
    )


def used_text(found: Used) -> str:
    """How much of their room trials held, and how far that was from the best there could be."""
    room = _count(int(found.room), "GPU" if found.gpus else "slot")
    over = max(found.took_s / found.bound_s - 1, 0.0)
    return (
        f"trials held {found.share:.0%} of {room} for {span(found.took_s)}, "
        f"{over:.0%} above the lower bound {span(found.bound_s)} of these trials"
    )


def price_text(
    found: Forecast, needs: Needs, gpus: bool, rate: float, wall: Interval | None, room: Room
) -> str:
    """The price of the hours that trials hold, and of the whole cluster until the last one ends."""
    name, what, place = ("GPU", "gpus", 1) if gpus else ("CPU", "cpus", 0)
    price = found.hours(needs, what) * rate
    text = (
        f"price     {_money(price.mid)} ({_money(price.low)}–{_money(price.high)}) at {rate:g} a "
        f"{name}-hour"
    )
    there = sum(node[place] for node in room.nodes)
    if wall is None or not math.isfinite(there):
        return text
    whole = wall.mid / 3600 * there * rate
    return f"{text}; {_money(whole)} if all {there:g} {name}s are paid for to the end"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 0.1 else f"{amount:.2g}"


def band_text(band: Interval) -> str:
    return f"{span(band.mid)} ({span(band.low)}–{span(band.high)})"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _counted(devices: Counter[str]) -> str:
    return ", ".join(f"{_count(n, 'trial')} on {device}" for device, n in devices.items())


def kept_text(kept: EstimateRecord, runs: bool) -> str:
    """How a run's estimate compares with what the run took; ``runs``: whether its driver lives."""
    wall, n = kept.wall_s, kept.trials
    said = f"estimated {span(wall.mid)} ({span(wall.low)}–{span(wall.high)}) for {n} trials"
    if kept.took_s is None:
        ending = "" if runs else ", but that run did not come to its end"
        return f"{said}{ending}"
    if kept.done == kept.trials:
        return f"{said}, took {span(kept.took_s)}: {wrong(kept.took_s, wall.mid)}"
    if not kept.done:
        return f"{said}; that run did none of them"
    return (
        f"{said}; that run did {kept.done} of them, in {span(kept.done_took_s)} of work where "
        f"{span(kept.done_s)} was estimated: {wrong(kept.done_took_s, kept.done_s)}"
    )


def wrong(took_s: float, estimated_s: float) -> str:
    """How much more or less than estimated it was."""
    part = took_s / estimated_s - 1
    return f"{abs(part):.0%} {'more' if part >= 0 else 'less'} than estimated"


def latest_text(layout: Layout, grid: str) -> str | None:
    """The estimate of the run of a grid that began last, in words."""
    found = latest(layout, grid)
    if found is None:
        return None
    kept, writer = found
    driver = DriverMonitor(layout).look(writer)
    return kept_text(kept, runs=driver is not None and driver.lives)
