"""Kernels that the tests of this folder launch, compiled at once and not one after the other."""

from __future__ import annotations

from nas_sweeps.space import arithmetic
from nas_sweeps.space.lanes.ready import Need
from nas_sweeps.space.network import Network
from nas_sweeps.space.published import published
from nas_sweeps.space.supernet import Supernet
from tests.gpu.parts import KINDS

IMAGE = (3, 32, 32)


def needs() -> list[Need]:
    """In order of worth; what float64 takes comes last."""
    search = Supernet(16, 3, 10)
    wide = Network(published("DARTS_V2"), 36, 4, 10, auxiliary=True)
    small = Network(published("FairDARTS_a"), 16, 4, 10, auxiliary=True)
    own = Network(published("DARTS_V2"), 16, 3, 10)
    exact_search = Supernet(16, 3, 10).double()
    exact_small = Network(published("FairDARTS_a"), 16, 4, 10, auxiliary=True).double()
    for net in (search, wide, small, own, exact_search, exact_small):
        net.form = "triton"
    out = []
    for kind in KINDS:
        out += [Need(search, 7, 7, IMAGE, kind), Need(small, 7, 7, IMAGE, kind, True)]
        out += [Need(own, 16, 40, IMAGE, kind), Need(own, 16, 40, IMAGE, kind, True)]
        out += arithmetic.needs(kind)
    out += [Need(wide, 7, 7, IMAGE, kind, True) for kind in KINDS[:2]]
    exact = (Need(exact_search, 7, 7, IMAGE, "fp32"), Need(exact_small, 7, 7, IMAGE, "fp32", True))
    return [*out, *exact]
