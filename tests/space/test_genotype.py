from __future__ import annotations

import json

import pytest

from nas_sweeps.space.genotype import EDGES, Edge, Genotype, alive_nodes, prune

CELL: tuple[Edge, ...] = (("sep_conv_3x3", 0, 2), ("max_pool_3x3", 2, 4), ("skip_connect", 1, 4))


def test_edges_are_in_the_row_order_of_alpha() -> None:
    assert EDGES[:5] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert len(EDGES) == 14
    assert EDGES[-1] == (4, 5)


def test_order_of_edges_does_not_change_a_genotype() -> None:
    straight, turned = Genotype(CELL, CELL), Genotype(CELL[::-1], CELL)
    assert straight == turned
    assert straight.genotype_id == turned.genotype_id
    assert straight.genotype_id != Genotype(CELL, CELL[:1]).genotype_id


def test_chains_that_start_at_a_dead_node_are_pruned() -> None:
    dead: tuple[Edge, ...] = (("skip_connect", 3, 4), ("skip_connect", 4, 5))
    assert prune(dead) == ()
    assert prune((*CELL[:1], *dead)) == CELL[:1]
    assert alive_nodes(CELL) == (2, 4)


def test_counts_are_per_cell() -> None:
    genotype = Genotype(CELL, CELL[:1])
    assert genotype.count("skip_connect") == 1
    assert genotype.count("skip_connect", reduction=True) == 0


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ((("none", 0, 2),), "unknown operation 'none'"),
        ((("conv", 0, 2),), "unknown operation 'conv'"),
        ((("skip_connect", 4, 3),), "no edge from node 4 to node 3"),
        ((("skip_connect", 0, 2), ("skip_connect", 0, 2)), "named twice"),
        ((("skip_connect", 3, 4),), "no edge leads from the inputs"),
        ((), "no edge leads from the inputs"),
    ],
)
def test_impossible_cells_are_refused_by_name(cell: tuple[Edge, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"reduce: .*{message}"):
        Genotype(CELL, cell)


def test_a_genotype_is_read_back_from_its_json() -> None:
    genotype = Genotype(CELL, CELL[:1])
    assert genotype.to_json()[1] == [list(CELL[0])]
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


@pytest.mark.parametrize("value", [None, 3, [], [[]], [[["skip_connect", 0]], []], [[3], [3]]])
def test_what_is_no_genotype_is_one_mistake(value: object) -> None:
    with pytest.raises(ValueError):
        Genotype.from_json(value)
