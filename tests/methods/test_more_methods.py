"""PC-DARTS, Beta-DARTS, GDAS and random search against formulas that are written out here."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from golden_fill import fill, inp
from torch import Tensor, nn

from nas_sweeps import methods
from nas_sweeps.methods import Progress, build, resolve
from nas_sweeps.methods.beta_darts import BetaDARTS
from nas_sweeps.methods.gdas import GDAS
from nas_sweeps.methods.pc_darts import PCDARTS
from nas_sweeps.methods.random import Random
from nas_sweeps.space.genotype import EDGES, OPERATIONS, Genotype
from nas_sweeps.space.network import count_macs, count_params
from nas_sweeps.space.plain import MixedEdge, PlainSupernet, SearchCell
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.trial import SearchRecipe
from tests.train.tiny_runs import search_run

EPOCHS = 50


def at(epoch: int, generator: torch.Generator | None = None, epochs: int = EPOCHS) -> Progress:
    return Progress(torch.tensor(epoch, dtype=torch.float64), epochs, generator)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(seed), dtype=torch.float64)


def alphas(seed: int = 0) -> dict[str, Tensor]:
    return {
        cell: normal_numbers(14, 8, seed=seed + i).requires_grad_()
        for i, cell in enumerate(("normal", "reduce"))
    }


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


# PC-DARTS


def pc_parameters() -> dict[str, Tensor]:
    betas = {
        f"beta_{cell}": normal_numbers(14, seed=5 + i).requires_grad_()
        for i, cell in enumerate(("normal", "reduce"))
    }
    return alphas() | betas


def test_pc_darts_has_the_parameters_of_its_code() -> None:
    net = Supernet(16, 8, 10, partial_channels=4)
    assert count_params(net) == 299_578
    parameters = PCDARTS().initial_parameters(14, draw())
    assert {n: tuple(p.shape) for n, p in parameters.items()} == {
        "normal": (14, 8),
        "reduce": (14, 8),
        "beta_normal": (14,),
        "beta_reduce": (14,),
    }
    assert sum(p.numel() for p in parameters.values()) == 224 + 28
    for parameter in PCDARTS().initial_parameters(5000, draw()).values():
        assert float(parameter.std()) == pytest.approx(1e-3, rel=0.05)


def test_pc_darts_defaults_are_those_of_its_code() -> None:
    method = PCDARTS()
    assert (method.arch_lr, method.partial_channels, method.warmup_epochs) == (6e-4, 4, 15)
    assert (method.arch_beta1, method.arch_beta2, method.arch_weight_decay) == (0.5, 0.999, 1e-3)


def test_pc_darts_weighs_operations_by_edge_and_what_passes_by_the_edge_alone() -> None:
    parameters = pc_parameters()
    found = PCDARTS().edge_weights(parameters, at(0))
    for cell, weights in zip(("normal", "reduce"), found, strict=True):
        alpha = parameters[cell].tolist()
        beta = parameters[f"beta_{cell}"].tolist()
        expected = []
        for node in (2, 3, 4, 5):
            rows = [row for row, (_, to) in enumerate(EDGES) if to == node]
            shares = softmax([beta[row] for row in rows])
            for share, row in zip(shares, rows, strict=True):
                expected.append([share * w for w in softmax(alpha[row])] + [share])
        assert torch.allclose(weights, torch.tensor(expected, dtype=torch.float64), atol=1e-14)


def shuffled(x_BCHW: Tensor, groups: int) -> Tensor:
    """Channel c of group g becomes channel c * groups + g."""
    each = x_BCHW.shape[1] // groups
    out = torch.empty_like(x_BCHW)
    for g in range(groups):
        for c in range(each):
            out[:, c * groups + g] = x_BCHW[:, g * each + c]
    return out


@pytest.mark.parametrize("partial", [2, 4])
@pytest.mark.parametrize("reduction", [False, True])
def test_a_node_of_pc_darts_is_its_codes_sum(partial: int, reduction: bool) -> None:
    """Edges weighted outside the shuffle, as its code has it; ours has the weight inside."""
    method, parameters = PCDARTS(partial_channels=partial), pc_parameters()
    net = PlainSupernet(4, 3, 10, partial_channels=partial).double()
    cell = next(c for c in net.cells if isinstance(c, SearchCell) and c.reduction == reduction)
    channels = 8 if reduction else 4
    states = [normal_numbers(2, channels, 6, 6, seed=9 + i) for i in range(2)]
    weights = method.edge_weights(parameters, at(0))[reduction]
    name = "reduce" if reduction else "normal"
    share = torch.cat(
        [part.softmax(0) for part in torch.split(parameters[f"beta_{name}"], [2, 3, 4, 5])]
    )
    mixing = parameters[name].softmax(-1)
    for row, (source, node) in [(r, e) for r, e in enumerate(EDGES) if e[1] == 2]:
        edge = cell.edges[f"{source}_{node}"]
        assert isinstance(edge, MixedEdge)
        x = states[source]
        own, rest = x[:, : channels // partial], x[:, channels // partial :]
        mixed = sum(mixing[row, OPERATIONS.index(o)] * m(own) for o, m in edge.items())
        if reduction:
            rest = nn.MaxPool2d(2, 2)(rest)
        theirs = share[row] * shuffled(torch.cat([mixed, rest], dim=1), partial)
        ours = edge(x, weights[row].unbind())
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_partial_channels_take_maps_of_odd_sides() -> None:
    net = Supernet(4, 3, 10, partial_channels=2)
    weights = PCDARTS(partial_channels=2).edge_weights(pc_parameters(), at(0))
    logits = net(torch.randn(2, 3, 9, 7), *(w.float() for w in weights))
    assert logits.shape == (2, 10)


def test_the_arranged_form_of_partial_channels_is_the_plain_one() -> None:
    parameters, results = pc_parameters(), []
    for kind in (PlainSupernet, Supernet):
        net = fill(kind(4, 3, 10, partial_channels=4))
        logits = net(inp(4, 3, 16), *PCDARTS().edge_weights(parameters, at(0)))
        loss = F.cross_entropy(logits, torch.arange(4))
        results.append((logits, *torch.autograd.grad(loss, list(parameters.values()))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(gradient.abs().max() > 1e-6 for gradient in results[0][1:])


def test_partial_channels_are_counted_and_checked() -> None:
    whole, part = (count_macs(Supernet(8, 3, 10, partial_channels=k), 16) for k in (1, 4))
    assert 0 < part < whole
    with pytest.raises(ValueError, match="channels=6: must be a multiple of 4"):
        Supernet(6, 3, 10, partial_channels=4)
    with pytest.raises(ValueError, match=r"14 edges and 9 columns .*bypass"):
        Supernet(4, 3, 10, partial_channels=4)(inp(2, 3, 8).float(), *[torch.zeros(14, 8)] * 2)


def test_a_genotype_of_pc_darts_is_read_from_products() -> None:
    """An edge with a large beta is kept before one whose operation is surer of itself."""
    parameters = {cell: torch.zeros(14, 8) for cell in ("normal", "reduce")}
    parameters |= {f"beta_{cell}": torch.zeros(14) for cell in ("normal", "reduce")}
    sep, dil = OPERATIONS.index("sep_conv_3x3"), OPERATIONS.index("dil_conv_3x3")
    into_5 = {source: row for row, (source, node) in enumerate(EDGES) if node == 5}
    parameters["normal"][into_5[0], sep] = 3.0
    parameters["normal"][into_5[1], sep] = 3.0
    parameters["normal"][into_5[4], dil] = 2.0
    parameters["beta_normal"][into_5[4]] = 4.0
    method = PCDARTS()
    normal, reduce = (w.tolist() for w in method.strengths(parameters, at(0)))
    kept = {edge for edge in method.discretise(normal, reduce).genotype.normal if edge[2] == 5}
    assert kept == {("dil_conv_3x3", 4, 5), ("sep_conv_3x3", 0, 5)}


def test_architecture_parameters_do_not_move_before_the_warm_up_is_over() -> None:
    run = search_run("pc_darts", epochs=3)
    start = [p.clone() for p in run.alphas]
    weights = run.weights[0].clone()
    row = run.run_epoch()
    assert all(torch.equal(a, b) for a, b in zip(run.alphas, start, strict=True))
    assert not torch.equal(run.weights[0], weights)
    assert (row["stage"], row["arch_lr"]) == ("warmup", 0.0)
    assert "loss_arch" not in row
    row = run.run_epoch()
    assert not any(torch.equal(a, b) for a, b in zip(run.alphas, start, strict=True))
    assert (row["stage"], row["arch_lr"]) == ("search", 6e-4)
    assert math.isfinite(row["loss_arch"])


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (SearchRecipe(epochs=15), "alone for 15 epochs and the recipe has 15"),
        (SearchRecipe(channels=18), "1/4 of the channels and the recipe has 18"),
    ],
)
def test_pc_darts_refuses_what_it_cannot_be_searched_with(recipe: SearchRecipe, said: str) -> None:
    PCDARTS().check(SearchRecipe())
    with pytest.raises(ValueError, match=said):
        PCDARTS().check(recipe)


# Beta-DARTS


@pytest.mark.parametrize(("epoch", "weight"), [(0, 0.0), (1, 0.5), (49, 24.5)])
def test_beta_darts_adds_the_mean_logsumexp_of_alpha(epoch: int, weight: float) -> None:
    method, parameters = BetaDARTS(), alphas()
    weights = method.edge_weights(parameters, at(epoch))
    found = method.regulariser(parameters, weights, at(epoch))
    rows = [row for alpha in parameters.values() for row in alpha.tolist()]
    expected = sum(math.log(sum(math.exp(a) for a in row)) for row in rows) / 28
    assert found.item() == pytest.approx(weight * expected, rel=1e-12)
    gradient = torch.autograd.grad(found, parameters["normal"])[0].tolist()
    for slopes, row in zip(gradient, parameters["normal"].tolist(), strict=True):
        assert slopes == pytest.approx([weight / 28 * p for p in softmax(row)], rel=1e-12)


def test_the_weight_of_beta_darts_is_a_knob() -> None:
    half, twice = (
        build(resolve("beta_darts", {"beta_weight": w})).regulariser(alphas(), (), at(3))
        for w in (0.5, 1.0)
    )
    assert twice.item() == pytest.approx(2 * half.item())


# GDAS


def temperature(epoch: int, epochs: int = EPOCHS) -> float:
    return 10 - 9.9 * epoch / (epochs - 1)


@pytest.mark.parametrize("epoch", [0, 7, 49])
def test_gdas_samples_by_gumbel_and_passes_the_gradient_of_its_softmax(epoch: int) -> None:
    parameters = alphas()
    found = GDAS().edge_weights(parameters, at(epoch, draw(3)))
    again = draw(3)
    for alpha, weights in zip(parameters.values(), found, strict=True):
        gumbels = -torch.empty(14, 8, dtype=torch.float64).exponential_(generator=again).log()
        logits = (alpha.detach().log_softmax(-1) + gumbels) / temperature(epoch)
        assert torch.equal(weights, F.one_hot(logits.argmax(-1), 8).double())
        upstream = normal_numbers(14, 8, seed=11)
        (slope,) = torch.autograd.grad((weights * upstream).sum(), alpha)
        # d softmax(z)_i / dz_j = p_i (1[i = j] - p_j); z moves by 1/tau times log softmax of alpha
        p, q = logits.softmax(-1), alpha.detach().softmax(-1)
        dz = (p * (upstream - (p * upstream).sum(-1, keepdim=True))) / temperature(epoch)
        expected = dz - q * dz.sum(-1, keepdim=True)
        assert torch.allclose(slope, expected, atol=1e-12)


def test_gdas_samples_operations_by_their_probabilities() -> None:
    """At any temperature: the Gumbel trick."""
    alpha = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0, 0.0, 2.0, -2.0]).expand(20_000, 8)
    parameters = {"normal": alpha, "reduce": alpha}
    for epoch in (0, 49):
        drawn, _ = GDAS().edge_weights(parameters, at(epoch, draw()))
        assert torch.allclose(drawn.mean(0), alpha[0].softmax(0), atol=0.015)


def test_gdas_without_noise_runs_the_likeliest_and_reads_probabilities() -> None:
    parameters = alphas()
    hard, _ = GDAS().edge_weights(parameters, at(0))
    assert torch.equal(hard.argmax(-1), parameters["normal"].argmax(-1))
    assert torch.equal(hard.sum(-1), torch.ones(14, dtype=torch.float64))
    soft, _ = GDAS().strengths(parameters, at(0))
    assert torch.allclose(soft, parameters["normal"].softmax(-1))


def test_one_epoch_of_gdas_has_a_temperature_too() -> None:
    GDAS().edge_weights(alphas(), at(0, draw(), epochs=1))


def test_every_pass_of_gdas_draws_anew_and_an_evaluation_draws_nothing() -> None:
    run = search_run("gdas")
    before = run.noise.get_state()
    run._test(lambda: None)
    assert torch.equal(run.noise.get_state(), before)
    first, second = run._edge_weights(run.alphas)[0], run._edge_weights(run.alphas)[0]
    assert not torch.equal(first, second)


# Random search


def sampled(seed: int) -> Genotype:
    method = Random()
    parameters = method.initial_parameters(14, draw(seed))
    normal, reduce = (w.double().tolist() for w in method.strengths(parameters, at(0)))
    return method.discretise(normal, reduce).genotype


def test_random_genotypes_are_uniform() -> None:
    """Two edges a node, each pair as likely as another, and each of seven operations on each."""
    draws = 1500
    operations: Counter[str] = Counter()
    pairs: Counter[tuple[int, ...]] = Counter()
    together: Counter[tuple[str, int]] = Counter()
    for seed in range(draws):
        genotype = sampled(seed)
        for cell in (genotype.normal, genotype.reduce):
            assert Counter(node for _, _, node in cell) == {2: 2, 3: 2, 4: 2, 5: 2}
            operations.update(operation for operation, _, _ in cell)
            pairs[tuple(sorted(source for _, source, node in cell if node == 5))] += 1
            together.update((o, source) for o, source, node in cell if node == 5)
    assert set(operations) == set(OPERATIONS[1:])
    assert len(pairs) == 10
    assert chi_square(operations, 7) < 22.5  # the 0.1 % quantile of 6 degrees of freedom
    assert chi_square(pairs, 10) < 27.9  # of 9
    assert chi_square(together, 35) < 65.3  # of 34: operations do not depend on edges


def chi_square(counts: Counter, kinds: int) -> float:
    expected = sum(counts.values()) / kinds
    return sum((counts[k] - expected) ** 2 / expected for k in counts)


def test_a_random_search_draws_its_genotype_from_the_seed_and_trains_nothing() -> None:
    outcomes = []
    for seed in (0, 0, 1):
        run = search_run("random", seed=seed)
        assert run.epochs_total == 0
        outcomes.append(run.outcome())
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].genotype != outcomes[2].genotype
    assert outcomes[0].metrics["epochs"] == 0
    assert "accuracy_balanced" not in outcomes[0].metrics
    assert outcomes[0].classes == []


def test_all_seven_methods_are_there() -> None:
    assert set(methods.names()) >= {
        "beta_darts", "darts", "fairdarts", "gdas", "pc_darts", "random", "ssf_nas"
    }  # fmt: skip
