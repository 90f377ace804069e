"""Tuned against default says what the seeds allow: none of those that chose the winner counts."""

from __future__ import annotations

import csv
import io
import json
import re
from math import isnan, sqrt
from pathlib import Path
from statistics import mean, stdev

import optuna
import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.report.page import FOLDER, write_report
from nas_sweeps.report.studies import TunedCell, optuna_study, tuned_cells
from nas_sweeps.report.tuned import read_tuning
from nas_sweeps.report.tuning_figures import tuning_figures
from nas_sweeps.store import Store
from nas_sweeps.sweep.run import run
from nas_sweeps.tables import Frames
from nas_sweeps.tuning.study import quiet
from tests.faked import faked
from tests.report.lab import Lab
from tests.report.test_page import Page
from tests.report.tuned import FAIRDARTS, grid
from tests.verbs import cli

FAIR, DARTS = "fairdarts exp mu=0.4", "darts exp mu=0.4"
T_95_OF_2 = 12.706205  # quantile 0.975 of Student's t with one degree of freedom


@pytest.fixture(scope="module")
def found(tuned: Path) -> pd.DataFrame:
    return ns.tuned_against_default(tuned)


def row(found: pd.DataFrame, cell: str, of: str) -> pd.Series:
    rows = found[(found["cell"] == cell) & (found["of"] == of)]
    assert len(rows) == 1
    return rows.iloc[0]


def by_seed(frames: Frames) -> tuple[dict[int, pd.Series], dict[int, pd.Series]]:
    """The searches of the winner and of the defaults of FairDARTS, found without the package's
    names: by role, and by the knobs of the spec."""
    trials = frames.trials[(frames.trials["method"] == "fairdarts")]
    trials = trials[trials["phase"] == "search"]
    knobs = [dict(json.loads(spec)["method"]["knobs"]) for spec in trials["spec"]]
    default = pd.Series([k["zero_one"] == "l2" and k["zero_one_weight"] == 10 for k in knobs])
    default.index = trials.index
    won = trials["role"] == "winner"
    return tuple(  # type: ignore[return-value]
        {int(trial["seed"]): trial for _, trial in trials[which].iterrows()}
        for which in (won, default)
    )


def test_searches_are_paired_by_the_seeds_that_chose_nothing(
    found: pd.DataFrame, tuned_frames: Frames
) -> None:
    won, default = by_seed(tuned_frames)
    assert set(won) == set(default) == {0, 1, 2}
    value = "accuracy_macro_validation"
    pairs = [won[s][value] - default[s][value] for s in (1, 2)]
    told = row(found, FAIR, "searches")
    assert (told["measure"], told["pairs"], told["variant"]) == (value, 2, "tuned=5")
    assert told["difference"] == pytest.approx(mean(pairs))
    half = T_95_OF_2 * stdev(pairs) / sqrt(2)
    assert told["low"] == pytest.approx(mean(pairs) - half, rel=1e-5)
    assert told["high"] == pytest.approx(mean(pairs) + half, rel=1e-5)
    assert told["default"] == pytest.approx(mean(default[s][value] for s in (1, 2)))
    assert told["tuned"] == pytest.approx(mean(won[s][value] for s in (1, 2)))
    assert told["seed_sd"] == pytest.approx(stdev(default[s][value] for s in (0, 1, 2)))
    assert f"Seeds alone vary by {100 * told['seed_sd']:.2f} points (sd)." in told["verdict"]


def test_retrained_networks_are_paired_by_the_search_that_they_come_from(
    found: pd.DataFrame, tuned_frames: Frames
) -> None:
    won, default = by_seed(tuned_frames)
    retrained = tuned_frames.trials[tuned_frames.trials["phase"] == "retrain"]

    def reached(search: pd.Series) -> float:
        own = retrained["parents"].map(lambda ids: search["trial_id"] in ids)
        return float(retrained[own]["accuracy_balanced"].mean())

    told = row(found, FAIR, "retrained")
    assert (told["measure"], told["pairs"]) == ("accuracy_balanced", 2)
    pairs = [reached(won[s]) - reached(default[s]) for s in (1, 2)]
    assert told["difference"] == pytest.approx(mean(pairs))
    assert told["default_n"] == told["tuned_n"] == 2


def test_defaults_that_win_are_no_difference(found: pd.DataFrame) -> None:
    told = row(found, DARTS, "searches")
    assert (told["pairs"], told["difference"]) == (1, 0)
    assert told["verdict"].startswith("No difference on any of 1 seed.")


@pytest.mark.parametrize(
    ("methods", "seeds", "pairs", "said"),
    [
        (["fairdarts", FAIRDARTS], 1, 0, "Every seed that was searched (1) chose the winner"),
        (["fairdarts", FAIRDARTS], 2, 1, "n=1 cannot tell this from seed noise"),
        ([FAIRDARTS], 2, 0, "list fairdarts without ranges beside it"),
    ],
)
def test_what_one_seed_cannot_say_is_said(
    methods: list[object], seeds: int, pairs: int, said: str, tmp_path: Path
) -> None:
    tree = json.loads(grid(methods).to_json())
    tree["search"]["seeds"] = list(range(seeds))
    with faked():
        run(ns.Grid.from_dict(tree), tmp_path, executor="inline", console="none")
    told = row(ns.tuned_against_default(tmp_path), FAIR, "searches")
    assert said in told["verdict"]
    assert told["pairs"] == told["default_n"] == pairs
    assert isnan(told["low"])


def test_what_a_study_cost_is_the_sum_of_what_it_tried(tuned: Path, tuned_frames: Frames) -> None:
    _, cost = read_tuning(tuned)
    fair, darts = cost.to_dict("records")
    assert (fair["cell"], fair["budget"], fair["tried"], fair["failed"]) == (FAIR, 5, 5, 0)
    trials = tuned_frames.trials
    tried = trials[trials["proposal"].notna() & (trials["study"] == fair["study"])]
    assert len(tried) == fair["trials"] == 5
    assert fair["trial_hours"] == pytest.approx(tried["wall_s"].sum() / 3600)
    accuracy = tried.set_index("proposal")["accuracy_macro_validation"]
    assert (fair["best"], fair["number"]) == (accuracy.max(), accuracy.idxmax())
    assert fair["gain"] == pytest.approx(accuracy.max() - accuracy[0])
    assert darts["trials"] == 10, "two seeds a proposal"
    assert 0 < darts["failed"] < 5


def test_a_table_says_it(tuned: Path, found: pd.DataFrame, lab: Lab) -> None:
    told = row(found, FAIR, "searches")
    done = cli("table", tuned, "--tuning")
    assert done.returncode == 0
    assert f"{100 * told['difference']:+.2f}" in done.stdout
    assert told["verdict"] in done.stdout
    assert f"study {told['study']} of {FAIR}: 5 of 5 proposals tried in" in done.stdout
    pasted = cli("table", tuned, "--tuning", "--format", "markdown")
    assert f"| {FAIR} | tuned=5 | macro validation, searches |" in pasted.stdout.replace("\\", "")
    assert told["verdict"] in pasted.stderr
    full = cli("table", tuned, "--tuning", "--format", "csv")
    first, *_ = csv.DictReader(io.StringIO(full.stdout))
    assert float(first["difference"]) == told["difference"]
    lab.search()
    assert "nothing is tuned in" in cli("table", lab.store.root, "--tuning").stdout
    for mistake, said in (
        (("--value", "accuracy_tial"), "(did you mean accuracy_tail?)"),
        (("--phase", "search"), "--tuning makes a table of its own"),
    ):
        refused = cli("table", tuned, "--tuning", *mistake)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


# The page


@pytest.fixture(scope="module")
def page(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    (out / FOLDER).mkdir()
    for name in ("tuning-0123abcd-history.svg", "tuning-mine.txt"):
        (out / FOLDER / name).write_text("of another store")
    return write_report(tuned, out)


@pytest.mark.system
def test_the_page_has_the_plots_of_every_study(page: Path, found: pd.DataFrame) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert row(found, FAIR, "searches")["verdict"] in parsed.text
    pictures = [str(svg["aria-label"]) for svg in parsed.all("svg") if svg.get("role") == "img"]
    for drawn in (f"{FAIR}: history", f"{FAIR}: slices", f"{DARTS}: history"):
        assert any(label.startswith(f"{drawn}. proposal") for label in pictures)
    assert any(label.startswith(f"{FAIR}: what mattered. zero_one") for label in pictures)
    assert "it needs 4 proposals with results that differ" in parsed.text, "DARTS has fewer"
    assert "it needs a proposal from the ranges with a result" in parsed.text
    names = {path.name for path in (page.parent / FOLDER).glob("tuning-*")}
    studies = set(found["study"])
    assert "tuning-mine.txt" in names
    assert {name.split("-")[1] for name in names} == studies | {"mine.txt"}
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_its_colours_follow_the_theme(page: Path) -> None:
    text = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", text)


def test_a_page_without_studies_says_nothing_of_tuning(lab: Lab, tmp_path: Path) -> None:
    lab.search()
    assert 'id="tuning"' not in write_report(lab.store, tmp_path / "out").read_text()


def drawn(cell: TunedCell, study: optuna.Study, kind: str) -> tuple[pd.DataFrame, list[object]]:
    """The data of a figure, and its axes."""
    (entry,) = [e for e in tuning_figures(cell, study) if e.name.split("-", 2)[2] == kind]
    data = entry.data(Frames({}))
    assert entry.describe(data)
    return data, list(entry.draw(data).axes)


@pytest.fixture(scope="module")
def fair(tuned: Path, tuned_frames: Frames) -> tuple[TunedCell, optuna.Study]:
    cell, _ = tuned_cells(Store(tuned), tuned_frames)
    return cell, optuna_study(cell, tuned_frames)


def test_the_history_is_drawn_of_the_trials(fair: tuple[TunedCell, optuna.Study]) -> None:
    data, (axes,) = drawn(*fair, "history")  # type: ignore[misc]
    values = [trial.value for trial in fair[1].trials]
    assert data["accuracy_macro_validation"].tolist() == values
    points, *_ = (of for of in axes.collections if len(of.get_offsets()))  # type: ignore[attr-defined]
    assert points.get_offsets()[:, 1].tolist() == values
    best = [max(values[: i + 1]) for i in range(len(values))]  # type: ignore[type-var]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}  # type: ignore[attr-defined]
    assert lines["the best so far"] == best
    assert set(lines["the defaults"]) == {values[0]}


def test_slices_mark_the_best_and_the_defaults(fair: tuple[TunedCell, optuna.Study]) -> None:
    study = fair[1]
    _, panels = drawn(*fair, "slices")
    assert len(panels) == 2
    weights = panels[1]
    assert weights.get_xlabel() == "zero_one_weight"  # type: ignore[attr-defined]
    rings = {of.get_label(): of.get_offsets().tolist() for of in weights.collections}  # type: ignore[attr-defined]
    assert rings["the best"] == [[study.best_params["zero_one_weight"], study.best_value]]
    assert rings["the defaults"] == [[10.0, study.trials[0].value]]


def test_two_objectives_have_a_front_in_the_place_of_a_history(
    fair: tuple[TunedCell, optuna.Study],
) -> None:
    cell, one = fair
    both = optuna.create_study(directions=["maximize", "minimize"])
    with quiet():
        both.set_metric_names(["accuracy_macro_validation", "num_params"])
    for trial in one.trials:
        both.add_trial(
            optuna.trial.create_trial(
                values=[trial.value, 1000.0 + 100 * (trial.number % 3)],
                params=trial.params,
                distributions=trial.distributions,
            )
        )
    kinds = [entry.name.split("-", 2)[2] for entry in tuning_figures(cell, both)]
    assert kinds == ["front", "importance-1", "importance-2", "slices-1", "slices-2"]
    _, (axes,) = drawn(cell, both, "front")  # type: ignore[misc]
    drawn_best = {
        tuple(point)
        for of in axes.collections  # type: ignore[attr-defined]
        if of.get_label() == "on the Pareto front"
        for point in of.get_offsets().tolist()
    }
    assert drawn_best == {tuple(trial.values) for trial in both.best_trials}
    for kind in kinds[1:]:
        drawn(cell, both, kind)


def test_pyplot_and_its_styles_are_left_as_they_were(fair: tuple[TunedCell, optuna.Study]) -> None:
    import matplotlib.pyplot as plt
    import matplotlib.style

    ggplot, size = dict(matplotlib.style.library["ggplot"]), plt.rcParams["font.size"]
    for kind in ("history", "importance", "slices"):
        drawn(*fair, kind)
    assert plt.get_fignums() == []
    assert dict(matplotlib.style.library["ggplot"]) == ggplot
    assert plt.rcParams["font.size"] == size
