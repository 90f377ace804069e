"""``run``: compute what a grid plans and its store lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.console import Console

from nas_sweeps.choices import Retry, Tracker
from nas_sweeps.cost.forecast import Forecast
from nas_sweeps.data.splits import prepare
from nas_sweeps.grid import Entry, Grid, Plan, plan
from nas_sweeps.grid.model import as_grid
from nas_sweeps.grid.shards import Shard
from nas_sweeps.grid.tuned import require_objectives, require_samplers
from nas_sweeps.grid.whole_batches import require_whole_batches
from nas_sweeps.paths import user_path
from nas_sweeps.schedule import Scheduler, replay
from nas_sweeps.schedule.peers import all_pruned
from nas_sweeps.store import State, Store
from nas_sweeps.store.claims import Claims
from nas_sweeps.store.index import read_index
from nas_sweeps.store.lease import Lease
from nas_sweeps.store.ledger import grid_digest
from nas_sweeps.store.records import Settled
from nas_sweeps.store.requests import Inbox
from nas_sweeps.sweep.compacting import Compacting
from nas_sweeps.sweep.estimate import EstimateRecorder
from nas_sweeps.sweep.executor import Executor, Setting, executor_of, needs_of
from nas_sweeps.sweep.job import MAX_RETRIES, Job
from nas_sweeps.sweep.limits import Limiter, Limits
from nas_sweeps.sweep.links import Links
from nas_sweeps.sweep.only import chosen_by
from nas_sweeps.sweep.own_classes import own_of
from nas_sweeps.sweep.progress import Progress, Silence
from nas_sweeps.sweep.stopping import stopped_by_signals
from nas_sweeps.tables import compact
from nas_sweeps.tables.gather import gather
from nas_sweeps.tables.schemas import SCHEMAS
from nas_sweeps.train.form import check_switches
from nas_sweeps.trial import DataPaths, Origin
from nas_sweeps.watch.follow import Follower
from nas_sweeps.watch.trackers import require, trackers

# Trials. Tune keeps something of each in memory, and the driver looks at each when it starts.
MAX_A_DRIVER = 100_000


@dataclass(frozen=True)
class Summary:
    """How a run ended: trials by phase and state, and how many it started itself."""

    store: Store
    counts: dict[str, dict[State, int]]
    started: int
    stopped: str | None = None  # why it handed out nothing more, if it did not come to its end
    left: Forecast | None = None  # where a limit stopped it: what the same command would do now
    remarks: Sequence[str] = ()  # on what the rules of the grid have left

    @property
    def complete(self) -> bool:
        """Every trial that was to run is done, or was pruned."""
        ended = (State.DONE, State.PRUNED)
        return all(sum(of.values()) == sum(of[s] for s in ended) for of in self.counts.values())

    @property
    def failed(self) -> int:
        return sum(of[State.FAILED] for of in self.counts.values())

    @property
    def cancelled(self) -> int:
        """Trials that somebody took out of the run while it worked."""
        return sum(of[State.CANCELLED] for of in self.counts.values())

    def __str__(self) -> str:
        parts = [
            f"{n} of {sum(of.values())} {phase} trials {state}"
            for phase, of in self.counts.items()
            for state, n in of.items()
            if n
        ]
        said = ", ".join(parts) or "no trial is planned here"
        return f"{said}; {self.started} run now; store: {self.store}"


def run(
    grid: Grid | str | Path,
    store: str | Path | None = None,
    *,
    executor: Executor | str = "ray",
    address: str | None = None,
    slots: int | None = None,
    retry: Retry = "lost",
    max_retries: int = MAX_RETRIES,
    only: str | None = None,
    shard: str | None = None,
    fail_fast: bool = False,
    track: Sequence[Tracker] = (),
    deadline: str | datetime | timedelta | None = None,
    budget: float | None = None,
    rate: float | None = None,
    console: Console | Literal["none"] | None = None,
    last_resort: Callable[[int], None] | None = None,
    source: str | Path | None = None,
) -> Summary:
    """Run the rest of a grid: everything planned that the store does not hold as done.

    Args:
        grid: from ``load_grid``, or the path of its file.
        store: a folder, made if absent, or a URI such as ``s3://bucket/folder``; None:
            ``runs/<name of the grid>``.
        executor: ``ray`` (Ray Tune, on ``address`` or a session of its own), ``inline``, or another
            that is registered, by its name; with options as ``executor_of`` reads them, or made.
        address: of a running Ray cluster.
        slots: at most so many trials at once; None: what the cluster holds.
        retry: which failures of earlier runs are tried again: ``lost`` those that were nobody's
            mistake (a worker that died, no memory, no space), ``failed`` all, ``none``.
        max_retries: how often this run itself tries a trial again that ended in such a way.
        only: limits the run to a part of the grid, see ``nas_sweeps.sweep.only``.
        shard: the part of the grid that this driver runs, as ``2/4``: others run the other parts
            into the same store, at the same time, from wherever they are.
        fail_fast: stop at the first trial that fails.
        track: tensorboard, wandb, mlflow: told of every epoch.
        deadline: when to stop, each running trial at a checkpoint: a duration such as ``11h30m``,
            or an instant. None: shortly before Slurm ends the job, in one; ``none``: never.
        budget: what to spend at most, in GPU-hours; in CPU-hours where the grid asks for no GPU.
            Neither limit starts a trial that is not expected to end within it.
        rate: the price of an hour, which makes money of ``budget``.
        console: where progress goes; None: standard output, ``none``: nowhere.
        last_resort: see ``stopped_by_signals``.
        source: another store with measured trials, to estimate from what this run will take.

    Raises:
        ValueError: the store or the cluster cannot serve the grid, or another run works on the
            store; the message says what to do.
        Interrupted: by a signal; a KeyboardInterrupt that knows its exit code.
    """
    grid = as_grid(grid)
    _check_numbers(slots, max_retries)
    limits = Limits.of(deadline, budget, rate)
    keeper = Store(store if store is not None else grid.default_store)
    where = executor_of(executor, address)
    require(track, keeper.root)
    check_switches(on_cpu=any(not grid.resources(phase).gpus for phase in grid.phases))
    part = None if shard is None else Shard.read(shard)
    planned = plan(grid) if part is None else part.part(plan(grid))
    _check_size(planned)
    asked = _Asked(
        grid=grid,
        plan=planned,
        shard=part,
        store=keeper,
        reader=Store(keeper.root, remember=True),
        chosen=chosen_by(only, planned) if only is not None else None,
        retry=retry,
        measured=None if source is None else Store(source).require(),
    )
    before = asked.replayed()
    require_samplers(entry for entry, state in before.states() if state == State.WAITING)
    require_objectives(before.known())
    _check_images(before, grid.places)
    keeper.create()
    named = None if part is None else str(part)
    with Lease(keeper.layout, grid.name, grid=asked.digest, shard=named, only=only) as lease:
        start = _start(asked, lease)
        limiter = Limiter(limits, needs_of(grid), keeper, asked.measured) if limits else None
        recorder = asked.recorder(start.scheduler, lease)
        compacting = Compacting(keeper, lease, held=len(start.trials))
        links = Links(keeper, start.scheduler, start.links)
        seen: Progress | Silence = Silence()
        if not start.scheduler.finished and (track or console != "none"):
            seen = _progress(asked, console, track)
        job = Job(
            scheduler=start.scheduler,
            store=keeper,
            resources=grid.resources,
            lease=lease,
            watchers=(links, seen, recorder, compacting),
            slots=slots,
            max_retries=max_retries,
            fail_fast=fail_fast,
            limiter=limiter,
            inbox=start.inbox,
            claims=None if part is None else Claims(keeper.layout, start.inbox.driver),
            damaged=start.damaged,
            reads=lambda query: chosen_by(query, planned),
        )
        if lease.found_paused:
            seen.told("the run before was paused when it died; this one is not")
        keeper.keep_grid(asked.resolved)
        kept = _kept(asked, start, job, links, recorder, compacting)
        with stopped_by_signals(job.stop, last_resort, job.say), kept:
            if not job.over:
                with seen, where.pool(_setting(job, grid)) as pool:
                    job.run(pool)
        left = limiter.left(start.scheduler) if limiter and job.limited else None
    counts, remarks = start.scheduler.counts(), all_pruned(start.scheduler.states())
    return Summary(keeper, counts, job.started, job.stopping, left, remarks)


def _check_numbers(slots: int | None, max_retries: int) -> None:
    """Raises ValueError."""
    if slots is not None and slots < 1:
        raise ValueError(f"slots: {slots} trials at once are none; leave it out, or give 1 or more")
    if max_retries < 0:
        raise ValueError(f"max_retries: {max_retries} is less than 0, which tries nothing again")


def _check_size(planned: Plan) -> None:
    """Raises ValueError."""
    if len(planned) > MAX_A_DRIVER:
        parts = math.ceil(1.1 * len(planned) / MAX_A_DRIVER)  # not all chains are of one length
        raise ValueError(
            f"{len(planned):,} trials are more than one driver works through, {MAX_A_DRIVER:,}: "
            f"start {parts} of them, with --shard 1/{parts} to --shard {parts}/{parts}"
        )


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is to be run, and where its results are."""

    grid: Grid
    plan: Plan
    shard: Shard | None
    store: Store
    reader: Store  # until the trials start: reads each result once
    chosen: Callable[[Entry], bool] | None
    retry: Retry
    measured: Store | None  # another store, to estimate from

    @cached_property
    def resolved(self) -> str:
        """The grid, so that any machine can say what was planned."""
        return self.grid.to_json()

    @property
    def digest(self) -> str:
        """By which the store knows the grid."""
        return grid_digest(self.resolved)

    @property
    def counted(self) -> Callable[[Entry], bool] | None:
        """Which entries of the whole grid's plan are this run's; None: all of them."""
        if self.shard is None:
            return self.chosen
        mine, chosen = {entry.key for entry in self.plan}, self.chosen or (lambda entry: True)
        return lambda entry: entry.key in mine and chosen(entry)

    def replayed(self, settled: dict[str, Settled] | None = None) -> Scheduler:
        """The plan against the store."""
        return replay(self.plan, self.reader, retry=self.retry, chosen=self.chosen, settled=settled)

    def recorder(self, scheduler: Scheduler, lease: Lease) -> EstimateRecorder:
        """What writes down how long the run should take."""
        assert lease.writer is not None
        return EstimateRecorder(
            self.grid, scheduler, self.store, lease.writer, self.digest, self.measured
        )


def _progress(
    asked: _Asked, console: Console | Literal["none"] | None, track: Sequence[Tracker]
) -> Progress:
    """What shows the run and tells trackers of it."""
    sources = () if asked.measured is None else (asked.measured,)
    follower = Follower(asked.store, sources=sources, chosen=asked.counted, retry=asked.retry)
    shown = None if console == "none" else console or Console()
    return Progress(follower, shown, trackers(track, asked.store))


@contextmanager
def _kept(
    asked: _Asked,
    start: _Start,
    job: Job,
    links: Links,
    recorder: EstimateRecorder,
    compacting: Compacting,
) -> Iterator[None]:
    """What is in the store already is linked before; however it ends, tables are written after."""
    links.write(start.trials.__contains__)
    try:
        yield
    finally:
        if job.lease.holds():
            recorder.end()
            links.write(asked.store.asked)
            compacting.end()
            new = job.started or links.changed or not start.compacted
            if new and job.lease.compacts():
                job.lease.tell(ending=True)  # who ends from now on writes them after this one
                compact(asked.store if job.started else asked.reader)


def _setting(job: Job, grid: Grid) -> Setting:
    """What a pool has to know of the run."""
    waiting = [entry for entry, state in job.scheduler.states() if state == State.WAITING]
    return Setting(
        store=job.store,
        places=grid.places,
        driver=job.lease.key,
        needs=tuple(grid.resources(phase) for phase in job.phases),
        own=own_of(waiting),
        look=job.look,
    )


def _check_images(scheduler: Scheduler, places: DataPaths) -> None:
    """Draw every training set that is still needed, once, before any trial starts.

    What is wrong with images or class counts would otherwise be every trial's own failure, days
    into a run. It also leaves them decoded in the cache. Skipped where only the workers have the
    images. Raises ValueError as ``prepare`` and ``require_whole_batches`` do.
    """
    if places.path is not None and not user_path(places.path).exists():
        return
    waiting = [entry for entry, state in scheduler.states() if state == State.WAITING]
    counts = {
        key: prepare(*key, places, "cpu").train_counts
        for key in {(entry.data, entry.distribution) for entry in waiting}
    }
    require_whole_batches(waiting, lambda *key: counts[key])


@dataclass(frozen=True)
class _Start:
    """What a run finds in its store."""

    scheduler: Scheduler
    inbox: Inbox
    damaged: frozenset[str]  # trials that are done, and of which something is lost
    trials: set[str]
    links: list[tuple[str, Origin]]  # trials, and who asked for them
    compacted: bool  # the tables hold everything


def _start(asked: _Asked, lease: Lease) -> _Start:
    """Read a store by one listing and its tables, and reopen trials of which something is lost.

    All tables are checked, since what one of them has lost is looked for in the trials' files: a
    trial whose rows are in neither is run again, from its last checkpoint.
    """
    assert lease.writer is not None
    if lease.alone:  # else another may be writing tables just now
        asked.store.clean_up()
    inbox = Inbox(asked.store.layout, lease.writer)
    inbox.clean_up()
    reader = asked.reader
    index = read_index(reader.layout)
    gathered, settled = gather(reader.layout, SCHEMAS, index), reader.settled(index)
    unknown: set[str] = set()
    if gathered.corrupt:
        # Those of this plan alone: only they are handed out, and so written, again. Which trial a
        # slot becomes may not be known yet: what may turn out to be one is no result until then.
        ours = replay(asked.plan, reader, chosen=asked.chosen, settled=settled).trial_ids()
        unknown = gathered.corrupt - replay(asked.plan, reader, settled=settled).trial_ids()
        for trial_id in gathered.corrupt & ours:
            reader.reopen(trial_id)
        for trial_id in (gathered.corrupt & ours) | unknown:
            settled.pop(trial_id, None)
    return _Start(
        scheduler=asked.replayed(settled),
        inbox=inbox,
        damaged=frozenset(unknown),
        trials=set(gathered.mtimes_ns),
        links=gathered.links(),
        compacted=gathered.current,
    )
