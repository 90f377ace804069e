from __future__ import annotations

import pytest
import torch
from golden_fill import checksum, fill, goldens, inp
from torch import Tensor, nn

from nas_sweeps.space.genotype import Edge, Genotype
from nas_sweeps.space.network import DropPath, Network, count_macs, count_params
from nas_sweeps.space.published import PUBLISHED

FORWARDS = goldens()["evalnet_inp_4_3_32"]
PARAMS = {
    name.removesuffix("_cifar"): counts
    for name, counts in goldens()["params"].items()
    if name != "supernet"
}
SIZES = {"C36_L20": (36, 20), "C16_L8": (16, 8)}
MACS = {  # at 32x32, by (channels, layers)
    "DARTS_V1": {(36, 20): 500_987_520, (16, 8): 41_355_776},
    "DARTS_V2": {(36, 20): 528_359_040, (16, 8): 43_444_736},
    "PC_DARTS": {(36, 20): 556_670_592},
    "PDARTS": {(36, 20): 532_174_464},
    "FairDARTS_a": {(36, 20): 371_455_200, (16, 8): 35_231_616},
    "FairDARTS_b": {(36, 20): 536_487_552},
    "FairDARTS_c": {(36, 20): 399_987_936},
    "FairDARTS_d": {(36, 20): 532_506_240},
    "FairDARTS_e": {(36, 20): 414_696_672},
    "FairDARTS_f": {(36, 20): 497_614_464},
    "FairDARTS_g": {(36, 20): 453_376_224},
}
UNIFORM = {  # parameters with one operation on the edges (0, t) and (1, t): C16 L8, C36 L20
    "skip_connect": (143_226, 1_580_950),
    "max_pool_3x3": (100_730, 1_370_134),
    "sep_conv_3x3": (411_002, 4_701_718),
    "sep_conv_5x5": (492_922, 5_144_086),
    "dil_conv_3x3": (255_866, 3_035_926),
    "dil_conv_5x5": (296_826, 3_257_110),
}


def uniform(operation: str) -> Genotype:
    cell: tuple[Edge, ...] = tuple((operation, j, i) for i in (2, 3, 4, 5) for j in (0, 1))  # type: ignore[misc]
    return Genotype(normal=cell, reduce=cell)


def assert_golden(t: Tensor, golden: dict[str, float]) -> None:
    assert list(t.shape) == golden["shape"]
    expected = (golden["sum"], golden["wsum"], golden["norm"])
    assert checksum(t) == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("key", FORWARDS)
def test_logits_have_the_golden_checksums(key: str) -> None:
    name, channels, layers, mode = key.split("/")
    golden = FORWARDS[key]
    auxiliary = name.startswith("DARTS") and layers == "L8"
    net = Network(PUBLISHED[name], int(channels[1:]), int(layers[1:]), 10, auxiliary=auxiliary)
    logits, auxiliary_logits = fill(net).train(mode == "train")(inp(4, 3, 32))
    assert_golden(logits, golden["logits"])
    assert ("aux" in golden) == (auxiliary_logits is not None)
    if auxiliary_logits is not None:
        assert_golden(auxiliary_logits, golden["aux"])
    assert net.classifier.in_features == golden.get("clf_in", net.feature_dim)


def test_auxiliary_head_leaves_the_trunk_unchanged() -> None:
    # An in-place ReLU in the head would change the pooled maps at L=3, where no cell follows:
    # the norm would be 24.6501090443.
    net = fill(Network(PUBLISHED["DARTS_V2"], 4, 3, 10, auxiliary=True))
    logits, _ = net(inp(4, 3, 32))
    assert checksum(logits)[1:] == pytest.approx((5.855295441, 24.6132550937), rel=1e-8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PARAMS)
def test_parameter_count_is_golden_with_and_without_auxiliary_head(name: str, size: str) -> None:
    with torch.device("meta"):
        net = Network(PUBLISHED[name], *SIZES[size], 10, auxiliary=True)
        plain = Network(PUBLISHED[name], *SIZES[size], 10)
    assert count_params(net) == count_params(plain) == PARAMS[name][size]
    assert sum(p.numel() for p in net.parameters()) == PARAMS[name][f"{size}_aux"]


def test_parameter_count_is_golden_for_100_classes() -> None:
    with torch.device("meta"):
        net = Network(PUBLISHED["DARTS_V2"], 36, 20, 100, auxiliary=True)
    assert count_params(net) == 3_401_272
    assert sum(p.numel() for p in net.parameters()) == 3_946_908


@pytest.mark.parametrize("operation", UNIFORM)
def test_parameter_count_of_a_uniform_cell_is_golden(operation: str) -> None:
    with torch.device("meta"):
        nets = [Network(uniform(operation), c, layers, 10) for c, layers in ((16, 8), (36, 20))]
    assert tuple(count_params(net) for net in nets) == UNIFORM[operation]


@pytest.mark.parametrize("name", MACS)
def test_number_of_macs_is_golden(name: str) -> None:
    for (channels, layers), macs in MACS[name].items():
        with torch.device("meta"):
            net = Network(PUBLISHED[name], channels, layers, 10, auxiliary=True)
        assert count_macs(net, 32) == macs


def test_counting_macs_leaves_the_network_alone() -> None:
    net = fill(Network(PUBLISHED["FairDARTS_a"], 2, 3, 5)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    count_macs(net, 16)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_pruned_nodes_take_no_channels() -> None:
    net = Network(PUBLISHED["FairDARTS_c"], 4, 8, 10)
    assert net.feature_dim == 48  # three living nodes of 16 channels
    assert net.features(torch.randn(2, 3, 16, 16)).shape == (2, 48)


def test_two_operations_on_one_edge_are_added() -> None:
    one: tuple[Edge, ...] = (("max_pool_3x3", 0, 2),)
    other: tuple[Edge, ...] = (("sep_conv_3x3", 0, 2),)
    both = fill(Network(Genotype(one + other, one), 4, 3, 10)).cells[0]
    parts = [fill(Network(Genotype(edges, one), 4, 3, 10)).cells[0] for edges in (one, other)]
    x = inp(2, 12, 8)
    torch.testing.assert_close(both(x, x, None), parts[0](x, x, None) + parts[1](x, x, None))


def test_every_norm_of_the_network_is_affine_and_pooling_has_none() -> None:
    net = Network(PUBLISHED["DARTS_V2"], 4, 3, 10, auxiliary=True)
    assert all(norm.affine for norm in net.modules() if isinstance(norm, nn.BatchNorm2d))
    pools = [name for name, _ in net.named_modules() if name.endswith("max_pool_3x3")]
    assert pools
    assert all(not list(net.get_submodule(name).parameters()) for name in pools)


def test_auxiliary_logits_come_in_training_only() -> None:
    net, x = Network(PUBLISHED["DARTS_V2"], 4, 3, 10, auxiliary=True), torch.randn(2, 3, 32, 32)
    assert net.train()(x)[1].shape == (2, 10)
    assert net.eval()(x)[1] is None


def test_images_too_small_for_the_auxiliary_head_are_refused_in_training() -> None:
    net, x = Network(PUBLISHED["DARTS_V2"], 4, 3, 10, auxiliary=True), torch.randn(2, 3, 28, 28)
    with pytest.raises(ValueError, match=r"maps of 7x7 pixels.*at least 29x29"):
        net.train()(x)
    assert net.eval()(x)[0].shape == (2, 10)


@pytest.mark.parametrize("side", [29, 32, 64])
def test_auxiliary_head_takes_images_from_29_pixels_up(side: int) -> None:
    net = Network(PUBLISHED["DARTS_V2"], 2, 3, 10, auxiliary=True)
    assert net.train()(torch.randn(2, 3, side, side))[1].shape == (2, 10)


@pytest.mark.parametrize("side", [8, 9, 15])
def test_small_and_odd_images_pass_without_auxiliary_head(side: int) -> None:
    net = Network(PUBLISHED["FairDARTS_g"], 2, 4, 5, in_channels=1)
    assert net(torch.randn(2, 1, side, side))[0].shape == (2, 5)


def test_drop_path_repeats_with_its_generator() -> None:
    net, x = Network(PUBLISHED["DARTS_V2"], 4, 3, 10), torch.randn(4, 3, 16, 16)
    first, again, other = (
        net(x, drop_path=0.5, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drop_path_is_off_in_testing() -> None:
    net, x = Network(PUBLISHED["DARTS_V2"], 4, 3, 10).eval(), torch.randn(4, 3, 16, 16)
    assert torch.equal(net(x, drop_path=0.5)[0], net(x)[0])
    assert torch.equal(net.features(x, 0.5), net.features(x))


def test_drop_path_on_edges_spares_identities_and_on_nodes_does_not() -> None:
    x = torch.randn(2, 12, 8, 8)
    for drop_path_on, spared in (("edge", True), ("node", False)):
        cell = Network(uniform("skip_connect"), 4, 3, 10, drop_path_on=drop_path_on).cells[0]  # type: ignore[arg-type]
        dropped = cell(x, x, torch.zeros_like)
        assert torch.equal(dropped, cell(x, x, None) if spared else torch.zeros_like(dropped))
    reducing = Network(uniform("skip_connect"), 4, 3, 10).cells[1]
    assert not reducing(torch.randn(2, 12, 8, 8), torch.randn(2, 16, 8, 8), torch.zeros_like).any()


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    out = DropPath(0.25, torch.Generator().manual_seed(0))(torch.ones(4000, 2, 3, 3))
    values = out.flatten(1)
    assert (values == values[:, :1]).all()
    assert set(values.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert values.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("drop_path", [-0.1, 1.0])
def test_impossible_drop_path_is_refused(drop_path: float) -> None:
    with pytest.raises(ValueError, match="drop_path="):
        Network(PUBLISHED["DARTS_V2"], 2, 3, 5)(torch.randn(2, 3, 8, 8), drop_path)


def test_fewer_than_three_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="layers=2"):
        Network(PUBLISHED["DARTS_V2"], 4, 2, 10)
