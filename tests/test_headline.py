"""The accuracy that a grid has for its headline is what every view of its results shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.grid import Grid, GridError
from nas_sweeps.names import HEADLINES, accuracy_text
from nas_sweeps.report.page import write_report
from nas_sweeps.store.records import METRICS
from nas_sweeps.train.common import EPOCH_ACCURACIES
from tests.sweep.tiny import TINY
from tests.verbs import cli

MACRO = TINY | {"headline": "accuracy_macro"}


@pytest.fixture
def store(tmp_path: Path, fake_runs: None) -> Path:
    ns.run(Grid.from_dict(MACRO), tmp_path / "store", executor="inline", console="none")
    return tmp_path / "store"


def test_every_epoch_and_every_result_has_each_choice() -> None:
    assert set(HEADLINES) <= set(EPOCH_ACCURACIES) & METRICS


def test_a_headline_is_no_part_of_an_identity_nor_of_the_digest_of_grids_without_one() -> None:
    plain, macro = Grid.from_dict(TINY), Grid.from_dict(MACRO)
    assert [*ns.plan(plain)] == [*ns.plan(macro)]
    assert "headline" not in json.loads(plain.to_json())
    assert Grid.from_json(macro.to_json()).headline == "accuracy_macro"


def test_a_headline_that_is_none_is_refused() -> None:
    with pytest.raises(GridError, match="headline: unknown choice 'accuracy'; choose from accurac"):
        Grid.from_dict(TINY | {"headline": "accuracy"})


def test_tables_lines_and_report_follow_it(store: Path, tmp_path: Path) -> None:
    frames = ns.load(store)
    assert frames.headline == "accuracy_macro"
    assert ns.summarise(frames).equals(ns.summarise(frames, "accuracy_macro"))
    assert not ns.summarise(frames).equals(ns.summarise(frames, "accuracy_balanced"))
    assert frames.learning_curves().equals(frames.learning_curves("accuracy_macro"))
    assert frames.replaced(trials=frames.trials).headline == "accuracy_macro"
    assert "accuracy_macro of retrained networks" in cli("table", store).stdout
    assert "accuracy_balanced of" in cli("table", store, "--value", "accuracy_balanced").stdout
    page = write_report(store, tmp_path / "report").read_text()
    assert "Table I, macro recall" in page
    assert "Table I, balanced test set" not in page


def test_a_run_tells_it_as_it_goes(tmp_path: Path, fake_runs: None) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps(MACRO))
    told: Any = cli("run", file, "--store", tmp_path / "store", "--executor", "inline").stdout
    assert "done, macro " in told
    assert "bal-acc" not in told
    assert "accuracy_macro of retrained networks" in told


def test_lines_stay_in_their_columns() -> None:
    row = dict.fromkeys(HEADLINES, 0.5)
    assert {len(accuracy_text(row, headline)) for headline in HEADLINES} == {len(accuracy_text({}))}
