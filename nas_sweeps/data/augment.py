"""Augmentation of whole batches on their device, where every image draws its own numbers.

(torchvision's v2 transforms give all images of a batch one crop, one flip, one colour.)
All randomness comes from the generator that is passed, which lives on the images' device;
nothing waits for the device. Shapes: B images, 3 channels, S x S pixels. Raw images are uint8
or float in 0..255.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from nas_sweeps.data import color
from nas_sweeps.data.policies import augmented
from nas_sweeps.trial import Augment, Policy

Channels = tuple[float, float, float]

# Barlow views: facebookresearch/barlowtwins main.py, adapted to small images: no blur, and a
# least area of 0.2 where ImageNet's recipe has torchvision's 0.08.
AREA = (0.2, 1.0)
LOG_RATIO = (-0.2876820724517809, 0.2876820724517809)  # log(3/4), log(4/3): torchvision's range
CROP_TRIES = 10  # torchvision RandomResizedCrop.get_params
GRAY_P = 0.2
SOLARIZE_P = (0.0, 0.2)  # of the first and of the second view


def training_batch(
    x_B3SS: Tensor,
    kind: Augment,
    mean: Channels,
    std: Channels,
    cutout_side: int,
    generator: torch.Generator,
    policy: Policy = "none",
) -> Tensor:
    """What a supervised training step sees: crop and flip, a policy, normalise, cut out.

    A side of 0 cuts nothing out.
    """
    x_B3SS = augmented(crop_flip(x_B3SS, kind, generator), policy, generator)
    x_B3SS = normalise(x_B3SS, mean, std)
    return cutout(x_B3SS, cutout_side, generator) if cutout_side else x_B3SS


def barlow_views(
    x_B3SS: Tensor, mean: Channels, std: Channels, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Two independent views of each raw image, float32 and normalised."""
    first, second = (_view(x_B3SS, mean, std, p, generator) for p in SOLARIZE_P)
    return first, second


def normalise(x_B3SS: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Raw images to float32 with the given channel statistics (in units of the full range)."""
    scale, shift = _scale_shift(mean, std, x_B3SS.device)
    return x_B3SS.float().mul(scale).add_(shift)


def crop_flip(x_B3SS: Tensor, kind: Augment, generator: torch.Generator) -> Tensor:
    """Pad with zeros by S // 8, crop S x S anywhere, flip half of the images left to right.

    ``crop`` never flips; ``none`` returns the images as they are. Keeps the dtype. The padding
    is DARTS' 4 at 32 pixels, scaled with the size.
    """
    if kind == "none":
        return x_B3SS
    batch, channels, size, _ = x_B3SS.shape
    pad, device = size // 8, x_B3SS.device
    offsets_2B1 = torch.randint(2 * pad + 1, (2, batch, 1), generator=generator, device=device)
    along_S = torch.arange(size, device=device)
    rows_BS = columns_BS = along_S
    if kind == "crop_flip":
        flipped_B1 = torch.randint(2, (batch, 1), generator=generator, device=device) == 1
        columns_BS = torch.where(flipped_B1, along_S.flip(0), along_S)
    rows_BS, columns_BS = rows_BS + offsets_2B1[0], columns_BS + offsets_2B1[1]
    padded = F.pad(x_B3SS, (pad, pad, pad, pad))
    source = rows_BS[:, :, None] * padded.shape[-1] + columns_BS[:, None, :]  # flat pixel index
    source = source.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, source).view_as(x_B3SS)


def cutout(x_B3SS: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Zero a square about a uniform centre, clipped at the borders: DARTS utils.py Cutout."""
    batch, _, size, _ = x_B3SS.shape
    centre_2B1 = torch.randint(size, (2, batch, 1), generator=generator, device=x_B3SS.device)
    along_S = torch.arange(size, device=x_B3SS.device)
    inside = (along_S >= centre_2B1 - side // 2) & (along_S < centre_2B1 + side // 2)
    hole_B1SS = (inside[0, :, :, None] & inside[1, :, None, :]).unsqueeze(1)
    return x_B3SS.masked_fill(hole_B1SS, 0.0)


def _view(
    x_B3SS: Tensor, mean: Channels, std: Channels, solarize_p: float, generator: torch.Generator
) -> Tensor:
    x_B3SS = resized_crop_flip(x_B3SS.float().div(255.0), generator)
    x_B3SS = color.jitter(x_B3SS, generator)
    draws = torch.rand(2, len(x_B3SS), 1, 1, 1, generator=generator, device=x_B3SS.device)
    x_B3SS = torch.lerp(x_B3SS, color.gray(x_B3SS), (draws[0] < GRAY_P).float())
    if solarize_p > 0:
        x_B3SS = color.solarize(x_B3SS, draws[1] < solarize_p)
    scale, shift = _scale_shift(mean, std, x_B3SS.device)
    return x_B3SS.mul_(scale * 255.0).add_(shift)


def resized_crop_flip(x_B3SS: Tensor, generator: torch.Generator) -> Tensor:
    """RandomResizedCrop to the same size (bicubic), then a flip of half of the images.

    Cropping and scaling are separable, so an image is multiplied by one S x S matrix from each
    side. A crop is never larger than its target, so PIL's antialiasing would do nothing, and
    the result is PIL's but for its rounding to integers. ``x_B3SS`` is float in [0, 1].
    """
    batch, _, size, _ = x_B3SS.shape
    top, left, height, width = crop_boxes(batch, size, generator, x_B3SS.device)
    along_BS = torch.arange(size, device=x_B3SS.device).expand(batch, size)
    flipped_B1 = torch.randint(2, (batch, 1), generator=generator, device=x_B3SS.device) == 1
    rows_BSS = resample_matrix(along_BS, top, height)
    columns_BSS = resample_matrix(torch.where(flipped_B1, along_BS.flip(1), along_BS), left, width)
    with torch.autocast(x_B3SS.device.type, enabled=False):  # bfloat16 is coarser than a pixel
        x_B3SS = torch.bmm(x_B3SS.flatten(1, 2), columns_BSS.mT).view(batch, 3, size, size)
        x_BS3S = torch.bmm(rows_BSS, x_B3SS.transpose(1, 2).flatten(2)).view(batch, size, 3, size)
    return x_BS3S.transpose(1, 2).contiguous().clamp_(0.0, 1.0)


def crop_boxes(
    batch: int, size: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of each image's crop, (B,) whole pixels as floats.

    As torchvision's ``RandomResizedCrop.get_params``: the first of ten draws of area and
    aspect ratio that fits, or else the whole image; then a uniform position.
    """
    draws = torch.rand(2, CROP_TRIES, batch, generator=generator, device=device)
    area = size * size * (AREA[0] + (AREA[1] - AREA[0]) * draws[0])
    ratio = torch.exp(LOG_RATIO[0] + (LOG_RATIO[1] - LOG_RATIO[0]) * draws[1])
    sides_2TB = torch.stack((area / ratio, area * ratio)).sqrt().round()
    fits_TB = (sides_2TB <= size).all(0) & (sides_2TB > 0).all(0)
    first_1B = fits_TB.byte().argmax(0, keepdim=True)
    sides_2B = sides_2TB.gather(1, first_1B.expand(2, 1, batch)).squeeze(1)
    sides_2B = torch.where(fits_TB.any(0), sides_2B, float(size))
    room_2B = size - sides_2B
    place_2B = torch.rand(2, batch, generator=generator, device=device)
    top, left = torch.minimum((place_2B * (room_2B + 1)).floor(), room_2B)
    return top, left, sides_2B[0], sides_2B[1]


def resample_matrix(target_BS: Tensor, start_B: Tensor, length_B: Tensor) -> Tensor:
    """Bicubic weights (B, target pixel, source pixel) that stretch a window over an axis.

    Row i holds target pixel ``target_BS[:, i]``. Weights outside the window are zero and rows
    sum to one, as in PIL, which sees the crop alone.
    """
    size = target_BS.shape[1]
    start_B11, length_B11 = start_B[:, None, None], length_B[:, None, None]
    centre_BS1 = start_B11 + (target_BS[:, :, None] + 0.5) * (length_B11 / size)
    source_S = torch.arange(size, device=target_BS.device)
    distance = (source_S + 0.5 - centre_BS1).abs_()
    # PIL's bicubic (a = -1/2) without branches: t and s are the parts below 2 and below 1.
    t, s = (2.0 - distance).clamp_(min=0.0), (1.0 - distance).clamp_(min=0.0)
    weights = (t - 1.0).mul_(t).mul_(t).mul_(0.5).add_(s * s * (1.0 - 2.0 * s))
    weights *= (source_S >= start_B11) & (source_S < start_B11 + length_B11)
    return weights / weights.sum(-1, keepdim=True)


@lru_cache(maxsize=64)
def _scale_shift(mean: Channels, std: Channels, device: torch.device) -> tuple[Tensor, Tensor]:
    """The normalisation of 0..255 as one multiplication and one addition; kept on the device."""
    mean_311, std_311 = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
    scale, shift = 1 / (255.0 * std_311), -mean_311 / std_311
    return scale.float().to(device), shift.float().to(device)
