"""Names for people: of each trial, who (method), where (label distribution) and what (setting).

The three are ordered categories over the whole store, so that one distribution has one colour
in every figure. Whatever would make two trials incomparable is part of a name as soon as it
differs between them, and of none while it does not.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from nas_sweeps.names import DISTRIBUTION, TUNED, UNKNOWN, distribution_name, method_name
from nas_sweeps.store.records import State
from nas_sweeps.tables import Frames, attributed
from nas_sweeps.tables.summary import CELL, recipe_part, without_proposals
from nas_sweeps.trial import Origin

KINDS = ("balance", "uniform", "natural", "exp", "step")


def searches(frames: Frames) -> pd.DataFrame:
    """Search trials in any state, but for proposals of studies: ``who``, ``where``, ``what``."""
    found = attributed(frames, "search").reset_index(drop=True)
    who = _methods(found)
    what = _joined(found["dataset"], _shortened(found["setting"]))
    return _labelled(frames, found, who, what)


def retrains(frames: Frames) -> pd.DataFrame:
    """Retrain trials in any state, a row per trial and origin, with ``who``, ``where``, ``what``.

    How a network is pre-trained, and the setting of the search that found it, belong to ``who``:
    they are what is compared. The setting of the retraining belongs to ``what``, by the name that
    a grid gives to its recipe, if that is one.
    """
    found = attributed(frames)
    parts = found["setting"].map(_parts, na_action="ignore")
    own = _named(found)
    before = parts.map(lambda p: _pretraining(p, True), na_action="ignore")
    details = [
        ", ".join(part for part in group if part)
        for group in zip(_shortened(found["search_setting"]), _shortened(before), strict=True)
    ]
    rows = zip(_methods(found), found["pretrain"], details, strict=True)
    who = [method_name(name, "", how) + (f" [{d}]" if d else "") for name, how, d in rows]
    return _labelled(frames, found, who, _joined(found["dataset"], _shortened(own)))


def recipe_labels(found: pd.DataFrame) -> list[str]:
    """How to call the recipe of each retrain: by its name, if that stands for no other settings.

    Without a name it is what is not default in it, or ``default``.
    """
    settings = found["setting"].map(recipe_part, na_action="ignore")
    several = settings.groupby(found["recipe"]).nunique() > 1
    labels = []
    for setting, name in zip(settings, found["recipe"], strict=True):
        own = "" if pd.isna(setting) else str(setting)
        if not pd.isna(name):
            own = f"{name},{own}" if several[name] and own else str(name)
        labels.append(own or "default")
    return labels


def _named(found: pd.DataFrame) -> list[str | None]:
    """Settings of retrainings, the recipe by its label, then what is said of the images."""
    named = []
    for setting, label in zip(found["setting"], recipe_labels(found), strict=True):
        parts = [] if pd.isna(setting) else _parts(setting)
        images = [part for part in parts if part.startswith("data.")]
        recipe = [] if label == "default" else [label]
        named.append(None if pd.isna(setting) else ",".join([*recipe, *images]))
    return named


def done(trials: pd.DataFrame) -> pd.DataFrame:
    """Those that have a result to show."""
    return trials[trials["state"] == State.DONE]


def caveats(found: pd.DataFrame) -> Iterator[str]:
    """What sets the methods of a table apart beside the search: else one compares both.

    Args:
        found: the retrains of the table, as of ``attributed``.
    """
    named = done(found).fillna({"method": UNKNOWN})
    for column, what in (("pretrain", "pre-training"), ("variant", "search knobs")):
        if named[column].nunique() > 1:
            each = named.groupby("method")[column].unique()
            yield f"{what}: " + "; ".join(
                f"{method}: {', '.join(sorted(str(v or 'default') for v in values))}"
                for method, values in each.items()
            )
    yield from _tuned_text(set(_won(named)))
    said = " ".join(named["recipe"].dropna().unique()) if "recipe" in named else ""
    for budget in sorted(set(re.findall(rf"{TUNED}(\d+)", said)), key=int):
        yield (
            f"recipe {TUNED}{budget}: each retrained with the best of {budget} proposals of a "
            "study, by the validation half"
        )


def given_up(frames: Frames) -> Iterator[str]:
    """A line that says which results are missing from all means because a stop rule pruned them."""
    kept = without_proposals(frames.trials)
    where = [distribution_name(*key) for key in _distribution_keys(kept)]
    cells = list(zip(kept["phase"], kept["method"].fillna(UNKNOWN), where, strict=True))
    pruned = kept["state"] == State.PRUNED
    gone = Counter(cell for cell, out in zip(cells, pruned, strict=True) if out)
    if not gone:
        return
    there = Counter(cells)
    told = [f"{gone[cell]} of {there[cell]} of {' '.join(cell)}" for cell in gone]
    yield (
        f"pruned by a stop rule, and in no mean: {'; '.join(told)}. Means are of the trials that "
        "were left: where these were compared with one another, they are too high"
    )


class _Won(NamedTuple):
    """A winner, or with two objectives the points, of so many proposals of a cell's study."""

    cell: tuple[str, ...]
    study: str
    budget: int
    points: bool


def _won(found: pd.DataFrame) -> Iterator[_Won]:
    """What the variants of these trials say of studies, as ``attributed`` has them."""
    tuned = found[found["variant"].fillna("").str.contains(TUNED, regex=False)]
    told = tuned[[name for name in (*CELL, "study", "origins") if name in tuned]]
    for row in told.drop_duplicates().to_dict("records"):
        cell = tuple(str(row.get(name)) for name in CELL if name != "variant")
        study = row.get("study")
        pairs = [("" if pd.isna(study) else str(study), str(row["variant"]))]
        if "+" in pairs[0][0]:  # of a search that won several, its origins say which won what
            origins = json.loads(row.get("origins") or "[]")
            won = (o for o in map(Origin.from_json, origins) if o.is_result)
            pairs = [(o.study, o.variant) for o in won]
        for name, variant in pairs:
            for budget, point in re.findall(rf"{TUNED}(\d+)( #\d+)?", variant):
                yield _Won(cell, name, int(budget), bool(point))


def _tuned_text(won: Collection[_Won]) -> Iterator[str]:
    """A line that says what the variants of winners stand for.

    The studies are named where a cell has several, and where one number of proposals is all that
    one study had and the first few of another one.
    """
    latest: dict[str, int] = {}
    for one in won:
        latest[one.study] = max(one.budget, latest.get(one.study, 0))
    older = {one for one in won if one.budget < latest[one.study]}
    per_cell = Counter(cell for cell, _ in {(one.cell, one.study) for one in won})
    named = max(per_cell.values(), default=0) > 1 or bool(
        {one.budget for one in older} & {one.budget for one in won if one not in older}
    )
    said: list[str] = []
    for points in (False, True):
        kind = [one for one in won if one.points is points]
        groups = {(one in older, -one.budget) for one in kind}
        for i, (old, negative) in enumerate(sorted(groups)):
            budget = -negative
            names = {one.study for one in kind if (one in older, one.budget) == (old, budget)}
            who = f"{TUNED}{budget}" + (" #k" if points else "")
            who += f" of {', '.join(sorted(names))}" if named else ""
            if i:
                first = "its first " if old else ""
                what = f"{'those' if points else 'that'} of {first}{budget}"
                said.append(f"{who} {what}" + (", of a smaller budget" if old else ""))
                continue
            proposals = f"{budget} proposals of {'its' if named else 'a'} study"
            said.append(
                f"{who} are points of the Pareto set of {proposals}, #k for proposal k, by the "
                "validation half and a second objective, searched again with every seed"
                if points
                else f"{who} is the winner of {proposals}, by the validation half, searched again "
                "with every seed"
            )
    if said:
        yield "; ".join(said)


def panel_names(trials: pd.DataFrame) -> pd.Series:
    """Who, and under what setting if there are several: ordered as both are."""
    names = [f"{who}\n{what}" if what else str(who) for who, what in _pairs(trials)]
    order = [f"{who}\n{what}" if what else str(who) for who, what in sorted(set(_pairs(trials)))]
    return pd.Series(pd.Categorical(names, order, ordered=True), index=trials.index)


def _pairs(trials: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(trials["who"].astype(str), trials["what"].astype(str), strict=True))


def sources(trials: pd.DataFrame) -> list[str]:
    """The data set of each trial, with the rules of drawing images that are not shared by all."""
    parts = [
        None if pd.isna(s) else ",".join(p for p in _parts(s) if p.startswith("data."))
        for s in trials["setting"]
    ]
    names = [UNKNOWN if pd.isna(name) else str(name) for name in trials["dataset"]]
    return [", ".join(filter(None, pair)) for pair in zip(names, _shortened(parts), strict=True)]


def _labelled(frames: Frames, found: pd.DataFrame, who: list[str], what: list[str]) -> pd.DataFrame:
    return found.assign(
        dataset=[UNKNOWN if pd.isna(name) else str(name) for name in found["dataset"]],
        who=pd.Categorical(who, sorted(set(who)), ordered=True),
        where=places(found, frames),
        what=pd.Categorical(what, sorted(set(what)), ordered=True),
    )


def places(trials: pd.DataFrame, frames: Frames) -> pd.Categorical[str]:
    """Where each of these trials was, among all distributions of the store."""
    where = [distribution_name(*key) for key in _distribution_keys(trials)]
    return pd.Categorical(where, distributions(frames.trials), ordered=True)


def distributions(trials: pd.DataFrame) -> list[str]:
    """Every distribution in a store, from the fullest to the most skewed of each kind."""
    return list(
        dict.fromkeys(
            distribution_name(*key) for key in sorted(_distribution_keys(trials), key=_rank)
        )
    )


def _distribution_keys(trials: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(trials[name] for name in DISTRIBUTION), strict=True))


def _rank(key: tuple[Any, ...]) -> tuple[Any, ...]:
    kind, *parts = key
    place = KINDS.index(kind) if kind in KINDS else len(KINDS)
    return place, *(0 if pd.isna(part) else -part for part in parts), str(kind)


def _methods(found: pd.DataFrame) -> list[str]:
    """Method names, with their variants and epochs where there are several or one is tuned."""
    method = found["method"].fillna(UNKNOWN)
    variant = found["variant"].fillna("")
    several = variant.groupby(method).transform("nunique") > 1
    named = zip(method, variant, several, strict=True)
    epochs = found["search_epoch"]  # of a search itself it is null
    epochs = epochs if epochs.nunique(dropna=False) > 1 else epochs.where(epochs.isna())
    return [
        method_name(m, (v or "default") if many or v.startswith(TUNED) else "", search_epoch=epoch)
        for (m, v, many), epoch in zip(named, epochs, strict=True)
    ]


def _parts(setting: str) -> list[str]:
    return setting.split(",") if setting else []


def _pretraining(parts: Iterable[str], wanted: bool) -> str | None:
    """The parts of a setting that are about pre-training, or the others."""
    chosen = [part for part in parts if part.startswith("pretrain.") is wanted]
    return ",".join(chosen) if chosen or not wanted else None


def _shortened(settings: Iterable[Any]) -> list[str]:
    """Settings without the parts that all of them share; a missing one is empty."""
    split = [None if pd.isna(s) else _parts(s) for s in settings]
    present = [set(parts) for parts in split if parts is not None]
    shared = set.intersection(*present) if present else set()
    return [", ".join(part for part in parts or () if part not in shared) for parts in split]


def _joined(datasets: Sequence[Any] | pd.Series[Any], settings: list[str]) -> list[str]:
    """Data set and what sets its setting apart, either only where it differs."""
    names = [UNKNOWN if pd.isna(name) else str(name) for name in datasets]
    several = len(set(names)) > 1
    pairs = zip(names, settings, strict=True)
    return [", ".join(part for part in (n if several else "", s) if part) for n, s in pairs]
