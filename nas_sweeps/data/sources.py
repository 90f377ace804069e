"""Image sources: every data set as uint8 tensors, decoded once per machine."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from nas_sweeps.data.cache import CACHE_VARIABLE, cache_folder, downloads_folder
from nas_sweeps.data.custom import read_custom
from nas_sweeps.data.datasets import DATASETS, Dataset, RawImages, Statistics
from nas_sweeps.data.decode import Pixels, check_memory, decode, resized, to_NCHW
from nas_sweeps.data.files import find_files
from nas_sweeps.data.identity import fingerprint
from nas_sweeps.publish import publish
from nas_sweeps.trial import Data, DataPaths

_READ = ("labels", "test_split", "group", "resize", "short_side")
CACHE_FORMAT = "v1"  # raise it when the same files decode to other tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """A decoded data set. Images are uint8 (N, 3, S, S); labels int64 (N,), from 0.

    ``mean`` and ``std`` are per channel of the training images, in units of the full range.
    ``train_groups`` numbers the groups of the training images, int64 (N,); None: they have none.
    ``shared_groups`` counts those that have test images as well.
    """

    train_NCHW: Tensor
    train_labels: Tensor
    test_NCHW: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: Statistics
    std: Statistics
    train_groups: Tensor | None = None
    shared_groups: int = 0


def load_images(data: Data, places: DataPaths) -> Images:
    """The images that ``data`` names, all of them, on the CPU.

    Decoded images are kept in the cache folder unless the data set says otherwise, one file for
    each content and ``image_size``, memory-mapped when read: processes on one machine share its
    pages.

    Raises:
        ValueError: an unknown name; a custom data set without a path, changed since it was
            planned, or with any of the mistakes that ``find_files``, ``read_custom`` and
            ``decode`` name; a download that fails.
    """
    if data.dataset == "custom":
        key = data.fingerprint or fingerprint(_custom_path(places), places, data)
        return _cached(key, data, places, _custom)
    if not DATASETS.build(data.dataset).cached:
        return _named(data, places)
    return _cached(data.dataset, data, places, _named)


def _named(data: Data, places: DataPaths) -> Images:
    """The images of a registered data set, of one size."""
    source = DATASETS.build(data.dataset)
    if source.archive is None:
        raw = source.load(None, data.image_size)
    else:
        raw = _downloaded(source, data, places)
    count, size = len(raw.train_NHWC) + len(raw.test_NHWC), raw.train_NHWC.shape[1]
    check_memory(count, data.image_size or size)
    return _images(
        to_NCHW(_resized_all(raw.train_NHWC, data)),
        torch.as_tensor(raw.train_labels, dtype=torch.int64),
        to_NCHW(_resized_all(raw.test_NHWC, data)),
        torch.as_tensor(raw.test_labels, dtype=torch.int64),
        tuple(raw.class_names),
        source.normalisation,
    )


def _downloaded(source: Dataset, data: Data, places: DataPaths) -> RawImages:
    folder = downloads_folder(places)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return source.load(folder, data.image_size)
    except (OSError, RuntimeError) as error:  # no network, or a checksum that differs
        raise ValueError(
            f"{data.dataset} cannot be downloaded to {folder} ({error}); put its archive there, or "
            f"name a folder with its images as data.path in place of data.dataset"
        ) from error


def _custom(data: Data, places: DataPaths) -> Images:
    path = _custom_path(places)
    if data.fingerprint not in (None, fingerprint(path, places, data)):
        raise ValueError(
            f"data path {path}: the files are not those that were planned (fingerprint "
            f"{str(data.fingerprint)[:12]}...); plan again, or bring the old files back"
        )
    found = read_custom(find_files(path, data), data)
    train_NCHW, test_NCHW = decode((found.train, found.test), data)
    labels = torch.from_numpy(found.train.labels), torch.from_numpy(found.test.labels)
    images = _images(train_NCHW, labels[0], test_NCHW, labels[1], found.class_names)
    if found.train_groups is None:
        return images
    groups = torch.from_numpy(found.train_groups)
    return replace(images, train_groups=groups, shared_groups=found.shared_groups)


def _custom_path(places: DataPaths) -> str:
    if places.path is None:
        raise ValueError("data set 'custom' needs a path: name its folder as data path")
    return places.path


def _images(
    train_NCHW: Tensor,
    train_labels: Tensor,
    test_NCHW: Tensor,
    test_labels: Tensor,
    class_names: tuple[str, ...],
    normalisation: tuple[Statistics, Statistics] | None = None,
) -> Images:
    mean, std = normalisation or _statistics(train_NCHW)
    return Images(
        train_NCHW=train_NCHW,
        train_labels=train_labels,
        test_NCHW=test_NCHW,
        test_labels=test_labels,
        class_names=class_names,
        mean=mean,
        std=std,
    )


def _statistics(images_NCHW: Tensor) -> tuple[Statistics, Statistics]:
    """Exact per-channel mean and standard deviation, from histograms (integers do not drift)."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images_NCHW.unbind(1):
        shares = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean.append(float(shares @ levels))
        variance = float(shares @ (levels - mean[-1]) ** 2)
        std.append(max(variance**0.5, 1 / 255))  # a constant channel must not divide by zero
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _resized_all(pixels_NHWC: Pixels, data: Data) -> Pixels:
    from PIL import Image

    if data.short_side is None and data.image_size in (None, pixels_NHWC.shape[1]):
        return pixels_NHWC
    return np.stack([np.asarray(resized(Image.fromarray(image), data)) for image in pixels_NHWC])


def _cached(
    key: str, data: Data, places: DataPaths, build: Callable[[Data, DataPaths], Images]
) -> Images:
    """Read the decoded images, or build and publish them; one process a machine builds."""
    file = cache_file(key, data, places)
    images = _read(file)
    if images is not None:
        return images
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            images = _read(file)  # another process may have built it while this one waited
            if images is None:
                images = build(data, places)
                with publish(file) as scratch:
                    torch.save({f.name: getattr(images, f.name) for f in fields(Images)}, scratch)
    except (OSError, RuntimeError) as error:  # the latter is torch's on a full disk
        raise ValueError(
            f"images cannot be kept in {file.parent} ({error}); make room there, or set "
            f"${CACHE_VARIABLE} to a folder that can be written"
        ) from error
    return images


def cache_file(key: str, data: Data, places: DataPaths) -> Path:
    """Where decoded images are kept, by their name or the fingerprint of their content.

    And by whatever else of ``data`` decides what is read and how it is made square.
    """
    read, default = asdict(data), asdict(Data(dataset="", label=""))
    chosen = {name: read[name] for name in _READ if read[name] != default[name]}
    more = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]
    name = "-".join([key, str(data.image_size or "own"), *([more] if chosen else []), CACHE_FORMAT])
    return cache_folder(places) / "images" / f"{name}.pt"


def _read(file: Path) -> Images | None:
    if not file.exists():
        return None
    try:
        stored: dict[str, Any] = torch.load(file, mmap=True, weights_only=True)
        named = (f.name for f in fields(Images) if f.name in stored or f.default is MISSING)
        return Images(**{name: stored[name] for name in named})
    except Exception as error:  # whatever is wrong with a cache file, the remedy is the same
        log.warning("cache file %s cannot be read (%s); decoding the images again", file, error)
        return None
