"""Studies with two objectives, of retrains, and with a stop rule, rebuilt and on the page."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

import nas_sweeps as ns
from nas_sweeps.report.labels import retrains
from nas_sweeps.report.page import write_report
from nas_sweeps.report.studies import proposals, state_of, tuned_cells
from nas_sweeps.report.tuned import read_tuning
from nas_sweeps.report.winners import genotype_of
from nas_sweeps.space.size import size_of
from nas_sweeps.store import Store
from nas_sweeps.sweep.run import run
from nas_sweeps.tables import Frames, load
from nas_sweeps.tuning import MEASURES
from tests.faked import faked
from tests.report.test_page import Page
from tests.report.tuned import WEIGHT
from tests.sweep.tiny import TINY
from tests.verbs import cli

FAIR = "fairdarts exp mu=0.4"
LR = {"low": 0.01, "high": 0.3, "log": True, "default": 0.025}
NETWORK = (6, 4)  # channels and layers of what is retrained
KINDS = ["two", "retrained", "pruned"]


def worked(store: Path, *trees: Any) -> Frames:
    with faked():
        for tree in trees:
            assert run(ns.Grid.from_dict(tree), store, executor="inline", console="none").complete
    return load(store)


def worked_in(store: Path, *trees: Any) -> Path:
    worked(store, *trees)
    return store


def search(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = TINY["search"] | {  # type: ignore[operator]
        "methods": [{"fairdarts": {"zero_one_weight": WEIGHT}}]
    }
    made["recipe"] = made["recipe"] | {"epochs": changes.pop("epochs", 1)}
    return TINY | {"search": made | changes}


def two_objectives() -> dict[str, Any]:
    recipe = TINY["retrain"]["recipe"] | {"channels": NETWORK[0], "layers": NETWORK[1]}  # type: ignore[index]
    return search(seeds=2) | {
        "tune": {
            "trials": 8,
            "startup": 3,
            "parallel": 2,
            "objective": ["accuracy_validation", "num_params"],
            "seeds_per_trial": 2,
        },
        "retrain": {"recipe": recipe},
    }


def retrained(seeds: int = 3, per: str = "genotype", **tune: Any) -> dict[str, Any]:
    """Two searches, and retrains of what they found, which are tuned."""
    tuned = {"trials": 4, "startup": 2, "parallel": 2, "per": per} | tune
    recipe = TINY["retrain"]["recipe"] | {"lr": LR}  # type: ignore[index]
    plain = TINY["search"] | {"methods": ["darts"], "seeds": 2}  # type: ignore[operator]
    return TINY | {"search": plain, "retrain": {"recipe": recipe, "seeds": seeds, "tune": tuned}}


def untuned(tree: dict[str, Any]) -> dict[str, Any]:
    recipe = tree["retrain"]["recipe"] | {"lr": LR["default"]}
    return tree | {"retrain": {"recipe": recipe, "seeds": tree["retrain"]["seeds"]}}


def pruned() -> dict[str, Any]:
    stop = {"rule": "median", "after_epochs": 2, "startup": 2}
    return search(seeds=2, epochs=6, stop=stop) | {
        "tune": {"trials": 8, "startup": 2, "parallel": 2, "seed": 10}
    }


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        name: tmp_path_factory.mktemp(name) / "store" for name in ("two", "retrained", "pruned")
    }
    worked(made["two"], two_objectives())
    worked(made["retrained"], retrained(), untuned(retrained()))
    worked(made["pruned"], pruned())
    return made


def proposed(frames: Frames, study: str) -> dict[int, list[Any]]:
    """Rows by the number of the proposal, read here without the package."""
    found: dict[int, list[Any]] = {}
    for row in frames.trials.to_dict("records"):
        for origin in json.loads(row["origins"]) if isinstance(row["origins"], str) else ():
            if origin.get("study") == study and origin.get("proposal") is not None:
                found.setdefault(origin["proposal"], []).append(row)
    return found


# Two objectives


def test_a_study_of_two_objectives_has_both_values(stores: dict[str, Path]) -> None:
    frames, studies = load(stores["two"]), ns.studies(stores["two"])
    (study,) = studies.values()
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    assert study.metric_names == ["accuracy_validation", "num_params"]
    rows = proposed(frames, study.user_attrs["study"])
    for trial in study.trials:
        of = rows[trial.number]
        assert len(of) == 2
        sizes = [size_of(genotype_of(frames, r["genotype_id"]), *NETWORK).num_params for r in of]
        accuracy = mean(r["accuracy_validation"] for r in of)
        assert trial.values == pytest.approx([accuracy, mean(sizes)])
    won = frames.trials[(frames.trials["phase"] == "search") & (frames.trials["role"] == "winner")]
    front = {trial.number for trial in study.best_trials}
    assert {int(number) for number in won["proposal"]} <= front, "what the run went on with"


def test_every_point_of_a_pareto_set_is_a_row(stores: dict[str, Path]) -> None:
    found, cost = read_tuning(stores["two"])
    assert found["variant"].str.fullmatch(r"tuned=8 #\d").all()
    assert set(found["of"]) == {"searches", "retrained"}
    assert cost["tried"].tolist() == [8]
    assert cli("table", stores["two"], "--tuning").returncode == 0


# Retrains


def test_retrains_of_each_genotype_have_a_study(stores: dict[str, Path]) -> None:
    frames, studies = load(stores["retrained"]), ns.studies(stores["retrained"])
    assert len(studies) == 2
    for name, study in studies.items():
        assert name == f"retraining darts exp mu=0.4 {study.user_attrs['study']}"
        rows = proposed(frames, study.user_attrs["study"])
        for trial in study.trials:
            (row,) = rows[trial.number]
            assert trial.state == TrialState.COMPLETE
            assert trial.value == row["accuracy_macro_validation"]
            assert trial.params == {"recipe.lr": json.loads(row["spec"])["recipe"]["lr"]}
        assert study.trials[0].params == {"recipe.lr": LR["default"]}


def test_tuned_retrains_are_paired_by_genotype_and_seed(stores: dict[str, Path]) -> None:
    found, cost = read_tuning(stores["retrained"])
    trials = load(stores["retrained"]).trials
    trials = trials[trials["phase"] == "retrain"]
    lr = trials["spec"].map(lambda text: json.loads(text)["recipe"]["lr"])
    images = trials["spec"].map(lambda text: json.loads(text)["recipe"]["images"])
    default = trials[(lr == LR["default"]) & (images != "search_half")]
    for row in found.to_dict("records"):
        assert (row["of"], row["variant"], row["pairs"]) == ("retrained", "tuned=4", 2)
        won = trials[(trials["study"] == row["study"]) & (trials["role"] == "winner")]
        differences = [
            one["accuracy_balanced"] - other["accuracy_balanced"]
            for _, one in won[won["seed"] != 0].iterrows()
            for _, other in default[
                (default["genotype_id"] == one["genotype_id"]) & (default["seed"] == one["seed"])
            ].iterrows()
        ]
        assert len(differences) == 2
        assert row["difference"] == pytest.approx(mean(differences))
    assert cost["tried"].tolist() == [4, 4]


def test_networks_with_two_names_are_compared_once(tmp_path: Path) -> None:
    """A study of the retraining that chooses the defaults names the trials of an untuned one."""
    tree = search(seeds=2, methods=["fairdarts", {"fairdarts": {"zero_one_weight": WEIGHT}}])
    searched = tree | {"tune": {"trials": 2, "startup": 2}}
    recipe = TINY["retrain"]["recipe"] | {"lr": LR}  # type: ignore[index]
    both = searched | {"retrain": {"recipe": recipe, "tune": {"trials": 1, "per": "cell"}}}
    before = read_tuning(worked_in(tmp_path, searched))[0]
    assert sorted(before["of"]) == ["retrained", "searches"]
    store = worked_in(tmp_path, both)
    assert len(tuned_cells(Store(store), load(store))) > 1, "else this shows nothing"
    found = read_tuning(store)[0]
    found = found[found["cell"] == FAIR]
    assert sorted(found["of"]) == ["retrained", "searches"]
    assert found["difference"].tolist() == before["difference"].tolist()
    networks = retrains(load(store))
    tuned = networks["setting"].str.startswith("tuned=1")
    assert set(networks["what"][tuned]) == {"tuned=1"}
    assert not networks["what"][~tuned].str.contains("tuned").any()


def test_a_study_of_a_cell_counts_each_seed_once(tmp_path: Path) -> None:
    """Two searches share it; both, and the winners of both, name it."""
    frames = worked(tmp_path, retrained(per="cell", seeds_per_trial=2, seed=1))
    (cell,) = tuned_cells(Store(tmp_path), frames)
    assert cell.name == "retraining darts exp mu=0.4"
    found = proposals(cell.study, frames)
    assert {number: rows["seed"].tolist() for number, rows in found.items()} == {
        number: [0, 1] for number in range(4)
    }
    (row,) = read_tuning(tmp_path)[0].to_dict("records")
    assert row["tuned_n"] == 1, "seed 2 of both genotypes"
    assert "run the grid into this store with retrain.tune=null" in row["verdict"]


def test_two_studies_of_one_retraining_are_two_rows_of_a_table(tmp_path: Path) -> None:
    trees = [retrained(per="cell", objective=objective) for objective in MEASURES]
    frames = worked(tmp_path, *trees)
    cells = tuned_cells(Store(tmp_path), frames)
    networks = retrains(frames)
    assert set(networks["what"]) == {f"tuned=4 of {cell.study.name}" for cell in cells}
    assert networks.groupby("what", observed=True).size().tolist() == [6, 6], (
        "3 seeds of 2 searches"
    )
    alone = worked(tmp_path / "alone", trees[0])
    assert not retrains(alone)["setting"].str.contains(" of ").any()


def test_a_proposal_is_not_complete_before_all_its_seeds_are(tmp_path: Path) -> None:
    frames = worked(tmp_path, retrained(per="cell", seeds_per_trial=2))
    (cell,) = tuned_cells(Store(tmp_path), frames)
    trials = frames.trials.copy()
    kept = trials["proposal"].ne(1) | trials["seed"].ne(1)
    # Another grid asked for the same trials, with another name for the recipe.
    trials["origins"] = [
        json.dumps([o | {"recipe": name} for o in json.loads(text) for name in ("a", "b")])
        for text in trials["origins"].fillna("[]")
    ]
    found = proposals(cell.study, frames.replaced(trials=trials[kept.fillna(True)]))
    assert [len(rows) for rows in found.values()] == [2, 1, 2, 2]
    assert state_of(cell.study, found[1]) == "RUNNING"
    assert state_of(cell.study, found[2]) == "COMPLETE"


# Pruned


def test_what_a_rule_gave_up_is_pruned_with_its_curve(stores: dict[str, Path]) -> None:
    frames, (study,) = load(stores["pruned"]), ns.studies(stores["pruned"]).values()
    rows = proposed(frames, study.user_attrs["study"])
    states = {number: row["state"] for number, (row, *_) in rows.items()}
    given_up = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert given_up
    assert {trial.number for trial in given_up} == {n for n, s in states.items() if s == "pruned"}
    for trial in given_up:
        told = json.loads(rows[trial.number][0]["stop"])
        assert trial.intermediate_values == {int(e): v for e, v in told["curve"].items()}
        assert trial.user_attrs["pruned by"].startswith("median after epoch")
    _, cost = read_tuning(stores["pruned"])
    assert cost[["tried", "pruned", "failed"]].to_numpy().tolist() == [[8, len(given_up), 0]]
    assert f", {len(given_up)} of them pruned" in cli("table", stores["pruned"], "--tuning").stdout


# All of them


def test_a_study_is_exported_as_it_is(kind: str, stores: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, study) in enumerate(ns.studies(stores[kind]).items()):
        out = tmp_path / f"{number}.db"
        assert cli("export-study", stores[kind], name, out).returncode == 0
        read = optuna.load_study(study_name=name, storage=f"sqlite:///{out}")
        assert read.directions == study.directions
        for told, kept in zip(read.trials, study.trials, strict=True):
            for what in ("state", "values", "params", "intermediate_values", "user_attrs"):
                assert getattr(told, what) == getattr(kept, what), what


@pytest.mark.system
def test_the_page_shows_every_study(kind: str, stores: dict[str, Path], tmp_path: Path) -> None:
    page = Page(write_report(stores[kind], tmp_path / "page"))
    assert page.open == []
    labels = [str(svg["aria-label"]) for svg in page.all("svg") if svg.get("role") == "img"]
    lead = "Pareto front" if kind == "two" else "history"
    for name, study in ns.studies(stores[kind]).items():
        gone = sum(trial.state == TrialState.PRUNED for trial in study.trials)
        assert (f"{gone} were pruned by a stop rule" in page.text) == (kind == "pruned")
        assert any(label.startswith(f"{name}: {lead}. proposal") for label in labels)


def test_means_of_what_a_rule_left_say_so(tmp_path: Path) -> None:
    tree = search(methods=["darts"], seeds=5, epochs=6, stop={"rule": "asha", "after_epochs": 1})
    frames = worked(tmp_path / "store", tree)
    searches = frames.trials[frames.trials["phase"] == "search"]
    gone = int((searches["state"] == "pruned").sum())
    assert 0 < gone < 5
    said = f"in no mean: {gone} of 5 of search darts exp mu=0.4. Means are of the trials that were"
    assert said in " ".join(cli("table", tmp_path / "store").stdout.split())
    assert said in cli("table", tmp_path / "store", "--format", "csv").stderr
    assert said in Page(write_report(tmp_path / "store", tmp_path / "page")).text
