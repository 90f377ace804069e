"""The examples of docstrings give what they say, on a small store in the place of a real one."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from nas_sweeps.store import Store
from nas_sweeps.tables import compact
from tests.report.lab import BALANCE, EXP, FINALS, Lab


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/quickstart`` in it: three methods on two distributions."""
    folder = tmp_path_factory.mktemp("examples")
    store = Store(folder / "runs" / "quickstart")
    store.create()
    for method, final in FINALS.items():
        for distribution in (BALANCE, EXP):
            Lab(store).chain(method, 0, distribution, final + 0.25 * (distribution == BALANCE))
    compact(store)
    return folder


@pytest.mark.parametrize(
    "module",
    [
        "tables.reading",
        "tables.summary",
        "tables.frames",
        "tables.alphas",
        "tables.query",
        "report.draw",
    ],
)
def test_the_examples_run(module: str, quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quickstart)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testmod(import_module(f"nas_sweeps.{module}"), optionflags=options)
    assert found.attempted > 0
    assert found.failed == 0
