"""What is tuned is called so, once for all cells, in tables, figures and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.report.labels import caveats, retrains, searches
from nas_sweeps.report.table1 import table1
from nas_sweeps.report.tables import table_text
from nas_sweeps.sweep.run import run
from nas_sweeps.tables import Frames, attributed, load, summarise
from tests.faked import faked
from tests.report.tuned import WEIGHT
from tests.sweep.tiny import TINY
from tests.verbs import cli

LR = {"low": 0.01, "high": 0.3, "log": True}


def grid(trials: int, **ranges: Any) -> ns.Grid:
    """A setting of the recipe and a knob, tuned on each of two distributions."""
    search: dict[str, Any] = TINY["search"] | {  # type: ignore[operator]
        "methods": [{"fairdarts": {"zero_one_weight": WEIGHT} | ranges}],
        "distributions": ["balance", {"exp": 0.4}],
        "seeds": 2,
    }
    search["recipe"] = search["recipe"] | {"lr": LR}
    return ns.Grid.from_dict(
        TINY | {"search": search, "tune": {"trials": trials, "startup": 2, "seed": 1}}
    )


def worked(store: Path, *grids: ns.Grid) -> Frames:
    with faked():
        for one in grids:
            assert run(one, store, executor="inline", console="none").complete
    return load(store)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names") / "store"


@pytest.fixture(scope="module")
def grown(store: Path) -> Frames:
    """A budget that grew, and with it the winner of a cell."""
    frames = worked(store, grid(2), grid(6))
    won = frames.trials[frames.trials["role"] == "winner"]
    assert won.groupby("study")["variant"].nunique().max() > 1, "else this shows nothing"
    return frames


def test_winners_of_all_cells_are_one_row(grown: Frames) -> None:
    called = {"fairdarts (tuned=2)", "fairdarts (tuned=6)"}
    assert set(retrains(grown)["who"]) == called
    assert set(table1(grown)["who"]) == called
    assert set(retrains(grown)["what"]) == {""}
    for who in searches(grown)["who"]:
        assert who in called | {"fairdarts (tuned=2+tuned=6)"}
    table = summarise(grown)
    assert table.index.to_list() == [("fairdarts", "tuned=2"), ("fairdarts", "tuned=6")]
    assert (table.xs("n", axis=1, level="statistic") == 2).all(axis=None)


def test_what_was_chosen_stays_in_the_tables(grown: Frames) -> None:
    won = grown.trials[grown.trials["role"] == "winner"]
    assert won["setting"].str.contains("lr=0").any(), "the column says what was trained"
    named = attributed(grown, "search")
    assert set(named["setting"]) == {
        "channels=2,layers=3,epochs=1,batch_size=8,"
        "data.image_size=8,data.n_max=10,data.test_n_max=3"
    }


def test_an_older_winner_is_told_apart(store: Path, grown: Frames) -> None:
    *_, said = caveats(attributed(grown))
    assert said == (
        "tuned=6 is the winner of 6 proposals of a study, by the validation half, searched again "
        "with every seed; tuned=2 that of its first 2, of a smaller budget"
    )
    done = cli("table", store)
    assert "tuned=2" in done.stdout
    assert said in done.stdout.replace("\n", " ")
    assert "| fairdarts | tuned=6 |" in table_text(grown, format="markdown")


def won(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Retrains by variant, study and mu, as ``attributed`` has them."""
    found = pd.DataFrame(rows, columns=["variant", "study", "mu"])
    return found.assign(
        method="darts",
        dataset="digits",
        distribution="exp",
        total=None,
        n_max=None,
        pretrain="none",
        state="done",
    )


BY = ", by the validation half, searched again with every seed"


def test_a_study_that_replaced_another_one_is_not_its_larger_budget() -> None:
    *_, said = caveats(
        won(("tuned=2 of aa", "aa", 0.1), ("tuned=2 of bb", "bb", 0.1), ("tuned=3", "bb", 0.1))
    )
    assert said == (
        f"tuned=3 of bb is the winner of 3 proposals of its study{BY}; tuned=2 of aa that of 2; "
        "tuned=2 of bb that of its first 2, of a smaller budget"
    )


def test_budgets_of_two_cells_are_not_one_that_grew() -> None:
    *_, said = caveats(won(("tuned=2", "aa", 0.1), ("tuned=3", "bb", 0.2)))
    assert said == f"tuned=3 is the winner of 3 proposals of a study{BY}; tuned=2 that of 2"


def test_a_search_that_won_two_studies_is_counted_for_each() -> None:
    pairs = (("aa", "tuned=2"), ("bb", "tuned=3"))
    origins = [{"method": "darts", "study": study, "variant": of} for study, of in pairs]
    found = won(("tuned=2+tuned=3 of aa+bb", "aa+bb", 0.1)).assign(origins=json.dumps(origins))
    *_, said = caveats(found)
    assert said == (
        f"tuned=3 of bb is the winner of 3 proposals of its study{BY}; tuned=2 of aa that of 2"
    )


def test_points_of_a_pareto_set_are_no_winner() -> None:
    *_, said = caveats(
        won(("tuned=8 #1", "aa", 0.1), ("tuned=8 #4", "aa", 0.1), ("tuned=2 #1", "aa", 0.1))
    )
    assert said == (
        "tuned=8 #k are points of the Pareto set of 8 proposals of a study, #k for proposal k, by "
        "the validation half and a second objective, searched again with every seed; tuned=2 #k "
        "those of its first 2, of a smaller budget"
    )


def test_a_table_without_anything_tuned_is_as_ever(frames: Frames) -> None:
    assert summarise(frames).index.names == ["method"]
    assert not any("tuned" in line for line in caveats(attributed(frames)))


def test_winners_of_two_studies_of_a_cell_are_not_averaged(tmp_path: Path) -> None:
    other = {"arch_lr": {"low": 0.001, "high": 0.1}}
    frames = worked(tmp_path, grid(2), grid(2, **other))
    variants = summarise(frames).index.get_level_values("variant")
    found = {name for joined in frames.trials["study"].dropna() for name in joined.split("+")}
    assert len(found) == 4, "two ranges, two distributions"
    assert {variant.removeprefix("tuned=2 of ") for variant in variants} == found


def test_a_winner_is_one_before_its_run_has_ended(grown: Frames) -> None:
    """Who asked for what was tried before is only recorded in the end."""
    trials = grown.trials.copy()
    proposed = trials["role"].eq("winner") & trials["proposal"].notna()
    assert proposed.any()
    trials.loc[proposed, ["role", "variant"]] = ["tuning", "lr=0.1"]
    named = attributed(grown.replaced(trials=trials), "search")
    assert named["variant"].str.startswith("tuned=").all()
