"""``load``: one store or several, whole or in part, as frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nas_sweeps.hints import did_you_mean
from nas_sweeps.store.grids import headline_of
from nas_sweeps.store.layout import Layout
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import State
from nas_sweeps.tables.compaction import layout_of
from nas_sweeps.tables.frames import Frames
from nas_sweeps.tables.gather import Gathered, gather, sort_by
from nas_sweeps.tables.rows import origin_columns
from nas_sweeps.tables.schemas import REPEATED, SCHEMAS, TRIALS, build
from nas_sweeps.trial import Origin

StoreLike = Store | str | Path
Columns = Sequence[str] | Mapping[str, Sequence[str]]
Filters = Any  # pyarrow's: tuples, lists of tuples, or an expression
_KEYS = {name: "genotype_id" if name == "genotypes" else "trial_id" for name in SCHEMAS}
_RANK = {state: rank for rank, state in enumerate(State)}  # the first is the furthest


def load(
    store: StoreLike | Iterable[StoreLike],
    *,
    columns: Columns | None = None,
    filters: Filters | None = None,
) -> Frames:
    """Every trial in a store, whatever its state; also while a sweep writes into it.

    A file that cannot be read is reported as a warning and hides nothing else.

    Args:
        store: a store or its folder, or several. Of several, ``trials`` has a column ``store``.
            A trial that several hold is one trial, and equal in all of them: it comes from the
            store in which it is done, of those from the one that finished it last. Who asked
            for a retrain is gathered from all of them.
        columns: the columns to read, of every table that has them; or by table, and tables that
            are not named are read whole. Ids come along in any case.
        filters: which trials, as ``pyarrow.parquet`` takes it: ``[("mu", "<", 0.1), ("method",
            "in", ["darts", "fairdarts"])]`` are conditions that all hold, a list of such lists
            is fulfilled by any, and an expression of ``pyarrow.compute`` says the rest. They
            are about columns of ``trials`` and choose the rows of every table.

    Raises:
        ValueError: there is no store, or a name is no column.

    >>> frames = load("runs/quickstart")
    >>> len(frames.trials), sorted(frames.trials.method.unique())
    (12, ['darts', 'fairdarts', 'ssf_nas'])
    >>> done = load(
    ...     "runs/quickstart",
    ...     columns={"trials": ["method", "accuracy_balanced"]},
    ...     filters=[("phase", "=", "retrain"), ("mu", "<=", 0.1)],
    ... )
    >>> done.trials.drop(columns="trial_id").groupby("method").accuracy_balanced.count()
    method
    darts        1
    fairdarts    1
    ssf_nas      1
    Name: accuracy_balanced, dtype: int64
    """
    several = not isinstance(store, StoreLike)
    if several and not isinstance(store, Iterable):
        raise ValueError(f"store: {store!r} is neither a folder nor a list of them")
    stores = [store] if isinstance(store, StoreLike) else list(store)
    if not stores:
        raise ValueError("no store was named; name one or several")
    chosen = _chosen(columns, several)
    layouts = {str(layout): layout for layout in map(layout_of, stores)}  # one named twice is one
    shards = [_Shard(name, layout, gather(layout)) for name, layout in layouts.items()]
    trials = _trials(shards) if several else shards[0].gathered.trials
    # Not filtered, a table needs no comparing of ids.
    ids = None
    filters = list(filters) if isinstance(filters, Iterator) else filters
    if isinstance(filters, pc.Expression) or filters:  # an expression has no truth value
        trials = _filtered(trials, filters)
        ids = trials["trial_id"].combine_chunks()
    shares = _shares(shards, trials) if several else [(shards[0], ids)]
    sources: dict[str, Callable[[], pa.Table]] = {
        name: partial(_table, name, shares, chosen[name]) for name in SCHEMAS
    }
    sources["trials"] = lambda: (
        trials if chosen["trials"] is None else trials.select(chosen["trials"])
    )
    loaded = trials["trial_id"].combine_chunks()
    sources["alphas"] = partial(_alphas, shares, chosen["alphas"], loaded)
    return Frames(sources, lambda: headline_of(shards[0].layout))


@dataclass(frozen=True)
class _Shard:
    """One of the stores that are loaded together."""

    name: str
    layout: Layout
    gathered: Gathered


_Share = tuple[_Shard, pa.Array | None]  # the trials that a store speaks for; None: all


def _table(name: str, shares: list[_Share], columns: list[str] | None) -> pa.Table:
    tables = [shard.gathered.table(name, columns, ids) for shard, ids in shares]
    return tables[0] if len(tables) == 1 else _together(tables, _KEYS[name])


def _alphas(shares: list[_Share], columns: list[str] | None, loaded: pa.Array) -> pa.Table:
    """Read from the stores only now; trials that are newer than the other tables are left out."""
    tables = [
        gather(shard.layout, ["alphas"]).table("alphas", columns, loaded if ids is None else ids)
        for shard, ids in shares
    ]
    return tables[0] if len(tables) == 1 else _together(tables, "trial_id")


def _together(tables: list[pa.Table], key: str) -> pa.Table:
    """Rows of several stores. Of a genotype that several hold, the first one's."""
    kept, seen = [], set[str]()
    for table in tables:
        if key == "genotype_id":
            table = table.filter(
                pc.invert(pc.is_in(table[key], value_set=pa.array(seen, pa.string())))
            )
            seen |= set(table[key].to_pylist())
        kept.append(table)
    return sort_by(pa.concat_tables(kept), key)


# Which columns


def _chosen(columns: Columns | None, several: bool) -> dict[str, list[str] | None]:
    """The columns to read of each table; None: all."""
    if columns is None:
        return dict.fromkeys(SCHEMAS)
    known = {name: [*schema.names] for name, schema in SCHEMAS.items()}
    known["trials"] += ["store"] if several else []
    if isinstance(columns, Mapping):
        columns = {table: _listed(names) for table, names in columns.items()}
        for table, names in columns.items():
            if table not in known:
                hint = did_you_mean(table, known)
                raise ValueError(
                    f"columns: no table '{table}'; choose from {', '.join(known)}{hint}"
                )
            _check(names, known[table], f"columns: table {table} has")
        by_table = {name: columns.get(name) for name in known}
    else:
        columns = _listed(columns)
        everything = list(dict.fromkeys(name for names in known.values() for name in names))
        _check(columns, everything, "columns: there is")
        by_table = {name: [c for c in known[name] if c in columns] for name in known}
    return {
        name: None if wanted is None else list(dict.fromkeys([_KEYS[name], *wanted]))
        for name, wanted in by_table.items()
    }


def _listed(names: Iterable[str]) -> list[str] | str:
    if not isinstance(names, Iterable):
        raise ValueError(f"columns: {names!r} is no list of names")
    return names if isinstance(names, str) else list(names)


def _check(names: Iterable[str], known: Sequence[str], where: str) -> None:
    if isinstance(names, str):
        raise ValueError(f"columns: '{names}' is one name; write it as a list: ['{names}']")
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"{where} no column '{name}'; choose from {', '.join(known)}{hint}")


# Which trials


def _filtered(trials: pa.Table, filters: Filters) -> pa.Table:
    try:
        _check_conditions(filters, trials.column_names)
        return trials.filter(pq.filters_to_expression(filters))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ValueError(
            f"filters {filters}: {str(error).splitlines()[0]}; they are tuples such as "
            f"('mu', '<', 0.1) about columns of trials: {', '.join(trials.column_names)}"
        ) from None


def _check_conditions(filters: Filters, known: Sequence[str]) -> None:
    """What pyarrow would answer in its own words, or with no row. Raises ValueError, TypeError."""
    if isinstance(filters, pc.Expression):
        return
    if not isinstance(filters, (list, tuple)):
        raise TypeError("this is no list")
    for one in filters:
        for condition in [one] if one and isinstance(one[0], str) else one:
            if not isinstance(condition, (list, tuple)) or len(condition) != 3:
                raise ValueError(f"{condition!r} is not (column, operator, value)")
            name, operator, value = condition
            if not isinstance(operator, str):
                raise TypeError(f"{operator!r} is no operator")
            if name not in known:
                raise ValueError(f"there is no column '{name}'{did_you_mean(name, known)}")
            if operator.endswith("in") and isinstance(value, str):
                raise ValueError(f"'{operator}' takes a list: ['{value}']")
            if value is None:
                raise ValueError(f"nothing equals None: write pc.field('{name}').is_null()")


def _trials(shards: list[_Shard]) -> pa.Table:
    """The trials of several stores, each once, with the store that speaks for it."""
    held: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for i, shard in enumerate(shards):
        for row in shard.gathered.trials.to_pylist():
            held.setdefault(row["trial_id"], []).append((i, row))
    names, rows = [], []
    for _, copies in sorted(held.items()):
        i, row = min(copies, key=lambda copy: _place(*copy))
        names.append(shards[i].name)
        rows.append(row | (_all_origins(copies) if len(copies) > 1 else {}))
    return build(rows, TRIALS).append_column("store", pa.array(names, pa.string()).cast(REPEATED))


def _place(i: int, row: dict[str, Any]) -> tuple[Any, ...]:
    finished = row["finished_at"]
    return _RANK[row["state"]], -finished.timestamp() if finished else 0.0, i


def _all_origins(copies: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Origin] = {}
    for _, row in copies:
        for origin in _origins(row):
            found.setdefault(json.dumps(origin, sort_keys=True), Origin.from_json(origin))
    return origin_columns(copies[0][1]["phase"], tuple(found.values())) if found else {}


def _origins(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from json.loads(row["origins"] or "[]")


def _shares(shards: list[_Shard], trials: pa.Table) -> list[_Share]:
    """For each store the trials that it speaks for."""
    owner = trials["store"].cast(pa.string())
    return [
        (shard, trials.filter(pc.equal(owner, shard.name))["trial_id"].combine_chunks())
        for shard in shards
    ]
