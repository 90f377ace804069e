from __future__ import annotations

import sys
from typing import Any

import pytest

from nas_sweeps.tables import compact, load, sql
from nas_sweeps.tables.schemas import SCHEMAS


@pytest.fixture
def swept(lab: Any) -> Any:
    lab.sweep()
    return lab


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_can_be_asked(swept: Any, name: str) -> None:
    wanted = getattr(load(swept.store), name)
    found = sql(swept.store, f"SELECT * FROM {name.upper()}")
    assert list(found) == list(wanted)
    assert len(found) == len(wanted)


def test_tables_join_and_null_stays_null(swept: Any) -> None:
    found = sql(
        swept.root,
        "select state, max(epoch) as last, any_value(mu) as mu, any_value(finished_at) as ended "
        "from trials left join epochs using (trial_id) where phase = 'search' "
        "group by state order by state",
    )
    assert found["state"].tolist() == ["done", "failed", "running", "waiting"]
    assert found["last"].isna().tolist() == [False, False, False, True]
    assert found["mu"].tolist() == [0.1] * 4
    assert str(found["ended"].dtype) == "datetime64[us, UTC]"


def test_edge_weights_can_be_unnested(swept: Any) -> None:
    found = sql(
        swept.store, "select sum(w) as s from (select unnest(edge_weights) as w from alphas)"
    )
    frames = load(swept.store)
    assert found["s"].tolist() == pytest.approx([sum(map(sum, frames.alphas["edge_weights"]))])


def test_frames_can_be_asked_too_and_nothing_else_is_decoded(swept: Any) -> None:
    swept.age()
    compact(swept.store)
    frames = load(swept.store, filters=[("state", "=", "done")])
    assert sql(frames, "select count(*) as n from trials")["n"].tolist() == [3]
    assert set(frames._tables) == {"trials"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select * from trails", "Did you mean"),
        ("select acuracy from trials", "acuracy"),
        ("selec 1", "syntax error"),
    ],
)
def test_a_query_that_is_none_is_a_users_mistake(swept: Any, query: str, said: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)^sql: .*{said}"):
        sql(swept.store, query)


def test_without_duckdb_it_says_what_to_install(
    swept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ValueError, match=r"pip install 'nas_sweeps\[duckdb\]'"):
        sql(swept.store, "select 1")
