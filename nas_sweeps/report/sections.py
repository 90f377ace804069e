"""The sections of the report page that are text and tables, as the template takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from nas_sweeps.names import DISTRIBUTION, distribution_name
from nas_sweeps.report.agreement import agreement
from nas_sweeps.report.curves import test_sets
from nas_sweeps.report.effects import recipe_effects
from nas_sweeps.report.html import Column, Table, data_table, percent
from nas_sweeps.report.labels import caveats, done, given_up, retrains
from nas_sweeps.report.pairs import method_pairs, win_matrix
from nas_sweeps.report.planned import STATES, KeptGrid, shortfalls
from nas_sweeps.report.studies import TunedCell
from nas_sweeps.report.table1 import table1
from nas_sweeps.report.tables import spoken
from nas_sweeps.report.tuned import against_default, spent
from nas_sweeps.store.records import State
from nas_sweeps.tables import Frames


def facts(frames: Frames, grids: Sequence[KeptGrid]) -> dict[str, str]:
    """The few numbers that everyone asks for first."""
    trials = frames.trials
    counts = trials["state"].value_counts()
    found = {"trials done": f"{counts.get(State.DONE, 0)} of {len(trials)} asked for"}
    planned = sum(int(grid.counts["planned"].sum()) for grid in grids)
    if planned:
        ready = sum(int(grid.counts[State.DONE].sum()) for grid in grids)
        found["of the plan"] = f"{ready} of {planned}"
    found |= {"pruned": str(counts[State.PRUNED])} if State.PRUNED in counts else {}
    found["failed"] = str(counts.get(State.FAILED, 0))
    found["trial-hours"] = f"{trials['wall_s'].sum() / 3600:.2f}"
    found["GPU-hours"] = f"{trials['gpu_hours'].sum():.2f}"
    if trials["finished_at"].notna().any():
        found["last result"] = trials["finished_at"].max().strftime("%Y-%m-%d %H:%M UTC")
    return found


class Shortfall(NamedTuple):
    """Planned against done in one grid: a sentence for each shortfall, and the full count."""

    name: str
    problem: str | None  # why the grid cannot be counted
    short: Sequence[str]
    planned: int
    table: Table


def missing(grid: KeptGrid) -> Shortfall:
    """What a grid still lacks."""
    columns = [Column(c, c) for c in ("phase", "method", "distribution", "planned")]
    columns += [Column(state, state.label) for state in STATES]
    table = data_table(grid.counts, columns, f"planned and done, grid {grid.name}")
    planned = int(grid.counts["planned"].sum())
    return Shortfall(grid.name, grid.problem, shortfalls(grid.counts), planned, table)


class ComparedOn(NamedTuple):
    """Table I on one test set."""

    title: str
    table: Table
    cautions: Sequence[str]


class Comparison(NamedTuple):
    """Table I, and what else sets its methods apart."""

    parts: Sequence[ComparedOn]
    caveats: Sequence[str]
    given_up: Sequence[str]  # what is missing from it


def comparison(frames: Frames) -> Comparison | None:
    """Table I by the headline and on the long-tailed test set; None: no retrain is done."""
    found = done(retrains(frames))
    if found.empty:
        return None
    parts = []
    for value, called in test_sets(frames).items():
        table, name = table1(frames, value), called.capitalize()
        if not table.empty:
            label = f"Table I, {name.lower()}"
            parts.append(ComparedOn(name, _table1(table, label), _cautions(table)))
    return Comparison(parts, [*caveats(found)], [*given_up(frames)])


def _table1(table: pd.DataFrame, label: str) -> Table:
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


def _cautions(table: pd.DataFrame) -> list[str]:
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
    return said


class Pairs(NamedTuple):
    """Methods against each other: how often each wins, and what would settle the rest."""

    matrix: Table
    table: Table


def pairs(frames: Frames) -> Pairs | None:
    """None where fewer than two methods are retrained."""
    found = method_pairs(frames)
    if found.empty:
        return None
    wins = win_matrix(found)
    named = wins.reset_index(names="method").astype(str)
    several = [c for c in ("dataset", "what") if found[c].nunique() > 1]
    columns = [
        *(Column(c, "setting" if c == "what" else "data set") for c in several),
        *(Column("where", "distribution"), Column("a", "A"), Column("b", "B")),
        percent("difference", "A - B", sign=True),
        percent("low", "95 % from", sign=True),
        percent("high", "to", sign=True),
        *(Column("pairs", "pairs of seeds"), Column("outcome", "of A")),
        Column("more", "more seeds", digits=0),
        Column("verdict", "in words"),
    ]
    shown = found.assign(more=found["more"].where(np.isfinite(found["more"])))
    return Pairs(
        data_table(named, [Column(str(c), str(c)) for c in named], "wins, ties and losses"),
        data_table(shown, columns, "methods in pairs"),
    )


def effects(frames: Frames) -> Table | None:
    """What each recipe buys against the one that was begun first; None where there is one."""
    found = recipe_effects(frames)
    if found.empty:
        return None
    columns = [
        *([Column("dataset", "data set")] if found["dataset"].nunique() > 1 else []),
        *(Column("where", "distribution"), Column("recipe", "recipe")),
        *(percent("mean", "mean"), Column("reference", "against"), Column("pairs", "pairs")),
        percent("difference", "difference", sign=True),
        *(percent("low", "95 % from", sign=True), percent("high", "to", sign=True)),
        Column("verdict", "in words"),
    ]
    return data_table(found, columns, "recipes against the first")


def recipes(frames: Frames) -> Table | None:
    """How far rankings agree between recipes; None where there is one recipe.

    Pairs of which nothing is known have no row; where that is all of them, one says why.
    """
    found = agreement(frames)
    if found.empty:
        return None
    known = found[found["tau"].notna()]
    if known.empty:
        known = found.drop_duplicates("of").assign(recipe_a="any", recipe_b="any other")
    found = known
    columns = [
        *([Column("dataset", "data set")] if found["dataset"].nunique() > 1 else []),
        *(Column("where", "distribution"), Column("of", "ranked")),
        *(Column("recipe_a", "recipe"), Column("recipe_b", "and recipe"), Column("n", "n")),
        *(Column("tau", "tau", digits=2), Column("low", "95 % from", digits=2)),
        *(Column("high", "to", digits=2), Column("verdict", "in words")),
    ]
    return data_table(found, columns, "agreement of rankings between recipes")


class Tuning(NamedTuple):
    """What tuning bought and what it cost."""

    bought: Table
    spent: Table


def tuning(frames: Frames, cells: Sequence[TunedCell]) -> Tuning | None:
    """Winners of studies against the defaults, and the studies; None where nothing is tuned."""
    if not cells:
        return None
    bought, cost = against_default(frames, cells), spent(frames, cells)
    bought = bought.assign(measured=bought["measure"].map(spoken) + ", " + bought["of"])
    cost = cost.assign(objective=cost["objective"].map(spoken))
    on_gpu = bool((cost["gpu_hours"] > 0).any())
    return Tuning(
        data_table(
            bought,
            [
                *(Column("cell", "cell"), Column("variant", "winner")),
                Column("measured", "measure"),
                *([Column("what", "setting")] if bought["what"].nunique() > 1 else []),
                *(percent("default", "default"), percent("tuned", "tuned")),
                percent("difference", "tuned - default", sign=True),
                *(percent("low", "95 % from", sign=True), percent("high", "to", sign=True)),
                *(Column("pairs", "pairs"), percent("seed_sd", "sd of seeds")),
                Column("verdict", "in words"),
            ],
            "tuned against default",
        ),
        data_table(
            cost,
            [
                *(Column("cell", "cell"), Column("study", "study"), Column("budget", "budget")),
                Column("tried", "tried"),
                *([Column("pruned", "pruned")] if cost["pruned"].any() else []),
                Column("failed", "without result"),
                Column("objective", "objective"),
                *(percent("default", "default"), percent("best", "best of all")),
                percent("gain", "difference", sign=True),
                *(Column("number", "proposal"), Column("values", "its values")),
                Column("trial_hours", "trial-hours", digits=2),
                *([Column("gpu_hours", "GPU-hours", digits=2)] if on_gpu else []),
            ],
            "studies",
        ),
    )


def failures(frames: Frames) -> Table | None:
    """Every failed trial with its cause."""
    trials = _named(frames.trials)
    failed = trials[trials["state"] == State.FAILED]
    if failed.empty:
        return None
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


_SHORT = {
    "accuracy_balanced": "balanced",
    "accuracy_macro": "macro",
    "accuracy_long_tailed": "long-tailed",
}


def trials(frames: Frames) -> Table | None:
    """Every trial."""
    if frames.trials.empty:
        return None
    rows = _named(frames.trials)
    rows = rows.assign(minutes=rows["wall_s"] / 60, rank=rows["phase"] != "search")
    rows = rows.sort_values(["rank", "method", "where", "seed"], kind="stable")
    columns = [
        *(Column("phase", "phase"), Column("method", "method"), Column("where", "distribution")),
        *([Column("recipe", "recipe")] if rows["recipe"].notna().any() else []),
        *(Column("seed", "seed"), Column("state", "state"), Column("epochs", "epochs")),
        *([Column("stop_reason", "pruned by")] if rows["stop_reason"].notna().any() else []),
        *(percent(column, f"{_SHORT[column]} %") for column in test_sets(frames)),
        *(Column("num_params", "parameters"), Column("macs", "MACs")),
        *(Column("minutes", "minutes", digits=1), Column("gpu_hours", "GPU-hours", digits=2)),
        *(Column("genotype_id", "genotype"), Column("trial_id", "trial")),
    ]
    return data_table(rows, columns, "all trials")


def _named(trials: pd.DataFrame) -> pd.DataFrame:
    keys = zip(*(trials[name] for name in DISTRIBUTION), strict=True)
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


def environment(frames: Frames) -> Table:
    """Which versions, hosts and devices the results come from."""
    final = [state for state in State if state.settled]
    settled = frames.trials[frames.trials["state"].isin(final)]
    counts = settled.groupby([*_ENVIRONMENT], dropna=False).size().reset_index(name="trials")
    columns = [Column(key, title) for key, title in _ENVIRONMENT.items()]
    return data_table(counts, [*columns, Column("trials", "trials")], "environment")
