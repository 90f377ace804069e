"""Genotypes that others published, as baselines for retraining. Pure Python: no torch."""

from __future__ import annotations

from nas_sweeps.space.genotype import Edge, Genotype, Operation

_SHORT: dict[str, Operation] = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}


def _cell(text: str) -> tuple[Edge, ...]:
    """``sep3 0 2, skip 1 2``: an operation, the node it reads and the node it feeds."""
    triples = (part.split() for part in text.split(","))
    return tuple((_SHORT[name], int(source), int(node)) for name, source, node in triples)


def _genotype(normal: str, reduce: str) -> Genotype:
    return Genotype(normal=_cell(normal), reduce=_cell(reduce))


PUBLISHED: dict[str, Genotype] = {
    # quark0/darts cnn/genotypes.py (arXiv 1806.09055): first order, then second order
    "DARTS_V1": _genotype(
        normal="sep3 1 2, sep3 0 2, skip 0 3, sep3 1 3, skip 0 4, sep3 1 4, sep3 0 5, skip 2 5",
        reduce="max 0 2, max 1 2, skip 2 3, max 0 3, max 0 4, skip 2 4, skip 2 5, avg 0 5",
    ),
    "DARTS_V2": _genotype(
        normal="sep3 0 2, sep3 1 2, sep3 0 3, sep3 1 3, sep3 1 4, skip 0 4, skip 0 5, dil3 2 5",
        reduce="max 0 2, max 1 2, skip 2 3, max 1 3, max 0 4, skip 2 4, skip 2 5, max 1 5",
    ),
    # PC-DARTS (arXiv 1907.05737), on CIFAR-10
    "PC_DARTS": _genotype(
        normal="sep3 1 2, skip 0 2, sep3 0 3, dil3 1 3, sep5 0 4, sep3 1 4, avg 0 5, dil3 1 5",
        reduce="sep5 1 2, max 0 2, sep5 1 3, sep5 2 3, sep3 0 4, sep3 3 4, sep3 1 5, sep3 2 5",
    ),
    # P-DARTS (arXiv 1904.12760)
    "PDARTS": _genotype(
        normal="skip 0 2, dil3 1 2, skip 0 3, sep3 1 3, sep3 1 4, sep3 3 4, sep3 0 5, dil5 4 5",
        reduce="avg 0 2, sep5 1 2, sep3 0 3, dil5 2 3, max 0 4, dil3 1 4, dil3 1 5, dil5 3 5",
    ),
    # SNAS (arXiv 1812.09926)
    "SNAS": _genotype(
        normal="sep3 0 2, sep3 1 2, skip 0 3, dil3 1 3, skip 1 4, skip 0 4, skip 0 5, sep3 1 5",
        reduce="max 0 2, max 1 2, max 1 3, skip 2 3, skip 2 4, max 1 4, max 0 5, dil5 2 5",
    ),
    # GDAS (arXiv 1910.04465)
    "GDAS_V1": _genotype(
        normal="skip 0 2, skip 1 2, skip 0 3, sep5 2 3, sep3 3 4, skip 0 4, sep5 4 5, sep3 3 5",
        reduce="sep5 0 2, sep3 1 2, sep5 2 3, sep5 1 3, dil5 2 4, sep3 1 4, sep5 0 5, sep5 2 5",
    ),
    # xiaomi-automl/FairDARTS genotypes.py (arXiv 1911.12126): seven searches. In c and g an edge
    # leaves a node without inputs; Genotype prunes it.
    "FairDARTS_a": _genotype(
        normal="sep3 0 2, sep5 1 2, max 0 4, sep3 0 5",
        reduce="max 0 2, avg 1 2, avg 0 3, dil5 1 3, avg 0 4, sep5 1 4, skip 0 5, skip 1 5",
    ),
    "FairDARTS_b": _genotype(
        normal="sep3 0 2, sep3 1 2, sep3 1 3, dil3 0 4, sep5 1 4, dil5 1 5",
        reduce="skip 0 2, dil3 1 2, skip 0 3, dil3 1 3, max 0 4, sep3 1 4, skip 2 5, max 0 5",
    ),
    "FairDARTS_c": _genotype(
        normal="max 0 2, sep5 1 2, dil3 0 4, dil5 2 4, skip 3 5, sep3 0 5",
        reduce="dil3 1 2, dil5 0 2, dil3 0 3, sep3 1 3, sep5 0 4, sep5 3 4, sep5 0 5, skip 1 5",
    ),
    "FairDARTS_d": _genotype(
        normal="sep3 0 2, sep5 1 2, dil3 1 3, max 0 3, dil3 0 4, dil3 1 4, sep3 0 5, dil5 1 5",
        reduce="max 0 2, sep5 1 2, avg 0 3, dil5 2 3, dil3 3 4, avg 0 4, avg 0 5, skip 3 5",
    ),
    "FairDARTS_e": _genotype(
        normal="sep3 0 2, sep3 1 2, dil3 1 4, dil3 2 4, dil3 0 5, dil5 1 5",
        reduce="max 1 2, max 0 2, max 1 3, max 0 3, sep5 1 4, max 0 4, avg 0 5, dil5 1 5",
    ),
    "FairDARTS_f": _genotype(
        normal="max 0 2, sep3 1 2, dil3 1 3, sep5 1 4, sep3 0 5, sep3 1 5",
        reduce="max 0 2, max 1 2, max 0 3, dil3 1 3, dil3 2 4, max 0 4, max 0 5, sep3 1 5",
    ),
    "FairDARTS_g": _genotype(
        normal="sep3 0 2, sep3 1 2, skip 3 4, sep5 1 4, dil3 0 5, sep3 1 5",
        reduce="avg 1 2, skip 0 2, skip 2 3, max 1 3, sep5 3 4, max 0 4, dil3 1 5, dil3 4 5",
    ),
}


def published(name: str) -> Genotype:
    """The genotype published under ``name``. Raises ``ValueError`` that lists the choices."""
    if name not in PUBLISHED:
        choices = ", ".join(PUBLISHED)
        raise ValueError(f"unknown published genotype '{name}'; choose from {choices}")
    return PUBLISHED[name]
