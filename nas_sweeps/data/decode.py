"""Compressed images to one uint8 tensor, with errors that name the image."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Pixels = NDArray[np.uint8]
TASK = 256  # images a thread takes at a time: one by one costs half as much again
# Of one image: a few kilobytes can decode to gigabytes. 50 million are 150 MB in every thread.
MAX_PIXELS = 50_000_000
# PIL knows many more, and some of them run other programs: EPS runs Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split before decoding: each image's bytes or file, its place for people, its label."""

    blobs: Sequence[bytes | Path]
    places: Sequence[str]
    labels: NDArray[np.int64]


def decode(splits: Iterable[Split], image_size: int | None) -> list[Tensor]:
    """Decode to RGB, shape (N, 3, S, S), one tensor a split, all of one size.

    With ``image_size`` S an image is scaled (bicubic) and cropped about its centre to S x S;
    without, every image must have the same square size. Pixels are taken as they are stored: an
    EXIF orientation is not applied, as in torchvision's ImageFolder. Threads help: PIL decodes
    without the interpreter lock. A size is known before the first pixel is decoded, so nothing is
    held twice.

    Raises:
        ValueError: an image that cannot be decoded, has more than 8 bits a channel or too many
            pixels, or differs in size while ``image_size`` is None; or all need more memory than
            there is.
    """
    splits = tuple(splits)
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
        size = image_size or _own_size(splits[0])
        check_memory(sum(len(split.blobs) for split in splits), size)
        return [_decode_all(pool, split, size, image_size is None) for split in splits]


def check_memory(count: int, size: int) -> None:
    """Raises ``ValueError`` if this machine cannot hold so many images, and a copy of them."""
    needed = 2 * count * 3 * size * size
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise ValueError(
            f"{count:,} images of {size}x{size} pixels need {needed / 2**30:,.0f} GiB of memory "
            f"and this machine has {there / 2**30:,.0f}; set a smaller data.image_size"
        )


def to_NCHW(pixels_NHWC: Pixels) -> Tensor:
    """The layout that batches are gathered from."""
    return torch.from_numpy(pixels_NHWC.transpose(0, 3, 1, 2).copy())


def resized(image: Image.Image, size: int | None) -> Image.Image:
    """Scale and centre-crop to a square of ``size`` pixels; None or equal: unchanged."""
    if size is None or image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def _own_size(split: Split) -> int:
    with _opened(split.blobs[0], split.places[0]) as image:
        _check_size(image.size, split.places[0], image.size)
        return image.width


def _decode_all(pool: ThreadPoolExecutor, split: Split, size: int, as_they_are: bool) -> Tensor:
    count = len(split.blobs)
    pixels_N3SS = np.empty((count, 3, size, size), np.uint8)

    def part(start: int) -> None:
        for i in range(start, min(start + TASK, count)):
            pixels = _decode(split.blobs[i], split.places[i], size, as_they_are)
            pixels_N3SS[i] = pixels.transpose(2, 0, 1)

    for _ in pool.map(part, range(0, count, TASK)):  # raises what the first bad part raised
        pass
    return torch.from_numpy(pixels_N3SS)


def _decode(blob: bytes | Path, place: str, size: int, as_it_is: bool) -> Pixels:
    with _opened(blob, place) as image:
        if as_it_is:
            _check_size(image.size, place, (size, size))
        with _told(place):
            return np.asarray(resized(image.convert("RGB"), size))


def _opened(blob: bytes | Path, place: str) -> Image.Image:
    """An image of which only the header is read, so that what it says can be refused."""
    with _told(place):
        image = Image.open(io.BytesIO(blob) if isinstance(blob, bytes) else blob, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} are more than {MAX_PIXELS:,} pixels")
        if image.mode.startswith(("I", "F")):  # PIL would clip these to white
            raise ValueError("more than 8 bits a channel; convert it to 8 bits")
        return image


@contextmanager
def _told(place: str) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise ValueError(
            f"{place}: image cannot be decoded (it is none of {', '.join(FORMATS)}); "
            f"repair or remove it"
        ) from None
    except Exception as error:  # broken bytes make PIL raise nearly anything
        raise ValueError(
            f"{place}: image cannot be decoded ({str(error) or type(error).__name__}); "
            f"repair or remove it"
        ) from error


def _check_size(size: tuple[int, int], place: str, expected: tuple[int, int]) -> None:
    width, height = size
    if size != expected or height != width:
        also = "" if size == expected else f", others {expected[0]}x{expected[1]}"
        raise ValueError(
            f"{place}: image is {width}x{height}{also}, and images must be square and of one "
            f"size; set data.image_size to scale and crop them"
        )
