"""The sections of the report page that are text and tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nas_sweeps.names import distribution_name
from nas_sweeps.report.html import Column, Markup, data_table, join, percent, tag
from nas_sweeps.report.labels import caveats, done, retrains
from nas_sweeps.report.planned import STATES, KeptGrid, shortfalls
from nas_sweeps.report.table1 import table1
from nas_sweeps.store.records import State
from nas_sweeps.tables import Frames


def header_section(names: str, frames: Frames, grids: Sequence[KeptGrid]) -> Markup:
    """What this is, and the few numbers that everyone asks for first."""
    trials = frames.trials
    counts = trials["state"].value_counts()
    facts = {"trials done": f"{counts.get(State.DONE, 0)} of {len(trials)} asked for"}
    planned = sum(int(grid.counts["planned"].sum()) for grid in grids)
    if planned:
        ready = sum(int(grid.counts[State.DONE].sum()) for grid in grids)
        facts["of the plan"] = f"{ready} of {planned}"
    facts["failed"] = str(counts.get(State.FAILED, 0))
    facts["trial-hours"] = f"{trials['wall_s'].sum() / 3600:.2f}"
    facts["GPU-hours"] = f"{trials['gpu_hours'].sum():.2f}"
    if trials["finished_at"].notna().any():
        facts["last result"] = trials["finished_at"].max().strftime("%Y-%m-%d %H:%M UTC")
    boxes = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    return tag("header", tag("h1", f"nas_sweeps: {names}"), tag("dl", *boxes, class_="facts"))


def missing_section(grids: Sequence[KeptGrid]) -> Markup:
    """Planned against done, a sentence for each shortfall, the full count on demand."""
    if not grids:
        return tag("p", "The store keeps no grid, so nobody can tell what was planned.")
    return join(_missing(grid) for grid in grids)


def _missing(grid: KeptGrid) -> Markup:
    title = tag("h3", f"Grid {grid.name}")
    if grid.problem:
        said = f"A grid of another version, which cannot be counted: {grid.problem}"
        return join([title, tag("p", said, class_="warn")])
    short = shortfalls(grid.counts)
    if short:
        said = tag("ul", *(tag("li", line) for line in short), class_="warn")
    else:
        said = tag("p", f"Nothing: all {grid.counts['planned'].sum()} planned trials are done.")
    columns = [Column(c, c) for c in ("phase", "method", "distribution", "planned")]
    columns += [Column(state, state.label) for state in STATES]
    table = data_table(grid.counts, columns, f"planned and done, grid {grid.name}")
    return join([title, said, tag("details", tag("summary", "Planned and done"), table)])


def table1_section(frames: Frames) -> Markup:
    """Table I on the balanced test set, and on the long-tailed one."""
    found = done(retrains(frames))
    if found.empty:
        return tag("p", "Nothing to compare yet: no retrain is done.")
    parts = [
        tag(
            "p",
            "Accuracy of retrained networks after the last epoch, in percent. n counts retrains; "
            "intervals are Student's t over independent seeds; differences to the baseline are "
            "paired by seed. Each row is a test of its own: of twenty rows without any true "
            "difference, one is expected to stand out.",
        )
    ]
    for value, name in (
        ("accuracy_balanced", "Balanced test set"),
        ("accuracy_long_tailed", "Long-tailed test set"),
    ):
        table = table1(frames, value)
        if not table.empty:
            parts += [tag("h3", name), _table1(table, f"Table I, {name.lower()}")]
            parts += _cautions(table)
    return join([*parts, _what_differs(found)])


def _table1(table: pd.DataFrame, label: str) -> Markup:
    columns = [
        *([Column("dataset", "data set")] if table["dataset"].nunique() > 1 else []),
        *([Column("what", "setting")] if table["what"].nunique() > 1 else []),
        Column("where", "distribution"),
        Column("who", "method"),
        percent("mean", "mean"),
        percent("sd", "sd"),
        Column("n", "n"),
        percent("low", "95 % from"),
        percent("high", "to"),
        percent("difference", "difference", sign=True),
        percent("difference_low", "95 % from", sign=True),
        percent("difference_high", "to", sign=True),
        Column("verdict", "in words"),
    ]
    return data_table(table, columns, label)


def _cautions(table: pd.DataFrame) -> list[Markup]:
    said = []
    if (table["n"] > table["seeds"]).any():
        said.append(
            "Some searches were retrained several times: their mean counts as one value of "
            "the intervals."
        )
    if ((table["seeds_of"] == "retrain") & (table["seeds"] > 1)).any():
        said.append(
            "Some rows have seeds of retraining only: their intervals do not see the noise of "
            "searching."
        )
    return [tag("p", line) for line in said]


def _what_differs(found: pd.DataFrame) -> Markup:
    lines = [tag("li", line) for line in caveats(found)]
    if not lines:
        return Markup("")
    return join([tag("p", "The methods also differ in:"), tag("ul", *lines)])


def failure_section(frames: Frames) -> Markup:
    """Every failed trial with its cause."""
    trials = _named(frames.trials)
    failed = trials[trials["state"] == State.FAILED]
    if failed.empty:
        return tag("p", "No trial failed.")
    columns = [
        *(Column("phase", "phase"), Column("method", "method"), Column("where", "distribution")),
        *(
            Column("seed", "seed"),
            Column("error_class", "error"),
            Column("error_message", "message"),
        ),
        *(Column("attempt", "attempts"), Column("host", "host"), Column("trial_id", "trial")),
    ]
    return data_table(failed, columns, "failed trials")


def trial_section(frames: Frames) -> Markup:
    """Every trial."""
    if frames.trials.empty:
        return tag("p", "No trial was asked for yet.")
    trials = _named(frames.trials)
    trials = trials.assign(minutes=trials["wall_s"] / 60, rank=trials["phase"] != "search")
    trials = trials.sort_values(["rank", "method", "where", "seed"], kind="stable")
    columns = [
        *(Column("phase", "phase"), Column("method", "method"), Column("where", "distribution")),
        *(Column("seed", "seed"), Column("state", "state"), Column("epochs", "epochs")),
        percent("accuracy_balanced", "balanced %"),
        percent("accuracy_long_tailed", "long-tailed %"),
        *(Column("num_params", "parameters"), Column("macs", "MACs")),
        *(Column("minutes", "minutes", digits=1), Column("gpu_hours", "GPU-hours", digits=2)),
        *(Column("genotype_id", "genotype"), Column("trial_id", "trial")),
    ]
    return tag("div", data_table(trials, columns, "all trials"), class_="long")


def _named(trials: pd.DataFrame) -> pd.DataFrame:
    keys = zip(trials["distribution"], trials["mu"], trials["total"], strict=True)
    return trials.assign(where=[distribution_name(*key) for key in keys])


_ENVIRONMENT = {
    "nas_sweeps_version": "nas_sweeps",
    "git_sha": "commit",
    "python_version": "Python",
    "torch_version": "torch",
    "ray_version": "Ray",
    "host": "host",
    "device": "device",
    "device_model": "processor",
    "threads": "threads",
    "form": "form",
}


def environment_section(frames: Frames, grids: Sequence[KeptGrid]) -> Markup:
    """Which versions, hosts and devices the results come from, and the grids in full."""
    final = [state for state in State if state.settled]
    settled = frames.trials[frames.trials["state"].isin(final)]
    counts = settled.groupby([*_ENVIRONMENT], dropna=False).size().reset_index(name="trials")
    columns = [Column(key, title) for key, title in _ENVIRONMENT.items()]
    parts = [data_table(counts, [*columns, Column("trials", "trials")], "environment")]
    for grid in grids:
        summary = tag("summary", f"Grid {grid.name}, with every setting resolved")
        parts.append(tag("details", summary, tag("pre", grid.text, tabindex=0)))
    return join(parts)
