"""What a grid file means: its short forms, and the trials it stands for."""

from __future__ import annotations

import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from nas_sweeps import methods
from nas_sweeps.grid import Grid, GridError, load_grid, plan
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.trial import Barlow, DataPaths, Distribution, Pretrain, Resources

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
SMALL: dict[str, Any] = {
    "data": {"dataset": "digits"},
    "search": {"methods": ["darts"], "distributions": ["balance"]},
}


def grid(**sections: dict[str, Any]) -> Grid:
    """SMALL with settings added to its sections."""
    tree = deepcopy(SMALL)
    for name, settings in sections.items():
        tree[name] = tree.get(name, {}) | settings if isinstance(settings, dict) else settings
    return Grid.from_dict(tree)


def ids(of: Grid) -> set[str]:
    return {trial.trial_id for trial in plan(of).searches}


def test_importing_grid_and_schedule_imports_nothing_heavy() -> None:
    code = (
        "import sys, nas_sweeps.grid, nas_sweeps.schedule;"
        f"nas_sweeps.grid.plan(nas_sweeps.grid.load_grid({str(EXPERIMENTS / 'paper.yaml')!r}));"
        "print({'torch', 'ray', 'torchvision', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_plan_of_ten_thousand_trials_takes_less_than_three_seconds() -> None:
    start = time.process_time()
    planned = plan(grid(search={"seeds": 5000}))
    assert len(planned) == len(list(planned)) == 10_000
    assert time.process_time() - start < 3


def test_a_plan_takes_a_grid_or_the_path_of_its_file() -> None:
    path = EXPERIMENTS / "quickstart.yaml"
    assert plan(path) == plan(str(path)) == plan(load_grid(path))


def test_search_is_the_product_of_methods_distributions_and_seeds_in_file_order() -> None:
    axes = {"distributions": ["balance", {"exp": 0.1}], "seeds": 2}
    of = grid(search={"methods": ["darts", "ssf_nas"]} | axes)
    rows = [(t.method.name, str(t.distribution), t.seed) for t in plan(of).searches]
    assert rows[:3] == [
        ("darts", "balance", 0),
        ("darts", "balance", 1),
        ("darts", "exp mu=0.1", 0),
    ]
    assert len(rows) == len(set(rows)) == 8


def test_mu_completes_bare_kinds_and_balance_stays_one_cell() -> None:
    of = grid(search={"distributions": ["balance", "exp", {"step": 0.05}], "mu": [0.1, 0.01]})
    assert [str(d) for d in of.search.distributions] == [
        "balance",
        "exp mu=0.1",
        "exp mu=0.01",
        "step mu=0.05",
    ]
    assert len(plan(of).searches) == 4


def test_distribution_lists_unfold_and_repeated_cells_collapse() -> None:
    of = grid(
        search={
            "distributions": [{"exp": [0.1, 0.01]}, "exp", {"uniform": 100}, {"exp": 0.1}],
            "mu": 0.1,
        }
    )
    assert of.search.distributions == (
        Distribution(kind="exp", mu=0.1),
        Distribution(kind="exp", mu=0.01),
        Distribution(kind="uniform", total=100),
    )


def test_whole_number_of_seeds_means_that_many() -> None:
    assert grid(search={"seeds": 3}).search.seeds == (0, 1, 2)
    assert grid(search={"seeds": [7, 7, 3]}).search.seeds == (7, 7, 3)
    assert len(plan(grid(search={"seeds": [7, 7, 3]})).searches) == 2


def test_same_method_with_different_knobs_is_two_cells_and_with_its_defaults_one() -> None:
    of = grid(search={"methods": ["darts", {"darts": {}}, {"darts": {"order": "second"}}]})
    assert len(plan(of).searches) == 2
    variants = [slot.origin.variant for slot in plan(of).retrains]
    assert variants == ["", "order=second"]


def test_explicit_settings_win_over_the_preset() -> None:
    of = grid(
        search={"recipe": {"preset": "fairdarts", "epochs": 7}},
        retrain={"recipe": {"preset": "darts", "layers": 8}},
    )
    recipe, retrain = of.search.recipe, of.retrain.recipe
    assert (recipe.lr, recipe.batch_size, recipe.epochs) == (0.005, 128, 7)
    assert (retrain.channels, retrain.layers, retrain.epochs, retrain.lr_min) == (36, 8, 600, 0)
    assert (retrain.cutout, retrain.auxiliary, retrain.drop_path) == (16, 0.4, 0.2)


def test_empty_sections_are_their_defaults() -> None:
    bare = grid()
    assert grid(retrain=None, exclude=None) == bare  # type: ignore[arg-type]
    assert grid(search={"recipe": None, "resources": None}) == bare
    assert bare.retrain.winners == "each"
    assert bare.resources("search") == Resources()


def test_resources_are_per_phase() -> None:
    of = grid(search={"resources": {"gpus": 1, "cpus": 4}}, retrain={"resources": {"gpus": 0.5}})
    assert of.resources("search") == Resources(gpus=1, cpus=4)
    assert of.resources("retrain") == Resources(gpus=0.5, cpus=1)


def test_each_search_has_a_retrain_per_retrain_seed_on_its_own_data() -> None:
    of = grid(search={"seeds": 2}, retrain={"seeds": [5, 6]}, data={"subset_seed": "trial"})
    planned = plan(of)
    assert [(s.parents, s.seed, s.data) for s in planned.retrains] == [
        ((search.trial_id,), seed, search.data) for search in planned.searches for seed in (5, 6)
    ]
    assert [search.data.subset_seed for search in planned.searches] == [0, 1]
    assert [search.data.split_seed for search in planned.searches] == [0, 0]


def test_best_of_seeds_is_one_slot_a_cell_with_every_seed_as_parent() -> None:
    of = grid(
        search={"methods": ["darts", "fairdarts"], "seeds": 3},
        retrain={"winners": "best_of_seeds"},
        exclude=[{"method": "darts", "seed": 1}],  # type: ignore[arg-type]
    )
    planned = plan(of)
    assert [len(slot.parents) for slot in planned.retrains] == [2, 3]
    assert {p for s in planned.retrains for p in s.parents} == {
        t.trial_id for t in planned.searches
    }


def test_pretraining_follows_the_method_unless_the_grid_says_otherwise() -> None:
    both = {"methods": ["darts", "ssf_nas"]}
    of = plan(grid(search=both, retrain={"barlow": {"epochs": 3, "dim": 16}}))
    expected = Pretrain(epochs=3, barlow=Barlow(dim=16))
    assert [slot.recipe.pretrain for slot in of.retrains] == [None, expected]
    none = plan(grid(search=both, retrain={"pretrain": "none"}))
    assert [slot.recipe.pretrain for slot in none.retrains] == [None, None]


def test_two_losses_in_search_and_two_in_retrain_make_the_two_by_two() -> None:
    of = plan(
        grid(search={"methods": ["fairdarts", "ssf_nas"]}, retrain={"pretrain": ["none", "barlow"]})
    )
    table = [(slot.origin.method, slot.recipe.pretrain is not None) for slot in of.retrains]
    assert table == [
        ("fairdarts", False),
        ("fairdarts", True),
        ("ssf_nas", False),
        ("ssf_nas", True),
    ]


def test_published_genotypes_are_retrained_on_every_distribution() -> None:
    of = plan(
        grid(
            search={"methods": [], "distributions": ["balance", {"exp": 0.1}]},
            retrain={"genotypes": ["DARTS_V2", "PDARTS"], "seeds": 2, "winners": "none"},
        )
    )
    assert len(of.searches) == 0
    assert len(of.retrains) == 2 * 2 * 2
    assert all(slot.parents == () for slot in of.retrains)
    assert {slot.genotype for slot in of.retrains} == {PUBLISHED["DARTS_V2"], PUBLISHED["PDARTS"]}
    assert {slot.origin.method for slot in of.retrains} == {"DARTS_V2", "PDARTS"}


def test_exclude_drops_the_cells_that_match_every_key_and_their_retrains() -> None:
    wide = {"methods": ["darts", "fairdarts"], "distributions": ["balance", {"step": [0.1, 0.01]}]}
    of = grid(
        search=wide,
        retrain={"genotypes": ["DARTS_V2"]},
        exclude=[  # type: ignore[arg-type]
            {"method": "darts", "distribution": "step"},
            {"method": ["fairdarts", "published"], "mu": 0.01},
        ],
    )
    kept = [(t.method.name, str(t.distribution)) for t in plan(of).searches]
    assert kept == [("darts", "balance"), ("fairdarts", "balance"), ("fairdarts", "step mu=0.1")]
    retrains = [(s.origin.method, str(s.distribution)) for s in plan(of).retrains]
    assert retrains == [*kept, ("DARTS_V2", "balance"), ("DARTS_V2", "step mu=0.1")]


def test_what_cannot_change_a_result_changes_no_identity(tmp_path: Path) -> None:
    content = "ab" * 32
    moved = grid(
        data={"dataset": None, "path": str(tmp_path), "fingerprint": content, "label": "mine"},
        search={"resources": {"cpus": 9}},
    )
    other = Grid.from_dict(
        {
            **SMALL,
            "name": "another name",
            "data": {"path": "/elsewhere", "fingerprint": content},
        }
    )
    assert ids(moved) == ids(other)
    assert plan(moved).searches[0].data.label == "mine"
    assert moved.places == DataPaths(path=str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"search": {"methods": [{"darts": {"arch_lr": 1e-3}}]}},
        {"search": {"recipe": {"lr": 0.02}}},
        {"search": {"distributions": [{"exp": 0.1}]}},
        {"search": {"seeds": [1]}},
        {"data": {"n_max": 9}},
        {"data": {"split_seed": 1}},
        {"data": {"long_tailed_test": {"exp": 0.1}}},
        {"data": {"dataset": "cifar10"}},
    ],
)
def test_what_can_change_a_result_changes_the_identity(change: dict[str, Any]) -> None:
    assert ids(grid(**change)).isdisjoint(ids(grid()))


def test_adding_a_seed_or_a_method_keeps_the_trials_there_were() -> None:
    before = ids(grid())
    assert before < ids(grid(search={"seeds": 3, "methods": ["fairdarts", "darts"]}))


def test_integers_and_floats_of_equal_value_are_one_identity() -> None:
    whole, real = ({"grad_clip": value} for value in (5, 5.0))
    assert ids(grid(search={"recipe": whole})) == ids(grid(search={"recipe": real}))


def test_custom_data_are_known_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path / "cache"))
    for folder in ("here", "there it's"):
        for split in ("train", "test"):
            (tmp_path / folder / split / "cat").mkdir(parents=True)
            (tmp_path / folder / split / "cat" / "1.png").write_bytes(b"not really an image")
    here, there = (
        Grid.from_dict({**SMALL, "data": {"path": folder}}, base=tmp_path)
        for folder in ("here", "there it's")
    )
    assert here.places.path == str(tmp_path / "here")
    assert plan(here).searches[0].data.label == "here"
    assert ids(here) == ids(there)
    (tmp_path / "here" / "train" / "cat" / "2.png").write_bytes(b"one more")
    more = Grid.from_dict({**SMALL, "data": {"path": "here"}}, base=tmp_path)
    assert ids(more).isdisjoint(ids(there))


def test_json_of_a_grid_plans_the_same_without_the_images(tmp_path: Path) -> None:
    of = grid(
        data={
            "dataset": None,
            "path": str(tmp_path / "gone"),
            "fingerprint": "0" * 64,
            "subset_seed": "trial",
            "long_tailed_test": {"step": 0.1},
        },
        search={
            "methods": [{"ssf_nas": {"barlow_dim": 8}}, "darts"],
            "distributions": ["exp", "balance", {"uniform": 50}],
            "mu": [0.5],
            "recipe": {"preset": "darts"},
        },
        retrain={"pretrain": ["none", "barlow"], "barlow": {"dim": 4}, "genotypes": ["SNAS"]},
        exclude=[{"distribution": "uniform", "method": "darts"}],  # type: ignore[arg-type]
    )
    again = Grid.from_json(of.to_json())
    assert again == of
    assert plan(again) == plan(of)
    assert again.places == of.places


def test_json_keeps_defaults_of_the_day_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    text = grid().to_json()
    before = ids(grid())
    resolve = methods.resolve
    changed = {"arch_lr": 0.5}
    monkeypatch.setattr(methods, "resolve", lambda name, knobs: resolve(name, changed | knobs))
    assert ids(Grid.from_json(text)) == before
    assert ids(grid()).isdisjoint(before)


def test_overrides_are_yaml_values_at_dotted_places(tmp_path: Path) -> None:
    file = tmp_path / "my grid.yaml"
    file.write_text("data: {dataset: digits}\nsearch: {methods: [darts], distributions: [exp]}\n")
    of = load_grid(
        file, ["search.mu=[0.5]", "retrain.recipe.lr=1e-3", "search.seeds=2", "name=other"]
    )
    assert of.search.distributions == (Distribution(kind="exp", mu=0.5),)
    assert (of.search.seeds, of.retrain.recipe.lr, of.name) == ((0, 1), 0.001, "other")
    assert load_grid(file, ["search.mu=1"]).name == "my grid"


def test_a_path_in_the_file_is_relative_to_it_and_in_an_override_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    file = tmp_path / "a" / "g.yaml"
    text = "data: {path: images, fingerprint: '%s'}\n" % ("1" * 64)
    file.write_text(text + "search: {methods: [darts], distributions: [balance]}\n")
    monkeypatch.chdir(tmp_path / "b")
    assert load_grid(file).places.path == str(tmp_path / "a" / "images")
    assert load_grid(file, ["data.path=images"]).places.path == str(tmp_path / "b" / "images")


def test_an_override_of_the_path_replaces_the_data_set_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    rest = "search: {methods: [darts], distributions: [balance]}\n"
    path, content = f"data.path={tmp_path / 'images'}", f"data.fingerprint='{'3' * 64}'"
    named, own = tmp_path / "named.yaml", tmp_path / "own.yaml"
    named.write_text("data: {dataset: cifar10, n_max: 9}\n" + rest)
    own.write_text("data: {path: images, fingerprint: '%s'}\n" % ("1" * 64) + rest)
    for given in ([path, content], [content, path]):
        data = load_grid(named, given).data
        assert (data.dataset, data.path, data.n_max) == (None, str(tmp_path / "images"), 9)
        assert data.fingerprint == "3" * 64
    data = load_grid(own, ["data.dataset=digits"]).data
    assert (data.dataset, data.path, data.fingerprint) == ("digits", None, None)
    for given in ([path, "data.dataset=digits"], ["data.dataset=digits", path]):
        with pytest.raises(GridError, match="not both"):
            load_grid(named, given)


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(
        "name: 0123\n"
        "data: {dataset: digits, n_max: 0x10, label: 1:30}\n"
        "search: {methods: [darts], distributions: [{exp: .5}], seeds: [0, 10],"
        " recipe: {lr: 1e-3, lr_min: +0.5E-4, weight_decay: 1.}}\n"
    )
    of = load_grid(file)
    assert (of.name, of.data.n_max, of.data.label, of.search.seeds) == ("0123", 16, "1:30", (0, 10))
    recipe = of.search.recipe
    assert (recipe.lr, recipe.lr_min, recipe.weight_decay) == (0.001, 0.00005, 1.0)
    assert of.search.distributions[0].mu == 0.5


@pytest.mark.parametrize("name", ["quickstart", "table1", "verification", "paper"])
def test_shipped_grids_are_valid(name: str) -> None:
    assert load_grid(EXPERIMENTS / f"{name}.yaml").name == name


def test_shipped_cpu_grid_only_lacks_its_images() -> None:
    file = EXPERIMENTS / "cifar10_cpu.yaml"
    planned = plan(load_grid(file, [f"data.fingerprint='{'2' * 64}'"]))
    assert (len(planned.searches), len(planned.retrains)) == (3, 4)
    with pytest.raises(GridError, match=r"data\.path"):
        load_grid(file)


def test_quickstart_asks_for_no_gpu_and_paper_grids_for_one() -> None:
    wanted = {
        name: load_grid(EXPERIMENTS / f"{name}.yaml").resources("search").gpus
        for name in ("quickstart", "table1", "verification", "paper")
    }
    assert wanted == {"quickstart": 0, "table1": 1, "verification": 1, "paper": 1}


def test_paper_is_exactly_table1_and_verification_and_shares_their_common_trials() -> None:
    table1, verification, paper = (
        plan(load_grid(EXPERIMENTS / f"{name}.yaml"))
        for name in ("table1", "verification", "paper")
    )

    def search_ids(of: Any) -> set[str]:
        return {trial.trial_id for trial in of.searches}

    assert search_ids(table1) | search_ids(verification) == search_ids(paper)
    assert len(search_ids(table1) & search_ids(verification)) == 3
    assert set(table1.retrains) | set(verification.retrains) == set(paper.retrains)
