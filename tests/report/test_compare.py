from __future__ import annotations

import io
from dataclasses import replace
from math import isnan
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from nas_sweeps.cli.compare_view import compare_view
from nas_sweeps.report.compare import Comparison, compare
from nas_sweeps.report.spread import interval
from nas_sweeps.store import Origin, Store
from nas_sweeps.tables import load
from tests.report.lab import BALANCE, EXP, HOSTILE, NUMERICS, VERSIONS, Lab


@pytest.fixture
def labs(tmp_path: Path) -> tuple[Lab, Lab]:
    made = Lab(Store(tmp_path / "a")), Lab(Store(tmp_path / "b"))
    for lab in made:
        lab.store.create()
    return made


def compared(labs: tuple[Lab, Lab]) -> Comparison:
    a, b = labs
    return compare(load(a.store), load(b.store))


def shown(labs: tuple[Lab, Lab], width: int = 100) -> str:
    page = io.StringIO()
    console = Console(file=page, width=width, no_color=True, markup=False)
    for part in compare_view(*(str(lab.store) for lab in labs), value="accuracy_balanced"):
        console.print(part)
    return page.getvalue()


def test_equal_stores_are_equal_to_the_last_bit(labs: tuple[Lab, Lab]) -> None:
    for lab in labs:
        lab.chain("darts", 0, EXP, 0.5)
    found = compared(labs)
    assert len(found.shared) == 2
    assert found.differing.empty
    assert found.only.empty
    assert found.alone.empty
    assert found.cells["difference"].tolist() == [0, 0]
    assert (found.environment["a"] == found.environment["b"]).all()
    text = shown(labs)
    assert "done in both: 2 trials, equal in every result to the last bit" in text
    assert "environment: the same in both" in text


def test_a_result_that_differs_in_one_bit_is_named(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    trial = a.search(accuracies=(0.5,))
    b.search(accuracies=(0.5 + 2**-40,))
    found = compared(labs)
    assert set(found.differing["trial_id"]) == {trial.trial_id}
    row = found.differing.set_index("result").loc["accuracy_balanced"]
    assert row["b"] - row["a"] == 2**-40
    assert "genotype_id" not in set(found.differing["result"])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"numerics": replace(NUMERICS, threads=1)}, "threads: 2 in A, 1 in B (1 trial)"),
        ({"numerics": replace(NUMERICS, form="plain")}, "form: arranged in A, plain in B"),
        ({"numerics": None}, "threads: 2 in A, unknown in B"),
        (
            {"numerics_changed": "threads: 1, then 2"},
            "numerics_changed: no in A, threads: 1, then 2 in B",
        ),
    ],
)
def test_bits_are_spoken_of_only_where_numerics_are_equal(
    labs: tuple[Lab, Lab], other: dict[str, object], said: str
) -> None:
    a, b = labs
    a.search()
    b.search(**other)
    found = compared(labs)
    assert found.differing.empty
    assert (len(found.shared), found.alike) == (1, [])
    text = shown(labs, width=200)
    assert "to the last bit" not in text
    assert "equal bits are not to be expected" in text
    assert said in text
    for lab in labs:
        same = lab.search(seed=1)
    assert compared(labs).alike == [same.trial_id]
    assert "1 of them computed under equal numerics: equal in every result" in shown(labs, 200)


def test_cells_are_compared_by_pairs_of_seeds(labs: tuple[Lab, Lab]) -> None:
    """B found other cells, so it has other retrains: their ids say nothing, their seeds do."""
    a, b = labs
    for seed, (x, y) in enumerate([(0.5, 0.6), (0.5, 0.7), (0.6, 0.6)]):
        origin = Origin(method="darts", search_id="s-1", seed=seed)
        a.retrain(origin, seed=seed, accuracies=(x, x))
        b.retrain(origin, seed=seed, accuracies=(y, y), label="digits")
    b.retrain(Origin(method="darts", search_id="s-1", seed=3), seed=3, accuracies=(0.9, 0.9))
    row = compared(labs).cells.iloc[0]
    assert row["mean_a"] == pytest.approx(1.6 / 3)
    assert row["mean_b"] == pytest.approx(2.8 / 4)
    assert (row["n_a"], row["n_b"], row["pairs"]) == (3, 4, 3)
    assert row["difference"] == pytest.approx(0.1)
    assert (row["low"], row["high"]) == pytest.approx(interval([0.1, 0.2, 0.0]))


def test_one_pair_has_no_interval(labs: tuple[Lab, Lab]) -> None:
    for lab in labs:
        lab.search()
    row = compared(labs).cells.iloc[0]
    assert row["pairs"] == 1
    assert isnan(row["low"])


def test_settings_that_differ_are_cells_of_their_own(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    a.retrain(Origin(method="darts"), accuracies=(0.5,))
    b.retrain(Origin(method="darts"), accuracies=(0.5, 0.75))
    found = compared(labs)
    assert found.cells.empty
    assert found.alone[["store", "setting", "n"]].to_numpy().tolist() == [
        ["A", "epochs=1", 1],
        ["B", "epochs=2", 1],
    ]
    assert "no cell (method, distribution, settings) has a result in both" in shown(labs)


def test_what_only_one_has_is_listed_with_its_state(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    mine = a.search("darts", 0, BALANCE)
    half = a.search("darts", 1)
    b.search("darts", 1, state="running")
    waits = b.search("darts", 2, state="waiting")
    a.search("darts", 3, state="failed")
    b.search("darts", 3, state="waiting")
    only = compared(labs).only.set_index("trial_id")
    assert only.loc[mine.trial_id].tolist() == ["search darts balance s0", "A", "done", "absent"]
    assert only.loc[half.trial_id].tolist()[1:] == ["A", "done", "running"]
    assert only.loc[waits.trial_id].tolist()[1:] == ["B", "waiting", "absent"]
    assert len(only) == 3
    assert "(running in the other)" in shown(labs)


def test_environments_that_differ_are_shown(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    a.search()
    numerics = replace(NUMERICS, torch="2.16.0")
    b.search(versions=VERSIONS | {"torch": "2.16.0"}, host="node2", numerics=numerics)
    found = compared(labs).environment.set_index("what")
    assert found.loc["torch_version"].tolist() == ["2.15.0", "2.16.0"]
    other = found[found["a"] != found["b"]]
    assert set(other.index) == {"torch_version", "host"}
    assert "2.16.0" in shown(labs)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_hostile_and_empty_stores_can_be_shown(labs: tuple[Lab, Lab], width: int) -> None:
    assert "no trial is done in both" in shown(labs, width)
    for lab in labs:
        lab.search(HOSTILE)
        lab.retrain(Origin(method=HOSTILE))
    text = shown(labs, width)
    assert max(map(len, text.splitlines())) <= width
    assert "+0.00" in text


def test_trials_that_cannot_be_read_are_compared_by_id(labs: tuple[Lab, Lab]) -> None:
    for lab in labs:
        lab.search()
    for trial_id in labs[0].store.states():
        Path(labs[0].store.layout.trial(trial_id).spec).write_text("{")
    with pytest.warns(UserWarning, match="unreadable"):
        found = compared(labs)
    assert len(found.shared) == 1
    assert isinstance(found.alone, pd.DataFrame)


def test_only_fractions_are_compared(labs: tuple[Lab, Lab]) -> None:
    frames = load(labs[0].store)
    with pytest.raises(ValueError, match="value: 'wall_s' is not one of accuracy_balanced"):
        compare(frames, frames, "wall_s")
