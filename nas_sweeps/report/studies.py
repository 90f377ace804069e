"""The studies of a store as Optuna has them, made again from what the store holds.

The ranges are those of the grids that the store kept; which trial is which proposal, what it came
to and how it got there are in the tables. Nothing else is needed, and nothing is written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_sweeps.grid import Grid, GridError, plan
from nas_sweeps.grid.tuned import Measured, mean_objectives
from nas_sweeps.hints import did_you_mean
from nas_sweeps.report.winners import genotype_of
from nas_sweeps.store import Store
from nas_sweeps.store.records import State
from nas_sweeps.tables import Frames, load
from nas_sweeps.trial import Origin, Trial, trial_from_json
from nas_sweeps.tuning import Study
from nas_sweeps.tuning.study import quiet

if TYPE_CHECKING:
    import optuna

Curve = dict[int, float]  # by epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedCell:
    """A cell of a grid whose knobs are tuned.

    ``name`` is what the study calls it, with the study too where several are called so: those of
    a retraining that is tuned for each genotype, and those with other ranges or another sampler.
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
    bare = [study.cell for study in budgets]
    return [
        TunedCell(
            name=name if bare.count(name) == 1 else f"{name} {study.name}",
            study=study,
            budget=budget,
        )
        for name, (study, budget) in zip(bare, budgets.items(), strict=True)
    ]


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
        known = "; ".join(f"{cell.name} ({cell.study.name})" for cell in found or cells)
        hint = "" if found else did_you_mean(name, [cell.name for cell in cells])
        what = "several studies are" if found else "no study is"
        raise ValueError(f"{what} called '{name}' in store '{store}': choose from {known}{hint}")
    return found[0]


def studies(store: Store | str | Path) -> dict[str, optuna.Study]:
    """Each study of a store as an ``optuna.Study`` in memory, by the name of its cell.

    Trials have the numbers of the proposals, their values, what they came to, the objective after
    each epoch (intermediate values), and the ids and seeds of the trials that tried them (user
    attributes). With two objectives they have both values, and the second is minimised. Those that
    a stop rule gave up are pruned, and have an attribute that says why. What was tried before the
    ranges were chosen, and lies outside of them, is a user attribute as well: Optuna has no place
    for it among the parameters.

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
            study_name=cell.name, directions=study.directions, storage=storage
        )
        made.set_metric_names([*study.objectives])
        for name, value in _facts(cell).items():
            made.set_user_attr(name, value)
        made.add_trials(_trials(study, frames))
    return made


def _facts(cell: TunedCell) -> dict[str, Any]:
    study = cell.study
    return {
        "study": study.name,
        "phase": study.phase,
        "method": study.method.name,
        "distribution": str(study.distribution),
        "data set": study.data.label,
        "seeds": list(study.seeds),
        "sampler": study.sampler,
        "proposals": cell.budget,
        "defaults": dict(study.defaults()),
    }


def proposals(study: Study, frames: Frames) -> dict[int, pd.DataFrame]:
    """The rows of the trials table by the number of the proposal that they tried: one a seed.

    A trial may stand there for several grids. Where a proposal was tried again, because the search
    whose genotype it trains was, the later one counts.
    """
    found = asked_by(study, frames.trials).dropna(subset="number")
    found = found.sort_values(["number", "seed", "started_at"], kind="stable")
    found = found.drop_duplicates(["number", "seed"], keep="last")
    numbers = sorted({int(number) for number in found["number"]})
    return {number: found[found["number"] == number] for number in numbers}


def asked_by(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials that a study asked for itself, with ``number``: of the proposal, null for the winner.

    A row each time: equal proposals are one trial. ``called`` is what a grid called it: of a
    search the variant, of a retrain the recipe.
    """
    name = "recipe" if study.phase == "retrain" else "variant"
    asking = trials[trials["study"].fillna("").str.contains(study.name, regex=False)]
    places, numbers, called = list[int](), list[int | None](), list[str]()
    for place, text in enumerate(asking["origins"]):
        for origin in map(Origin.from_json, json.loads(text)):
            # What goes on from the winner of a search names its study as well.
            own = origin.proposal is not None or origin.is_winner
            if origin.study == study.name and own:
                places.append(place)
                numbers.append(origin.proposal)
                called.append(getattr(origin, name))
    return asking.iloc[places].assign(number=pd.array(numbers, dtype="Int64"), called=called)


def values_of(
    study: Study, frames: Frames, found: Mapping[int, pd.DataFrame]
) -> dict[int, list[float]]:
    """The means of the objectives of those ``proposals`` that have a result with every seed."""
    measured = {
        number: mean_objectives(_measured(study, frames, rows))
        for number, rows in found.items()
        if state_of(study, rows) == "COMPLETE"
    }
    return {
        number: [objective, cost or 0.0][: len(study.objectives)]
        for number, (objective, cost) in measured.items()
        if objective is not None
    }


def _measured(study: Study, frames: Frames, rows: pd.DataFrame) -> Iterator[Measured | None]:
    for row in rows[rows["seed"].isin(study.seeds)].to_dict("records"):
        objective = row[study.objective]
        if pd.isna(objective):
            yield None
        elif not study.cost:
            yield float(objective), 0.0
        elif pd.isna(row["spec"]) or pd.isna(row["genotype_id"]):
            yield None
        else:
            genotype = genotype_of(frames, row["genotype_id"])
            yield float(objective), study.cost_of(trial_from_json(row["spec"]), genotype)


def state_of(study: Study, rows: pd.DataFrame) -> str:
    """The name of Optuna's state for what the seeds of a proposal have come to so far."""
    there = set(rows["state"])
    if State.PRUNED in there:
        return "PRUNED"
    if rows.empty or State.FAILED in there:
        return "FAIL"
    if there == {State.DONE} and set(study.seeds) <= set(rows["seed"]):
        return "COMPLETE"
    return "WAITING" if there == {State.WAITING} else "RUNNING"


def _trials(study: Study, frames: Frames) -> list[optuna.trial.FrozenTrial]:
    found = proposals(study, frames)
    values = values_of(study, frames, found)
    curves = _curves(study, frames, {key for rows in found.values() for key in rows["trial_id"]})
    nothing = frames.trials.iloc[:0]
    return [
        _trial(study, found.get(number, nothing), values.get(number), curves)
        for number in range(max(found, default=-1) + 1)
    ]


def _trial(
    study: Study,
    rows: pd.DataFrame,
    values: list[float] | None,
    curves: Mapping[str, Curve],
) -> optuna.trial.FrozenTrial:
    """A proposal: the mean over the seeds that tried it. Without rows, one that was lost."""
    import optuna

    states = optuna.trial.TrialState
    spec = _spec(rows)
    chosen = dict(study.values_of(spec)) if spec is not None else {}
    inside = {name: value for name, value in chosen.items() if study.ranges[name].holds(value)}
    state = getattr(states, state_of(study, rows))
    if state == states.COMPLETE and values is None:
        state = states.FAIL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = optuna.trial.create_trial(
            state=state,
            values=values,
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


def _attributes(rows: pd.DataFrame, outside: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"trial ids": rows["trial_id"].tolist()}
    found["seeds"] = [None if pd.isna(seed) else int(seed) for seed in rows["seed"]]
    hours = rows["wall_s"].sum() / 3600
    found |= {"trial-hours": float(hours), "GPU-hours": float(rows["gpu_hours"].sum())}
    for name, column in (("error", "error_message"), ("pruned by", "stop_reason")):
        said = rows[column].dropna().tolist()
        found |= {name: said[0]} if said else {}
    return found | ({"outside the ranges": dict(outside)} if outside else {})


def _curves(study: Study, frames: Frames, ids: Collection[str]) -> dict[str, Curve]:
    """The objective of these trials after their epochs, where an epoch has it."""
    value = study.objective
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
