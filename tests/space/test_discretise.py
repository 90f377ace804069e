from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest
import torch
from golden_fill import alphas, goldens
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_sweeps.space.discretise import (
    Discretised,
    Rule,
    darts_top2,
    discretise,
    eq4_argmax,
    fair_threshold,
)
from nas_sweeps.space.genotype import EDGES, NODES, OPERATIONS, Edge, alive_nodes
from nas_sweeps.space.network import Network

GOLDEN = goldens()["genotypes"]
SEVEN = OPERATIONS[1:]
RULES: tuple[Rule, ...] = ("darts_top2", "eq4_argmax", "threshold_sparse", "threshold_edge")
SOFTMAX = [alpha.softmax(dim=-1).tolist() for alpha in alphas(8)]
FAIR = [torch.sigmoid(4 * alpha).tolist() for alpha in alphas(7)]
HALVES = [[0.5] * 7 for _ in EDGES]


def emitted(edges: list[Edge]) -> list[list[object]]:
    return [list(edge) for edge in edges]


@pytest.mark.parametrize(("cell", "weights"), [("normal", SOFTMAX[0]), ("reduce", SOFTMAX[1])])
def test_rules_on_softmax_weights_emit_the_golden_edges(
    cell: str, weights: list[list[float]]
) -> None:
    assert emitted(darts_top2(weights, OPERATIONS)) == GOLDEN["darts_top2"][cell]
    assert emitted(eq4_argmax(weights, OPERATIONS)) == GOLDEN["eq4_argmax"][cell]


@pytest.mark.parametrize(("cell", "weights"), [("normal", FAIR[0]), ("reduce", FAIR[1])])
@pytest.mark.parametrize("variant", ["sparse", "edge"])
@pytest.mark.parametrize("threshold", [0.85, 0.98])
def test_threshold_rule_emits_the_golden_edges(
    threshold: float, variant: str, cell: str, weights: list[list[float]]
) -> None:
    golden = GOLDEN[f"fair_threshold_{variant}_{threshold}"][cell]
    assert emitted(fair_threshold(weights, SEVEN, threshold, variant)) == golden  # type: ignore[arg-type]


def test_top2_on_sigmoid_weights_emits_the_golden_edges() -> None:
    for cell, weights in zip(("normal", "reduce"), FAIR, strict=True):
        assert emitted(darts_top2(weights, SEVEN)) == GOLDEN["fair_darts"][cell]


def test_ties_go_to_the_smaller_node_and_operation() -> None:
    edges = darts_top2(HALVES, SEVEN)
    assert edges == [("max_pool_3x3", j, i) for i in NODES for j in (0, 1)]


def read(
    weights: list[list[float]], rule: Rule = "threshold_sparse", **options: object
) -> Discretised:
    return discretise(weights, weights, SEVEN, rule=rule, **options)  # type: ignore[arg-type]


def test_weights_below_the_threshold_fall_back_to_top2() -> None:
    done = read(HALVES)
    assert done.fallback_used
    assert done.threshold == 0.85
    assert set(done.genotype.normal) == set(darts_top2(HALVES, SEVEN))


def test_fallback_replaces_only_the_cell_that_needs_it() -> None:
    done = discretise(FAIR[0], HALVES, SEVEN, rule="threshold_sparse")
    assert done.fallback_used
    assert set(done.genotype.normal) == set(fair_threshold(FAIR[0], SEVEN))
    assert set(done.genotype.reduce) == set(darts_top2(HALVES, SEVEN))


def test_fallback_error_says_which_cell_is_empty() -> None:
    with pytest.raises(ValueError, match=r"reduce cell: rule 'threshold_sparse' keeps 0 edges"):
        discretise(FAIR[0], HALVES, SEVEN, rule="threshold_sparse", fallback="error")


def test_fallback_relative_takes_the_largest_threshold_that_feeds_every_node() -> None:
    weights = [[0.1] * 7 for _ in EDGES]
    weights[EDGES.index((0, 2))][0] = 0.8
    weights[EDGES.index((1, 2))][1] = 0.6
    weights[EDGES.index((2, 3))][2] = 0.7
    weights[EDGES.index((1, 4))][3] = 0.5
    weights[EDGES.index((0, 5))][4] = 0.55
    done = read(weights, fallback="relative")
    assert done.fallback_used
    assert set(done.genotype.normal) == {
        ("max_pool_3x3", 0, 2),
        ("avg_pool_3x3", 1, 2),
        ("skip_connect", 2, 3),
        ("sep_conv_3x3", 1, 4),
        ("sep_conv_5x5", 0, 5),
    }
    assert len(read(weights, fallback="relative", min_edges=8).genotype.normal) == 8


def test_edges_from_dead_nodes_do_not_count_towards_min_edges() -> None:
    weights = [[0.1] * 7 for _ in EDGES]
    weights[EDGES.index((3, 4))][0] = 0.9
    weights[EDGES.index((4, 5))][0] = 0.9
    assert read(weights).fallback_used
    weights[EDGES.index((0, 2))][0] = 0.9
    done = read(weights)
    assert not done.fallback_used
    assert done.genotype.normal == (("max_pool_3x3", 0, 2),)
    assert read(weights, min_edges=2).fallback_used


def test_none_everywhere_leaves_an_empty_eq4_cell_to_the_fallback() -> None:
    weights = [[0.65, *[0.05] * 7] for _ in EDGES]
    assert eq4_argmax(weights, OPERATIONS) == []
    done = discretise(weights, weights, OPERATIONS, rule="eq4_argmax")
    assert done.fallback_used
    assert done.threshold is None
    assert len(done.genotype.normal) == 8


def test_facts_say_how_clearly_the_weights_spoke() -> None:
    onehot = [[0.0, 0.0, 1.0, 0.0] for _ in EDGES]
    mixed = [[0.4, 0.3, 0.2, 0.1] for _ in EDGES]
    done = discretise(onehot, mixed, OPERATIONS[:4], rule="darts_top2")
    assert (done.gap_normal, done.margin_normal, done.entropy_normal) == (0, 1, 0)
    assert done.gap_reduce == pytest.approx(0.6)
    assert done.margin_reduce == pytest.approx(0.1)  # none, the heaviest, is no candidate
    entropy = -sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1))
    assert done.entropy_reduce == pytest.approx(entropy)


def test_entropy_normalises_sigmoid_rows() -> None:
    assert read(HALVES).entropy_normal == pytest.approx(math.log(7))
    assert read([[0.0] * 7 for _ in EDGES]).entropy_normal == pytest.approx(math.log(7))


def test_unusable_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="13 rows"):
        read(HALVES[1:])
    with pytest.raises(ValueError, match="there are 8 operations"):
        darts_top2(HALVES, OPERATIONS)
    for bad in (math.nan, math.inf, -0.1):
        with pytest.raises(ValueError, match="edge 0 to 2"):
            eq4_argmax([[bad, *[0.5] * 6], *HALVES[1:]], SEVEN)


def test_unusable_options_are_refused() -> None:
    with pytest.raises(ValueError, match="min_edges=9"):
        read(HALVES, min_edges=9)
    with pytest.raises(ValueError, match="has none; choose fallback"):
        read(HALVES, rule="eq4_argmax", fallback="relative")
    with pytest.raises(ValueError, match="unknown rule 'best'"):
        read(HALVES, rule="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="operations"):
        darts_top2([[1.0]] * 14, ["none"])


@st.composite
def weights_of_a_cell(draw: st.DrawFn, columns: int) -> list[list[float]]:
    """Few distinct levels, so that ties, zeros and empty cells are common."""
    levels = draw(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    source = random.Random(draw(st.integers(0, 10**6)))
    return [source.choices(levels, k=columns) for _ in EDGES]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rule=st.sampled_from(RULES), columns=st.sampled_from([7, 8]))
def test_any_weights_under_any_rule_give_cells_that_a_network_runs(
    data: st.DataObject, rule: Rule, columns: int
) -> None:
    normal, reduce = (data.draw(weights_of_a_cell(columns)) for _ in range(2))
    fallback = data.draw(
        st.sampled_from(["top2", "relative"] if rule.startswith("threshold") else ["top2"])
    )
    min_edges, threshold = data.draw(st.integers(1, 8)), data.draw(st.floats(0, 1))
    done = discretise(
        normal,
        reduce,
        OPERATIONS[8 - columns :],
        rule=rule,
        threshold=threshold,
        fallback=fallback,
        min_edges=min_edges,
    )
    for cell in (done.genotype.normal, done.genotype.reduce):
        assert len(cell) >= min_edges
        assert {j for _, j, _ in cell} <= {0, 1, *alive_nodes(cell)}
    net = Network(done.genotype, 2, 3, 5)
    assert net(torch.zeros(2, 3, 8, 8))[0].shape == (2, 5)


def test_reading_genotypes_needs_no_torch() -> None:
    modules = "nas_sweeps.space.discretise, nas_sweeps.space.published, sys"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
