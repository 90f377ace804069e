"""Whether a data set's images are here, and are what was planned. Nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from nas_sweeps.data.cache import downloads_folder
from nas_sweeps.data.datasets import DATASETS, Archive, Dataset
from nas_sweeps.data.files import find_files
from nas_sweeps.data.identity import fingerprint_of
from nas_sweeps.data.sources import cache_file, load_images
from nas_sweeps.trial import Data, DataPaths

_KIND = {
    "parquet": "Parquet files",
    "folder": "image files",
    "list": "image files of label files",
}
SHOWN = 12  # digits of a hash that a person compares


class Presence(NamedTuple):
    """What was found, in words.

    Attributes:
        here: there are images; else a run is going to download them.
    """

    text: str
    here: bool = True


def find_images(data: Data, places: DataPaths) -> Presence:
    """What is here, with the hash of its content, or what a run downloads.

    Raises:
        ValueError: images that nothing downloads are missing, incomplete, or not what was planned;
            the message says what to do.
    """
    if data.dataset == "custom":
        return Presence(_custom(data, places))
    source = DATASETS.build(data.dataset)
    if source.archive is not None:
        return _downloaded(data, places, source, source.archive)
    images = load_images(data, places)
    digest = hashlib.sha256(images.train_NCHW.contiguous().numpy().tobytes()).hexdigest()
    return Presence(f"{data.dataset}, {source.origin}, sha256 of its pixels {digest[:SHOWN]}")


def _custom(data: Data, places: DataPaths) -> str:
    if places.path is None:
        raise ValueError("data set 'custom' needs a path: name its folder as data.path")
    files = find_files(places.path, data)
    found = fingerprint_of(files, places)
    if data.fingerprint not in (None, found):
        raise ValueError(
            f"{places.path}: holds {found[:SHOWN]}, planned was {str(data.fingerprint)[:SHOWN]}; "
            "bring the old files back, or plan again"
        )
    count = len(files.train) + len(files.test)
    held = "one .npz file" if files.layout == "npz" else f"{count:,} {_KIND[files.layout]}"
    here = f"{data.label}, {held} in {places.path}, sha256 {found[:SHOWN]}"
    return f"{here}; {len(files.left_out):,} files not read" if files.left_out else here


def _downloaded(data: Data, places: DataPaths, source: Dataset, archive: Archive) -> Presence:
    decoded = cache_file(data.dataset, data, places)
    if decoded.exists():
        digest = hashlib.sha256(decoded.read_bytes()).hexdigest()
        return Presence(f"{data.dataset}, decoded in {decoded}, sha256 {digest[:SHOWN]}")
    root = downloads_folder(places)
    if not _is_whole(root, source, archive):
        return Presence(
            f"{data.dataset} is not in {root}, or not whole: the first run downloads it (about "
            f"{archive.megabytes} MB); without a network put {archive.name} there first",
            here=False,
        )
    if archive.md5 is None:
        return Presence(f"{data.dataset} in {root / archive.name}, as torchvision finds it")
    known = f"archive of md5 {archive.md5[:SHOWN]}"
    return Presence(f"{data.dataset} in {root}, as published: {known}")


def _is_whole(root: Path, source: Dataset, archive: Archive) -> bool:
    """Whether the archive is there, or what it unpacks to: both with their published hashes."""
    if not root.is_dir() or not any(root.iterdir()):
        return False  # without the seconds that torchvision takes to load
    file = root / archive.name
    if file.is_file() and archive.md5 is not None:
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "md5").hexdigest() == archive.md5:
                return True
    return source.unpacked(root)
