"""Compressed images to one uint8 tensor, with errors that name the image."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

Pixels = NDArray[np.uint8]
TASK = 256  # images a thread takes at a time: one by one costs half as much again


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split before decoding: each image's bytes or file, its place for people, its label."""

    blobs: Sequence[bytes | Path]
    places: Sequence[str]
    labels: NDArray[np.int64]


def decode(splits: Iterable[Split], image_size: int | None) -> list[Tensor]:
    """Decode to RGB, shape (N, 3, S, S), one tensor a split, all of one size.

    With ``image_size`` S an image is scaled (bicubic) and cropped about its centre to S x S;
    without, every image must have the same square size. Threads help: PIL decodes without the
    interpreter lock.

    Raises:
        ValueError: an image that cannot be decoded, has more than 8 bits a channel, or differs
            in size while ``image_size`` is None.
    """
    decoded: list[Tensor] = []
    expected: tuple[int, int] | None = None
    with ThreadPoolExecutor() as pool:
        for split in splits:
            images = _decode_all(pool, split, image_size)
            expected = expected or images[0].shape[:2]
            _check_sizes(images, split.places, expected)
            decoded.append(to_NCHW(np.stack(images)))
    return decoded


def to_NCHW(pixels_NHWC: Pixels) -> Tensor:
    """The layout that batches are gathered from."""
    return torch.from_numpy(pixels_NHWC.transpose(0, 3, 1, 2).copy())


def resized(image: Image.Image, size: int | None) -> Image.Image:
    """Scale and centre-crop to a square of ``size`` pixels; None or equal: unchanged."""
    if size is None or image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def _decode_all(pool: ThreadPoolExecutor, split: Split, size: int | None) -> list[Any]:
    def part(start: int) -> list[Any]:
        chosen = slice(start, start + TASK)
        pairs = zip(split.blobs[chosen], split.places[chosen], strict=True)
        return [_decode(blob, place, size) for blob, place in pairs]

    starts = range(0, len(split.blobs), TASK)
    return [image for images in pool.map(part, starts) for image in images]


def _decode(blob: bytes | Path, place: str, size: int | None) -> Any:
    try:
        with Image.open(io.BytesIO(blob) if isinstance(blob, bytes) else blob) as image:
            if image.mode.startswith(("I", "F")):  # PIL would clip these to white
                raise ValueError("more than 8 bits a channel; convert it to 8 bits")
            return np.asarray(resized(image.convert("RGB"), size))
    except Exception as error:  # broken bytes make PIL raise nearly anything
        raise ValueError(
            f"{place}: image cannot be decoded ({error}); repair or remove it"
        ) from error


def _check_sizes(images: Sequence[Any], places: Sequence[str], expected: tuple[int, int]) -> None:
    for image, place in zip(images, places, strict=True):
        height, width = image.shape[:2]
        if (height, width) != expected or height != width:
            also = "" if (height, width) == expected else f", others {expected[1]}x{expected[0]}"
            raise ValueError(
                f"{place}: image is {width}x{height}{also}, and images must be square and of one "
                f"size; set data.image_size to scale and crop them"
            )
