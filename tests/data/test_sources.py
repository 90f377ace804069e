from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from nas_sweeps.data import sources
from nas_sweeps.data.cache import cache_folder
from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.data.identity import fingerprint
from nas_sweeps.data.sources import load_images
from nas_sweeps.trial import Data

DIGITS = Data(dataset="digits", label="digits")


def pixels(blob: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).transpose(2, 0, 1)


def test_digits_are_balanced_rgb_and_sixteen_pixels_wide(places):
    images = load_images(DIGITS, places())
    assert images.train_NCHW.shape == (1160, 3, 16, 16)
    assert images.test_NCHW.shape == (580, 3, 16, 16)
    assert images.train_NCHW.dtype == torch.uint8
    assert images.train_NCHW.max() == 255
    assert images.train_NCHW[:, :1].expand(-1, 3, -1, -1).equal(images.train_NCHW)
    assert images.train_labels.bincount().tolist() == [116] * 10
    assert images.test_labels.bincount().tolist() == [58] * 10


def test_digits_take_another_size_and_share_no_image_between_splits(places):
    images = load_images(Data(dataset="digits", label="digits", image_size=8), places())
    train, test = (
        {image.numpy().tobytes() for image in split}
        for split in (images.train_NCHW, images.test_NCHW)
    )
    assert images.train_NCHW.shape[-1] == 8
    assert not train & test


def test_parquet_images_come_back_pixel_for_pixel(dataset, places, custom, png):
    images = load_images(custom(), places(dataset(train=3, test=2)))
    assert images.class_names == ("class 0", "class 1")
    assert images.train_labels.tolist() == [0, 1] * 3
    assert images.test_labels.tolist() == [0, 1] * 2
    assert images.train_labels.dtype == torch.int64
    for seed, image in enumerate(images.train_NCHW):
        assert (image.numpy() == pixels(png(seed))).all()


def test_parquet_shards_and_other_column_names_are_read_in_order(
    tmp_path, places, custom, png, write_parquet
):
    folder = tmp_path / "set" / "data"
    for shard in range(2):
        blobs = [png(2 * shard), png(2 * shard + 1)]
        file = folder / f"train-{shard:05}.parquet"
        write_parquet(file, blobs, [0.0, 1.0], image="image", label="fine_label")
    write_parquet(folder / "test.parquet", [png(8), png(9)], [0, 1])
    images = load_images(custom(), places(tmp_path / "set"))
    assert images.class_names == ("0", "1")
    assert [image.numpy().tobytes() for image in images.train_NCHW] == [
        pixels(png(seed)).tobytes() for seed in range(4)
    ]


def test_image_folder_gives_the_same_tensors_as_parquet(tmp_path, dataset, places, custom, png):
    for split, count in (("train", 3), ("test", 2)):
        for seed in range(2 * count):
            file = tmp_path / "folder" / split / f"class {seed % 2}" / f"{seed}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(seed))
    ours = load_images(custom(), places(tmp_path / "folder"))
    theirs = load_images(custom(), places(dataset(train=3, test=2)))
    assert ours.class_names == theirs.class_names
    order = theirs.train_labels.argsort(stable=True)
    assert ours.train_NCHW.equal(theirs.train_NCHW[order])
    assert ours.train_labels.equal(theirs.train_labels[order])


def test_grayscale_becomes_rgb_and_mixed_sizes_become_image_size(
    tmp_path, places, custom, png, write_parquet
):
    blobs = [png(1, mode="L"), png(2, size=(12, 9)), png(3)]
    write_parquet(tmp_path / "set/train.parquet", blobs, [0, 1, 0])
    write_parquet(tmp_path / "set/test.parquet", blobs, [0, 1, 1])
    images = load_images(custom(image_size=8), places(tmp_path / "set"))
    assert images.train_NCHW.shape == (3, 3, 8, 8)
    assert (images.train_NCHW[0].numpy() == pixels(png(1, mode="L"))).all()


def test_statistics_are_those_of_the_training_images(dataset, places, custom):
    images = load_images(custom(), places(dataset()))
    scaled = images.train_NCHW.double() / 255
    dims = (0, 2, 3)
    assert images.mean == pytest.approx(scaled.mean(dims).tolist(), rel=1e-12)
    assert images.std == pytest.approx(scaled.std(dims, correction=0).tolist(), rel=1e-12)


def test_second_load_decodes_nothing(dataset, places, custom, monkeypatch):
    where = places(dataset())
    first = load_images(custom(), where)
    monkeypatch.setattr(sources, "decode", lambda *_: pytest.fail("decoded again"))
    again = load_images(custom(), where)
    assert again.train_NCHW.equal(first.train_NCHW)
    assert (again.class_names, again.mean, again.std) == (first.class_names, first.mean, first.std)
    known = custom(fingerprint=fingerprint(where.path, where))
    assert load_images(known, places()).test_NCHW.equal(first.test_NCHW)  # needs no path


def test_each_image_size_is_cached_apart(dataset, places, custom):
    where = places(dataset())
    sizes = [load_images(custom(image_size=size), where).train_NCHW.shape[-1] for size in (8, 16)]
    assert sizes == [8, 16]


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda _: b"", None])
def test_a_corrupt_cache_file_is_rebuilt(dataset, places, custom, damage):
    where = places(dataset())
    first = load_images(custom(), where)
    (file,) = (cache_folder(where) / "images").glob("*.pt")
    if damage is None:
        torch.save({"train_NCHW": torch.zeros(1)}, file)
    else:
        file.write_bytes(damage(file.read_bytes()))
    assert load_images(custom(), where).train_NCHW.equal(first.train_NCHW)
    assert sources._read(file) is not None
    assert not list(file.parent.glob("*.tmp"))


def test_files_changed_since_the_plan_are_refused(dataset, places, custom):
    where = places(dataset())
    planned = custom(fingerprint="0" * 64)
    with pytest.raises(ValueError, match="not those that were planned"):
        load_images(planned, where)


def test_custom_without_a_path_says_so(places, custom):
    with pytest.raises(ValueError, match="needs a path"):
        load_images(custom(), places())


def fake_cifar(classes: int):
    def build(root, train, download):
        assert download
        count = 4 * classes if train else 2 * classes
        data = np.random.RandomState(train).randint(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        names = [f"name {label}" for label in range(classes)]
        targets = [i % classes for i in range(count)]
        return SimpleNamespace(data=data, targets=targets, classes=names)

    return build


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_comes_from_torchvision_once_with_published_statistics(
    name, classes, places, monkeypatch
):
    monkeypatch.setattr(torchvision.datasets, name.upper(), fake_cifar(classes))
    data = Data(dataset=name, label=name)
    first = load_images(data, places())
    assert first.train_NCHW.shape == (4 * classes, 3, 32, 32)
    assert first.class_names[1] == "name 1"
    assert (first.mean, first.std) == DATASETS.get(name).normalisation
    monkeypatch.setattr(torchvision.datasets, name.upper(), lambda *_, **__: pytest.fail("again"))
    assert load_images(data, places()).train_NCHW.equal(first.train_NCHW)


def test_cifar_takes_another_size(places, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake_cifar(10))
    images = load_images(Data(dataset="cifar10", label="c", image_size=16), places())
    assert images.train_NCHW.shape == (40, 3, 16, 16)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archives_are_those_that_torchvision_downloads(name):
    archive, source = DATASETS.get(name).archive, getattr(torchvision.datasets, name.upper())
    assert (archive.name, archive.md5) == (source.filename, source.tgz_md5)
