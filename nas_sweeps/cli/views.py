"""Plans, status and results as terminal tables. No torch, no ray; pandas only for results."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from nas_sweeps.cli.estimate_view import EstimateOptions, estimate_view, latest_text, used_text
from nas_sweeps.cli.studies_view import studies_lines
from nas_sweeps.data.profiles import known_counts, known_remarks
from nas_sweeps.grid import Entry, Grid, GridError, plan
from nas_sweeps.grid.expand import alike, method_of
from nas_sweeps.grid.tuned import require_objectives
from nas_sweeps.grid.whole_batches import too_large_batches
from nas_sweeps.schedule import Scheduler, replay
from nas_sweeps.schedule.peers import all_pruned
from nas_sweeps.store.driver import DriverMonitor
from nas_sweeps.store.layout import TrialFiles
from nas_sweeps.store.ledger import Store, grid_digest
from nas_sweeps.store.records import State
from nas_sweeps.store.trial_files import read_attempt
from nas_sweeps.trial import Trial
from nas_sweeps.watch.lines import span


def plan_view(
    grid: Grid, store: Store, verbose: bool, question: EstimateOptions
) -> Iterator[RenderableType]:
    """Every trial of a grid, counted by phase and method, against what a store holds.

    Raises:
        ValueError: what ``estimate_view`` raises, or the store holds what cannot be read, or what
            a study of the grid cannot go by.
    """
    question.require()
    store.check_version()
    planned = plan(grid)
    scheduler = replay(planned, store, retry="lost")
    require_objectives(scheduler.known())
    yield f"{grid.name}: {len(planned)} trials"
    yield counts_table(scheduler)
    for phase in grid.phases:
        resources = grid.resources(phase)
        yield f"a {phase} trial takes {resources.gpus:g} GPU and {resources.cpus} CPU"
    waiting = (entry for entry, state in scheduler.states() if state == State.WAITING)
    for line in too_large_batches(waiting, known_counts):
        yield Text(line, style="red")
    kinds = {alike(entry): entry for entry in planned}.values()
    yield from dict.fromkeys(
        note for entry in kinds for note in known_remarks(entry.data, entry.distribution)
    )
    held = "holds what is done" if store.exists() else "is not there yet"
    yield f"store {store} {held}"
    yield from estimate_view(grid, scheduler, store, question)
    for phase in planned.stops:
        yield f"at most: {phase}.stop may end trials early, and nobody knows which before they run"
    if verbose:
        yield trials_table(scheduler)
        yield Text(json.dumps(json.loads(grid.to_json()), indent=2))


def counts_table(scheduler: Scheduler) -> Table:
    """Planned trials by phase, method and state."""
    found: Counter[tuple[str, str, State]] = Counter()
    names: dict[Hashable, tuple[str, str]] = {}
    for entry, state in scheduler.states():
        kind = alike(entry)
        if kind not in names:
            names[kind] = who(entry)
        found[(*names[kind], state)] += 1
    always = (State.DONE, State.WAITING)
    shown = [s for s in State if s in always or any(k[2] == s for k in found)]
    table = Table("phase", Column("method", overflow="fold"))
    for name in (*(state.label for state in shown), "planned"):
        table.add_column(name, justify="right")
    for phase, method in dict.fromkeys(key[:2] for key in found):
        numbers = [found[phase, method, state] for state in shown]
        table.add_row(phase, method, *map(str, numbers), str(sum(numbers)))
    totals = [sum(n for key, n in found.items() if key[2] == state) for state in shown]
    table.add_section()
    table.add_row("all", "", *map(str, totals), str(sum(totals)))
    return table


def trials_table(scheduler: Scheduler) -> Table:
    """One line per planned trial. The id of a slot depends on the genotype yet to be found."""
    table = Table("phase", "method", "distribution", "seed", "state", "trial")
    for entry, state in scheduler.states():
        name = entry.trial_id if isinstance(entry, Trial) else ""
        table.add_row(*who(entry), str(entry.distribution), str(entry.seed), state, name)
    return table


def who(entry: Entry) -> tuple[str, str]:
    """The phase, and the method with what sets it apart from its namesakes."""
    return entry.phase, method_of(entry)


def status_view(store: str) -> Iterator[RenderableType]:
    """Each grid that was run into a store, what is running, and what failed and why.

    Raises:
        ValueError: there is no store.
    """
    keeper = Store(store).require()
    for kept in keeper.grids():
        yield from _grid_status(kept, keeper)
    states = keeper.states()
    counted = ", ".join(f"{n} {state}" for state, n in Counter(states.values()).items())
    trials = "trial" if len(states) == 1 else "trials"
    yield f"{len(states)} {trials} in {keeper}: {counted or 'none yet'}"
    monitor = DriverMonitor(keeper.layout)
    drivers = monitor.drivers()
    yield from [Text(driver.who) for driver in drivers]
    if not drivers:
        yield f"{_nobody(monitor)}{_after(states)}"
    for trial_id, state in states.items():
        if state == State.RUNNING:
            yield Text(f"running {trial_id}{_attempt_text(keeper.layout.trial(trial_id))}")
    failed = sum(state == State.FAILED for state in states.values())
    if failed:
        yield Text(f"{failed} failed: `nas-sweeps failures {shlex.quote(store)}` says why")


def _nobody(monitor: DriverMonitor) -> str:
    seen = monitor.doubtful
    if seen is None:
        return "no run works on it now"
    return (
        f"no run is seen to work on it: by this machine's clock, that of host "
        f"{seen.record.get('host')} gave its last sign of life {span(abs(seen.age_s))} ago"
    )


def _after(states: dict[str, State]) -> str:
    running = sum(state == State.RUNNING for state in states.values())
    return f", though {running} workers of an earlier one may still be ending" if running else ""


def _attempt_text(files: TrialFiles) -> str:
    newest = files.newest
    held = read_attempt(newest) if newest else None
    if newest is None or held is None:
        return ""
    return f" on {held.host} (attempt {newest.number}, {held.epochs_done} epochs done)"


def _grid_status(kept: dict[str, Any], keeper: Store) -> Iterator[RenderableType]:
    try:
        grid = Grid.from_dict(kept, source=f"grid '{kept.get('name')}'")
    except GridError as error:
        yield f"a grid of another version was run here, and cannot be counted:\n{error}"
        return
    yield f"grid {grid.name}"
    scheduler = replay(plan(grid), keeper)
    yield counts_table(scheduler)
    yield from map(Text, all_pruned(scheduler.states()))
    yield from map(Text, studies_lines(scheduler))
    estimated = latest_text(keeper.layout, grid_digest(grid.to_json()))
    if estimated is not None:
        yield estimated
    yield from _used_lines(grid, scheduler, keeper)


def _used_lines(grid: Grid, scheduler: Scheduler, keeper: Store) -> Iterator[str]:
    from nas_sweeps.cost.used import used

    needs = {phase: grid.resources(phase) for phase in grid.phases}
    found = used(keeper, scheduler.trial_ids(), needs)
    if found is not None:
        yield used_text(found)


def results_view(
    store: Store | str,
    value: str | None,
    rows: Sequence[str] = ("method",),
    columns: Sequence[str] = ("distribution", "mu"),
    phase: str = "retrain",
) -> Iterator[RenderableType]:
    """Retrained networks: mean and standard deviation over trials, and their number.

    Accuracies are in percent. A retrain that several searches led to counts for each.

    Args:
        rows, columns, value, phase: as for ``summarise``.

    Raises:
        ValueError: there is no store, or a name is no column.
    """
    from nas_sweeps.report.labels import caveats, given_up
    from nas_sweeps.report.tables import entries, is_fraction
    from nas_sweeps.tables import attributed, load, summarise

    frames = load(store)
    value = frames.headline if value is None else value
    found = summarise(frames, value, rows, columns, phase)
    if found.empty:
        yield f"no {phase} is done yet in {store}"
        return
    percent = is_fraction(value)
    shown = "mean ± sd over trials, n" + (", in percent" if percent else "")
    networks = "retrained networks" if phase == "retrain" else f"{phase} trials"
    yield f"{value} of {networks}: {shown}"
    yield _lines_table(entries(found, percent), found.index.nlevels)
    yield from caveats(attributed(frames, phase))
    yield from given_up(frames)


def _lines_table(lines: Sequence[Sequence[str]], names: int) -> Table:
    """Headings and entries, of which the first few are names."""
    head, *body = lines
    table = Table()
    for i, heading in enumerate(head):
        table.add_column(heading, justify="left" if i < names else "right", overflow="fold")
    for line in body:
        table.add_row(*line)
    return table


def tuning_view(store: Store | str, value: str | None) -> Iterator[RenderableType]:
    """Winners of studies against the defaults, and what the studies cost.

    Raises:
        ValueError: there is no store, or ``value`` is no accuracy.
    """
    from nas_sweeps.report.tables import tuning_entries
    from nas_sweeps.report.tuned import read_tuning, remarks

    found, cost = read_tuning(store, value)
    if cost.empty:
        yield f"nothing is tuned in {store}: a grid with ranges and a section tune has studies"
        return
    yield "the winner of each study against the defaults, over seeds that did not choose it, n"
    lines = tuning_entries(found)
    yield _lines_table(lines, len(lines[0]) - 3)
    yield from map(Text, remarks(found, cost))
