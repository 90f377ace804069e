"""Mixed batches: exact shares, the distribution they are drawn from, and losses on them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta as beta_distribution
from scipy.stats import kstest

from nas_sweeps.data.mixing import Mixing, beta, cutmix, mixup, on_pairs, partner_of
from nas_sweeps.losses import LOSSES, Progress, supervised_loss
from nas_sweeps.trial import RetrainRecipe, choose

CPU = torch.device("cpu")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 8) -> torch.Tensor:
    """Four images whose every value says which image it is of."""
    return torch.arange(4.0)[:, None, None, None].expand(4, 3, size, size).contiguous()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("a", [0.2, 1.0, 4.0])
def test_shares_are_drawn_from_beta(a: float, device: str) -> None:
    generator = torch.Generator(device).manual_seed(3)
    shares = torch.stack([beta(a, generator, torch.device(device)) for _ in range(4000)]).cpu()
    assert ((shares >= 0) & (shares <= 1)).all()
    assert kstest(shares.numpy(), beta_distribution(a, a).cdf).pvalue > 1e-3


def test_mixup_is_the_weighted_mean_of_an_image_and_its_partner() -> None:
    x = torch.randn(4, 3, 5, 5, generator=draw(1))
    mixed, share = mixup(x, torch.tensor(0.3))
    assert torch.allclose(mixed, 0.3 * x + 0.7 * x[[3, 0, 1, 2]], atol=1e-6)
    assert float(share) == pytest.approx(0.3)
    assert torch.equal(partner_of(torch.arange(4)), torch.tensor([3, 0, 1, 2]))


def test_cutmix_takes_a_box_of_the_partner_and_counts_what_it_covers() -> None:
    clipped = 0
    for seed in range(60):
        drawn = beta(1.0, draw(seed), CPU)
        mixed, share = cutmix(batch(), drawn, draw(seed))
        own = mixed == batch()
        assert torch.equal(mixed[~own], partner_of(batch())[~own])
        assert float(share) == pytest.approx(float(own.double().mean()))
        covered = ~own[0, 0]
        rows, columns = covered.any(1).sum(), covered.any(0).sum()
        assert covered.sum() == rows * columns, "a box"
        side = 2 * (int(8 * (1 - float(drawn)) ** 0.5) // 2)
        assert max(rows, columns) <= side
        clipped += bool(rows * columns < side * side)
    assert clipped > 10, "so that the share had to be corrected"


@pytest.mark.gpu
@pytest.mark.parametrize("cut", [False, True])
def test_mixing_never_waits_for_the_device_and_is_that_of_a_cpu(cut: bool) -> None:
    x, generator = torch.randn(4, 3, 8, 8).cuda(), torch.Generator("cuda").manual_seed(0)
    mixing = Mixing(cut, 1.0, 0.5)
    mixing(x, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed, share = mixing(x, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    own, other = x.cpu(), partner_of(x.cpu())
    if cut:
        taken = mixed.cpu() == own
        assert torch.equal(mixed.cpu()[~taken], other[~taken])
    else:
        expected = share.item() * own.double() + (1 - share.item()) * other.double()
        torch.testing.assert_close(mixed.cpu().double(), expected, rtol=1e-5, atol=1e-6)


def test_a_share_of_one_leaves_images_as_they_are() -> None:
    x, one = torch.randn(4, 3, 8, 8, generator=draw(1)), torch.tensor(1.0)
    assert torch.equal(mixup(x, one).images_B3SS, x)
    mixed, share = cutmix(x, one, draw())
    assert torch.equal(mixed, x)
    assert share == 1


@pytest.mark.parametrize("cut", [False, True])
def test_a_batch_is_mixed_with_the_given_probability(cut: bool) -> None:
    mixing, generator = Mixing(cut, 4.0, 0.25), draw(2)
    mixed = [not torch.equal(mixing(batch(), generator).images_B3SS, batch()) for _ in range(400)]
    assert 70 < sum(mixed) < 130


def test_a_recipe_says_how_batches_are_mixed() -> None:
    assert Mixing.of(RetrainRecipe()) is None
    assert Mixing.of(RetrainRecipe(mixup=0.2)) == Mixing(False, 0.2, 1.0)
    assert Mixing.of(RetrainRecipe(cutmix=1.0, mix_probability=0.5)) == Mixing(True, 1.0, 0.5)


@pytest.mark.parametrize("name", ["ce", "smoothed", "logit_adjust"])
def test_a_loss_on_mixed_images_is_that_on_mixed_labels(name: str) -> None:
    """True of losses that are linear in the label; of the others it is the papers' definition."""
    chosen = choose(LOSSES, "ce", {"smoothing": 0.2}) if name == "smoothed" else name
    counts, labels = (40, 20, 10, 5), torch.tensor([0, 3, 1, 2])
    progress = Progress(torch.zeros((), dtype=torch.float64), 2)
    logits = torch.randn(4, 4, generator=draw(5), dtype=torch.float64)
    share = torch.tensor(0.3, dtype=torch.float64)
    found = on_pairs(supervised_loss(chosen, counts, progress), share)(logits, labels)
    own, other = (F.one_hot(of, 4).double() for of in (labels, partner_of(labels)))
    mixed = 0.3 * own + 0.7 * other
    if name == "logit_adjust":
        logits = logits + torch.tensor(counts, dtype=torch.float64).log()
    smoothing = 0.2 if name == "smoothed" else 0.0
    expected = F.cross_entropy(logits, mixed, label_smoothing=smoothing)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
