"""Grid files that no person would write: each is refused in a few lines, at once, in little memory.

Where a promise is about effort, the test counts what is made in place of seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from yaml.composer import Composer

from nas_sweeps.grid import Grid, GridError, axes, load_grid, plan
from nas_sweeps.grid.messages import MAX_TOLD
from nas_sweeps.grid.source import MAX_DEPTH, MAX_VALUES

GOOD = "data: {dataset: digits}\nsearch:\n  methods: [darts]\n  distributions: [balance]\n"
BARE: dict[str, Any] = {"methods": ["darts"], "distributions": ["balance"]}


def told(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    file = tmp_path / "g.yaml"
    file.write_text(text)
    with pytest.raises(GridError) as caught:
        load_grid(file, overrides)
    return [line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()]


def grid(retrain: dict[str, Any] | None = None, exclude: Any = None, **search: Any) -> Grid:
    tree = {"data": {"dataset": "digits"}, "search": BARE | search}
    return Grid.from_dict(tree | {"retrain": retrain, "exclude": exclude}, source="g.yaml")


def refusal(**sections: Any) -> str:
    with pytest.raises(GridError) as caught:
        grid(**sections)
    return str(caught.value)


# --- what is no file ---


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(GridError, match="a device or a pipe; save the grid in a file"):
            load_grid(path)


def test_a_file_name_that_no_terminal_can_show_is_escaped(tmp_path: Path) -> None:
    hostile = os.fsdecode(bytes(tmp_path) + b"/\xff\n\x1b[31m.yaml")
    with pytest.raises(GridError) as caught:
        load_grid(hostile)
    assert str(caught.value).endswith("/\\udcff\\n\\x1b[31m.yaml: no such file")


# --- YAML ---


def test_reading_stops_at_too_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    original = Composer.compose_node

    def counted(self: Any, parent: Any, index: Any) -> Any:
        nonlocal made
        made += 1
        return original(self, parent, index)

    monkeypatch.setattr(Composer, "compose_node", counted)
    (line,) = told(tmp_path, f"seeds: [{'a,' * 400_000}]")
    assert line.startswith(f"more than {MAX_VALUES:,} values")
    assert made <= MAX_VALUES


def test_aliases_of_a_long_text_count_by_its_length(tmp_path: Path) -> None:
    text = f"x: &a {'y' * 50_000}\nz: [{'*a,' * 5_000}]\n"
    (line,) = told(tmp_path, text)
    assert line.startswith(f"more than {MAX_VALUES:,} values, aliases expanded")


@pytest.mark.parametrize(
    "text",
    ["a: &a\n  <<: *a\n", "a: &a\n  <<: [*a]\n", "a: &a {b: &b {<<: *a}}\n", "&a {*a : 1}"],
)
def test_merge_keys_and_keys_that_hold_themselves_are_told(tmp_path: Path, text: str) -> None:
    (line,) = told(tmp_path, text)
    assert "an alias contains itself" in line


@pytest.mark.parametrize(
    "value",
    ['!!int ""', '!!bool "x"', '!!timestamp "x"', '!!float ""', "!!omap [[1]]", "2001-13-45"],
)  # fmt: skip
def test_a_value_that_is_not_of_its_tag_is_one_line(tmp_path: Path, value: str) -> None:
    assert len(told(tmp_path, f"{GOOD}name: {value}\n")) == 1


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 250, 900])
def test_nesting_is_refused_in_one_way_at_every_depth(tmp_path: Path, depth: int) -> None:
    assert told(tmp_path, f"{GOOD}x: {'[' * depth}{']' * depth}\n") == ["it is nested too deeply"]
    assert told(tmp_path, GOOD, ".".join("a" * (depth + 2)) + "=1") == ["it is nested too deeply"]


def test_tabs_are_told_with_their_place(tmp_path: Path) -> None:
    (line,) = told(tmp_path, GOOD.replace("  ", "\t"))
    assert line.startswith("line 3, column 1: while scanning for the next token, found character")


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "1" + "0" * 400, "-0x" + "f" * 5000])
def test_numbers_beyond_every_float_are_no_numbers(tmp_path: Path, number: str) -> None:
    text = GOOD.replace("[balance]", f"[{{exp: {number}}}]") + f"  recipe: {{lr: {number}}}\n"
    first, second = told(tmp_path, text)
    sign = "-" if number[0] == "-" else ""
    assert first == (
        f"search.distributions[0].exp: '{sign}inf' is not a mu, the tail-to-head ratio in (0, 1]"
    )
    assert second == f"search.recipe.lr: '{sign}inf' is not a number"


@pytest.mark.parametrize("text", ['name: "\\ud800"', '"\\ud800": 1'])
def test_half_a_character_is_told(tmp_path: Path, text: str) -> None:
    (line,) = told(tmp_path, f"{GOOD}{text}\n")
    assert line.startswith("'\\ud800' holds half a character")


def test_json_nested_beyond_the_parser_is_a_grid_error() -> None:
    with pytest.raises(GridError, match="not JSON"):
        Grid.from_json("[" * 100_000)


# --- messages ---


def test_keys_are_shown_on_one_line_and_cut_short(tmp_path: Path) -> None:
    first, second = told(tmp_path, f'{GOOD}"a\\nb\\e[31m": 1\n{"k" * 900}: 1\n')
    assert first.startswith("a\\nb\\x1b[31m: unknown setting 'a\\nb\\x1b[31m'; choose from")
    assert second.startswith("kkk")
    assert len(second) < 300


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD}  seeds: [{'x,' * 5000}]\n",
        GOOD.replace("darts", "dart," * 5000),
        "{" + "a: 1," * 5000 + "}",
        GOOD + "".join(f"k{i}: 1\n" for i in range(5000)),
    ],
    ids=["values", "names", "keys written twice", "unknown keys"],
)
def test_of_thousands_of_mistakes_the_first_are_told_and_the_rest_counted(
    tmp_path: Path, text: str
) -> None:
    lines = told(tmp_path, text)
    assert len(lines) == MAX_TOLD + 1
    assert lines[-1].startswith("and ")
    assert int(lines[-1].split()[1].replace(",", "")) >= 5000 - 1 - MAX_TOLD


def test_one_line_is_never_endless(tmp_path: Path) -> None:
    (line,) = told(tmp_path, f"*{'a' * 500_000}")
    assert line.startswith("line 1, column 1: found undefined alias 'aaa")
    assert len(line) < 1100


@pytest.mark.parametrize("name", ["n" * 201, "é" * 101, "a\\nb", "a\\e[31m", " ", ". ."])
def test_a_name_that_can_be_no_folder_is_told(tmp_path: Path, name: str) -> None:
    (line,) = told(tmp_path, f'{GOOD}name: "{name}"\n')
    assert line.startswith("name: ")


# --- how many trials ---


def test_the_largest_grid_that_may_be_is_planned() -> None:
    assert axes.MAX_TRIALS == 2_000_000
    assert len(plan(grid(seeds=1000))) == 2000
    grid(seeds=1_000_000)
    assert "1,000,001 searches and 1,000,001 retrains" in refusal(seeds=1_000_001)


def test_the_axes_and_their_counts_are_told_and_how_to_split_before_anything_is_made() -> None:
    mus = [1 / n for n in range(1, 1001)]
    knobs = [{"darts": {"arch_lr": float(n)}} for n in range(1, 1001)]
    assert refusal(methods=knobs, distributions=[{"exp": mus}], seeds=100_000) == (
        "g.yaml: search: 1,000 methods x 1,000 distributions x 100,000 seeds make 100,000,000,000 "
        "searches; a grid holds at most 2,000,000 trials: split it into several files, by "
        "search.seeds say, and run them into one --store"
    )
    assert "search.seeds: 1000000000000 seeds; a grid holds at most" in refusal(seeds=10**12)


def test_retrains_are_counted_as_they_are_planned() -> None:
    published = {"winners": "none", "genotypes": ["DARTS_V2", "PDARTS"], "seeds": 10**6}
    assert "1 searches and 2,000,000 retrains (1,000,000 seeds x 1 pretrain each)" in refusal(
        retrain=published
    )
    grid(retrain={"winners": "none"}, seeds=2 * 10**6)  # searches only
    grid(retrain={"winners": "best_of_seeds", "seeds": 1000}, seeds=10**6)  # 1,000 retrains


@pytest.mark.parametrize(
    ("search", "retrain"),
    [
        ({"seeds": [0, 0, 1], "distributions": ["balance", {"exp": [0.1, 0.2]}]}, {"seeds": 2}),
        ({"seeds": 3}, {"winners": "best_of_seeds", "seeds": [4, 4, 5]}),
        ({"seeds": 3}, {"winners": "none", "genotypes": ["SNAS", "SNAS"], "pretrain": ["none"]}),
        ({"seeds": 2}, {"pretrain": ["none", "barlow"], "genotypes": ["SNAS", "PDARTS"]}),
    ],
)
def test_counting_and_planning_agree(search: dict[str, Any], retrain: dict[str, Any]) -> None:
    of = grid(retrain=retrain, **search)
    assert of.search.count == len(plan(of).searches)
    assert of.retrain.count(of.search) == len(plan(of).retrains)


def test_a_bare_kind_written_often_is_completed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = axes.Distribution
    monkeypatch.setattr(axes, "Distribution", lambda **k: made.append(1) or original(**k))
    of = grid(distributions=["exp"] * 500, mu=[1 / n for n in range(1, 501)])
    assert len(of.search.distributions) == 500
    assert len(made) == 500


def test_thousands_of_rules_meet_thousands_of_cells() -> None:
    of = grid(seeds=20_000, exclude=[{"seed": n} for n in range(0, 4000, 2)])
    seeds = [search.seed for search in plan(of).searches]
    assert seeds == [*range(1, 4000, 2), *range(4000, 20_000)]
    unmatched = refusal(exclude=[{"seed": 0, "mu": 0.5}] * 100).splitlines()
    assert len(unmatched) == MAX_TOLD + 1
