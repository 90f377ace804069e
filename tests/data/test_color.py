from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as oracle

from nas_sweeps.data import color


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int) -> torch.Tensor:
    x = torch.rand(batch, 3, 6, 6, generator=seeded())
    x[:, :, 0] = x[:, :1, 0]  # gray pixels
    x[:, :, 1] = x[:, :, 1].round()  # corners of the colour cube
    return x


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (color.brightness, oracle.adjust_brightness, (0.6, 1.0, 1.4)),
        (color.contrast, oracle.adjust_contrast, (0.6, 1.0, 1.4)),
        (color.saturation, oracle.adjust_saturation, (0.8, 1.0, 1.2)),
        (color.hue, oracle.adjust_hue, (-0.5, -0.1, 0.0, 0.07, 0.5)),
    ],
)
def test_operations_are_torchvisions_with_a_factor_for_each_image(ours, theirs, factors):
    x = images(len(factors))
    out = ours(x, torch.tensor(factors).view(-1, 1, 1, 1))
    for image, result, factor in zip(x, out, factors, strict=True):
        torch.testing.assert_close(result, theirs(image, factor), rtol=0, atol=2e-6)


def test_gray_and_solarize_are_torchvisions():
    x = images(4)
    torch.testing.assert_close(color.gray(x), oracle.rgb_to_grayscale(x), rtol=0, atol=1e-6)
    chosen = torch.tensor([True, False, True, False]).view(4, 1, 1, 1)
    out = color.solarize(x, chosen)
    assert out[1].equal(x[1])
    torch.testing.assert_close(out[0], oracle.solarize(x[0], 128 / 255), rtol=0, atol=1e-6)


def record_orders(monkeypatch: pytest.MonkeyPatch, batch: int) -> dict[int, list[int]]:
    """The operations that each image meets; an image is told by a pixel no one changes."""
    met: dict[int, list[int]] = {image: [] for image in range(batch)}

    def operation(number):
        def apply(x, factor):
            for name in x[:, 0, 0, 0].int().tolist():
                if name > 0:  # zero is padding
                    met[name - 1].append(number)
            return x

        return apply

    monkeypatch.setattr(color, "OPERATIONS", tuple(operation(number) for number in range(4)))
    color.jitter(torch.arange(1.0, batch + 1).view(-1, 1, 1, 1).expand(-1, 3, 2, 2), seeded())
    return met


def test_jitter_meets_every_image_with_all_operations_in_uniformly_random_order(monkeypatch):
    orders = record_orders(monkeypatch, 4799).values()
    counts: dict[tuple[int, ...], int] = {}
    for order in map(tuple, orders):
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert all(sorted(order) == [0, 1, 2, 3] for order in counts)
    assert min(counts.values()) > 130  # 200 expected, standard deviation 14
    assert max(counts.values()) < 270


def test_jitter_leaves_one_image_of_five_alone_and_never_its_input():
    x = images(2000) * 0.5 + 0.2
    before = x.clone()
    out = color.jitter(x, seeded())
    assert x.equal(before)
    same = ((out - x).abs().amax((1, 2, 3)) < 1e-5).float().mean()
    assert 0.16 < same < 0.24


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_jitter_takes_any_batch_size(batch):
    assert color.jitter(images(batch), seeded()).shape == (batch, 3, 6, 6)
