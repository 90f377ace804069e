"""What tuning bought: the winner of a study against the defaults, and what the study cost.

The winner's value within its study is the best of many and flatters. What counts is measured with
seeds by which nothing was chosen: those of the grid but for those of the study.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas_sweeps.hints import did_you_mean
from nas_sweeps.names import values_text
from nas_sweeps.report.labels import retrains
from nas_sweeps.report.spread import interval
from nas_sweeps.report.studies import (
    TunedCell,
    asked_by,
    proposals,
    state_of,
    tuned_cells,
    values_of,
)
from nas_sweeps.report.table1 import verdict
from nas_sweeps.report.tables import is_fraction
from nas_sweeps.store import Store
from nas_sweeps.store.records import ACCURACIES, State
from nas_sweeps.tables import Frames, load
from nas_sweeps.trial import trial_from_json

COLUMNS = [
    *("cell", "study", "variant", "of", "measure", "what"),
    *("default", "default_n", "default_sd", "tuned", "tuned_n", "tuned_sd"),
    *("difference", "low", "high", "pairs", "seed_sd", "verdict"),
]
SPENT = ["cell", "study", "budget", "tried", "pruned", "failed", "objective", "default", "best"]
SPENT += ["number", "gain", "values", "trials", "trial_hours", "gpu_hours"]
Pairs = Mapping[int, list[tuple[str, str]]]  # by seed: ids of the winner and of the defaults


def tuned_against_default(store: Store | str | Path, value: str | None = None) -> pd.DataFrame:
    """``against_default`` of a store; empty where nothing is tuned.

    Raises:
        ValueError: there is no store, or ``value`` is no column of fractions.

    >>> import nas_sweeps as ns
    >>> found = ns.tuned_against_default("runs/tune_digits")
    >>> found[["cell", "of", "difference", "low", "high", "default_sd", "verdict"]]
    """
    return read_tuning(store, value)[0]


def read_tuning(
    store: Store | str | Path, value: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``against_default`` and ``spent`` of a store. Raises as ``tuned_against_default``."""
    keeper = store if isinstance(store, Store) else Store(store)
    frames = load(keeper)
    cells = tuned_cells(keeper, frames)
    return against_default(frames, cells, value), spent(frames, cells)


def against_default(
    frames: Frames, cells: Iterable[TunedCell], value: str | None = None
) -> pd.DataFrame:
    """The winner of each study against the same with the defaults, seed by seed.

    Both are searched, or of a retraining that is tuned retrained from equal genotypes, with equal
    images and equal seeds, and differences are paired by these. Seeds that chose the winner are
    left out of means and differences: there the winner is the best of all proposals, and would
    look better than it is. With two objectives, every point of the Pareto set is a winner.

    Args:
        value: the accuracy of retrained networks, a fraction in [0, 1]; None:
            ``frames.headline``.

    Returns:
        A row for each winner and measure: ``of`` searches (the ``measure`` is the objective) and,
        where there are any, of the networks retrained from them (``measure`` is ``value``; under
        each setting of retraining, ``what``). Where the retraining is tuned, ``of`` the networks
        alone: of several genotypes, the mean under each seed. ``default`` and ``tuned`` are means
        over the ``_n`` such seeds that each has, with ``_sd``. ``difference`` is the mean of
        tuned - default over ``pairs``, with ``low`` and ``high`` (95 %, Student's t; NaN for one
        pair). ``seed_sd`` is how far seeds alone vary: the deviation of the defaults over all
        seeds. ``verdict`` is a sentence.
    """
    value = frames.headline if value is None else value
    if value not in ACCURACIES:
        hint = did_you_mean(value, ACCURACIES)
        raise ValueError(f"value: '{value}' is not one of {', '.join(ACCURACIES)}{hint}")
    networks = retrains(frames)
    networks = networks[networks["state"] == State.DONE].dropna(subset=[value])
    cells = list(cells)
    tuned = {cell.study.name for cell in cells if cell.study.phase != "search"}
    networks = networks.assign(tuned=networks["study"].isin(tuned))
    rows: list[dict[str, Any]] = []
    for cell in cells:
        found = asked_by(cell.study, frames.trials)
        searched = cell.study.phase == "search"
        for variant, won in found[found["number"].isna()].groupby("called", sort=False):
            ids = _pairs(cell, won.drop_duplicates("trial_id"))
            key = {"cell": cell.name, "study": cell.study.name, "variant": str(variant)}
            measured = (
                _of_searches(cell, frames, networks, value, ids)
                if searched
                else [_of_retrains(cell, frames, value, ids)]
            )
            rows += [key | row for row in measured]
    return pd.DataFrame(rows, columns=COLUMNS)


def _pairs(cell: TunedCell, won: pd.DataFrame) -> Pairs:
    """By seed: the id of each of the winner's trials, and of the trial with the defaults that it
    would have been without tuning."""
    study, ids = cell.study, dict[int, list[tuple[str, str]]]()
    for trial_id, text in zip(won["trial_id"], won["spec"], strict=True):
        if not pd.isna(text):
            trial = trial_from_json(text)
            genotype = getattr(trial, "genotype", None)  # of a search, none
            default = study.final(study.defaults(), trial.data, trial.seed, genotype)
            ids.setdefault(trial.seed, []).append((trial_id, default.trial_id))
    return ids


def _of_retrains(cell: TunedCell, frames: Frames, value: str, ids: Pairs) -> dict[str, Any]:
    trials = frames.trials[frames.trials["state"] == State.DONE].set_index("trial_id")
    row = {"of": "retrained", "measure": value, "what": ""}
    return row | _against(cell, trials[value].astype("float64").dropna(), ids)


def _of_searches(
    cell: TunedCell,
    frames: Frames,
    networks: pd.DataFrame,
    value: str,
    ids: Pairs,
) -> Iterable[dict[str, Any]]:
    objective = cell.study.objective
    searches = frames.trials[frames.trials["state"] == State.DONE].set_index("trial_id")
    yield {"of": "searches", "measure": objective, "what": ""} | _against(
        cell, searches[objective].astype("float64").dropna(), ids
    )
    wanted = {one for pairs in ids.values() for pair in pairs for one in pair}
    for what, block in _compared(networks[networks["search_id"].isin(wanted)]):
        means = block.groupby("search_id")[value].mean().astype("float64")
        row = {"of": "retrained", "measure": value, "what": str(what)}
        yield row | _against(cell, means, ids)


def _compared(networks: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Networks by the setting of their retraining, but for those that are listed already.

    Where a study of the retraining chose what another grid retrains with, the same trials have two
    names, and the one that the study gives them is left out.
    """
    blocks = [(str(what), of) for what, of in networks.groupby("what", observed=True)]
    listed: list[set[tuple[str, str]]] = []
    for what, of in sorted(blocks, key=lambda block: bool(block[1]["tuned"].all())):
        pairs = set(zip(of["search_id"], of["trial_id"], strict=True))
        if pairs not in listed:
            listed.append(pairs)
            yield what, of


def _against(cell: TunedCell, values: pd.Series[float], ids: Pairs) -> dict[str, Any]:
    """Of one measure, whose ``values`` are by the id of the trial."""
    each = pd.DataFrame(
        [
            (seed, values.get(tuned, nan), values.get(default, nan))
            for seed, pairs in ids.items()
            for tuned, default in pairs
        ],
        columns=["seed", "tuned", "default"],
    ).astype({"tuned": "float64", "default": "float64"})
    both = each.assign(difference=each["tuned"] - each["default"]).groupby("seed").mean()
    tuned, default = both["tuned"], both["default"]
    fresh = [seed for seed in both.index if seed not in cell.study.seeds]
    pairs = both["difference"][fresh].dropna()
    low, high = interval(pairs.tolist())
    facts: dict[str, Any] = {}
    for name, of in (("default", default[fresh].dropna()), ("tuned", tuned[fresh].dropna())):
        facts |= {name: float(of.mean()), f"{name}_n": len(of), f"{name}_sd": _sd(of)}
    facts |= {"difference": float(pairs.mean()), "low": low, "high": high, "pairs": len(pairs)}
    facts["seed_sd"] = _sd(default.dropna())
    return facts | {"verdict": _verdict(cell, facts, bool(fresh), tuned.size)}


def _sd(values: pd.Series[float]) -> float:
    return float(np.std(values.to_numpy(float), ddof=1)) if len(values) > 1 else nan


def _verdict(cell: TunedCell, facts: Mapping[str, Any], any_fresh: bool, seeds: int) -> str:
    searched = cell.study.phase == "search"
    if not any_fresh:
        done, more = ("searched", "search.seeds than tune.seeds_per_trial")
        if not searched:
            done, more = "retrained", "retrain.seeds than retrain.tune.seeds_per_trial"
        return (
            f"Every seed that was {done} ({seeds}) chose the winner, so its value is the best of "
            f"the proposals: give the grid more {more}."
        )
    if not facts["pairs"] and not facts["tuned_n"]:
        return "The winner has no result yet with a seed that did not choose it."
    if not facts["pairs"] and not searched:
        return (
            "The defaults have no result with these seeds: run the grid into this store with "
            "retrain.tune=null too, and with the default in the place of each range."
        )
    if not facts["pairs"]:
        return (
            f"The defaults have no result with these seeds: list {cell.study.method.name} without "
            "ranges beside it, in this grid or in another one that runs into this store."
        )
    said = verdict(facts["difference"], facts["low"], facts["high"], facts["pairs"])
    sd = facts["seed_sd"]
    return said if np.isnan(sd) else f"{said} Seeds alone vary by {100 * sd:.2f} points (sd)."


def remarks(found: pd.DataFrame, cost: pd.DataFrame) -> Iterator[str]:
    """What to say beside the numbers of ``against_default``, and of ``spent``: a line each."""
    for row in found.to_dict("records"):
        setting = f", {row['what']}" if row["what"] else ""
        who = f"{row['cell']} ({row['variant']}), {row['measure']} of {row['of']}{setting}"
        yield f"{who}: {row['verdict']}"
    on_gpu = bool((cost["gpu_hours"] > 0).any())
    for row in cost.to_dict("records"):
        hours = (
            f"{row['gpu_hours']:.2f} GPU-hours"
            if on_gpu
            else f"{row['trial_hours']:.2f} trial-hours"
        )
        cell = row["cell"].removesuffix(f" {row['study']}")  # of which there are several
        said = f"study {row['study']} of {cell}: {row['tried']} of {row['budget']} proposals "
        said += f"tried in {hours}"
        said += f", {row['pruned']} of them pruned" if row["pruned"] else ""
        if row["gain"] == row["gain"]:
            points = 100 * row["gain"] if is_fraction(row["objective"]) else row["gain"]
            said += (
                f"; the best, #{row['number']}, is {points:+.2f} points from the defaults with the "
                "seeds it was chosen by, which flatter it"
            )
        yield said


def spent(frames: Frames, cells: Iterable[TunedCell]) -> pd.DataFrame:
    """What each study cost, and what it found within itself.

    Returns:
        ``budget`` and ``tried`` proposals, how many of these a stop rule gave up (``pruned``), and
        how many ``failed`` or were left;
        ``objective`` of the first proposal (``default``) and of the ``best``, its ``number``, the
        ``gain`` of the one over the other, which is that of the best of many and flatters, and its
        ``values``; ``trials`` and their hours (``trial_hours`` of wall time, ``gpu_hours``). With
        several objectives, the first.
    """
    rows = []
    for cell in cells:
        found = proposals(cell.study, frames)
        known = {number: of[0] for number, of in values_of(cell.study, frames, found).items()}
        best = max(known, key=lambda number: known[number], default=None)
        trials = pd.concat(list(found.values())).drop_duplicates("trial_id")
        states = Counter(state_of(cell.study, of) for of in found.values())
        over, pruned = sum(states[end] for end in ("COMPLETE", "FAIL", "PRUNED")), states["PRUNED"]
        default = known.get(0, nan)
        reached = nan if best is None else known[best]
        row = {"cell": cell.name, "study": cell.study.name, "budget": cell.budget}
        row |= {"tried": over, "pruned": pruned, "failed": over - pruned - len(known)}
        row |= {"objective": cell.study.objective}
        row |= {"default": default, "best": reached, "number": best, "gain": reached - default}
        row |= {"values": "" if best is None else _values_text(cell, found[best])}
        row |= {"trials": len(trials), "trial_hours": trials["wall_s"].sum() / 3600}
        rows.append(row | {"gpu_hours": trials["gpu_hours"].sum()})
    return pd.DataFrame(rows, columns=SPENT).astype({"number": "Int64"})


def _values_text(cell: TunedCell, rows: pd.DataFrame) -> str:
    text = next(iter(rows["spec"].dropna()), None)
    if text is None:
        return ""
    return values_text(cell.study.values_of(trial_from_json(text)))
