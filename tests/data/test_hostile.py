"""Data sets made to mislead, to hang or to fill the memory: right results, or one message."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image

from nas_sweeps.data import decode, files
from nas_sweeps.data.files import find_files
from nas_sweeps.data.identity import fingerprint
from nas_sweeps.data.sources import load_images
from nas_sweeps.trial import Data


@pytest.fixture
def load(tmp_path, places, custom, png, write_parquet):
    """The images of a Parquet data set whose training file is given."""

    def build(blobs=None, labels=(0, 1, 0), image_size=None, **options):
        blobs = [png(1), png(2), png(3)] if blobs is None else blobs
        write_parquet(tmp_path / "set" / "train.parquet", blobs, labels, **options)
        if not (tmp_path / "set" / "test.parquet").exists():
            write_parquet(tmp_path / "set" / "test.parquet", [png(4), png(5)], [0, 1])
        return load_images(custom(image_size=image_size), places(tmp_path / "set"))

    return build


@pytest.fixture
def folder(tmp_path, png):
    """An image folder with two classes of two images a split."""
    for seed, name in enumerate(("train/a/0", "train/a/1", "train/b/0", "train/b/1")):
        for split in ("train", "test"):
            file = tmp_path / "set" / f"{name.replace('train', split)}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(seed))
    return tmp_path / "set"


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def black_png(side):
    """A black square without its pixels ever being in memory: kilobytes for any side."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    rows = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(rows.compress(row) for _ in range(side)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


# --- images ---

RGB = Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "CMYK", "YCbCr"])
def test_images_of_every_mode_are_what_pil_makes_of_them(load, mode):
    image = RGB.convert("L").convert("LA") if mode == "LA" else RGB.convert(mode)
    blob = encoded(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    expected = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).transpose(2, 0, 1)
    assert (load([blob] * 3).train_NCHW[1].numpy() == expected).all()


def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(load, png, monkeypatch):
    bomb = black_png(8000)  # 64 million pixels
    assert len(bomb) < 20_000
    seen = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, *a: seen.append(self.size) or convert(self, *a)
    )
    with pytest.raises(ValueError, match=r"row 0: .*8000x8000 are more than 50,000,000 pixels"):
        load([bomb, png(2), png(3)], image_size=16)
    assert (8000, 8000) not in seen


def test_large_images_among_small_ones_are_refused_before_they_are_decoded(load, png, monkeypatch):
    seen = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, *a: seen.append(self.size) or convert(self, *a)
    )
    with pytest.raises(ValueError, match="row 2: image is 6000x6000, others 8x8"):
        load([png(1), png(2), black_png(6000)])
    assert (6000, 6000) not in seen


@pytest.mark.parametrize("dataset", ["custom", "digits", "cifar10"])
def test_more_pixels_than_memory_are_refused_before_they_are_made(
    dataset, folder, places, monkeypatch
):
    monkeypatch.setattr(decode.os, "sysconf", lambda _: 2**13)  # a machine of 64 MiB
    pixels = np.zeros((5000, 32, 32, 3), np.uint8)
    made = type("Made", (), {"data": pixels, "targets": [0] * 5000, "classes": ["a"]})
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *_, **__: made)
    data = Data(dataset=dataset, label="x", image_size=4000)
    with pytest.raises(ValueError, match=r"images of 4000x4000 pixels need .* GiB of memory and"):
        load_images(data, places(folder))


def test_no_format_that_runs_another_program_is_opened(load, png):
    with pytest.raises(ValueError, match=r"row 1: image cannot be decoded \(it is none of BMP"):
        load([png(1), encoded(RGB, "EPS"), png(3)])


# --- labels and columns ---


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((0.0, float("inf"), 1.0), "row 1: label is inf"),
        ((0.0, 1.0, 1e300), r"row 2: label is 1e\+300"),
        ((0, 1, 2**62), r"row 2: label is 4.6\d*e\+18"),
        (pa.array([0, 1, 2**64 - 1], pa.uint64()), r"row 2: label is 1.8\d*e\+19"),
        ((0, 1, 10**12), "class '1000000000000' .* has no images in test"),
    ],
)
def test_labels_too_large_to_count_are_refused_and_not_counted_up_to(load, labels, said):
    with pytest.raises(ValueError, match=said):
        load(labels=labels)


def test_class_names_in_another_order_in_another_file_are_refused(load, tmp_path):
    test = tmp_path / "set" / "test.parquet"
    load(names=("cat", "dog"))  # a test file without names says nothing else
    feature = {"info": {"features": {"label": {"names": ["dog", "cat"]}}}}
    table = pq.read_table(test).replace_schema_metadata({"huggingface": json.dumps(feature)})
    pq.write_table(table, test)
    with pytest.raises(ValueError, match=r"test\.parquet: its class names or their order differ"):
        load(names=("cat", "dog"))


def test_two_classes_of_one_name_are_refused(load):
    with pytest.raises(ValueError, match="two classes have one name"):
        load(names=("cat", "cat"))


@pytest.mark.parametrize("metadata", [b"\xff\xfe", b"{", b"[" * 100_000, b'{"info": []}'])
def test_class_names_that_cannot_be_read_are_numbers(load, tmp_path, metadata, custom, places):
    first = load()
    for name in ("train", "test"):
        file = tmp_path / "set" / f"{name}.parquet"
        table = pq.read_table(file).replace_schema_metadata({"huggingface": metadata})
        pq.write_table(table, file)
    again = load_images(custom(), places(file.parent))
    assert again.class_names == first.class_names == ("0", "1")


def test_a_column_that_is_there_twice_is_refused(load, tmp_path, png, custom, places):
    load()
    images = pa.array([png(1), png(2)])
    table = pa.Table.from_arrays([images, images, pa.array([0, 1])], ["img", "img", "label"])
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet: has 2 columns 'img'; keep one"):
        load_images(custom(), places(tmp_path / "set"))


def test_rows_that_take_no_room_in_the_file_are_counted_before_they_are_read(load, monkeypatch):
    monkeypatch.setattr("nas_sweeps.data.custom.MAX_ROWS", 2)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"train\.parquet: has 3 rows and at most 2 are read"):
        load()


# --- folders ---


def test_hidden_and_foreign_files_change_nothing(folder, places):
    before = fingerprint(folder, places())
    (folder / "train/a/.0.png").write_bytes(b"no image")
    (folder / "train/a/Thumbs.db").write_bytes(b"no image")
    (folder / "train/.trash").mkdir()
    (folder / "train/.trash/0.png").write_bytes(b"no image")
    (folder / "lost+found").mkdir()
    assert fingerprint(folder, places()) == before
    assert len(load_images(Data(dataset="custom", label="x"), places(folder)).train_labels) == 4


@pytest.mark.parametrize("loops", [{"train/a/up": "."}, {"train/a/1": "train", "train/a/2": "."}])
def test_links_that_lead_in_circles_are_told(folder, loops):
    for name, target in loops.items():
        (folder / name).symlink_to(folder / target)
    with pytest.raises(ValueError, match=r"train/a/\w+ is a link to a folder that holds it"):
        find_files(folder)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a device or a pipe, not a file"),
        (lambda file: file.symlink_to("/dev/zero"), "is a device or a pipe, not a file"),
        (lambda file: file.symlink_to("nowhere"), "No such file or directory"),
        (lambda file: file.symlink_to(file.name), "Too many levels of symbolic links"),
    ],
    ids=["pipe", "device", "broken link", "link to itself"],
)
def test_what_is_no_file_is_named_and_never_read(folder, places, make, said):
    make(folder / "train/b/x.png")
    with pytest.raises(ValueError, match=rf"train/b/x\.png.*{said}"):
        fingerprint(folder, places())


def test_a_folder_that_cannot_be_read_is_an_error_and_no_smaller_data_set(folder, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("train/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(files.os, "scandir", denied)
    with pytest.raises(ValueError, match=r"train/b cannot be read \(Permission denied\); make it"):
        find_files(folder)


def test_names_that_are_no_text_are_refused(folder, places):
    os.rename(folder / "train/b", os.fsencode(folder) + b"/train/b\xff")
    with pytest.raises(ValueError, match=r"b\\udcff/0\.png': its name is not UTF-8; rename it"):
        fingerprint(folder, places())


# --- where images come from and go to ---


def test_a_download_that_fails_says_what_to_do(places, monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    with pytest.raises(ValueError, match=r"cifar10 cannot be downloaded to .*data\.path"):
        load_images(Data(dataset="cifar10", label="x"), places())


@pytest.mark.parametrize("failure", [OSError("read-only"), RuntimeError("disk full")])
def test_a_cache_that_cannot_be_written_is_told(folder, places, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ValueError, match=rf"cannot be kept in .*{failure}.*\$NAS_SWEEPS_CACHE"):
        load_images(Data(dataset="custom", label="x"), places(folder))
