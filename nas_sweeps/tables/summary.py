"""Answers from the tables: pure functions from frames to frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nas_sweeps.hints import did_you_mean
from nas_sweeps.names import DISTRIBUTION, TUNED
from nas_sweeps.phases import in_order
from nas_sweeps.store.records import State
from nas_sweeps.tables.frames import Frames, require_columns
from nas_sweeps.tables.rows import TUNING
from nas_sweeps.trial import Origin

# Averages over these would compare what does not compare: each gets rows, or for the size of a
# distribution columns, of its own as soon as one cell of the table would mix two values.
_SPLIT_ROWS = (
    *("dataset", "variant", "search_setting", "search_epoch", "pretrain", "recipe", "setting"),
)
_SPLIT_COLUMNS = ("total", "n_max")
CELL = ("method", "variant", "dataset", *DISTRIBUTION)  # of which one study finds one winner


def attributed(frames: Frames, phase: str = "retrain") -> pd.DataFrame:
    """Trials of a phase, one row per trial and origin; searches as they are. Proposals of studies
    are no results, and left out.

    The columns are those of ``frames.trials``, with ``method``, ``variant`` and ``search_epoch``
    of the one origin, and ``search_id``, ``search_seed`` and ``search_setting`` of the trial that
    it goes on from: of a retrain, its search (null for a published genotype). One that several led
    to counts for each of them. One whose origins are lost has one row and no method. ``recipe`` is
    what grids call the settings of its recipe: all names that any grid of these tables gives them,
    joined. The setting of a study's winner, and of a search that was one, is that before tuning:
    what was chosen differs from cell to cell, and ``variant`` says that it was (``tuned=20``).

    Raises:
        ValueError: there is no such phase, or a study has different winners in several stores.
    """
    require_columns(frames.trials, "trials", "phase", "state")
    choices = dict.fromkeys([*in_order(), *sorted(set(frames.trials["phase"]))])
    if phase not in choices:
        hint = did_you_mean(phase, choices)
        raise ValueError(f"phase '{phase}': choose from {', '.join(choices)}{hint}")
    untuned = untuned_settings(frames.trials)
    if phase == "search":
        kept = without_proposals(frames.trials)
        found = _won(kept[kept["phase"] == phase], frames.trials)
        return _called_tuned(found, "setting", untuned)
    require_columns(frames.trials, "trials", "origins", "parents", "setting")
    retrains = frames.trials[frames.trials["phase"] == phase]
    asked: list[list[dict[str, Any]]] = [
        _merged(json.loads(text)) if text != "[]" else [{}] for text in retrains["origins"]
    ]
    origins: list[dict[str, Any]] = [origin for group in asked for origin in group]
    position = [i for i, group in enumerate(asked) for _ in group]
    out = retrains.iloc[position].drop(columns=["origins", "parents"]).reset_index(drop=True)
    out["method"] = _text([o.get("method") for o in origins])
    out["variant"] = _text([o.get("variant", "") for o in origins])
    out["search_id"] = _text([o.get("search_id") for o in origins])
    out["search_epoch"] = pd.array([o.get("search_epoch") for o in origins], dtype="Int64")
    out["search_seed"] = pd.array([o.get("seed") for o in origins], dtype="Int64")
    tuned = pd.Series([o.get("point") is not None for o in origins], dtype=bool)
    if tuned.any():  # by what tuned it: each has values of its own, and they are to compare
        called = _of_study(out["recipe"], _text([o.get("study") for o in origins]), out, tuned)
        named = [_tuned(*pair) for pair in zip(out["setting"], called, strict=True)]
        out["setting"] = out["setting"].where(~tuned, _text(named))
        # What a study found may be what another grid asks for: that has the grid's names alone.
        given = [_given_names(json.loads(text)) for text in retrains["origins"].iloc[position]]
        out["recipe"] = out["recipe"].where(tuned | out["recipe"].isna(), _text(given))
    settings = frames.trials.set_index("trial_id")["setting"]
    out["search_setting"] = out["search_id"].map(settings)
    out["recipe"] = recipe_names(out)
    out["study"] = _text([o.get("study") for o in origins])
    return _called_tuned(out, "search_setting", untuned)


def _of_study(
    recipe: pd.Series[str], study: pd.Series[str], found: pd.DataFrame, tuned: pd.Series[bool]
) -> pd.Series[Any]:
    """Names of recipes, with the study where several have tuned the retraining of one network."""
    cell = [recipe, *(found[name] for name in CELL)]
    one = [*cell, found["search_id"], found["search_epoch"], found["genotype_id"], found["seed"]]
    twice = study.where(tuned).groupby(one, dropna=False).transform("nunique") > 1
    several = twice.groupby(cell, dropna=False).transform("any")
    return recipe.mask(several & tuned & study.notna(), recipe + " of " + study)


def _given_names(origins: list[dict[str, Any]]) -> str | None:
    """The names that grids give to the recipe of a trial, without those of a study's winner."""
    asked = [o for o in origins if _is_result(o)]
    names = {o["recipe"] for o in asked if o.get("recipe") and o.get("point") is None}
    return "+".join(sorted(names)) or None


def _tuned(setting: Any, recipe: Any) -> str | None:
    """A setting with the name of its recipe in the place of the recipe's own."""
    if pd.isna(setting) or pd.isna(recipe):
        return None if pd.isna(setting) else str(setting)
    kept = [part for part in str(setting).split(",") if part.startswith(("data.", "pretrain."))]
    return ",".join([str(recipe), *kept])


def without_proposals(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials but for those that a study only tried: of its searches the winners remain, and
    what was gone on from, for another grid."""
    if "role" not in trials or not (trials["role"] == TUNING).any():
        return trials
    asked = trials[(trials["role"] != TUNING).fillna(True)]
    followed = set(asked["parents"].explode()) if "parents" in asked else set[str]()
    return trials[trials.index.isin(asked.index) | trials["trial_id"].isin(followed)]


def untuned_settings(trials: pd.DataFrame) -> dict[str, str]:
    """By study, the ``setting`` of the trial that it tried first: the one before tuning."""
    if not {"study", "origins", "setting"} <= set(trials):
        return {}
    found: dict[str, str] = {}
    known = trials[trials["study"].notna()]
    for text, setting in zip(known["origins"], known["setting"], strict=True):
        firsts = [o["study"] for o in json.loads(text) if o.get("proposal") == 0]
        found |= dict.fromkeys(firsts, setting)
    return found


def _won(searches: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Searches with the variant and the study of which each is the winner, where it is one.

    Also of those that something retrained as a winner: until a run ends, this alone tells a
    proposal that won from one that was only tried.
    """
    if not {"study", "variant", "origins"} <= set(searches) or searches["study"].isna().all():
        return searches
    variants, studies = dict[str, set[str]](), dict[str, set[str]]()
    known = trials[trials["study"].notna()]
    for trial_id, text in zip(known["trial_id"], known["origins"], strict=True):
        for origin in json.loads(text):
            if origin.get("study") and _is_result(origin):
                won = origin.get("search_id") or trial_id
                variants.setdefault(won, set()).add(origin["variant"])
                studies.setdefault(won, set()).add(origin["study"])
    out = searches.copy()
    for column, of in (("variant", variants), ("study", studies)):
        called = {trial_id: "+".join(sorted(names)) for trial_id, names in of.items()}
        out[column] = out["trial_id"].map(called).fillna(out[column])
    return out


def _called_tuned(found: pd.DataFrame, column: str, untuned: Mapping[str, str]) -> pd.DataFrame:
    """Rows of winners with the setting before tuning, and with the study in the variant where one
    cell has winners of several."""
    if not untuned or not {*CELL, column, "study", "variant"} <= set(found):
        return found
    won = found["variant"].fillna("").str.startswith(TUNED)
    before = found["study"].map(untuned).where(won)
    study = found["study"].where(won)
    several = study.groupby([found[name] for name in CELL], dropna=False).transform("nunique") > 1
    variant = found["variant"].mask(several & won, found["variant"] + " of " + found["study"])
    _require_one_winner(found, study)
    return found.assign(**{column: before.fillna(found[column]), "variant": variant})


def _require_one_winner(found: pd.DataFrame, study: pd.Series[str]) -> None:
    """Raises ValueError where one study has different winners in several stores.

    Args:
        study: that each row is a winner of, null where it is none.
    """
    if "store" not in found or found["store"].nunique() < 2:
        return
    of, seed = ("search_id", "search_seed") if "search_id" in found else ("trial_id", "seed")
    one = [*(found[name] for name in CELL), study, found[seed]]
    twice = (found[of].groupby(one, dropna=False).transform("nunique") > 1) & study.notna()
    if twice.any():
        raise ValueError(
            f"study {study[twice].iloc[0]} has another winner in one of the stores than in another "
            f"({', '.join(found['store'].astype(str).unique())}): load one of them, or compare them"
        )


def _merged(origins: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Origins but for names of recipes and of files: one trial is no two results. A proposal of a
    study is none."""
    results = filter(_is_result, origins)
    bare = [{k: v for k, v in o.items() if k not in ("recipe", "file")} for o in results]
    told = {_end_of(origin) for origin in bare if origin.get("search_epoch")}
    return [
        origin
        for i, origin in enumerate(bare)
        # The end of a search that is asked for by its epoch as well is asked for once.
        if origin not in bare[:i] and (origin.get("search_epoch") or _end_of(origin) not in told)
    ]


def _is_result(origin: Mapping[str, Any]) -> bool:
    return Origin.from_json(dict(origin)).is_result


def _end_of(origin: dict[str, Any]) -> str:
    return json.dumps(origin | {"search_epoch": None}, sort_keys=True)


def recipe_names(trials: pd.DataFrame) -> pd.Series[Any]:
    """What the grids of these trials call each trial's recipe; null where none names it.

    A name stands for settings, so a trial also has the names that its settings have elsewhere.

    Args:
        trials: their columns ``setting`` and ``recipe``, the latter names joined by ``+``.
    """
    settings = trials["setting"].map(recipe_part, na_action="ignore")
    named = pd.DataFrame({"setting": settings, "recipe": trials["recipe"]}).dropna()
    names = named.groupby("setting")["recipe"].agg(_all_names)
    return settings.map(names).astype(pd.Series([""]).dtype)


def _all_names(joined: pd.Series[str]) -> str:
    return "+".join(sorted({name for names in joined for name in names.split("+")}))


def recipe_part(setting: str) -> str:
    """What of a setting is of the recipe itself, not of the images nor of pre-training."""
    parts = setting.split(",") if setting else []
    return ",".join(part for part in parts if not part.startswith(("data.", "pretrain.")))


def _text(values: list[str | None]) -> pd.Series[Any]:
    return pd.Series(values, dtype=pd.Series([""]).dtype)


def summarise(
    frames: Frames,
    value: str | None = None,
    rows: Sequence[str] = ("method",),
    columns: Sequence[str] = ("distribution", "mu"),
    phase: str = "retrain",
) -> pd.DataFrame:
    """Mean, sample standard deviation and number of the trials of a phase that are done.

    Args:
        value: a numeric column of the trials table; None: ``frames.headline``.
        rows, columns: columns of ``attributed``. Data set, variant, pre-training and settings
            become rows as well, and the size of a uniform or natural distribution a column, where a
            cell would otherwise mix two values.
        phase: search, retrain, or one that a package adds.

    Returns:
        One row per combination of ``rows`` (the index). The columns' levels are ``columns`` and
        then "statistic": mean, sd (NaN for one trial), n (0 for a cell without trials).

    Raises:
        ValueError: a name is no column, ``value`` is not numeric, or ``rows`` is empty.
    """
    value = frames.headline if value is None else value
    found = attributed(frames, phase)
    _check_value(found, value)
    _check_names(found, rows, columns)
    if not rows:
        raise ValueError("rows: name at least one column")
    found = found[found["state"] == State.DONE]
    rows = [*rows, *_splitting(found, _SPLIT_ROWS, (*rows, *columns))]
    columns = [*columns, *_splitting(found, _SPLIT_COLUMNS, (*rows, *columns))]
    cells = found.groupby([*rows, *columns], dropna=False, observed=True)[value]
    table = _statistics(cells)
    return _pivoted(table, columns) if columns else table


def learning_curves(
    frames: Frames,
    value: str | None = None,
    by: Sequence[str] = ("method", "distribution", "mu"),
    phase: str = "retrain",
) -> pd.DataFrame:
    """A value by epoch, over the trials of a phase that are done: tidy, a row per point.

    Args:
        value: a numeric column of the epochs table; None: ``frames.headline``. Epochs that have
            none are left out.
        by: columns of ``attributed``, or of the trials table for searches. As in ``summarise``,
            what would otherwise be mixed becomes a column as well.
        phase: search, retrain, or one that a package adds.

    Returns:
        The columns of ``by``, then epoch (over all stages of a trial), mean, sd (NaN for one
        trial) and n.

    Raises:
        ValueError: a name is no column, ``value`` is not numeric, or there is no such phase.

    >>> import nas_sweeps as ns
    >>> frames = ns.load("runs/quickstart", filters=[("mu", "=", 0.1)])
    >>> learning_curves(frames, by=["method", "mu"], phase="search").round(3)
          method   mu  epoch   mean  sd  n
    0      darts  0.1      1  0.167 NaN  1
    1      darts  0.1      2  0.250 NaN  1
    2  fairdarts  0.1      1  0.183 NaN  1
    3  fairdarts  0.1      2  0.275 NaN  1
    4    ssf_nas  0.1      1  0.208 NaN  1
    5    ssf_nas  0.1      2  0.312 NaN  1
    """
    value = frames.headline if value is None else value
    require_columns(frames.trials, "trials", "phase", "state")
    require_columns(frames.epochs, "epochs", "epoch")
    trials = attributed(frames, phase)
    trials = trials[trials["state"] == State.DONE]
    _check_value(frames.epochs, value)
    _check_names(trials, by)
    by = [*by, *_splitting(trials, (*_SPLIT_ROWS, *_SPLIT_COLUMNS), by)]
    points = frames.epochs[["trial_id", "epoch", value]].dropna()
    joined = trials[list(dict.fromkeys(["trial_id", *by]))].merge(
        points.astype({"trial_id": str}), on="trial_id"
    )
    cells = joined.groupby([*by, "epoch"], dropna=False, observed=True)[value]
    return _statistics(cells).reset_index()


def _statistics(cells: Any) -> pd.DataFrame:
    """Mean, sample standard deviation and number of each group."""
    return pd.DataFrame({"mean": cells.mean(), "sd": cells.std(), "n": cells.count()})


def _pivoted(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some index levels of (mean, sd, n) become column levels, above the statistic."""
    wide = pd.DataFrame(table.unstack(list(columns)))
    statistics = list(table.columns)
    keys: list[tuple[Any, ...]] = [(*key[1:], key[0]) for key in wide.columns]
    order = sorted(
        range(len(keys)), key=lambda i: (_sortable(keys[i][:-1]), statistics.index(keys[i][-1]))
    )
    # By position: a mu that is missing cannot be looked up.
    parts = [(wide.iloc[:, i], keys[i][-1]) for i in order]
    whole = [part.fillna(0).astype("int64") if kind == "n" else part for part, kind in parts]
    out = pd.DataFrame(dict(enumerate(whole)), index=wide.index)
    out.columns = pd.MultiIndex.from_tuples([keys[i] for i in order], names=[*columns, "statistic"])
    return out


def _check_value(found: pd.DataFrame, value: str) -> None:
    numeric = [str(name) for name in found if pd.api.types.is_numeric_dtype(found[name])]
    if value not in numeric:
        hint = did_you_mean(value, numeric)
        raise ValueError(
            f"value: no numeric column '{value}'; choose from {', '.join(numeric)}{hint}"
        )


def _check_names(found: pd.DataFrame, *lists: Sequence[str]) -> None:
    for one in lists:
        if isinstance(one, str):
            raise ValueError(f"'{one}' is one name; write it as a list: ['{one}']")
    names = [name for one in lists for name in one]
    for name in names:
        if name not in found:
            known = ", ".join(map(str, found))
            raise ValueError(f"no column '{name}'; choose from {known}{did_you_mean(name, found)}")
        if names.count(name) > 1:
            raise ValueError(f"column '{name}' is named twice; name it once")


def _splitting(found: pd.DataFrame, names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Those of ``names``, in their order, without which a cell would hold two values of one; and
    what says that something is tuned, which no table may leave unsaid."""
    chosen: list[str] = []
    for name in names:
        if name not in taken and name in found:  # a search has no setting of its search
            keys: Any = [*taken, *chosen] or [0] * len(found)  # without any, all is one cell
            cells = found.groupby(keys, dropna=False, observed=True)[name]
            said = found[name].dropna().unique() if name in ("variant", "recipe") else ()
            tuned = any(TUNED in str(each) for each in said)
            chosen += [name] if tuned or (cells.nunique(dropna=False) > 1).any() else []
    return chosen


def _sortable(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Missing before present, as in balance (no mu) before exp."""
    return tuple((False, 0) if pd.isna(part) else (True, part) for part in key)
