"""The studies of a store as Optuna has them, made again from what the store holds.

The ranges are those of the grids that the store kept; which trial is which proposal, what it came
to and how it got there are in the tables. Nothing else is needed, and nothing is written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_sweeps.grid import Grid, GridError, plan
from nas_sweeps.hints import did_you_mean
from nas_sweeps.names import method_name
from nas_sweeps.store import Store
from nas_sweeps.store.records import State
from nas_sweeps.tables import Frames, load
from nas_sweeps.trial import Trial, trial_from_json
from nas_sweeps.tuning import Study
from nas_sweeps.tuning.study import quiet

if TYPE_CHECKING:
    import optuna

Curve = dict[int, float]  # by epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedCell:
    """A cell of a grid whose knobs are tuned.

    ``name`` says method and distribution, and the study too where several have tuned the cell.
    ``budget`` is the number of proposals, of the grid that gives it most.
    """

    name: str
    study: Study
    budget: int


def tuned_cells(store: Store, frames: Frames) -> list[TunedCell]:
    """The cells of which a study has proposed something, in the order of the grids.

    Args:
        frames: the tables of this store.
    """
    known = frames.trials["study"].dropna()
    if known.empty:
        return []
    asked = {name for joined in known for name in str(joined).split("+")}
    budgets: dict[Study, int] = {}
    for kept in reversed(store.grids()):  # the first that was run comes first
        try:
            entries: Iterable[Any] = plan(Grid.from_dict(kept, source=f"grid '{kept.get('name')}'"))
        except GridError:
            continue  # of another version: the report says so
        for entry in entries:
            study, number = (getattr(entry, name, None) for name in ("study", "number"))
            if study is not None and number is not None and study.name in asked:
                budgets[study] = max(budgets.get(study, 0), number + 1)
    bare = [_cell_name(study) for study in budgets]
    return [
        TunedCell(
            name=name if bare.count(name) == 1 else f"{name} {study.name}",
            study=study,
            budget=budget,
        )
        for name, (study, budget) in zip(bare, budgets.items(), strict=True)
    ]


def _cell_name(study: Study) -> str:
    return f"{method_name(study.method.name)} {study.distribution}"


def cell_named(cells: Sequence[TunedCell], name: str, store: str) -> TunedCell:
    """The cell of this name, study, or the one that begins like that.

    Raises:
        ValueError: it is no one cell; the message lists them.
    """
    if not cells:
        raise ValueError(
            f"store '{store}': no study has proposed anything in it; a grid with ranges and a "
            "section tune has studies"
        )
    exact = [cell for cell in cells if name in (cell.name, cell.study.name)]
    begun = [cell for cell in cells if name and (cell.name + " ").startswith(name + " ")] or [
        cell for cell in cells if name and cell.study.name.startswith(name)
    ]
    found = exact or begun
    if len(found) != 1:
        known = "; ".join(f"{cell.name} ({cell.study.name})" for cell in cells)
        hint = did_you_mean(name, [cell.name for cell in cells])
        what = "several studies are" if found else "no study is"
        raise ValueError(f"{what} called '{name}' in store '{store}': choose from {known}{hint}")
    return found[0]


def studies(store: Store | str | Path) -> dict[str, optuna.Study]:
    """Each study of a store as an ``optuna.Study`` in memory, by the name of its cell.

    Trials have the numbers of the proposals, their values, what they came to, the objective after
    each epoch (intermediate values), and the ids and seeds of the trials that tried them (user
    attributes). What was tried before the ranges were chosen, and lies outside of them, is a user
    attribute as well: Optuna has no place for it among the parameters.

    Raises:
        ValueError: there is no store.

    >>> import nas_sweeps as ns
    >>> study = ns.studies("runs/tune_digits")["fairdarts exp mu=0.3"]
    >>> study.best_trial.params
    """
    keeper = store if isinstance(store, Store) else Store(store)
    frames = load(keeper)
    return {cell.name: optuna_study(cell, frames) for cell in tuned_cells(keeper, frames)}


def optuna_study(cell: TunedCell, frames: Frames, storage: Any = None) -> optuna.Study:
    """A cell's study with every proposal that the tables know.

    Args:
        storage: what ``optuna.create_study`` takes; None: in memory.
    """
    import optuna

    study = cell.study
    with quiet():
        made = optuna.create_study(
            study_name=cell.name, directions=["maximize"] * len(objectives(study)), storage=storage
        )
        made.set_metric_names(objectives(study))
        for name, value in _facts(cell).items():
            made.set_user_attr(name, value)
        made.add_trials(_trials(study, frames))
    return made


def objectives(study: Study) -> list[str]:
    """The columns of the trials table that a study maximises."""
    return [study.objective]


def _facts(cell: TunedCell) -> dict[str, Any]:
    study = cell.study
    return {
        "study": study.name,
        "method": study.method.name,
        "distribution": str(study.distribution),
        "data set": study.data.label,
        "seeds": list(study.seeds),
        "sampler": study.sampler,
        "proposals": cell.budget,
        "defaults": dict(study.defaults()),
    }


def proposals(study: Study, frames: Frames) -> dict[int, pd.DataFrame]:
    """The rows of the trials table by the number of the proposal that they tried."""
    found = asked_by(study, frames.trials)
    numbers = sorted({int(number) for number in found["number"].dropna()})
    return {number: found[found["number"] == number].sort_values("seed") for number in numbers}


def asked_by(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials that a study asked for itself, with ``number``: of the proposal, null for the winner.

    A row each time: equal proposals are one trial. ``called`` is what the study called it.
    """
    asking = trials[trials["study"].fillna("").str.contains(study.name, regex=False)]
    places, numbers, called = list[int](), list[int | None](), list[str]()
    for place, text in enumerate(asking["origins"]):
        for origin in json.loads(text):
            # What goes on from a winner names its study as well, and the trial.
            own = origin.get("proposal") is not None or origin.get("search_id") is None
            if origin.get("study") == study.name and own:
                places.append(place)
                numbers.append(origin.get("proposal"))
                called.append(str(origin.get("variant", "")))
    return asking.iloc[places].assign(number=pd.array(numbers, dtype="Int64"), called=called)


def _trials(study: Study, frames: Frames) -> list[optuna.trial.FrozenTrial]:
    found = proposals(study, frames)
    curves = _curves(study, frames, {key for rows in found.values() for key in rows["trial_id"]})
    nothing = frames.trials.iloc[:0]
    return [
        _trial(study, found.get(number, nothing), curves)
        for number in range(max(found, default=-1) + 1)
    ]


def _trial(
    study: Study, rows: pd.DataFrame, curves: Mapping[str, Curve]
) -> optuna.trial.FrozenTrial:
    """A proposal: the mean over the seeds that tried it. Without rows, one that was lost."""
    import optuna

    states = optuna.trial.TrialState
    spec = _spec(rows)
    chosen = dict(study.values_of(spec)) if spec is not None else {}
    inside = {name: value for name, value in chosen.items() if study.ranges[name].holds(value)}
    state = getattr(states, _state(rows, len(study.seeds)))
    values = [float(rows[name].mean(skipna=False)) for name in objectives(study)]
    if state == states.COMPLETE and not all(map(isfinite, values)):
        state = states.FAIL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = optuna.trial.create_trial(
            state=state,
            values=values if state == states.COMPLETE else None,
            params=inside,
            distributions={n: d for n, d in study.distributions.items() if n in inside},
            user_attrs=_attributes(rows, {n: v for n, v in chosen.items() if n not in inside}),
            intermediate_values=_mean([curves.get(key, {}) for key in rows["trial_id"]]),
        )
    made.datetime_start = _local(rows["started_at"].min())
    made.datetime_complete = _local(rows["finished_at"].max()) if state.is_finished() else None
    return made


def _spec(rows: pd.DataFrame) -> Trial | None:
    for text in rows["spec"].dropna():
        return trial_from_json(text)
    return None


def _state(rows: pd.DataFrame, seeds: int) -> str:
    """The name of Optuna's state for what all seeds of a proposal have come to."""
    there = set(rows["state"])
    if rows.empty or State.FAILED in there:
        return "FAIL"
    if "pruned" in there:
        return "PRUNED"
    if there == {State.DONE} and len(rows) >= seeds:
        return "COMPLETE"
    return "WAITING" if there == {State.WAITING} else "RUNNING"


def _attributes(rows: pd.DataFrame, outside: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"trial ids": rows["trial_id"].tolist()}
    found["seeds"] = [None if pd.isna(seed) else int(seed) for seed in rows["seed"]]
    hours = rows["wall_s"].sum() / 3600
    found |= {"trial-hours": float(hours), "GPU-hours": float(rows["gpu_hours"].sum())}
    errors = rows["error_message"].dropna().tolist()
    found |= {"error": errors[0]} if errors else {}
    return found | ({"outside the ranges": dict(outside)} if outside else {})


def _curves(study: Study, frames: Frames, ids: Collection[str]) -> dict[str, Curve]:
    """The first objective of these trials after their epochs, where an epoch has it."""
    value = objectives(study)[0]
    if value not in frames.epochs:
        return {}
    rows = frames.epochs[frames.epochs["trial_id"].isin(ids)].dropna(subset=[value])
    curves: dict[str, Curve] = {}
    columns = (rows[name].tolist() for name in ("trial_id", "epoch", value))
    for trial_id, epoch, reached in zip(*columns, strict=True):
        curves.setdefault(trial_id, {})[int(epoch)] = float(reached)
    return curves


def _mean(curves: Sequence[Curve]) -> Curve:
    """At each epoch that all of them have."""
    shared = set.intersection(*map(set, curves)) if curves else set[int]()
    return {epoch: sum(of[epoch] for of in curves) / len(curves) for epoch in sorted(shared)}


def _local(time: Any) -> Any:
    """As Optuna keeps times: local, without a zone."""
    if time is None or pd.isna(time):
        return None
    return pd.Timestamp(time).to_pydatetime().astimezone().replace(tzinfo=None)
