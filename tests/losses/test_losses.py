from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.losses import Progress, names, supervised_loss
from nas_sweeps.losses.functions import (
    Projector,
    barlow_twins,
    class_weights,
    focal,
    ldam_margins,
)
from nas_sweeps.losses.heads import CosineClassifier, cosine_classifier

EXP_01 = (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500)  # CIFAR-10, exp mu=0.1
EXP_001 = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)  # exp mu=0.01
LABELS = torch.tensor([0, 3, 5, 7, 8, 9])
START = Progress(torch.zeros((), dtype=torch.float64), 10)


def golden_logits() -> Tensor:
    i = torch.arange(6, dtype=torch.float64)[:, None]
    j = torch.arange(10, dtype=torch.float64)[None, :]
    return (i + 2 * j).sin() + 0.5 * (3 * i - j).cos()


def golden_views() -> tuple[Tensor, Tensor]:
    b = torch.arange(8, dtype=torch.float64)[:, None]
    d = torch.arange(4, dtype=torch.float64)[None, :]
    z_a = (b + 2 * d + 1).sin()
    return z_a, z_a + 0.3 * (3 * b - d).cos()


def close(value: Tensor | float, golden: float) -> None:
    # The goldens carry 12 decimals.
    assert float(value) == pytest.approx(golden, rel=1e-9, abs=1e-12)


# Class weights and margins


@pytest.mark.parametrize(
    ("name", "counts", "golden"),
    [
        (
            "inv_freq",
            EXP_01,
            "0.2445984628 0.3159370483 0.4080721768 0.5271518594 0.6809534042 "
            "0.8792180546 1.135554609 1.4664176426 1.8961121146 2.4459846278",
        ),
        (
            "effective",
            EXP_01,
            "0.2923412522 0.3583655853 0.4441884532 0.5555396707 0.6996932554 "
            "0.8857791965 1.1265704324 1.4375239401 1.8414830137 2.3585152005",
        ),
        (
            "effective",
            EXP_001,
            "0.0506113612 0.0768997946 0.1211338729 0.1950366657 0.3188053731 "
            "0.5245898533 0.868348941 1.44262727 2.4092230512 3.992723817",
        ),
    ],
)
def test_class_weights_are_the_published_numbers(
    name: str, counts: tuple[int, ...], golden: str
) -> None:
    weights = class_weights(name, counts)
    assert weights == pytest.approx([float(x) for x in golden.split()], abs=6e-11)
    assert sum(weights) == pytest.approx(10, rel=1e-12)


def test_inverse_root_weights_are_roots_of_the_ratio_of_counts() -> None:
    weights = class_weights("inv_sqrt", (400, 100))
    assert weights == pytest.approx([2 / 3, 4 / 3], rel=1e-12)


def test_ldam_margins_are_the_published_numbers() -> None:
    golden = (
        "0.2811706626 0.2997482889 0.31955147 0.3406751919 0.3631917061 "
        "0.3871513009 0.4127229125 0.4399679012 0.4691617275 0.5"
    )
    assert ldam_margins(EXP_01) == pytest.approx([float(x) for x in golden.split()], abs=6e-11)
    assert ldam_margins(EXP_001)[0] == pytest.approx(0.158113883, abs=6e-10)


# Losses by name


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("ce", 2.548184977326),
        ("inv_freq", 2.740014771551),
        ("effective", 2.730364325823),
        ("focal", 2.338013682597),
        ("ghm", 2.236858198213),
        ("logit_adjust", 3.009633528189),
    ],
)
def test_losses_reproduce_the_golden_values(name: str, golden: float) -> None:
    close(supervised_loss(name, EXP_01, START)(golden_logits(), LABELS), golden)


def test_ldam_reproduces_the_golden_value_on_halved_logits() -> None:
    close(supervised_loss("ldam", EXP_01, START)(golden_logits() / 2, LABELS), 29.748172952277)


def test_ghm_over_all_bins_is_the_golden_value_of_its_papers_form() -> None:
    """These images fill 3 of the 10 bins; the paper divides by 10 where the code divides by 3."""
    close(supervised_loss("ghm", EXP_01, START)(golden_logits(), LABELS) * 3 / 10, 0.671057459464)


def test_focal_with_gamma_two_reproduces_the_golden_value() -> None:
    close(focal(golden_logits(), LABELS, gamma=2), 2.156554404064)


@pytest.mark.parametrize("name", names())
def test_every_loss_is_finite_with_finite_gradients_on_extreme_logits(name: str) -> None:
    logits = (1e4 * golden_logits().float()).requires_grad_()
    loss = supervised_loss(name, EXP_01, START)(logits, LABELS)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", names())
def test_every_loss_computes_bfloat16_logits_in_float32(name: str) -> None:
    logits = golden_logits().bfloat16()
    loss = supervised_loss(name, EXP_01, START)
    assert loss(logits, LABELS).dtype == torch.float32
    assert loss(logits, LABELS) == loss(logits.float(), LABELS)


@pytest.mark.parametrize("name", names())
def test_a_loss_first_used_for_evaluation_can_still_train(name: str) -> None:
    loss = supervised_loss(name, EXP_01, START)
    with torch.inference_mode():
        loss(golden_logits(), LABELS)
    logits = golden_logits().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, LABELS), logits)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["inv_freq", "inv_sqrt", "effective", "ldam", "logit_adjust"])
def test_a_class_without_images_is_refused_by_losses_that_count(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'.*class 1 has no training image"):
        supervised_loss(name, (5, 0, 3), START)


@pytest.mark.parametrize("name", ["ce", "focal", "ghm"])
def test_a_class_without_images_is_fine_where_counts_do_not_matter(name: str) -> None:
    counts = (0, *EXP_01[1:])
    assert supervised_loss(name, counts, START)(golden_logits(), LABELS).isfinite()


def test_balanced_counts_make_reweighted_and_adjusted_losses_plain() -> None:
    logits = golden_logits()
    plain = float(supervised_loss("ce", EXP_01, START)(logits, LABELS))
    unweighted: tuple[str, ...] = ("inv_freq", "inv_sqrt", "effective", "logit_adjust")
    for name in unweighted:
        close(supervised_loss(name, (70,) * 10, START)(logits, LABELS), plain)


def test_cosine_classifier_ignores_the_length_of_features_and_of_class_vectors() -> None:
    head = nn.Linear(5, 3)
    cosine = cosine_classifier(head)
    features = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    logits = cosine(features)
    expected = F.cosine_similarity(features[:, None], head.weight[None], dim=2)
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.allclose(cosine(9 * features), logits, atol=1e-6)
    assert isinstance(cosine, CosineClassifier)
    assert cosine.bias is None


# Barlow Twins


@pytest.mark.parametrize(
    ("centered", "different", "same"),
    [(False, 0.030519596575, 0.024727202106), (True, 0.031055506155, 0.024387067348)],
)
def test_barlow_twins_reproduces_the_golden_values(
    centered: bool, different: float, same: float
) -> None:
    z_a, z_b = golden_views()
    close(barlow_twins(z_a, z_b, lambda_=0.0051, centered=centered), different)
    close(barlow_twins(z_a, z_a, lambda_=0.0051, centered=centered), same)


@pytest.mark.parametrize(
    ("centered", "on", "off"),
    [(False, 0.008662827773, 4.285640941525), (True, 0.009541382599, 4.218455599186)],
)
def test_barlow_twins_weighs_only_the_off_diagonal(centered: bool, on: float, off: float) -> None:
    z_a, z_b = golden_views()
    close(barlow_twins(z_a, z_b, lambda_=0.0, centered=centered), on)
    close(barlow_twins(z_a, z_b, lambda_=1.0, centered=centered), on + off)


@pytest.mark.parametrize(
    ("centered", "first", "last", "norm"),
    [
        (False, -0.007111720556, -0.005421813111, 0.030896577710),
        (True, -0.007882762043, -0.006120883120, 0.033988586730),
    ],
)
def test_barlow_twins_gradients_reproduce_the_golden_values(
    centered: bool, first: float, last: float, norm: float
) -> None:
    z_a, z_b = golden_views()
    z_a.requires_grad_()
    (gradient,) = torch.autograd.grad(
        barlow_twins(z_a, z_b, lambda_=0.0051, centered=centered), z_a
    )
    close(gradient[0, 0], first)
    close(gradient[7, 3], last)
    close(gradient.norm(), norm)
    if centered:
        assert gradient.sum(0).abs().max() < 1e-14


def test_centred_barlow_twins_is_the_official_loss_but_for_its_epsilon() -> None:
    z_a, z_b = golden_views()

    def official(a: Tensor, b: Tensor) -> float:
        c = F.batch_norm(a, None, None, training=True).T @ F.batch_norm(
            b, None, None, None, None, True
        )
        c = c / len(a)
        on = (c.diagonal() - 1).square().sum()
        return float(on + 0.0051 * (c.square().sum() - c.diagonal().square().sum()))

    close(official(z_a, z_b), 0.031060934743)  # the oracle is the right one
    ours = float(barlow_twins(z_a, z_b, lambda_=0.0051, centered=True))
    assert ours == pytest.approx(official(z_a, z_b), rel=3e-4)


def test_collapsed_projections_are_punished_only_when_centred() -> None:
    z = torch.full((8, 4), 0.7, dtype=torch.float64)
    close(barlow_twins(z, z, lambda_=0.0051, centered=True), 4.0)
    close(barlow_twins(z, z, lambda_=0.0051, centered=False), 0.0051 * 4 * 3)


def test_a_constant_column_has_a_finite_gradient() -> None:
    z_a, z_b = golden_views()
    z_a[:, 1] = 0.0
    z_a.requires_grad_()
    loss = barlow_twins(z_a, z_b, lambda_=0.0051, centered=True)
    (gradient,) = torch.autograd.grad(loss, z_a)
    assert gradient.isfinite().all()


def test_barlow_twins_does_not_lose_precision_under_autocast() -> None:
    z_a, z_b = (z.float() for z in golden_views())
    plain = barlow_twins(z_a, z_b, lambda_=0.0051, centered=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert barlow_twins(z_a, z_b, lambda_=0.0051, centered=True) == plain


@pytest.mark.parametrize(
    ("sizes", "golden"),
    [((256, 512, 512), 657_408), ((256, 512, 128), 460_800), ((256, 2048, 2048), 8_921_088)],
)
def test_projector_has_the_documented_size(sizes: tuple[int, int, int], golden: int) -> None:
    projector = Projector(*sizes)
    assert sum(p.numel() for p in projector.parameters()) == golden
    assert copy.deepcopy(projector)(torch.ones(3, 256)).shape == (3, sizes[2])
