"""Verbs that plan and run a grid."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nas_sweeps.choices import TRACKERS, Retry, Tracker
from nas_sweeps.cli.options import (
    INTERRUPTED,
    NOT_ALL_DONE,
    STOPPED,
    GridFile,
    Overrides,
    StoreOption,
    err,
    out,
    show,
)

if TYPE_CHECKING:
    from nas_sweeps.grid import Grid
    from nas_sweeps.sweep.run import Summary

SourceOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="STORE", help="Another store whose measured trials say what one takes."
    ),
]


def _grid(path: Path, overrides: list[str] | None) -> Grid:
    from nas_sweeps.grid import load_grid

    return load_grid(path, overrides or [])


def plan(
    grid_file: GridFile,
    overrides: Overrides = None,
    store: StoreOption = None,
    source: SourceOption = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time some steps here of what was not measured.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="PRICE",
            min=0,
            max=1e9,
            help="Of a GPU-hour; of a CPU-hour where a grid asks no GPU.",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="As if on a cluster with so many GPUs.")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="As if on a cluster with so many CPUs.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="At most so many trials at once, as for run.")
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="NAME", help="As for run; inline is --slots 1.")
    ] = "ray",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Every trial and every resolved value.")
    ] = False,
) -> None:
    """Show what a grid would run, what is done already, and what the rest will cost.

    nas-sweeps plan experiments/table1.yaml --from runs/pilot --gpus 64 --rate 2.5

    nas-sweeps plan experiments/quickstart.yaml --calibrate

    The estimate comes from trials of the same phase, method, recipe and
    kind of device that were measured in the grid's own store or in that of
    --from. Where only other distributions were measured it counts images,
    then it takes other methods or knobs; another recipe never. --calibrate
    runs some steps of what is still unknown, on this machine and alone on
    it, with DARTS_V2 for cells that are yet to be found.

    Wall time is that of a simulated run: retrains go before new searches,
    on this machine or on --gpus and --cpus. The lower bound is what no
    order of the trials can beat.

    In brackets is an interval that should hold the truth in 8 of 10 cases,
    by the spread of the measured trials. A busier machine than theirs is
    not in it.
    """
    from nas_sweeps.cli.estimate_view import EstimateOptions
    from nas_sweeps.cli.views import plan_view
    from nas_sweeps.store import Store
    from nas_sweeps.sweep.executor import executor_of

    grid = _grid(grid_file, overrides)
    question = EstimateOptions(
        source=source,
        calibrate=calibrate,
        rate=rate,
        gpus=gpus,
        cpus=cpus,
        slots=executor_of(executor).at_once or slots,
    )
    show(plan_view(grid, Store(store or grid.default_store), verbose, question))


# Of ``run``, whose signature would otherwise hide its body
ExecutorName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="ray; inline: this process, one trial at a time; or another that an installed "
        "package offers. With options: --executor 'mine: {nodes: 4}'.",
    ),
]
RetryOption = Annotated[
    Retry,
    typer.Option(
        help="Failures of earlier runs to try again: `lost` those that were nobody's mistake "
        "(a worker that died, no memory, no space), `failed` all, or `none`."
    ),
]
OnlyQuery = Annotated[
    str | None,
    typer.Option(
        metavar="QUERY",
        help="Run a part of the grid: --only \"method == 'darts' and mu < 0.1\"; columns are "
        "phase, method, variant, distribution, mu, total, n_max, seed, pretrain, recipe.",
    ),
]
TrackerNames = Annotated[
    list[str] | None,  # typer takes no list of literals; ``run`` refuses other names
    typer.Option(
        metavar=f"<{'|'.join(TRACKERS)}>",
        help="Tell a tracker of every epoch too; off unless asked for, and may be given "
        "several times. tensorboard writes into STORE/tensorboard; wandb and mlflow take "
        "server, project and login from their own environment.",
    ),
]
DeadlineOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="Stop then, each running trial at a checkpoint, and start nothing before that is "
        "not expected to end by then: 11h30m, 2026-11-27T08:00, or none. Without it, two "
        "minutes before Slurm ends the job, in one.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        metavar="HOURS",
        help="Spend no more GPU-hours than so many in this run; CPU-hours where a grid asks "
        "for no GPU.",
    ),
]


def run(
    grid_file: GridFile,
    overrides: Overrides = None,
    store: StoreOption = None,
    executor: ExecutorName = "ray",
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; `auto` finds a local one.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="At most so many trials at once.")
    ] = None,
    retry: RetryOption = "lost",
    max_retries: Annotated[
        int, typer.Option(min=0, help="How often a lost trial is tried again in this run.")
    ] = 3,
    only: OnlyQuery = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Run one of N parts of the grid, 1/4 say; other drivers run the others into the "
            "same store.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first trial that fails.")
    ] = False,
    track: TrackerNames = None,
    deadline: DeadlineOption = None,
    budget: BudgetOption = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="PRICE", help="Of such an hour: --budget is money."),
    ] = None,
    source: SourceOption = None,
) -> None:
    """Run what is planned and not done. The same command starts, continues and extends a grid.

    nas-sweeps run experiments/quickstart.yaml

    nas-sweeps run experiments/table1.yaml --store s3://bucket/table1 --address auto

    nas-sweeps run grid.yaml --only "method == 'darts'" --set search.seeds=[0,1]

    nas-sweeps run grid.yaml --deadline 11h30m --budget 30 --rate 2.5

    Exit code 0: all is done; 1: something failed; 2: a mistake in what was
    asked; 130, 143 and 129: stopped by Ctrl-C, by SIGTERM and by a terminal
    that closed, every running trial with a checkpoint; 143 also by --deadline
    and --budget.
    """
    from nas_sweeps.sweep.run import run as run_grid
    from nas_sweeps.sweep.stopping import obeyed

    grid = _grid(grid_file, overrides)
    stops = obeyed()
    for number in stops:  # also while nothing runs yet
        if number != signal.SIGINT:
            signal.signal(number, _terminated)
    try:
        summary = run_grid(
            grid,
            store,
            executor=executor,
            address=address,
            slots=slots,
            retry=retry,
            max_retries=max_retries,
            only=only,
            shard=shard,
            fail_fast=fail_fast,
            track=cast("list[Tracker]", track or []),
            console=out,
            last_resort=os._exit,
            source=source,
            deadline=deadline,
            budget=budget,
            rate=rate,
        )
    except KeyboardInterrupt as stopped:
        for number in stops:
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        err.print("stopped; the same command goes on where the trials are now")
        raise typer.Exit(getattr(stopped, "exit_code", INTERRUPTED)) from None
    except OSError as error:
        err.print(f"the store failed: {error}; what is finished is kept, and the same command")
        err.print("goes on when the cause is mended")
        raise typer.Exit(NOT_ALL_DONE) from None
    _end(summary, grid)


def _end(summary: Summary, grid: Grid) -> None:
    """Say how a run ended; raises ``typer.Exit`` unless all is done."""
    from nas_sweeps.cli.views import results_view

    if not summary.started:
        out.print("nothing to run: every planned trial is settled")
    show(results_view(summary.store, grid.headline))
    show([str(summary), *summary.remarks])
    if summary.stopped is not None:
        err.print(f"stopped: {summary.stopped}", soft_wrap=True)
    if summary.left is not None and summary.left.trials:
        from nas_sweeps.cli.estimate_view import left_text

        needs = {phase: grid.resources(phase) for phase in grid.phases}
        err.print(f"left: {left_text(summary.left, needs)}; the same command goes on with them")
        raise typer.Exit(STOPPED)
    if summary.complete:
        return
    if summary.cancelled:
        err.print(f"{summary.cancelled} cancelled: the same command takes up what was")
    if summary.failed or not summary.cancelled:
        name = shlex.quote(str(summary.store))
        err.print(f"not all done: `nas-sweeps failures {name}` says why", soft_wrap=True)
        err.print("--retry failed tries mistakes again, and with them the retrains that they block")
    raise typer.Exit(NOT_ALL_DONE)


def _terminated(number: int, frame: FrameType | None) -> None:
    from nas_sweeps.sweep.stopping import Interrupted

    raise Interrupted(number)
