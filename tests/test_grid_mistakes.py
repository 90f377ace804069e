"""Mistakes in a grid file: each is one line with its place, and all are told at once."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from nas_sweeps.grid import Grid, GridError, load_grid

GOOD: dict[str, Any] = {
    "data": {"dataset": "digits"},
    "search": {"methods": ["darts", "fairdarts", "ssf_nas"], "distributions": ["balance", "exp"],
               "mu": [0.1], "seeds": [0], "recipe": {}, "resources": {}},
    "retrain": {"recipe": {}, "barlow": {}, "resources": {}},
}  # fmt: skip

# place to set, value, the line that must come
MISTAKES: list[tuple[str, Any, str]] = [
    ("serach", {}, "serach: unknown setting 'serach'; choose from name, data, search, retrain, "
     "tune, exclude, headline (did you mean search?)"),
    ("data.dataset", "cifar11", "data.dataset: unknown data set 'cifar11'; choose from "
     "cifar10, cifar100, country211, digits, dtd, emnist, eurosat, fashion_mnist, "
     "fgvc_aircraft, flowers102, food101, gtsrb, kmnist, mnist, oxford_iiit_pet, stanford_cars, "
     "stl10, svhn, usps (did you mean cifar10?)"),
    ("data.n_max", 0, "data.n_max: 0 is out of range; it must be greater than 0"),
    ("data.subset_seed", "trail", "data.subset_seed: 'trail' is not a seed; write a whole number "
     "from 0 up, or trial"),
    ("data.long_tailed_test", "balance", "data.long_tailed_test: 'balance' is not known; choose "
     "from match, natural, {exp: 0.1}, {step: 0.1}"),
    ("search.methods", ["darts", "fair_dart", {"fairdarts": {"zeroone": "l1"}}],
     "search.methods[1]: unknown method 'fair_dart'; choose from beta_darts, darts, fairdarts, "
     "gdas, pc_darts, random, ssf_nas (did you mean fairdarts?)"),
    ("search.distributions", [{"exp": [0.1, 100]}, "stepp"],
     "search.distributions[0].exp[1]: 100 is not a mu, the tail-to-head ratio in (0, 1]; for an "
     "imbalance ratio of 100 write 0.01"),
    ("search.seeds", [0, "one"], "search.seeds[1]: 'one' is not a whole number"),
    ("search.recipe.epochs", "40", "search.recipe.epochs: '40' is not a whole number"),
    ("search.recipe.layers", 2, "search.recipe.layers: 2 is out of range; it must be at least 3"),
    ("search.recipe.preset", "papre", "search.recipe.preset: unknown preset 'papre'; choose from "
     "paper, darts, fairdarts, pc_darts (did you mean paper?)"),
    ("search.resources.gpus", 1.5, "search.resources.gpus: 1.5 GPUs cannot be shared out; above 1 "
     "write a whole number"),
    ("retrain.recipe.lr", float("inf"), "retrain.recipe.lr: 'inf' is not a number"),
    ("retrain.recipe.pretrain", {}, "retrain.recipe.pretrain: is not part of a recipe: set "
     "retrain.pretrain and retrain.barlow"),
    ("retrain.barlow.lambda", 0.1, "retrain.barlow.lambda: unknown setting 'lambda'; choose from "
     "epochs, then, lambda_, dim, hidden, centered, scale (did you mean lambda_?)"),
    ("retrain.barlow.dim", True, "retrain.barlow.dim: True is not a whole number"),
    ("retrain.winners", "best", "retrain.winners: unknown choice 'best'; choose from each, "
     "best_of_seeds, none (did you mean best_of_seeds?)"),
    ("retrain.pretrain", ["by_method", "none"], "retrain.pretrain: by_method stands alone; for "
     "both losses write [none, barlow]"),
    ("retrain.genotypes", ["DARTS"], "retrain.genotypes[0]: unknown genotype 'DARTS'; choose from "
     "DARTS_V1, DARTS_V2, PC_DARTS, PDARTS, SNAS, GDAS_V1, FairDARTS_a, FairDARTS_b, FairDARTS_c, "
     "FairDARTS_d, FairDARTS_e, FairDARTS_f, FairDARTS_g (did you mean DARTS_V2?)"),
    ("exclude", [{"methods": "darts"}], "exclude[0].methods: unknown setting 'methods'; choose "
     "from method, distribution, mu, seed (did you mean method?)"),
]  # fmt: skip
ALSO = {  # mistakes that come with others in one value
    "search.methods[2].fairdarts.zeroone: unknown setting 'zeroone'",
    "search.distributions[1]: unknown distribution 'stepp'",
}


def put(tree: dict[str, Any], place: str, value: Any) -> None:
    *sections, last = place.split(".")
    for section in sections:
        tree = tree[section]
    tree[last] = value


def lines(tree: Any) -> list[str]:
    with pytest.raises(GridError) as caught:
        Grid.from_dict(tree, source="g.yaml")
    return str(caught.value).splitlines()


def file_lines(tmp_path: Path, text: str | bytes, *overrides: str) -> list[str]:
    file = tmp_path / "g.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GridError) as caught:
        load_grid(file, overrides)
    return [line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()]


def test_the_good_grid_is_good() -> None:
    Grid.from_dict(GOOD)


@pytest.mark.parametrize(("place", "value", "line"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_what_to_do(place: str, value: Any, line: str) -> None:
    tree = deepcopy(GOOD)
    put(tree, place, value)
    told = lines(tree)
    assert told[0] == f"g.yaml: {line}"
    others = [text for text in told[1:] if not any(also in text for also in ALSO)]
    assert others == []


def test_all_mistakes_are_told_at_once() -> None:
    tree = deepcopy(GOOD)
    for place, value, _ in MISTAKES:
        put(tree, place, value)
    told = lines(tree)
    assert set(told) >= {f"g.yaml: {line}" for _, _, line in MISTAKES}
    assert len(told) == len(MISTAKES) + len(ALSO)
    assert all(any(also in text for text in told) for also in ALSO)


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"arch_lr": -1}, "arch_lr: -1 is out of range; it must be greater than 0"),
        ({"order": "third"}, "order: unknown choice 'third'; choose from first, second"),
        ({"arch_lr": True}, "arch_lr: True is not a number"),
        ({"arch_lr": "0.1"}, "arch_lr: '0.1' is not a number"),
    ],
)
def test_knobs_are_checked_at_their_place(knobs: dict[str, Any], line: str) -> None:
    tree = deepcopy(GOOD)
    tree["search"]["methods"] = ["fairdarts", {"darts": knobs}]
    assert lines(tree) == [f"g.yaml: search.methods[1].darts.{line}"]


@pytest.mark.parametrize("entry", [3, None, [], {}, {"darts": {}, "ssf_nas": {}}, {"darts": 3}])
def test_malformed_methods_are_told(entry: Any) -> None:
    tree = deepcopy(GOOD)
    tree["search"]["methods"] = [entry]
    (line,) = lines(tree)
    assert line.startswith("g.yaml: search.methods[0]")


@pytest.mark.parametrize(
    "entry",
    [3, None, [], {}, {"balance": 1}, "uniform", {"uniform": 0.5}, {"uniform": True}, {"exp": None},
     {"exp": 0}, {"exp": 1.5}, {"exp": "0.1"}, {"exp": 0.1, "step": 0.1}, {"exp": [[0.1]]},
     {"step": float("nan")}],
)  # fmt: skip
def test_malformed_distributions_are_told(entry: Any) -> None:
    tree = deepcopy(GOOD)
    tree["search"]["distributions"] = [entry]
    (line,) = lines(tree)
    assert line.startswith("g.yaml: search.distributions[0]")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data", None), ("data", 3), ("search", []), ("search.methods", "darts"),
        ("search.methods", None), ("search.distributions", []), ("search.distributions", "exp"),
        ("search.distributions", {"exp": 0.1}),
        ("search.mu", "a"), ("search.mu", [[0.1]]), ("search.mu", 0), ("search.seeds", []),
        ("search.seeds", 0), ("search.seeds", -1), ("search.seeds", True), ("search.seeds", 10**12),
        ("search.seeds", [2**32]), ("search.recipe", "paper"), ("search.recipe", []),
        ("search.recipe.preset", 3), ("search.recipe.preset", ["paper"]),
        ("search.resources", 1), ("search.resources.cpus", 1.5), ("retrain", "none"),
        ("retrain.barlow", True), ("retrain.barlow.barlow", {}), ("retrain.pretrain", []),
        ("retrain.pretrain", None), ("retrain.genotypes", ["DARTS_V9"]), ("exclude", "darts"),
        ("exclude", {"method": "darts"}), ("name", 3), ("name", "../up"),
        ("name", ".."), ("name", ""), ("data.fingerprint", "xyz"),
        ("data.subset_seed", True), ("data.long_tailed_test", {"exp": [0.1, 0.2]}),
        ("data.long_tailed_test", {"exp": 3}), ("data.long_tailed_test", None),
    ],
)  # fmt: skip
def test_impossible_values_are_one_line_at_their_place(place: str, value: Any) -> None:
    tree = deepcopy(GOOD)
    put(tree, place, value)
    told = lines(tree)
    assert len(told) == 1
    assert told[0].startswith(f"g.yaml: {place}")


def test_bare_kinds_need_a_mu() -> None:
    tree = deepcopy(GOOD)
    del tree["search"]["mu"]
    assert lines(tree) == [
        "g.yaml: search.distributions[1]: needs a mu: list search.mu, or write {exp: 0.1}"
    ]


@pytest.mark.parametrize(
    "data", [{}, {"dataset": "digits", "path": "."}, {"dataset": "digits", "fingerprint": "0" * 64}]
)
def test_data_are_a_name_or_a_path(data: dict[str, Any]) -> None:
    (line,) = lines(GOOD | {"data": data})
    assert line.startswith(
        "g.yaml: data.path: give either data.dataset (cifar10, cifar100, country"
    )


def test_missing_images_are_told_with_the_other_mistakes(tmp_path: Path) -> None:
    tree = deepcopy(GOOD) | {"data": {"path": str(tmp_path / "nowhere")}, "nmae": "x"}
    first, second = lines(tree)
    assert first.startswith(f"g.yaml: data.path: data path {tmp_path / 'nowhere'} does not exist")
    assert "nmae" in second


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ({"method": "darts", "mu": 0.5}, "exclude[0]: matches no cell of the grid"),
        ({"method": "published"}, "exclude[0]: matches no cell of the grid"),
        ({"method": "dart"}, "exclude[0].method[0]: unknown method 'dart'"),
        ({"distribution": "stpe"}, "exclude[0].distribution[0]: unknown choice 'stpe'"),
        ({}, "exclude: drops every cell of the grid"),
    ],
)
def test_rules_that_cannot_be_meant_are_told(rule: dict[str, Any], what: str) -> None:
    (line,) = lines(GOOD | {"exclude": [rule]})
    assert line.startswith(f"g.yaml: {what}")


def test_best_of_seeds_needs_the_same_images_for_every_seed() -> None:
    tree = deepcopy(GOOD)
    tree["data"]["split_seed"] = "trial"
    tree["retrain"]["winners"] = "best_of_seeds"
    (line,) = lines(tree)
    assert line.startswith("g.yaml: retrain.winners: best_of_seeds compares searches on the same")


def test_a_grid_without_trials_is_told() -> None:
    tree = deepcopy(GOOD)
    tree["search"]["methods"] = []
    assert lines(tree)[0].startswith("g.yaml: retrain: there is nothing to try")


def test_a_required_section_is_asked_for() -> None:
    assert lines({}) == [
        "g.yaml: data: is required; add it",
        "g.yaml: search: is required; add it",
    ]


GOOD_TEXT = "data: {dataset: digits}\nsearch:\n  methods: [darts]\n  distributions: [balance]\n"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("search.seedz=[0]", "--set search.seedz: unknown setting 'seedz'; choose from methods, "
         "mu, distributions, seeds, recipe, stop, resources (did you mean seeds?)"),
        ("serach.seeds=[0]", "--set serach.seeds: unknown setting 'serach'; choose from name, "
         "data, search, retrain, tune, exclude, headline (did you mean search?)"),
        ("search.seeds=[0, x]", "--set search.seeds[1]: 'x' is not a whole number"),
        ("search.seeds", "--set search.seeds: write section.setting=value, such as "
         "search.seeds=[0,1]"),
        ("search..seeds=1", "--set search..seeds: write section.setting=value, such as "
         "search.seeds=[0,1]"),
        ("search.methods.darts=1", "--set search.methods.darts: search.methods is not a section; "
         "set it as a whole"),
        ("search.seeds=[0", "--set search.seeds: line 1, column 3: while parsing a flow sequence, "
         "expected ',' or ']', but got '<stream end>'"),
        ("data={dataset: digits, dataset: cifar10}", "--set data: line 1, column 19: 'dataset' is "
         "written twice (first on line 1); keep one"),
    ],
)  # fmt: skip
def test_bad_overrides_are_told_with_what_was_typed(
    tmp_path: Path, override: str, line: str
) -> None:
    assert file_lines(tmp_path, GOOD_TEXT, override) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data: [1\nsearch: 3\n", "line 2, column 7: "),
        ("a: 1\n\tb: 2\n", "line 2, column 1: "),
        ("", "a grid file holds sections"),
        ("- darts\n", "a grid file holds sections"),
        ("a: &x [*x]\n", "line 1, column 4: an alias contains itself"),
        (
            "a: 1\n---\nb: 2\n",
            "line 2, column 1: expected a single document in the stream, but found",
        ),
        ("a: !!python/object:os.system {}\n", "line 1, column 4: could not determine"),
        (b"a: \xff\n", "not UTF-8 text at byte 3"),
        ("a: \x00\n", "not YAML: "),
        ("[" * 5000, "it is nested too deeply"),
        ("a: " + "9" * 5000, "not YAML: "),
        ("#" * 2**20 + "#", "larger than 1024 KiB"),
    ],
)
def test_what_is_not_a_grid_file_is_told_in_one_line(
    tmp_path: Path, text: str | bytes, line: str
) -> None:
    (told,) = file_lines(tmp_path, text)
    assert told.startswith(line)


def test_aliases_are_welcome_until_they_explode(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    (line,) = file_lines(tmp_path, "\n".join(["a0: &a0 [x]", *levels]))
    assert line == "more than 20,000 values, aliases expanded: this is no grid file"
    file = tmp_path / "fine.yaml"
    file.write_text(GOOD_TEXT + "  recipe: &r {epochs: 3}\nretrain: {recipe: *r}\n")
    assert load_grid(file).retrain.recipe.epochs == 3


def test_repeated_keys_are_told_with_the_other_mistakes(tmp_path: Path) -> None:
    text = GOOD_TEXT + "  seeds: [0]\n  methods: [dats]\n"
    first, second = file_lines(tmp_path, text)
    assert first == "line 6, column 3: 'methods' is written twice (first on line 3); keep one"
    assert second.startswith("search.methods[0]: unknown method 'dats'")


def test_missing_and_unreadable_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"nowhere\.yaml: no such file"):
        load_grid(tmp_path / "nowhere.yaml")
    with pytest.raises(GridError, match="cannot be read: Is a directory"):
        load_grid(tmp_path)


def test_every_mistake_is_one_line_however_hostile_the_value() -> None:
    tree = deepcopy(GOOD)
    tree["search"]["methods"] = ["da\nrts\x1b[31m", "x" * 500]
    first, second = lines(tree)
    assert "'da\\nrts\\x1b[31m'" in first
    assert len(second) < 200


def test_bad_json_of_a_grid_is_a_grid_error() -> None:
    for text in ("{", "[]", "{}"):
        with pytest.raises(GridError):
            Grid.from_json(text)


def test_a_grid_error_survives_pickling() -> None:
    error = GridError("a: b", "c: d", "a: b")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a: b\nc: d"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seeds: [0]", "seeds: 1:5", "search.seeds: '1:5' is not a number of seeds; write "
         "[1, 2, 3, 4, 5], or a number: 3 stands for 0, 1, 2"),
        ("seeds: [0]", "seeds: 0-400", "search.seeds: '0-400' is not a number of seeds; write a "
         "list of them, or a number: 3 stands for 0, 1, 2"),
        ("seeds: [0]", "seeds: 1,2", "search.seeds: '1,2' is not a number of seeds; write [1,2], "
         "or a number: 3 stands for 0, 1, 2"),
        ("seeds: [0]", "seeds: [0, 010]", "search.seeds[1]: '010' is not a whole number; write 10"),
        ("seeds: [0]", "seeds: [1:5]", "search.seeds[0]: '1:5' is not a whole number"),
        ("digits", "digits, n_max: 012", "data.n_max: '012' is not a whole number; write 12"),
        ("digits", "digits, n_max: 1_000", "data.n_max: '1_000' is not a whole number; write 1000"),
        ("digits", "digits, n_max: 1,000", "data.n_max: '1,000' is not a whole number; write 1000 "
         "or 1.000"),
        ("recipe: {}", "recipe: {lr: 0,025}", "search.recipe.lr: '0,025' is not a number; write "
         "0.025"),
        ("recipe: {}", "recipe: {lr: 0,025, epochs: 3}", "search.recipe.lr: '0,025' is not a "
         "number; write 0.025"),
        ("[balance]", "[{exp: 0,1}]", "search.distributions[0].exp: '0,1' is not a mu, the "
         "tail-to-head ratio in (0, 1]; write 0.1"),
        ("[balance]", "[{uniform: 020}]", "search.distributions[0].uniform: '020' is not a number "
         "of training images; write 20"),
        ("[darts]", "[{darts: {arch_lr: 0,01}}]", "search.methods[0].darts.arch_lr: '0,01' is not "
         "a number; write 0.01"),
    ],
)  # fmt: skip
def test_numbers_spelled_otherwise_are_refused_with_the_spelling_meant(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    text = (
        "data: {dataset: digits}\n"
        "search: {methods: [darts], distributions: [balance], seeds: [0], recipe: {}}\n"
    )
    assert old in text
    assert file_lines(tmp_path, text.replace(old, new)) == [line]
