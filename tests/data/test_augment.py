from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as oracle

from nas_sweeps.data import augment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_image_repeated(batch: int, size: int = 32) -> torch.Tensor:
    image = torch.randint(1, 256, (1, 3, size, size), generator=seeded(5), dtype=torch.uint8)
    return image.expand(batch, -1, -1, -1).contiguous()


AUGMENTATIONS = {
    "crop_flip": lambda x, g: augment.crop_flip(x, "crop_flip", g),
    "crop": lambda x, g: augment.crop_flip(x, "crop", g),
    "cutout": lambda x, g: augment.cutout(x.float(), 8, g),
    "resized_crop_flip": lambda x, g: augment.resized_crop_flip(x / 255, g),
    "first view": lambda x, g: augment.barlow_views(x, MEAN, STD, g)[0],
    "second view": lambda x, g: augment.barlow_views(x, MEAN, STD, g)[1],
    "training_batch": lambda x, g: augment.training_batch(x, "crop_flip", MEAN, STD, 8, g),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_image_of_a_batch_draws_its_own_numbers(name):
    out = AUGMENTATIONS[name](one_image_repeated(64), seeded())
    assert len({image.numpy().tobytes() for image in out.contiguous()}) > 40


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_generator_state_repeats_a_batch_and_the_input_is_untouched(name):
    x = torch.randint(0, 256, (7, 3, 16, 16), generator=seeded(1), dtype=torch.uint8)
    before, generator = x.clone(), seeded()
    state = generator.get_state()
    first, second = (AUGMENTATIONS[name](x, generator) for _ in range(2))
    generator.set_state(state)
    assert AUGMENTATIONS[name](x, generator).equal(first)
    assert not first.equal(second)
    assert x.equal(before)


@pytest.mark.parametrize(("size", "pad"), [(32, 4), (16, 2)])
def test_crop_flip_gives_windows_of_the_padded_image_all_of_them_evenly(size, pad):
    x = one_image_repeated(4000, size)
    out = augment.crop_flip(x, "crop_flip", seeded())
    padded = F.pad(x[0], (pad,) * 4)
    windows = padded.unfold(1, size, 1).unfold(2, size, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    windows = torch.cat((windows, windows.flip(-1)))
    number = {window.numpy().tobytes(): i for i, window in enumerate(windows.contiguous())}
    seen = torch.tensor([number[image.numpy().tobytes()] for image in out])
    assert len(number) == 2 * (2 * pad + 1) ** 2
    flipped = (seen >= len(number) // 2).float().mean()
    assert abs(flipped - 0.5) < 0.04  # five standard deviations
    rows = (seen % (len(number) // 2)) // (2 * pad + 1)
    assert torch.bincount(rows).min() > 0.75 * 4000 / (2 * pad + 1)


def test_crop_never_flips_and_none_changes_nothing():
    x = torch.zeros(256, 1, 8, 8)
    x[..., 0] = 1.0  # a flip would bring this column to the right half
    assert augment.crop_flip(x, "crop", seeded())[..., 4:].sum() == 0
    assert augment.crop_flip(x, "crop_flip", seeded())[..., 4:].sum() > 0
    assert augment.crop_flip(x, "none", seeded()) is x


def test_normalise_is_torchvisions_for_bytes():
    x = torch.randint(0, 256, (4, 3, 8, 8), generator=seeded(), dtype=torch.uint8)
    expected = oracle.normalize(x / 255.0, list(MEAN), list(STD))
    torch.testing.assert_close(augment.normalise(x, MEAN, STD), expected, rtol=1e-5, atol=1e-5)


def test_cutout_zeroes_a_square_clipped_at_the_borders():
    out = augment.cutout(torch.ones(2000, 3, 16, 16), 6, seeded())
    holes = out[:, 0] == 0
    assert out.eq(out[:, :1]).all()
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    assert holes.sum((1, 2)).equal(heights * widths)
    for sides in (heights, widths):
        assert sides.max() == 6
        assert sides.min() == 3  # a centre on the border keeps half of the square
    assert holes.any(0).all()


def test_training_batch_cuts_out_after_normalising():
    x = torch.full((32, 3, 16, 16), 255, dtype=torch.uint8)
    out = augment.training_batch(x, "none", MEAN, STD, 4, seeded())
    assert ((out == 0).all(1).sum((1, 2)) >= 4).all()
    whole = augment.training_batch(x, "none", MEAN, STD, 0, seeded())
    assert whole.equal(augment.normalise(x, MEAN, STD))


def test_resized_crop_is_torchvisions_bicubic_crop():
    x = torch.rand(32, 3, 32, 32, generator=seeded())
    out = augment.resized_crop_flip(x, seeded(1))
    boxes = torch.stack(augment.crop_boxes(32, 32, seeded(1), x.device)).int().T.tolist()
    flips = 0
    for image, result, box in zip(x, out, boxes, strict=True):
        bicubic = oracle.InterpolationMode.BICUBIC
        expected = oracle.resized_crop(image, *box, [32, 32], bicubic, antialias=True).clamp(0, 1)
        flipped = (result - expected.flip(-1)).abs().max() < 1e-4
        assert flipped or (result - expected).abs().max() < 1e-4
        flips += bool(flipped)
    assert 5 < flips < 27


def test_crop_boxes_stay_inside_and_are_distributed_as_torchvisions():
    top, left, height, width = augment.crop_boxes(20000, 32, seeded(), torch.device("cpu"))
    for start, side in ((top, height), (left, width)):
        assert start.min() == 0
        assert (start + side).max() == 32
        assert (side == side.round()).all()
        assert (start == start.round()).all()
    image = torch.zeros(3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = RandomResizedCrop.get_params
        boxes = [draw(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    theirs = torch.tensor(boxes, dtype=torch.float32).T
    for ours, oracles in zip((top, left, height, width), theirs, strict=True):
        assert ours.max() == oracles.max()
        assert abs(ours.mean() - oracles.mean()) < 0.5  # five standard errors
        assert abs(ours.std() - oracles.std()) < 0.4
    assert abs((height * width).min() - (theirs[2] * theirs[3]).min()) <= 8
    assert abs((height * width).mean() - (theirs[2] * theirs[3]).mean()) < 20


def test_only_the_second_view_is_solarised():
    x = torch.full((2000, 3, 8, 8), 255, dtype=torch.uint8)  # jitter dims white to 0.6 at most
    views = augment.barlow_views(x, (0.0,) * 3, (1.0,) * 3, seeded())
    dark = [(view.amax((1, 2, 3)) < 0.45).float().mean().item() for view in views]
    assert dark[0] == 0
    assert 0.16 < dark[1] < 0.24


def test_views_are_normalised_and_differ():
    x = torch.randint(0, 256, (16, 3, 32, 32), generator=seeded(), dtype=torch.uint8)
    first, second = augment.barlow_views(x, MEAN, STD, seeded())
    assert first.dtype == second.dtype == torch.float32
    assert first.shape == second.shape == x.shape
    assert not first.equal(second)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    pixels = first * std + mean
    assert pixels.min() >= -1e-5
    assert pixels.max() <= 1 + 1e-5


def test_autocast_does_not_coarsen_the_views():
    x = torch.randint(0, 256, (4, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    expected = augment.barlow_views(x, MEAN, STD, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        views = augment.barlow_views(x, MEAN, STD, seeded())
    assert all(view.equal(other) for view, other in zip(views, expected, strict=True))


@pytest.mark.gpu
def test_augmentation_never_waits_for_the_device():
    x = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    for augmentation in AUGMENTATIONS.values():  # the first calls move constants to the device
        augmentation(x, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for augmentation in AUGMENTATIONS.values():
            augmentation(x, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
