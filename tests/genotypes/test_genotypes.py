"""Genotypes as public code wrote them down come in, or are refused for the right reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.grid import plan
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import PUBLISHED

HERE = Path(__file__).parent


def tree(*genotypes: Any, **sections: Any) -> dict[str, Any]:
    return {
        "name": "import",
        "data": {"dataset": "digits"},
        "search": {"methods": [], "distributions": ["balance"]},
        "retrain": {"genotypes": list(genotypes)},
    } | sections


def read(entry: Any, base: Path = HERE) -> Any:
    """The slot of a genotype."""
    [slot] = plan(ns.Grid.from_dict(tree(entry), base=base)).retrains
    return slot


def refusal(entry: Any, base: Path = HERE) -> str:
    with pytest.raises(ns.GridError) as caught:
        ns.Grid.from_dict(tree(entry), base=base)
    [line] = caught.value.args
    assert line.startswith("grid: retrain.genotypes[0]: ")
    return str(line).removeprefix("grid: retrain.genotypes[0]: ")


def written(folder: Path, text: str, name: str = "own.py") -> str:
    (folder / name).write_text(text)
    return name


def pairs(genotype: Genotype) -> dict[str, list[tuple[str, int, int]]]:
    return {"normal": list(genotype.normal), "reduce": list(genotype.reduce)}


# Fifteen public ones, and more. What stands in ``PUBLISHED`` was typed in by hand from the papers'
# code long before: two readings of one source.


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        ("genotypes.py:DARTS_V1", "DARTS_V1"),
        ("genotypes.py:DARTS_V2", "DARTS_V2"),
        ("genotypes.py:DARTS", "DARTS_V2"),  # a name for another name
        ("genotypes.py:PC_DARTS_cifar", "PC_DARTS"),
        ("genotypes.py:PDARTS", "PDARTS"),
        ("genotypes.py:SNAS", "SNAS"),
        ("genotypes.py:FairDARTS_a", "FairDARTS_a"),
        ({"file": "nni_darts_v2.json", "name": "mine"}, "DARTS_V2"),
    ],
)
def test_a_public_genotype_is_the_known_one(entry: Any, known: str) -> None:
    if entry in ("genotypes.py:DARTS_V1", "genotypes.py:DARTS_V2"):
        assert read(entry).origin.method == known
    assert read(entry).genotype == PUBLISHED[known]


@pytest.mark.parametrize(
    ("entry", "normal_of_last_node", "reduce_of_last_node"),
    [
        (
            "genotypes.py:PC_DARTS_image",
            [("sep_conv_3x3", 1, 5), ("dil_conv_5x5", 4, 5)],
            [("sep_conv_5x5", 0, 5), ("sep_conv_3x3", 3, 5)],
        ),
        (
            "genotypes.py:DrNAS_cifar10",
            [("sep_conv_3x3", 2, 5), ("dil_conv_5x5", 3, 5)],
            [("sep_conv_5x5", 1, 5), ("skip_connect", 4, 5)],
        ),
        (
            "genotypes.py:ROBUST_DARTS",
            [("skip_connect", 1, 5), ("skip_connect", 2, 5)],
            [("max_pool_3x3", 0, 5), ("max_pool_3x3", 1, 5)],
        ),
        (
            # The last source is not that of FairDARTS's copy, which PUBLISHED follows.
            {"file": "autodl.py", "take": "GDAS_V1", "name": "GDAS_autodl"},
            [("sep_conv_3x3", 3, 5), ("sep_conv_5x5", 4, 5)],
            [("sep_conv_5x5", 0, 5), ("sep_conv_5x5", 1, 5)],
        ),
        (
            "genotypes.py:SGAS",
            [("skip_connect", 0, 5), ("dil_conv_5x5", 2, 5)],
            [("max_pool_3x3", 0, 5), ("max_pool_3x3", 1, 5)],
        ),
        (
            "nni_epoch_49.json",  # operations by index
            [("sep_conv_3x3", 1, 5), ("sep_conv_3x3", 2, 5)],
            [("skip_connect", 2, 5), ("skip_connect", 3, 5)],
        ),
        (
            "search.log:last",
            [("sep_conv_3x3", 3, 5), ("sep_conv_5x5", 4, 5)],
            [("avg_pool_3x3", 0, 5), ("dil_conv_5x5", 4, 5)],
        ),
    ],
)
def test_a_public_genotype_by_its_last_node(
    entry: Any,
    normal_of_last_node: list[tuple[str, int, int]],
    reduce_of_last_node: list[tuple[str, int, int]],
) -> None:
    cells = pairs(read(entry).genotype)
    assert [edge for edge in cells["normal"] if edge[2] == 5] == normal_of_last_node
    assert [edge for edge in cells["reduce"] if edge[2] == 5] == reduce_of_last_node
    assert [len(cell) for cell in cells.values()] == [8, 8]


def test_two_operations_share_an_edge() -> None:
    genotype = read("genotypes.py:DCO_EDGE_BS_64").genotype
    assert [e[0] for e in genotype.normal if e[1:] == (0, 2)] == ["sep_conv_3x3", "dil_conv_3x3"]
    assert len(genotype.reduce) == 28


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("genotypes.py:NASNet", "line 11: normal: 5 intermediate nodes, and cells of this space"),
        ("genotypes.py:AmoebaNet", "line 40: normal: 5 intermediate nodes"),
        ("genotypes.py:ENAS", "line 69: normal: 5 intermediate nodes"),
        ("autodl.py:SETN", "line 14: normal: operation 'conv_3x1_1x3' is not in this space (max_"),
    ],
)
def test_what_the_space_cannot_hold_is_refused(entry: str, reason: str) -> None:
    assert refusal(entry).startswith(f"{entry}: {reason}")


# Forms

NORMAL = "('sep_conv_3x3', 0), ('sep_conv_3x3', 1), " * 4


def genotype(normal: str = NORMAL, concat: str = "range(2, 6)", reduce: str = NORMAL) -> str:
    return (
        f"MINE = Genotype(normal=[{normal}], normal_concat={concat},\n"
        f"  reduce=[{reduce}], reduce_concat=range(2, 6))\n"
    )


@pytest.mark.parametrize("concat", ["[2, 3, 4, 5]", "(2, 3, 4, 5)", "None", "list(range(2, 6))"])
@pytest.mark.parametrize(
    "normal",
    [
        NORMAL,
        "('sep_conv_3x3', '0'), ('sep_conv_3x3', '1'), " * 4,
        "['sep_conv_3x3', 0], ['sep_conv_3x3', 1], " * 4,
        "(('sep_conv_3x3', 0, 0.13), ('sep_conv_3x3', 1, 0.2)), " * 4,
        "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], " * 4,
        "".join(f"('sep_conv_3x3', {i}, 0), ('sep_conv_3x3', '{i}', 1), " for i in (2, 3, 4, 5)),
    ],
)
def test_one_cell_in_many_forms(tmp_path: Path, concat: str, normal: str) -> None:
    file = written(tmp_path, f"{genotype(normal, concat)}# a comment ends it")
    same = written(tmp_path, genotype(), "same.py")
    assert read(f"{file}:MINE", tmp_path).genotype == read(f"{same}:MINE", tmp_path).genotype


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (genotype("('noise', 0), ('sep_conv_3x3', 1), " * 4), "line 1: normal: operation 'noise'"),
        (genotype(reduce="('sep_conv_7x7', 0), " * 8), "line 2: reduce: operation 'sep_conv_7x7'"),
        (genotype(concat="[4, 5]"), "normal_concat leaves out node 2, 3 (partial concat)"),
        (genotype(concat="range(2, 7)"), "are no intermediate nodes (2 to 5)"),
        (genotype("('none', 0), ('sep_conv_3x3', 1), " * 4), "passes nothing on; leave its edge"),
        (genotype("('sep_conv_3x3', 0), " * 7), "7 pairs, and they come two for each node"),
        (genotype("('sep_conv_3x3', 2), " * 8), "there is no edge from node 2 to node 2"),
        (genotype("('sep_conv_3x3', 0), " * 8), "an operation is named twice on one edge"),
        (genotype("(open('x').read(), 0), " * 8), "`open('x').read()` is no literal; nothing of"),
        (genotype(concat="range(2, 6, 0)"), "`range(2, 6, 0)` is no literal"),
        (genotype("('sep_conv_3x3', -1), " * 8), "`-1` is no literal"),
        ("MINE = Genotype(normal=None, reduce=None)", "line 1: it has no normal cell"),
        ("MINE = Genotype(normal=[", "line 1: not Python"),
        ("x = 1", "holds no genotype 'MINE'; it holds none"),
        ("MINES = Genotype([], [])", "it holds MINES (did you mean MINES?)"),
    ],
)
def test_a_refusal_says_why_and_where(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(f"{written(tmp_path, text)}:MINE", tmp_path)


def test_nothing_of_a_file_runs(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    file = written(tmp_path, f"open({str(trap)!r}, 'w')\n{genotype()}")
    read(f"{file}:MINE", tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("take", "first"),
    [
        *[("first", "dil_conv_5x5"), ("0", "dil_conv_5x5"), ("epoch 0", "dil_conv_5x5")],
        *[("epoch 1", "sep_conv_3x3"), ("1", "sep_conv_3x3"), ("-2", "sep_conv_3x3")],
        *[("last", "max_pool_3x3"), ("epoch 2", "max_pool_3x3")],
    ],
)
def test_a_log_has_one_an_epoch(take: str, first: str) -> None:
    chosen = read(f"search.log:{take}").genotype
    source = 1 if first == "dil_conv_5x5" else 0
    assert (first, source, 2) in chosen.normal


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("search.log", "it prints 3 genotypes; add :last, :first, ':epoch 24' or a number"),
        ("search.log:epoch 24", "it prints no genotype of epoch 24; its epochs are 0 to 2"),
        ("search.log:3", "there is no genotype 3; it prints 3, counted from 0"),
        ("search.log:lost", "'lost' is no place in search.log; write last, first, 'epoch 24' or"),
        ({"file": "/dev/zero"}, "/dev/zero is no file"),  # it would be read for ever
        ("genotypes.py", "say which genotype of genotypes.py, such as"),
        ("nowhere.py:X", "there is no file"),
        ("DARTS", "unknown genotype 'DARTS'; choose from DARTS_V1, DARTS_V2"),
        ({"name": "x"}, "is no genotype; write a published name"),
        ({"file": "nni_darts_v2.json", "name": "a b"}, "name: 'a b' is to stand in tables"),
        ({"file": "nni_darts_v2.json", "name": "darts"}, "'darts' is the name of a search method"),
        (3, "3 is no genotype"),
    ],
)
def test_mistakes(entry: Any, reason: str) -> None:
    assert reason in refusal(entry)


@pytest.mark.parametrize("name", ["long.py", "long.txt", "long.json"])
def test_what_would_take_all_memory_is_not_parsed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("X = [" + "1," * 2**19 + "]")
    entry = {"file": name} if name.endswith("json") else f"{name}:X"
    said = refusal(entry, tmp_path)
    assert name in said
    assert "larger than 1 MiB" in said


def test_a_cut_off_line_of_a_log_says_which(tmp_path: Path) -> None:
    written(tmp_path, "epoch 0\ngenotype = Genotype(normal=[('sep_", "cut.log")
    assert "line 2: its genotype is cut off" in refusal("cut.log:last", tmp_path)


def test_the_hint_for_darts_is_its_second_order() -> None:
    assert "(did you mean DARTS_V2?)" in refusal("DARTS")


def test_a_literal_stands_in_the_grid_itself() -> None:
    text = (HERE / "search.log").read_text().splitlines()[3].partition("genotype = ")[2]
    assert read(text).genotype == read("search.log:first").genotype


# In a grid


def test_a_resolved_grid_needs_no_file(tmp_path: Path) -> None:
    file = written(tmp_path, genotype())
    grid = ns.Grid.from_dict(tree(f"{file}:MINE", "DARTS_V2"), base=tmp_path)
    (tmp_path / file).unlink()
    kept = json.loads(grid.to_json())["retrain"]["genotypes"]
    assert kept[1] == "DARTS_V2"
    assert (kept[0]["name"], kept[0]["file"]) == ("MINE", "own.py")
    again = ns.Grid.from_json(grid.to_json())
    assert again == grid
    assert plan(again).retrains == plan(grid).retrains


def test_two_genotypes_have_two_names(tmp_path: Path) -> None:
    for name, operation in (("a.py", "sep_conv_3x3"), ("b.py", "sep_conv_5x5")):
        written(tmp_path, genotype(NORMAL.replace("sep_conv_3x3", operation)), name)
    with pytest.raises(ns.GridError, match="MINE names two genotypes; write"):
        ns.Grid.from_dict(tree("a.py:MINE", "b.py:MINE"), base=tmp_path)
    other = {"file": "b.py", "take": "MINE", "name": "other"}
    grid = ns.Grid.from_dict(tree("a.py:MINE", other), base=tmp_path)
    assert [slot.origin.method for slot in plan(grid).retrains] == ["MINE", "other"]
    assert [slot.origin.file for slot in plan(grid).retrains] == ["a.py", "b.py"]


def test_a_rule_may_leave_an_imported_one_out() -> None:
    given = tree("search.log:last", "DARTS_V2")
    given["search"]["distributions"] = ["balance", {"exp": 0.1}]
    given["exclude"] = [{"method": "search-last", "distribution": "exp"}]
    slots = plan(ns.Grid.from_dict(given, base=HERE)).retrains
    assert [slot.origin.method for slot in slots] == ["search-last", "DARTS_V2", "DARTS_V2"]
