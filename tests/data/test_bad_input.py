"""Every mistake in a custom data set is one ValueError: what, where, what next."""

from __future__ import annotations

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas_sweeps.data.sources import load_images


@pytest.fixture
def message(tmp_path, places, custom, png, write_parquet):
    """The error of a data set whose training file is given and whose test file is sound."""

    def load(blobs=None, labels=(0, 1, 0), **options):
        folder = tmp_path / "set"
        blobs = [png(1), png(2), png(3)] if blobs is None else blobs
        if not (folder / "train.parquet").exists():
            write_parquet(folder / "train.parquet", blobs, labels, **options)
        if not (folder / "test.parquet").exists():
            write_parquet(folder / "test.parquet", [png(4), png(5)], [0, 1])
        with pytest.raises(ValueError) as error:
            load_images(custom(), places(folder))
        assert str(folder) in str(error.value)
        return str(error.value)

    return load


def test_missing_image_column(message):
    said = message(image="picture")
    assert "no column 'img' or 'image'" in said
    assert "'picture'" in said


def test_missing_label_column(message):
    assert "no column 'label' or 'fine_label'" in message(label="target")


def test_broken_image_bytes_name_the_row(message, png):
    said = message(blobs=[png(1), png(2)[:60], png(3)])
    assert "train.parquet row 1: image cannot be decoded" in said
    assert "repair or remove it" in said


def test_bytes_that_are_no_image(message, png):
    assert "row 2: image cannot be decoded" in message(blobs=[png(1), png(2), b"hello"])


def test_an_image_without_bytes(message, png):
    assert "row 1: image has no bytes" in message(blobs=[png(1), None, png(3)])


def test_images_of_more_than_eight_bits(message, png):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(stream, "PNG")
    assert "row 0: image cannot be decoded (more than 8 bits" in message(
        blobs=[stream.getvalue(), png(2), png(3)]
    )


def test_mixed_sizes_without_image_size(message, png):
    said = message(blobs=[png(1), png(2), png(3, size=(10, 10))])
    assert "row 2: image is 10x10, others 8x8" in said
    assert "set data.image_size" in said


def test_images_that_are_not_square(message, png):
    said = message(blobs=[png(seed, size=(10, 8)) for seed in range(3)])
    assert "row 0: image is 10x8, and images must be square" in said


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ((0, -1, 1), "row 1: label is -1"),
        ((0.0, 1.0, float("nan")), "row 2: label is missing"),
        ((0, None, 1), "row 1: label is missing"),
        ((0.0, 1.0, 0.5), "row 2: label is 0.5"),
    ],
)
def test_impossible_labels_name_the_row(message, labels, shown):
    said = message(labels=labels)
    assert shown in said
    assert "correct it or remove the row" in said


def test_labels_of_two_kinds(message):
    said = message(labels=("a", "b", "a"))
    assert "labels are text in train and numbers in test; write both splits alike" in said


def test_labels_that_are_no_labels(message):
    assert "labels are bool; they must be integers from 0, or text" in message(
        labels=(True, False, True)
    )


def test_every_image_that_cannot_be_decoded_is_counted(message, png):
    said = message(blobs=[b"nothing", png(2)[:60], png(3)])
    assert "train.parquet row 0: image cannot be decoded" in said
    assert "; 1 more of 3 images cannot be used either" in said


def test_one_class_only(message):
    assert "every training image has one class" in message(labels=(0, 0, 0))


def test_a_class_absent_from_test(message):
    said = message(labels=(0, 1, 2))
    assert "class '2' (label 2) has no images in test" in said


def test_a_class_absent_from_train(message):
    assert "class 'b' (label 1) has no images in train" in message(
        labels=(0, 2, 0), names=("a", "b", "c")
    )


def test_a_label_beyond_the_class_names(message):
    said = message(labels=(0, 1, 5), names=("a", "b"))
    assert re.search(r"train\.parquet row 2: label 5 in train, and there are 2 classes", said)


def test_no_rows(message, tmp_path):
    (tmp_path / "set").mkdir()
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"img": pa.array([], kind), "label": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    assert "the train split has no images" in message()


def test_a_file_that_is_no_parquet(message, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_bytes(b"not Parquet at all")
    assert "train.parquet: cannot be read as Parquet" in message()


def test_an_image_column_of_another_type(message, tmp_path):
    (tmp_path / "set").mkdir()
    table = pa.table({"img": ["1.png", "2.png"], "label": [0, 1]})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    assert "the image column is string" in message()


def folder_error(tmp_path, places, custom, files):
    for name, blob in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(blob)
    with pytest.raises(ValueError) as error:
        load_images(custom(), places(tmp_path / "set"))
    return str(error.value)


def test_a_broken_file_in_an_image_folder(tmp_path, places, custom, png):
    files = {f"{split}/{c}/1.png": png() for split in ("train", "test") for c in "ab"}
    said = folder_error(tmp_path, places, custom, files | {"test/b/1.png": b"nothing"})
    assert f"{tmp_path / 'set/test/b/1.png'}: image cannot be decoded" in said


def test_a_class_folder_absent_from_test_or_train(tmp_path, places, custom, png):
    files = {f"train/{c}/1.png": png() for c in "ab"} | {"test/a/1.png": png()}
    assert "class 'b' has no images in test" in folder_error(tmp_path, places, custom, files)
    more = {f"test/{c}/1.png": png() for c in "bz"}
    assert "class 'z' has no images in train" in folder_error(tmp_path, places, custom, more)
