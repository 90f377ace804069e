"""Verbs that ask something of a run that works, from another terminal or machine."""

from __future__ import annotations

from typing import Annotated

import typer

from nas_sweeps.cli.options import StoreName, out


def pause(store: StoreName) -> None:
    """Have the run on a store stop its trials at a checkpoint, and start none until resume.

    nas-sweeps pause runs/table1

    The run stays where it is, and its GPUs are free meanwhile.
    """
    from nas_sweeps.store import Store
    from nas_sweeps.sweep.asking import pause as ask

    out.print(ask(Store(store)), soft_wrap=True)


def resume(store: StoreName) -> None:
    """Have a paused run go on from its checkpoints.

    nas-sweeps resume runs/table1
    """
    from nas_sweeps.store import Store
    from nas_sweeps.sweep.asking import resume as ask

    out.print(ask(Store(store)), soft_wrap=True)


def cancel(
    store: StoreName,
    only: Annotated[
        str,
        typer.Option(metavar="QUERY", help="Which trials: a query as for run --only."),
    ],
) -> None:
    """Have the run on a store leave some trials; those that run stop at a checkpoint.

    nas-sweeps cancel runs/table1 --only "method == 'darts' and mu < 0.1"

    Retrains of a search that is cancelled are not reached. The next run
    takes all of them up where they are; its --only leaves them out.
    """
    from nas_sweeps.store import Store
    from nas_sweeps.sweep.asking import cancel as ask

    out.print(ask(Store(store), only), soft_wrap=True)
