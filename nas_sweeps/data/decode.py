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

from nas_sweeps.trial import Data

Pixels = NDArray[np.uint8]
Blob = bytes | Path | Image.Image | Pixels
Blobs = Sequence[bytes] | Sequence[Path] | Sequence[Image.Image] | Pixels
TASK = 256  # images a thread takes at a time: one by one costs half as much again
# Of one image: a few kilobytes can decode to gigabytes. 50 million are 150 MB in every thread.
MAX_PIXELS = 50_000_000
# PIL knows many more, and some of them run other programs: EPS runs Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split before decoding: each image, its place for people, its label.

    An image is encoded bytes, a file, or pixels of shape (H, W) or (H, W, 3).
    """

    blobs: Blobs
    places: Sequence[str]
    labels: NDArray[np.int64]


def decode(splits: Iterable[Split], data: Data) -> list[Tensor]:
    """Decode to RGB, shape (N, 3, S, S), one tensor a split, all of one size.

    With ``data.image_size`` S an image is made S x S as ``resized`` does; without, every image must
    have the same square size. A grey image has three equal channels. Pixels are taken as they are
    stored: an EXIF orientation is not applied, as in torchvision's ImageFolder. Threads help: PIL
    decodes without the interpreter lock. A size is known before the first pixel is decoded, so
    nothing is held twice.

    Raises:
        ValueError: images that cannot be decoded, all of them counted, have more than 8 bits a
            channel or too many pixels, or differ in size while ``image_size`` is None; or all need
            more memory than there is.
    """
    splits, image_size = tuple(splits), data.image_size
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
        size = image_size or _own_size(splits[0])
        check_memory(sum(len(split.blobs) for split in splits), size)
        return [_decode_all(pool, split, data, size) for split in splits]


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


def resized(image: Image.Image, data: Data) -> Image.Image:
    """A square of ``data.image_size`` pixels, by ``data.resize``; None or equal: unchanged.

    ``crop``: scaled so that the shorter side has ``data.short_side`` pixels (None: image_size), and
    cropped about its centre. ``stretch``: both sides scaled by themselves. ``pad``: the whole image
    within black borders. All bicubic.
    """
    size, bicubic = data.image_size, Image.Resampling.BICUBIC
    if size is None or (image.size == (size, size) and data.short_side is None):
        return image
    if data.resize == "stretch":
        return image.resize((size, size), bicubic)
    if data.resize == "pad":
        return ImageOps.pad(image, (size, size), bicubic)
    if data.short_side is None:
        return ImageOps.fit(image, (size, size), method=bicubic)
    side = min(image.size) * size / data.short_side  # of the square that is cut from the original
    left, top = ((length - side) / 2 for length in image.size)
    return image.resize((size, size), bicubic, box=(left, top, left + side, top + side))


def _own_size(split: Split) -> int:
    """The size of the first image that can be opened; the others are held against it."""
    wrong = None
    for blob, place in zip(split.blobs, split.places, strict=True):
        try:
            with _opened(blob, place) as image:
                size = image.size
        except ValueError as error:
            wrong = wrong or error
            continue
        _check_size(size, place, size)
        return size[0]
    assert wrong is not None, "a split has images"
    raise wrong


def _decode_all(pool: ThreadPoolExecutor, split: Split, data: Data, size: int) -> Tensor:
    """Raises ValueError with the first image that cannot be decoded, and how many more are so."""
    count = len(split.blobs)
    pixels_N3SS = np.empty((count, 3, size, size), np.uint8)

    def part(start: int) -> list[ValueError]:
        wrong = []
        for i in range(start, min(start + TASK, count)):
            try:
                pixels = _decode(split.blobs[i], split.places[i], data, size)
            except ValueError as error:
                wrong.append(error)
            else:
                pixels_N3SS[i] = pixels.transpose(2, 0, 1)
        return wrong

    wrong = [error for part in pool.map(part, range(0, count, TASK)) for error in part]
    if wrong:
        first, *others = wrong
        more = f"; {len(others):,} more of {count:,} images cannot be used either" if others else ""
        raise ValueError(f"{first}{more}") from first
    return torch.from_numpy(pixels_N3SS)


def _decode(blob: Blob, place: str, data: Data, size: int) -> Pixels:
    with _opened(blob, place) as image:
        if data.image_size is None:
            _check_size(image.size, place, (size, size))
        with _told(place):
            return np.asarray(resized(image.convert("RGB"), data))


def _opened(blob: Blob, place: str) -> Image.Image:
    """An image of which only the header is read, so that what it says can be refused."""
    if isinstance(blob, np.ndarray):
        return Image.fromarray(blob)
    if isinstance(blob, Image.Image):
        return blob
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
