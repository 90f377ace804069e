"""Augmentation: whole batches on their device, against PIL one image at a time.

The PIL side is what the reference programs hand to a DataLoader (DARTS utils.py; barlowtwins
main.py without blur, as ``data.augment`` adapts it to small images), in this process, without
workers. B images, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import transforms as T

from nas_sweeps.bench.options import Options
from nas_sweeps.bench.steps import Step
from nas_sweeps.data import color
from nas_sweeps.data.augment import AREA, GRAY_P, SOLARIZE_P, barlow_views, training_batch

MEAN, STD = (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)
FULL_SOLARIZE = 128  # of 255: where torchvision's and barlowtwins' solarize turn


def image_steps(options: Options, task: str) -> dict[str, Step]:
    """One batch by PIL and by us; the first is what ratios are taken against."""
    side, generator = options.image_size, torch.Generator(options.device).manual_seed(0)
    raw_B3SS = torch.randint(256, (options.batch, 3, side, side)).byte()
    on_device = raw_B3SS.to(options.device)
    pixels = raw_B3SS.permute(0, 2, 3, 1).contiguous().numpy()
    if task == "augmentation":
        pipelines = [_crop_flip(side)]

        def ours() -> object:
            return training_batch(on_device, "crop_flip", MEAN, STD, 0, generator)
    else:
        pipelines = [_view(side, p) for p in SOLARIZE_P]

        def ours() -> object:
            return barlow_views(on_device, MEAN, STD, generator)

    def by_pil() -> list[Tensor]:
        return [torch.stack([pipeline(image) for image in pixels]) for pipeline in pipelines]

    return {"PIL, per image": by_pil, "ours": ours}


Pipeline = Callable[[Any], Tensor]


def _crop_flip(side: int) -> Pipeline:
    pipeline: Pipeline = T.Compose(
        [T.ToPILImage(), T.RandomCrop(side, side // 8), T.RandomHorizontalFlip(), *_tensor()]
    )
    return pipeline


def _view(side: int, solarize_p: float) -> Pipeline:
    jitter = T.ColorJitter(color.BRIGHTNESS, color.CONTRAST, color.SATURATION, color.HUE)
    pipeline: Pipeline = T.Compose(
        [
            T.ToPILImage(),
            T.RandomResizedCrop(side, AREA, interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
            T.RandomApply([jitter], color.JITTER_P),
            T.RandomGrayscale(GRAY_P),
            T.RandomSolarize(FULL_SOLARIZE, solarize_p),
            *_tensor(),
        ]
    )
    return pipeline


def _tensor() -> list[Any]:
    return [T.ToTensor(), T.Normalize(MEAN, STD)]
