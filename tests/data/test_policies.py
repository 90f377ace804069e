"""Operations of TrivialAugment and RandAugment, against torchvision's on one image at a time."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from nas_sweeps.data import policies
from nas_sweeps.data.policies import BINS, OPERATIONS, SIGNED, apply, augmented
from nas_sweeps.trial import Policy

NAMES = {  # ours by torchvision's
    "Identity": "identity", "ShearX": "shear_x", "ShearY": "shear_y",
    "TranslateX": "translate_x", "TranslateY": "translate_y", "Rotate": "rotate",
    "Brightness": "brightness", "Color": "color", "Contrast": "contrast",
    "Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize",
    "AutoContrast": "autocontrast", "Equalize": "equalize",
}  # fmt: skip
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
POLICIES = {"trivial_augment": v2.TrivialAugmentWide(), "rand_augment": v2.RandAugment()}


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, size: int = 32) -> torch.Tensor:
    """Noise on a gradient, each image with a range of values of its own; the last is flat."""
    noise = torch.randint(0, 120, (count, 3, size, size), generator=draw(1))
    ramp = torch.arange(size).expand(size, size) * 2
    made = (noise + ramp + 20 * torch.arange(count).view(-1, 1, 1, 1)).clamp(0, 255)
    made[-1] = 77
    return made.to(torch.uint8)


def theirs(image: torch.Tensor, theirs_name: str, magnitude: float) -> torch.Tensor:
    transform = POLICIES["trivial_augment"]
    return transform._apply_image_or_video_transform(  # type: ignore[no-any-return]
        image, theirs_name, magnitude, interpolation=InterpolationMode.NEAREST, fill={}
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_is_torchvisions_at_each_of_its_magnitudes(policy: str, name: str) -> None:
    made, signed = policies._magnitudes(policy == "trivial_augment", 32, torch.device("cpu"))
    bins, has_sign = POLICIES[policy]._AUGMENTATION_SPACE[name]
    position = OPERATIONS.index(NAMES[name])
    assert bool(signed[position]) == has_sign
    raw = images()
    for number in (0, 1, 9, 17, BINS - 1):
        magnitudes = bins(BINS, 32, 32)
        magnitude = 0.0 if magnitudes is None else float(magnitudes[number])
        ours = float(made[position, number]) / (255.0 if name == "Solarize" else 1.0)
        assert ours == pytest.approx(magnitude, abs=1e-5)
        for sign in (1, -1) if has_sign else (1,):
            at = torch.full((4,), sign * float(made[position, number]))
            found = apply(raw.float(), torch.full((4,), position), at)
            expected = torch.stack([theirs(x, name, sign * magnitude) for x in raw]).float()
            same = (found - expected).abs() <= 1  # a float on either side of a whole number
            assert same.float().mean() > 0.995, (number, sign)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_operations_are_those_of_float64_on_every_device(
    device: str, layout: torch.memory_format
) -> None:
    raw = images().to(device)
    for policy in POLICIES:
        made, signed = policies._magnitudes(policy == "trivial_augment", 32, torch.device("cpu"))
        for position, name in enumerate(OPERATIONS):
            for number in (0, 9, BINS - 1):
                for sign in (1, -1) if signed[position] else (1,):
                    which = torch.full((4,), position)
                    at = torch.full((4,), sign * float(made[position, number]))
                    exact = apply(raw.cpu().double(), which, at.double())
                    x = raw.float().contiguous(memory_format=layout)
                    found = apply(x, which.to(device), at.to(device)).cpu()
                    same = (found - exact).abs() <= 1
                    assert same.double().mean() > 0.995, (name, number, sign)


@pytest.mark.gpu
@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_never_waits_for_the_device(policy: Policy) -> None:
    x, generator = images().cuda(), torch.Generator("cuda").manual_seed(0)
    augmented(x, policy, generator)  # the first call moves constants to the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented(x, policy, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_every_image_draws_an_operation_and_a_magnitude_of_its_own() -> None:
    x = images(2)[:1].expand(600, -1, -1, -1)
    out = augmented(x, "trivial_augment", draw(4))
    kinds = Counter(image.numpy().tobytes() for image in out)
    assert len(kinds) > 200
    unchanged = kinds[x[0].float().numpy().tobytes()] / 600
    assert unchanged > 1 / 14 - 4 * math.sqrt(1 / 14 / 600)


def test_an_operation_touches_no_other_image() -> None:
    raw = images(len(OPERATIONS)).float()
    raw[-1] = raw[0]
    magnitude = torch.tensor([{"posterize": 3.0, "solarize": 90.0}.get(n, 0.4) for n in OPERATIONS])
    together = apply(raw, torch.arange(len(OPERATIONS)), magnitude)
    for k in range(len(OPERATIONS)):
        alone = apply(raw[k : k + 1], torch.tensor([k]), magnitude[k : k + 1])
        assert torch.equal(alone[0], together[k]), OPERATIONS[k]
    assert torch.equal(together[0], raw[0])
    assert OPERATIONS[1:10] == SIGNED


def test_rand_augment_applies_two() -> None:
    out = augmented(images(2)[:1].expand(400, -1, -1, -1), "rand_augment", draw(4))
    same = (out == images(2)[0].float()).flatten(1).all(1).double().mean()
    assert same < 0.05, "one in 196, and what operations leave as it was"
    assert ((out >= 0) & (out <= 255) & (out == out.round())).all()
