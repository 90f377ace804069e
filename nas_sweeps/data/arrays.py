"""A NumPy archive of images and labels, as MedMNIST publishes its sets (medmnist.com)."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nas_sweeps.data.labelled import Labelled

_TEST = {"test": "test", "validation": "val"}


def read_arrays(file: Path, test_split: str) -> tuple[Labelled, Labelled]:
    """The splits ``train`` and ``test`` (or ``val``).

    Arrays ``train_images`` of bytes, (N, H, W) or (N, H, W, 3), and ``train_labels`` of integers
    from 0, (N,) or (N, 1); and the same of the other split.

    Raises:
        ValueError: it is no such archive; or the labels are several for an image.
    """
    tested = _TEST[test_split]
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file}: cannot be read as .npz, it is no archive; fetch it again")
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = {
                split: (
                    _array(file, archive, split, "images"),
                    _array(file, archive, split, "labels"),
                )
                for split in ("train", tested)
            }
    except (OSError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read as .npz ({error}); fetch it again") from error
    return tuple(_split(file, split, *arrays) for split, arrays in found.items())  # type: ignore[return-value]


def _array(file: Path, archive: Any, split: str, what: str) -> Any:
    name = f"{split}_{what}"
    if name not in archive:
        raise ValueError(
            f"{file}: no array '{name}'; it has {', '.join(map(repr, archive.files))}, and needs "
            "images and labels of both splits, named as MedMNIST names them"
        )
    try:
        return archive[name]
    except ValueError as error:  # objects, which would be run and not read
        raise ValueError(f"{file}: array '{name}' cannot be read ({error})") from None


def _split(file: Path, split: str, images: Any, labels: Any) -> Labelled:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise ValueError(
            f"{file}: '{split}_images' is {images.dtype} of shape {images.shape}; it must be "
            "bytes, (N, H, W) or (N, H, W, 3)"
        )
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"{file}: '{split}_labels' has {labels.shape[1]} labels for each image, and one is "
            "needed: name an archive with one class an image"
        )
    if len(labels) != len(images) or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise ValueError(
            f"{file}: '{split}_labels' is {labels.dtype} of shape {labels.shape} for {len(images)} "
            "images; it must hold an integer from 0 for each"
        )
    return Labelled(
        blobs=images,
        places=[f"{file} {split} {number}" for number in range(len(images))],
        labels=labels.reshape(-1).tolist(),
    )
