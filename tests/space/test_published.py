from __future__ import annotations

import pytest
from golden_fill import goldens

from nas_sweeps.space.genotype import Edge, Genotype
from nas_sweeps.space.published import PUBLISHED, published

KNOWN = {name.removesuffix("_cifar"): cells for name, cells in goldens()["known_genotypes"].items()}


def edges(rows: list[tuple[str, int, int]]) -> tuple[Edge, ...]:
    return tuple((operation, source, node) for operation, source, node in rows)  # type: ignore[misc]


@pytest.mark.parametrize("name", KNOWN)
def test_published_genotype_equals_the_golden_one(name: str) -> None:
    expected = Genotype(edges(KNOWN[name]["normal"]), edges(KNOWN[name]["reduce"]))
    assert published(name) == expected


def test_nothing_else_is_published_and_all_differ() -> None:
    assert set(PUBLISHED) == set(KNOWN)
    assert len({genotype.genotype_id for genotype in PUBLISHED.values()}) == len(PUBLISHED)


@pytest.mark.parametrize(("name", "width"), [("FairDARTS_c", 5), ("FairDARTS_g", 5)])
def test_edges_from_absent_nodes_are_pruned(name: str, width: int) -> None:
    assert len(KNOWN[name]["normal"]) == width + 1
    assert len(published(name).normal) == width


def test_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'DARTS_V3'; choose from DARTS_V1, DARTS_V2"):
        published("DARTS_V3")
