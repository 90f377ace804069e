"""Sizes that are counted from a genotype are those of its network."""

from __future__ import annotations

import random

import pytest

from nas_sweeps.space.genotype import EDGES, OPERATIONS, Genotype
from nas_sweeps.space.network import Network, count_macs, count_params
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.space.size import Size, size_of


def drawn(seed: int) -> Genotype:
    draw = random.Random(seed)
    cells = [
        tuple(
            (draw.choice(OPERATIONS[1:]), source, node)
            for source, node in EDGES
            if draw.random() < 0.5
        )
        for _ in range(2)
    ]
    return Genotype(cells[0] or (("skip_connect", 0, 2),), cells[1] or (("skip_connect", 0, 2),))


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_network_has(seed: int) -> None:
    draw = random.Random(seed)
    channels, layers = draw.choice((2, 4, 6)), draw.choice((3, 4, 5, 8))
    classes, side = draw.choice((3, 10)), draw.choice((8, 9, 16, 31))
    genotype = drawn(seed)
    network = Network(genotype, channels, layers, classes)
    counted = Size(count_params(network), count_macs(network, side))
    assert size_of(genotype, channels, layers, classes, side) == counted


def test_published_sizes() -> None:
    """DARTS_V2 as its README has it: 3.3 million weights."""
    assert round(size_of(PUBLISHED["DARTS_V2"], 36, 20).num_params / 1e6, 2) == 3.35
