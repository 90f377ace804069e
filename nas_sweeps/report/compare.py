"""Two stores side by side: what they share, what they differ in, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from nas_sweeps import names
from nas_sweeps.numerics import COLUMNS as NUMERICS
from nas_sweeps.numerics import UNKNOWN
from nas_sweeps.report.spread import interval
from nas_sweeps.store.records import ACCURACIES, State
from nas_sweeps.tables import Frames, attributed
from nas_sweeps.tables.summary import recipe_names

RESULTS = ("genotype_id", *ACCURACIES, "epochs", "num_params", "macs")
ENVIRONMENT = (
    *("nas_sweeps_version", "git_sha", "python_version", "torch_version", "ray_version"),
    *("host", "device", *(name for name in NUMERICS if name != "torch_version")),
    "numerics_changed",
)
CELL = ["phase", "method", "variant", "pretrain", "dataset", *names.DISTRIBUTION]
CELL += ["search_setting", "search_epoch", "setting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two stores, A and B, have in common and where they differ.

    Attributes:
        shared: ids of trials that are done in both.
        alike: of those, ids of trials that were computed under equal numerics (device, threads,
            precision, form, versions), known and the same throughout: on a CPU their results
            should be equal to the last bit, and of others nobody can say that.
        numerics: a row per shared trial and value in which the numerics of the others differ:
            trial_id, what, a, b, in words.
        differing: a row per shared trial and result that is not the same in both: trial_id,
            name, result, a, b.
        only: trials that are in one store alone, or done in one alone: trial_id, name, store
            (A or B), state (there), other (the state elsewhere, or "absent").
        cells: a row per cell that both hold: columns of ``CELL``, recipe, mean_a, mean_b, n_a,
            n_b, difference (B - A), low, high (95 %, Student's t), pairs (seeds in both).
        alone: cells that only one store has a result in: columns of ``CELL``, recipe, store, n.
        environment: what, a, b: the values in each store, joined.
    """

    shared: list[str]
    alike: list[str]
    numerics: pd.DataFrame
    differing: pd.DataFrame
    only: pd.DataFrame
    cells: pd.DataFrame
    alone: pd.DataFrame
    environment: pd.DataFrame


def compare(a: Frames, b: Frames, value: str | None = None) -> Comparison:
    """Hold the trials of two stores against each other.

    Equal ids are the same trial, so on a CPU their results should be equal to the last bit, if
    their numerics are equal too. Trials that differ in anything are compared by cell: method,
    knobs, pre-training, data set, distribution and settings, with differences of ``value`` paired
    by seed. What the grids of either store call a recipe is said of a cell and decides nothing.

    Raises:
        ValueError: ``value`` is no column of fractions.
    """
    value = a.headline if value is None else value
    if value not in ACCURACIES:
        raise ValueError(f"value: '{value}' is not one of {', '.join(ACCURACIES)}")
    trials = a.trials.merge(b.trials, on="trial_id", how="outer", suffixes=("_a", "_b"))
    both = trials[(trials["state_a"] == State.DONE) & (trials["state_b"] == State.DONE)]
    numerics = _numerics(both)
    unlike = set(numerics["trial_id"])
    cells, alone = _cells(_units(a, value), _units(b, value))
    cells, alone = (_with_recipes(rows, a, b) for rows in (cells, alone))
    return Comparison(
        shared=both["trial_id"].tolist(),
        alike=[trial_id for trial_id in both["trial_id"] if trial_id not in unlike],
        numerics=numerics,
        differing=_differing(both),
        only=_only(trials),
        cells=cells,
        alone=alone,
        environment=_environments(a, b),
    )


def trial_name(row: Any, side: str = "") -> str:
    """A trial of a table in words."""
    phase, method, recipe, seed = (
        row[f"{key}{side}"] for key in ("phase", "method", "recipe", "seed")
    )
    where = names.distribution_name(*(row[f"{key}{side}"] for key in names.DISTRIBUTION))
    return names.trial_name(phase, names.method_name(method, recipe=recipe), where, seed)


# Trial by trial


def _differing(both: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in both.to_dict("records"):
        for result in RESULTS:
            x, y = row[f"{result}_a"], row[f"{result}_b"]
            if not (x is y or (pd.isna(x) and pd.isna(y))) and (pd.isna(x) or pd.isna(y) or x != y):
                rows.append([row["trial_id"], trial_name(row, "_a"), result, x, y])
    return pd.DataFrame(rows, columns=["trial_id", "name", "result", "a", "b"])


def _numerics(both: pd.DataFrame) -> pd.DataFrame:
    """In what the numerics of shared trials differ, are not known, or did not stay the same."""
    rows = []
    for row in both.to_dict("records"):
        for name in NUMERICS:
            x, y = (_numeric(row, name, side) for side in "ab")
            if x != y or UNKNOWN in (x, y):
                rows.append([row["trial_id"], name, x, y])
        x, y = (_changed(row[f"numerics_changed_{side}"]) for side in "ab")
        if (x, y) != ("no", "no"):
            rows.append([row["trial_id"], "numerics_changed", x, y])
    return pd.DataFrame(rows, columns=["trial_id", "what", "a", "b"])


def _numeric(row: dict[Any, Any], name: str, side: str) -> str:
    value = row[f"{name}_{side}"]
    unset = "none" if name == "triton_version" else UNKNOWN
    return unset if pd.isna(value) else str(value)


def _changed(value: Any) -> str:
    return UNKNOWN if pd.isna(value) else str(value) or "no"


def _only(trials: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in trials.to_dict("records"):
        states = {side: row[f"state_{side}"] for side in ("a", "b")}
        there = {side: "absent" if pd.isna(state) else state for side, state in states.items()}
        done = [side for side, state in there.items() if state == State.DONE]
        present = [side for side, state in there.items() if state != "absent"]
        side = (done if len(done) == 1 else present)[0]
        if len(done) == 1 or len(present) == 1:
            other = there["b" if side == "a" else "a"]
            name = trial_name(row, f"_{side}")
            rows.append([row["trial_id"], name, side.upper(), there[side], other])
    return pd.DataFrame(rows, columns=["trial_id", "name", "store", "state", "other"])


# Cell by cell


def _units(frames: Frames, value: str) -> pd.DataFrame:
    """One value per cell and seed: the mean over what one seed of search, or else of
    retraining, led to. ``n`` is the number of trials in it."""
    searches = attributed(frames, "search")
    searches = searches.assign(search_setting="", unit=searches["seed"])
    found = attributed(frames)
    found = found.assign(unit=found["search_seed"].fillna(found["seed"]))
    columns = [*CELL, "unit", value]
    rows = pd.concat([part.loc[part["state"] == State.DONE, columns] for part in (searches, found)])
    cells = rows.dropna(subset=[value]).groupby([*CELL, "unit"], dropna=False)[value]
    return pd.DataFrame({"value": cells.mean(), "n": cells.count()}).reset_index()


def _cells(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells that both have, and cells that one has."""
    whole = a.merge(b, on=[*CELL, "unit"], how="outer", suffixes=("_a", "_b"))
    cells, alone = [], []
    for key, rows in whole.groupby(CELL, dropna=False, sort=True):
        named = dict(zip(CELL, key, strict=True))
        counts = {side: int(rows[f"n_{side}"].sum()) for side in ("a", "b")}
        if all(counts.values()):
            cells.append(named | _paired(rows) | {f"n_{side}": n for side, n in counts.items()})
        else:
            side = "a" if counts["a"] else "b"
            alone.append(named | {"store": side.upper(), "n": counts[side]})
    columns = ["mean_a", "mean_b", "n_a", "n_b", "difference", "low", "high", "pairs"]
    return (
        pd.DataFrame(cells, columns=[*CELL, *columns]),
        pd.DataFrame(alone, columns=[*CELL, "store", "n"]),
    )


def _with_recipes(cells: pd.DataFrame, a: Frames, b: Frames) -> pd.DataFrame:
    """Cells with the names that the grids of both stores give to their recipes."""
    columns = ["phase", "setting", "recipe"]
    retrains = pd.concat([attributed(frames)[columns] for frames in (a, b)])
    known = pd.concat([retrains, cells.assign(recipe=None)[columns]])
    names = recipe_names(known).iloc[len(retrains) :]
    names = names.where(cells["phase"].to_numpy(object) != "search")
    return cells.assign(recipe=names.to_numpy(object))


def _paired(rows: pd.DataFrame) -> dict[str, Any]:
    pairs = (rows["value_b"] - rows["value_a"]).dropna()
    low, high = interval(pairs.tolist())
    return {
        "mean_a": rows["value_a"].mean(),
        "mean_b": rows["value_b"].mean(),
        "difference": pairs.mean() if len(pairs) else nan,
        "low": low,
        "high": high,
        "pairs": len(pairs),
    }


def _environments(a: Frames, b: Frames) -> pd.DataFrame:
    rows = [[name, _values(a, name), _values(b, name)] for name in ENVIRONMENT]
    return pd.DataFrame(rows, columns=["what", "a", "b"])


def _values(frames: Frames, name: str) -> str:
    return ", ".join(sorted(map(str, np.unique(frames.trials[name].dropna().astype(str)))))
