from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_fill import alphas as golden_alphas
from golden_fill import fill, goldens, inp
from pydantic import ValidationError
from torch import Tensor

from nas_sweeps import registry as registries
from nas_sweeps.losses import BarlowTwins, Joint, StepLoss, Supervised
from nas_sweeps.methods import (
    METHODS,
    Method,
    Progress,
    build,
    contract,
    get,
    names,
    register,
    resolve,
    variant,
)
from nas_sweeps.methods.darts import DARTS
from nas_sweeps.methods.fairdarts import FairDARTS
from nas_sweeps.methods.ssf_nas import SSFNAS
from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.trial import Barlow, MethodSpec

START = Progress(torch.zeros((), dtype=torch.float64), 40)
GATES = (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0)


def zero_one(kind: str, *alphas: Tensor, weight: float = 1.0) -> Tensor:
    method = build(resolve("fairdarts", {"zero_one": kind, "zero_one_weight": weight}))
    loss = method.regulariser({}, tuple(alpha.sigmoid() for alpha in alphas), START)
    assert isinstance(loss, Tensor)
    return loss


def golden_parameters(operations: int) -> dict[str, Tensor]:
    return dict(zip(("normal", "reduce"), golden_alphas(operations), strict=True))


# The registry


def test_the_methods_of_the_package_are_known_by_their_names() -> None:
    own = {n for n in names() if get(n).__module__.startswith("nas_sweeps.")}
    assert own == {"darts", "fairdarts", "ssf_nas", "random", "pc_darts", "beta_darts", "gdas"}
    assert {n: get(n) for n in ("darts", "fairdarts", "ssf_nas")} == {
        "darts": DARTS,
        "fairdarts": FairDARTS,
        "ssf_nas": SSFNAS,
    }


def test_names_are_sorted_however_they_were_registered(
    registry: dict[str, type[Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "aardvark", "nas_sweeps.methods.fairdarts:FairDARTS")
    assert names()[0] == "aardvark"
    assert list(registry)[-1] == "aardvark"


def test_an_unknown_method_is_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'fair_dart'; choose from beta_darts, darts, fair"):
        resolve("fair_dart", {})


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Method]]:
    """The registry as a copy that the test may change."""
    monkeypatch.setattr(METHODS, "known", dict(METHODS.known))
    monkeypatch.setattr(METHODS, "_others_loaded", False)
    return METHODS.known


def offer(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """As if an installed package had this entry point."""
    point = EntryPoint(name, value, "nas_sweeps.methods")
    monkeypatch.setattr(registries, "entry_points", lambda group: [point])


def test_a_name_cannot_be_taken_twice(registry: dict[str, type[Method]]) -> None:
    with pytest.raises(ValueError, match="'darts' is registered twice"):
        register("darts")(FairDARTS)
    assert registry["darts"] is DARTS


def test_another_package_can_offer_a_method(
    registry: dict[str, type[Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "gates", "nas_sweeps.methods.fairdarts:FairDARTS")
    assert "gates" in names()
    assert build(resolve("gates", {})) == FairDARTS()


def test_a_broken_package_is_named(
    registry: dict[str, type[Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "gates", "no_such_package:Gates")
    with pytest.raises(ValueError, match=r"'gates' \(no_such_package:Gates\) cannot be imported"):
        names()


def test_a_package_that_offers_something_else_is_named(
    registry: dict[str, type[Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "gates", "nas_sweeps.methods.fairdarts")
    with pytest.raises(ValueError, match=r"'gates'.*is not a subclass of .*contract.Method"):
        names()


def test_the_example_in_the_contract_is_a_working_method(
    registry: dict[str, type[Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contract.__doc__ is not None
    lines = contract.__doc__.split("::\n", 1)[1].splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    ") or not line)
    module = ModuleType("their_package")
    monkeypatch.setitem(sys.modules, "their_package", module)
    exec(
        "from dataclasses import dataclass\n"
        "from typing import Annotated\n"
        "from annotated_types import Gt\n"
        "from nas_sweeps.methods import Method, register\n"
        "from nas_sweeps.space.discretise import discretise\n" + code,
        module.__dict__,
    )
    method = build(resolve("sharp_darts", {"temperature": 0.25}))
    parameters = method.initial_parameters(14, torch.Generator().manual_seed(0))
    normal, reduce = (w.tolist() for w in method.strengths(parameters, START))
    assert len(method.discretise(normal, reduce).genotype.normal) == 8
    with pytest.raises(ValidationError, match="temperature"):
        resolve("sharp_darts", {"temperature": 0})


@pytest.mark.parametrize(
    ("name", "knobs", "text"),
    [
        ("darts", {}, ""),
        ("darts", {"hvp": "exact", "order": "second"}, "order=second,hvp=exact"),
        ("darts", {"arch_lr": "3e-4"}, ""),
        ("fairdarts", {"arch_lr": 3e-4, "threshold": 0.9}, "arch_lr=0.0003,threshold=0.9"),
        ("ssf_nas", {"zero_one_weight": 5, "barlow_centered": False}, None),
    ],
)
def test_variant_names_what_differs_from_the_defaults(
    name: str, knobs: dict[str, Any], text: str | None
) -> None:
    expected = "zero_one_weight=5,barlow_centered=False" if text is None else text
    assert variant(resolve(name, knobs)) == expected


def test_variant_of_a_spec_without_knobs_is_empty() -> None:
    assert variant(MethodSpec(name="darts")) == ""


# Defaults


@pytest.mark.parametrize(
    ("method", "lr", "beta1", "operations", "rule"),
    [
        (DARTS(), 3e-4, 0.5, 8, "darts_top2"),
        (FairDARTS(), 3e-3, 0.9, 7, "threshold_sparse"),
        (SSFNAS(), 3e-3, 0.9, 7, "threshold_sparse"),
    ],
)
def test_defaults_are_those_of_the_reference_implementations(
    method: Any, lr: float, beta1: float, operations: int, rule: str
) -> None:
    assert (method.arch_lr, method.arch_beta1, method.arch_beta2) == (lr, beta1, 0.999)
    assert method.arch_weight_decay == 1e-3
    assert method.operations == OPERATIONS[-operations:]
    assert method.rule == rule
    assert method.order == "first"


def test_only_ssf_nas_pretrains_by_default() -> None:
    assert {name: get(name).pretrain for name in ("darts", "fairdarts", "ssf_nas")} == {
        "darts": False,
        "fairdarts": False,
        "ssf_nas": True,
    }


@pytest.mark.parametrize(
    ("where", "losses"),
    [
        ("both", (BarlowTwins(), BarlowTwins())),
        ("w_only", (BarlowTwins(), Supervised())),
        ("alpha_only", (Supervised(), BarlowTwins())),
        ("joint", (Joint(other=BarlowTwins()), Joint(other=BarlowTwins()))),
    ],
)
def test_ssf_nas_replaces_the_loss_where_it_is_told(
    where: Any, losses: tuple[StepLoss, StepLoss]
) -> None:
    method = SSFNAS(where=where)
    assert (method.weight_loss, method.arch_loss) == losses


def test_the_barlow_knobs_arrive_in_the_loss() -> None:
    assert SSFNAS().arch_loss == BarlowTwins(barlow=Barlow())
    knobs = {"lambda": 0.1, "dim": 128, "hidden": 64, "centered": False, "scale": 0.5}
    own = {f"barlow_{k}": v for k, v in knobs.items()} | {"probe_lr": 0.2}
    method = build(resolve("ssf_nas", own))
    barlow = Barlow(lambda_=0.1, dim=128, hidden=64, centered=False, scale=0.5)
    assert method.weight_loss == BarlowTwins(barlow=barlow, probe_lr=0.2)


# Edge weights and their start


def test_darts_starts_almost_equal_and_normalises_an_edge() -> None:
    alphas = DARTS().initial_parameters(5000, torch.Generator().manual_seed(0))
    for alpha in alphas.values():
        assert float(alpha.std()) == pytest.approx(1e-3, rel=0.02)
    for weights in DARTS().edge_weights(alphas, START):
        assert torch.allclose(weights.sum(-1), torch.ones(5000))


def test_fairdarts_starts_with_every_gate_half_open() -> None:
    alphas = FairDARTS().initial_parameters(14, torch.Generator().manual_seed(0))
    assert all((w == 0.5).all() for w in FairDARTS().edge_weights(alphas, START))


# The zero-one loss


@pytest.mark.parametrize(
    ("kind", "loss", "gradient"),
    [
        (
            "l1",
            -0.256963538749,
            "0.014999083629 0.028087419034 0 -0.033571958886 -0.028087419034 "
            "-0.014999083629 -0.006453808533",
        ),
        (
            "l2",
            -0.088086941540,
            "0.011423214437 0.012979678239 0 -0.008222399265 -0.012979678239 "
            "-0.011423214437 -0.005841653523",
        ),
    ],
)
def test_zero_one_loss_and_gradient_are_golden(kind: str, loss: float, gradient: str) -> None:
    alpha = torch.tensor(GATES, dtype=torch.float64, requires_grad=True)
    value = zero_one(kind, alpha)
    assert value.item() == pytest.approx(loss, abs=1e-12)
    (slope,) = torch.autograd.grad(value, alpha)
    assert slope.tolist() == pytest.approx([float(x) for x in gradient.split()], abs=1e-12)


@pytest.mark.parametrize(("kind", "golden"), [("l1", -0.267093039511), ("l2", -0.083187209143)])
def test_zero_one_loss_averages_both_cells_together(kind: str, golden: float) -> None:
    normal, reduce = golden_alphas(7)
    assert zero_one(kind, 2 * normal, 2 * reduce).item() == pytest.approx(golden, abs=1e-12)
    stacked = zero_one(kind, torch.cat([2 * normal, 2 * reduce]))
    assert stacked.item() == pytest.approx(golden, abs=1e-12)
    uneven = zero_one(kind, 2 * normal[:3], torch.cat([2 * normal[3:], 2 * reduce]))
    assert uneven.item() == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_zero_one_loss_does_not_move_half_open_gates(kind: str) -> None:
    alpha = torch.zeros(14, 7, dtype=torch.float64, requires_grad=True)
    loss = zero_one(kind, alpha, weight=10.0)
    (slope,) = torch.autograd.grad(loss, alpha)
    assert loss.item() == 0
    assert (slope == 0).all()


@pytest.mark.parametrize(
    ("kind", "total", "separate"),
    [
        ("l2", 6.485590128235, -0.027873418354),
        ("l1", 5.241225854319, -0.152309845745),
    ],
)
def test_fairdarts_total_loss_on_the_supernet_is_golden(
    kind: Any, total: float, separate: float
) -> None:
    method = FairDARTS(zero_one=kind)
    supernet = fill(Supernet(4, 3, 10, method.operations))
    parameters = golden_parameters(7)
    weights = method.edge_weights(parameters, START)
    loss = F.cross_entropy(supernet(inp(4, 3, 16), *weights), torch.arange(4))
    regulariser = method.regulariser(parameters, weights, START)
    assert isinstance(regulariser, Tensor)
    assert regulariser.item() == pytest.approx(10 * separate, abs=1e-11)
    assert (loss + regulariser).item() == pytest.approx(total, abs=1e-11)


# Genotypes


def cells(edges: Any) -> set[tuple[str, int, int]]:
    return {(op, j, i) for op, j, i in edges}


@pytest.mark.parametrize("rule", ["darts_top2", "eq4_argmax"])
def test_darts_reads_the_golden_genotypes(rule: Any) -> None:
    method = DARTS(rule=rule)
    strengths = method.strengths(golden_parameters(8), START)
    found = method.discretise(*(w.tolist() for w in strengths))
    golden = goldens()["genotypes"][rule]
    assert cells(found.genotype.normal) == cells(golden["normal"])
    assert cells(found.genotype.reduce) == cells(golden["reduce"])
    assert not found.fallback_used


@pytest.mark.parametrize("num_operations", [7, 8])
@pytest.mark.parametrize("threshold", [0.85, 0.98])
@pytest.mark.parametrize("variant", ["sparse", "edge"])
def test_fairdarts_reads_the_golden_genotypes_whatever_the_gate_of_none(
    variant: str, threshold: float, num_operations: Any
) -> None:
    rule: Any = f"threshold_{variant}"
    method = FairDARTS(rule=rule, threshold=threshold, num_operations=num_operations)
    alphas = [4 * alpha for alpha in golden_alphas(7)]
    if num_operations == 8:
        alphas = [F.pad(alpha, (1, 0), value=9.0) for alpha in alphas]  # `none` wide open
    strengths = method.strengths(dict(zip(("normal", "reduce"), alphas, strict=True)), START)
    found = method.discretise(*(w.tolist() for w in strengths))
    golden = goldens()["genotypes"][f"fair_threshold_{variant}_{threshold}"]
    assert cells(found.genotype.normal) <= cells(golden["normal"])  # less dead ends
    if (variant, threshold) == ("sparse", 0.85):
        assert cells(found.genotype.normal) == cells(golden["normal"])
        assert cells(found.genotype.reduce) == cells(golden["reduce"])


def test_the_literal_rule_on_gates_never_lets_none_remove_an_edge() -> None:
    method = FairDARTS(num_operations=8, rule="eq4_argmax")
    open_none = [[0.99] + [0.1 + 0.01 * o for o in range(7)]] * 14
    genotype = method.discretise(open_none, open_none).genotype
    assert len(genotype.normal) == 14
    assert {edge[0] for edge in genotype.normal} == {"dil_conv_5x5"}


def test_half_open_gates_fall_back_and_say_so() -> None:
    half = [[0.5] * 7] * 14
    found = FairDARTS().discretise(half, half)
    assert found.fallback_used
    assert found.threshold == 0.85
    assert len(found.genotype.normal) == 8
    assert FairDARTS(fallback="relative").discretise(half, half).fallback_used
    with pytest.raises(ValueError, match="keeps 0 edges"):
        FairDARTS(fallback="error").discretise(half, half)


def test_a_cell_of_none_falls_back_and_says_so() -> None:
    none = [[0.93] + [0.01] * 7] * 14
    found = DARTS(rule="eq4_argmax").discretise(none, none)
    assert found.fallback_used
    assert not DARTS().discretise(none, none).fallback_used


@pytest.mark.parametrize("rule", ["darts_top2", "eq4_argmax"])
def test_a_fallback_that_cannot_work_is_refused_before_the_search(rule: str) -> None:
    with pytest.raises(ValidationError, match="'relative' lowers a threshold"):
        resolve("fairdarts", {"rule": rule, "fallback": "relative"})
