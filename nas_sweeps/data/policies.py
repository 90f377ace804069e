"""TrivialAugment and RandAugment of whole batches, where every image draws its own operations.

torchvision's v2 transforms of these names draw one operation for all images of a batch, so the
operations stand here again, for a batch with a parameter for each image; every one is the identity
at a neutral parameter, which an image has that drew another operation. They compute what
torchvision's do on one uint8 image, zeros beyond the border and nearest neighbours included.
Nothing waits for the device. Shapes: B images, 3 channels, S x S pixels; images are float32 with
whole values in 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nas_sweeps.data.color import gray
from nas_sweeps.trial import Policy

# In torchvision's order. The first with a sign, which is drawn.
SIGNED = (
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
)
OPERATIONS = ("identity", *SIGNED, "posterize", "solarize", "autocontrast", "equalize")
BINS = 31  # magnitudes that are drawn from: both papers' code, and torchvision
RAND_OPERATIONS, RAND_BIN = 2, 9  # torchvision RandAugment: num_ops, magnitude


class Range(NamedTuple):
    """What magnitudes rise to from 0."""

    shear: float  # pixels by the pixel
    pixels: float  # of a translation, as they are
    width: float  # and by the image's width
    degrees: float  # of a rotation
    share: float  # of brightness, color, contrast and sharpness, beside 1
    bits: int  # that posterize drops


# torchvision transforms/v2: TrivialAugmentWide and RandAugment.
WIDE = Range(0.99, 32.0, 0.0, 135.0, 0.99, 6)
USUAL = Range(0.3, 0.0, 150.0 / 331.0, 30.0, 0.9, 4)


def augmented(x_B3SS: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """Raw images after a policy; ``none`` leaves them as they are.

    ``trivial_augment``: one operation, of a magnitude drawn from the wide range (Müller and Hutter
    2021, arXiv 2103.10158). ``rand_augment``: two operations in turn, of magnitude 9 in 30 (Cubuk
    et al. 2020, arXiv 1909.13719).
    """
    if policy == "none":
        return x_B3SS
    x_B3SS = x_B3SS.float().round()
    batch, device = len(x_B3SS), x_B3SS.device
    trivial = policy == "trivial_augment"
    for _ in range(1 if trivial else RAND_OPERATIONS):
        operation_B = torch.randint(len(OPERATIONS), (batch,), generator=generator, device=device)
        bin_B = torch.full((batch,), RAND_BIN, device=device)
        if trivial:
            bin_B = torch.randint(BINS, (batch,), generator=generator, device=device)
        sign_B = torch.randint(2, (batch,), generator=generator, device=device) * 2 - 1
        magnitudes_ON, signed_O = _magnitudes(trivial, x_B3SS.shape[-1], device)
        magnitude_B = magnitudes_ON[operation_B, bin_B]
        magnitude_B = torch.where(signed_O[operation_B], sign_B * magnitude_B, magnitude_B)
        x_B3SS = apply(x_B3SS, operation_B, magnitude_B)
    return x_B3SS


def apply(x_B3SS: Tensor, operation_B: Tensor, magnitude_B: Tensor) -> Tensor:
    """To each image its operation, a position in ``OPERATIONS``, with its magnitude."""

    def drawn(name: str) -> Tensor:
        return operation_B == OPERATIONS.index(name)

    def at(name: str, neutral: float, shift: float = 0.0) -> Tensor:
        return torch.where(drawn(name), magnitude_B + shift, neutral).view(-1, 1, 1, 1)

    x_B3SS = _moved(x_B3SS, drawn, magnitude_B)
    x_B3SS = brightness(x_B3SS, at("brightness", 1.0, 1.0))
    x_B3SS = color(x_B3SS, at("color", 1.0, 1.0))
    x_B3SS = contrast(x_B3SS, at("contrast", 1.0, 1.0))
    x_B3SS = sharpness(x_B3SS, at("sharpness", 1.0, 1.0))
    x_B3SS = posterize(x_B3SS, at("posterize", 8.0))
    x_B3SS = solarize(x_B3SS, at("solarize", 256.0))
    x_B3SS = torch.where(drawn("autocontrast").view(-1, 1, 1, 1), autocontrast(x_B3SS), x_B3SS)
    return torch.where(drawn("equalize").view(-1, 1, 1, 1), equalize(x_B3SS), x_B3SS)


def _moved(x_B3SS: Tensor, drawn: Callable[[str], Tensor], magnitude_B: Tensor) -> Tensor:
    """Shear about the upper left corner, translation by whole pixels, rotation about the middle.

    Pixel (x, y), counted from the middle, comes from (a x + b y + c, d x + e y + f).
    """
    size = x_B3SS.shape[-1]
    zero_B, one_B = torch.zeros_like(magnitude_B), torch.ones_like(magnitude_B)
    angle_B = torch.where(drawn("rotate"), magnitude_B * (math.pi / 180), zero_B)
    along_x_B = torch.where(drawn("shear_x"), magnitude_B, zero_B)
    along_y_B = torch.where(drawn("shear_y"), magnitude_B, zero_B)
    whole_B = magnitude_B.trunc()
    right_B = torch.where(drawn("translate_x"), whole_B, zero_B)
    down_B = torch.where(drawn("translate_y"), whole_B, zero_B)
    cos_B = torch.where(drawn("rotate"), angle_B.cos(), one_B)
    a, b, c = cos_B, along_x_B - angle_B.sin(), along_x_B * (size / 2) - right_B
    d, e, f = along_y_B + angle_B.sin(), cos_B, along_y_B * (size / 2) - down_B
    along_S = torch.arange(size, device=x_B3SS.device) - (size - 1) / 2
    x, y = along_S[None, None, :], along_S[None, :, None]
    a, b, c, d, e, f = (v.view(-1, 1, 1) for v in (a, b, c, d, e, f))
    source = torch.stack((a * x + b * y + c, d * x + e * y + f), dim=-1) / (size / 2)
    return F.grid_sample(x_B3SS, source, mode="nearest", align_corners=False)


def brightness(x_B3SS: Tensor, factor_B111: Tensor) -> Tensor:
    """Scale; 1 changes nothing."""
    return (x_B3SS * factor_B111).clamp_(0, 255).floor_()


def color(x_B3SS: Tensor, factor_B111: Tensor) -> Tensor:
    """Blend with the grey image; 1 changes nothing."""
    return _blend(x_B3SS, _gray(x_B3SS), factor_B111)


def contrast(x_B3SS: Tensor, factor_B111: Tensor) -> Tensor:
    """Blend with the mean grey value; 1 changes nothing."""
    return _blend(x_B3SS, _gray(x_B3SS).mean((1, 2, 3), keepdim=True), factor_B111)


def sharpness(x_B3SS: Tensor, factor_B111: Tensor) -> Tensor:
    """Blend with a 3 x 3 blur, but at the border; 1 changes nothing."""
    inner = x_B3SS[:, :, 1:-1, 1:-1]
    around = F.avg_pool2d(x_B3SS, 3, stride=1) * 9  # the kernel is 1 around and 5 in the middle
    blurred = ((around + 4 * inner) / 13).round()
    return x_B3SS + F.pad(_blend(inner, blurred, factor_B111) - inner, (1, 1, 1, 1))


def posterize(x_B3SS: Tensor, bits_B111: Tensor) -> Tensor:
    """Keep the highest bits; 8 changes nothing."""
    step_B111 = (8 - bits_B111).exp2()
    return (x_B3SS / step_B111).floor_() * step_B111


def solarize(x_B3SS: Tensor, threshold_B111: Tensor) -> Tensor:
    """Invert values from a threshold on; 256 changes nothing."""
    return torch.where(x_B3SS >= threshold_B111, 255 - x_B3SS, x_B3SS)


def autocontrast(x_B3SS: Tensor) -> Tensor:
    """Stretch each channel over the full range."""
    low, high = x_B3SS.amin((2, 3), keepdim=True), x_B3SS.amax((2, 3), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return ((x_B3SS - torch.where(flat, 0.0, low)) / scale).clamp_(0, 255).floor_()


def equalize(x_B3SS: Tensor) -> Tensor:
    """Give each channel a flat histogram, by PIL's rule (ImageOps.equalize)."""
    flat_B3P = x_B3SS.flatten(2).long()
    hist = flat_B3P.new_zeros((*flat_B3P.shape[:2], 256))
    hist = hist.scatter_add(2, flat_B3P, torch.ones_like(flat_B3P))
    brightest = hist.gather(2, flat_B3P.amax(2, keepdim=True))
    step = (flat_B3P.shape[2] - brightest) // 255
    below = hist.cumsum(2) - hist  # pixels that are darker
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    table[:, :, 0] = 0
    made = table.gather(2, flat_B3P).to(x_B3SS.dtype).view_as(x_B3SS)
    return torch.where(step.unsqueeze(-1) == 0, x_B3SS, made)


def _gray(x_B3SS: Tensor) -> Tensor:
    return gray(x_B3SS).floor_()


def _blend(x_B3SS: Tensor, other: Tensor, share_B111: Tensor) -> Tensor:
    """share times an image plus the rest of another, beyond both where the share is above 1."""
    return (x_B3SS * share_B111 + other * (1 - share_B111)).clamp_(0, 255).floor_()


@lru_cache(maxsize=16)
def _magnitudes(wide: bool, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Magnitudes by operation and bin, (14, 31), and which operations have a sign, (14,)."""
    to = WIDE if wide else USUAL
    end = {"shear": to.shear, "translate": to.pixels + to.width * size, "rotate": to.degrees}
    rising = [n / (BINS - 1) for n in range(BINS)]

    def bins(name: str) -> list[float]:
        if name == "posterize":  # bits that are kept
            return [float(round(8 - share * to.bits)) for share in rising]
        if name == "solarize":
            return [255.0 * (1 - share) for share in rising]
        if name not in SIGNED:
            return [0.0] * BINS
        return [share * end.get(name.partition("_")[0], to.share) for share in rising]

    table = torch.tensor([bins(name) for name in OPERATIONS])
    signed = torch.tensor([name in SIGNED for name in OPERATIONS])
    return table.to(device), signed.to(device)
