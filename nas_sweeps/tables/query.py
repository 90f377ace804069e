"""SQL over a store's tables, by DuckDB, which is an extra."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from nas_sweeps.store.ledger import Store
from nas_sweeps.tables.frames import Frames
from nas_sweeps.tables.reading import load
from nas_sweeps.tables.schemas import SCHEMAS, to_frame


def sql(
    store: Frames | Store | str | Path | Iterable[Store | str | Path], query: str
) -> pd.DataFrame:
    """The answer to a query over ``trials``, ``epochs``, ``classes``, ``genotypes``, ``attempts``
    and ``alphas``, as DuckDB gives it.

    It needs ``pip install nas_sweeps[duckdb]``. DuckDB reads the tables where they lie in memory,
    and only those that the query names.

    Args:
        store: what ``load`` takes, or frames that are loaded.
        query: one statement of DuckDB's SQL.

    Raises:
        ValueError: DuckDB is not installed or does not understand the query, or there is no store.

    >>> sql("runs/quickstart", '''
    ...     select method, round(avg(accuracy_balanced), 3) as balanced, count(*) as n
    ...     from trials where phase = 'retrain' group by method order by balanced desc
    ... ''')
          method  balanced  n
    0    ssf_nas     0.750  2
    1  fairdarts     0.675  2
    2      darts     0.625  2
    """
    if not isinstance(query, str) or not query.strip():
        raise ValueError("sql: the query is empty or no text; try 'select * from trials'")
    duckdb = _duckdb()
    frames = store if isinstance(store, Frames) else load(store)
    with duckdb.connect(":memory:") as connection:
        for name in SCHEMAS:
            if re.search(rf"\b{name}\b", query, re.IGNORECASE):
                connection.register(name, frames.arrow(name))
        try:
            answer = connection.sql(query)
            return pd.DataFrame() if answer is None else to_frame(_in_utc(answer.to_arrow_table()))
        except duckdb.Error as error:
            tables = (
                f"; the tables are {', '.join(SCHEMAS)}" if "Table with name" in str(error) else ""
            )
            raise ValueError(f"sql: {error}{tables}") from None


def _in_utc(table: pa.Table) -> pa.Table:
    """The same instants: DuckDB shows them in this machine's zone."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz:
            zoned = table[field.name].cast(pa.timestamp(field.type.unit, tz="UTC"))
            table = table.set_column(i, field.name, zoned)
    return table


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise ValueError(
            "sql: it needs DuckDB, which is not installed: pip install 'nas_sweeps[duckdb]'"
        ) from None
    return duckdb
