"""Verbs that look at a store: they read it and never write to it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nas_sweeps.choices import DRAW_FORMATS, DrawFormat, TableFormat
from nas_sweeps.cli.options import StoreName, err, names, out, show


def status(
    store: StoreName,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep showing it until the run ends; Ctrl-C leaves it."),
    ] = False,
    every: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.5, max=3600, help="With --watch: how often to look."),
    ] = 5.0,
) -> None:
    """What is done, running, waiting and failed. Reads the store only, from any machine.

    nas-sweeps status runs/table1

    nas-sweeps status --watch s3://bucket/runs/table1 --every 30

    The watch shows what the run itself shows: a bar for each phase, a line
    for each running trial, failures as they happen, what is left by the
    epochs measured so far, and what the store's trials have cost.

    Without a terminal it prints a line for each epoch. It ends with the run
    and never stops one: leave it with Ctrl-C and come back as you like.
    """
    if watch:
        from nas_sweeps.store import Store
        from nas_sweeps.watch.status import watch as watch_store

        watch_store(Store(store), out, every)
        return
    from nas_sweeps.cli.views import status_view

    show(status_view(store))


def failures(store: StoreName) -> None:
    """What failed, grouped by cause, and where the logs are.

    nas-sweeps failures runs/table1
    """
    from nas_sweeps.cli.failures_view import failures_view

    show(failures_view(store))


def logs(
    store: StoreName,
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, or its unique beginning.")
    ],
) -> None:
    """Print the logs of every attempt at a trial.

    nas-sweeps logs runs/table1 s-3f9a2c
    """
    from nas_sweeps.cli.failures_view import logs_view

    show(logs_view(store, trial))


def table(
    store: StoreName,
    value: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="A numeric column of the trials table; else the grid's headline."
        ),
    ] = None,
    rows: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns, comma-separated, that make the rows.")
    ] = "method",
    columns: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns that make the table's columns.")
    ] = "distribution,mu",
    style: Annotated[
        TableFormat | None,
        typer.Option("--format", help="Plain lines to paste; without it, for this terminal."),
    ] = None,
    phase: Annotated[
        str, typer.Option(metavar="NAME", help="Whose trials: retrain, or a later phase.")
    ] = "retrain",
    tuning: Annotated[
        bool,
        typer.Option("--tuning", help="Instead: what is tuned against its defaults, and the cost."),
    ] = False,
) -> None:
    """Retrained networks, method by distribution: mean, standard deviation, number.

    What sets the methods apart beside the search, such as pre-training, is said below the table;
    with --format on standard error, so that the table alone can be piped to a file.

    nas-sweeps table runs/table1 --value accuracy_tail --format latex

    nas-sweeps table runs/tune_digits --tuning
    """
    if tuning:
        if (rows, columns, phase) != ("method", "distribution,mu", "retrain"):
            raise ValueError(
                "--tuning makes a table of its own: leave --rows, --columns, --phase out"
            )
        _tuning_table(store, value, style)
        return
    if style is None:
        from nas_sweeps.cli.views import results_view

        show(results_view(store, value, names(rows), names(columns), phase))
        return
    from nas_sweeps.report.labels import caveats, given_up
    from nas_sweeps.report.tables import table_text
    from nas_sweeps.tables import attributed, load

    frames = load(store)
    sys.stdout.write(table_text(frames, names(rows), names(columns), value, style, phase))
    sys.stdout.flush()
    for line in (*caveats(attributed(frames, phase)), *given_up(frames)):
        err.print(line, soft_wrap=True)


def _tuning_table(store: str, value: str | None, style: TableFormat | None) -> None:
    if style is None:
        from nas_sweeps.cli.views import tuning_view

        show(tuning_view(store, value))
        return
    from nas_sweeps.report.tables import tuning_text
    from nas_sweeps.report.tuned import read_tuning, remarks

    found, cost = read_tuning(store, value)
    sys.stdout.write(tuning_text(found, style))
    sys.stdout.flush()
    for line in remarks(found, cost):
        err.print(line, soft_wrap=True)


def report(
    store: StoreName,
    out_dir: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where the page and figures go.")
    ] = Path("report"),
) -> None:
    """Write one HTML page that needs nothing else: Table I, Figures 6-9, and what is missing.

    nas-sweeps report runs/table1 -o report && open report/index.html
    """
    from nas_sweeps.report.page import write_report

    out.print(str(write_report(store, out_dir)), soft_wrap=True)


def export(
    store: StoreName,
    to: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file: its suffix is .parquet or .csv.")
    ],
    which: Annotated[
        str,
        typer.Option(
            "--table",
            metavar="NAME",
            help="trials, epochs, classes, genotypes, attempts or alphas.",
        ),
    ] = "trials",
) -> None:
    """Write a table of a store to one file. It appears whole or not at all.

    Rows of epochs, classes, attempts and alphas say of which method, distribution and seed they
    are, so that one file is enough for a plot.

    nas-sweeps export runs/table1 trials.csv

    nas-sweeps export runs/table1 curves.parquet --table epochs
    """
    from nas_sweeps.tables.export import export as write

    written = write(store, to, which)
    rows, columns = written.shape
    out.print(f"{to}: {rows} rows of {which}, {columns} columns", soft_wrap=True)


def export_study(
    store: StoreName,
    cell: Annotated[
        str,
        typer.Argument(
            metavar="CELL", help="'fairdarts exp mu=0.3', or the name of its study in `status`."
        ),
    ],
    to: Annotated[
        Path, typer.Argument(metavar="OUT", help="The database: its suffix is .db or .sqlite.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also where OUT is there already.")
    ] = False,
) -> None:
    """Write the study of a tuned cell as a database of Optuna's, for optuna-dashboard.

    Every proposal is in it: its values, what it came to and when, the objective after each epoch,
    and the ids of its trials. It is a copy, and nothing that is done to it changes the store.

    nas-sweeps export-study runs/tune_digits 'fairdarts exp mu=0.3' study.db
    """
    from nas_sweeps.report.export_study import export_study as write

    found, trials = write(store, cell, to, overwrite)
    out.print(
        f"{to}: study '{found.name}', {trials} of {found.budget} proposals; look at it with: "
        f"optuna-dashboard {shlex.quote(f'sqlite:///{to}')}",
        soft_wrap=True,
    )


def compare(
    store_a: Annotated[str, typer.Argument(metavar="STORE_A", help="A store.")],
    store_b: Annotated[str, typer.Argument(metavar="STORE_B", help="Another one.")],
    value: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The accuracy to compare; else A's headline."),
    ] = None,
) -> None:
    """Two stores side by side: equal trials, differences by cell, environments.

    Trials of one id are the same computation: are their results the same? Then, for each method,
    distribution and setting, how far B is from A, paired by seed with a 95 % interval. Then what
    only one of them has, and where versions or machines differ.

    nas-sweeps compare runs/table1 runs/table1-again

    nas-sweeps compare runs/cpu runs/gpu --value accuracy_tail
    """
    from nas_sweeps.cli.compare_view import compare_view

    show(compare_view(store_a, store_b, value))


def draw(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A published genotype (DARTS_V2), a store's folder for its winners, or with "
            "--store the id of a trial or genotype.",
        ),
    ],
    store: Annotated[
        str | None, typer.Option("--store", help="The store that holds the trial or genotype.")
    ] = None,
    picture: Annotated[
        DrawFormat | None,
        typer.Option(
            "--format",
            help="text is for this terminal, dot for Graphviz. Without it the suffix of --out "
            "decides, and without that it is text.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Else standard output.")
    ] = None,
) -> None:
    """Draw the normal and the reduction cell of a genotype.

    nas-sweeps draw DARTS_V2

    nas-sweeps draw s-3f9a2c --store runs/table1 -o cells.svg
    """
    from nas_sweeps.paths import user_path
    from nas_sweeps.publish import publish, require_writable
    from nas_sweeps.report.draw import draw as drawn

    to = None if to is None else user_path(to)
    style = _style(picture, to)
    data = drawn(target, style, store)
    if to is None:
        _write(data, style)
        return
    require_writable(to)
    with publish(to, durable=False) as scratch:
        scratch.write_bytes(data)
    out.print(str(to), soft_wrap=True)


def _style(asked: DrawFormat | None, to: Path | None) -> DrawFormat:
    """What was asked for, or what the suffix of a file says; they may not contradict."""
    suffixes: dict[str, DrawFormat] = {f".{style}": style for style in DRAW_FORMATS}
    suffixes[".txt"] = "text"
    if to is None:
        return asked or "text"
    found = suffixes.get(to.suffix.lower())
    if asked is None and found is None:
        raise ValueError(f"'{to}': end it in {', '.join(suffixes)}, or say --format")
    if asked and found and asked != found:
        raise ValueError(f"'{to}': its suffix says {found}, --format says {asked}; choose one")
    return asked or found or "text"


def _write(data: bytes, picture: DrawFormat) -> None:
    """A picture as it is; text in whatever encoding the terminal has."""
    if picture == "text":
        sys.stdout.write(data.decode())
    else:
        sys.stdout.buffer.write(data)
