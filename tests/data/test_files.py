"""Which files are read, and what is said of those that are not: real folders, as people have them.

Each case stands for a kind that was once read wrongly without a word, or answered with a message
that named neither what was there nor what to do.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, features
from torchvision.datasets.folder import IMG_EXTENSIONS

from nas_sweeps.data.decode import FORMATS
from nas_sweeps.data.files import IMAGE_SUFFIXES, find_files
from nas_sweeps.data.identity import fingerprint
from nas_sweeps.data.presence import find_images
from nas_sweeps.data.sources import load_images
from nas_sweeps.grid import Grid

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """A folder with empty files of these names: enough for what goes by names."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
        return tmp_path / "set"

    return make


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as error:
        find_files(folder)
    return str(error.value)


def read(folder: Path) -> list[str]:
    files = find_files(folder)
    return [file.relative_to(folder).as_posix() for file in files.train + files.test]


# --- a Parquet split is whole, and there once ---


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("train-00000-of-00002.parquet",), "'train-00001-of-00002'"),
        (("train-00001-of-00002-9f3ac1.parquet",), "'train-00000-of-00002'"),
        (("train/0000.parquet", "train/0002.parquet"), "'0001.parquet'"),
    ],
)
def test_a_download_that_stopped_names_the_missing_file(touch: Touch, names, missing) -> None:
    said = refusal(touch("test-00000-of-00001.parquet", *names))
    assert f"missing: {missing}" in said
    assert "fetch the rest" in said


def test_a_stopped_download_of_the_test_split_is_seen_as_well(touch: Touch) -> None:
    said = refusal(touch("train.parquet", "data/test-00002-of-00003.parquet"))
    assert "2 of 3 Parquet files missing: 'test-00000-of-00003', 'test-00001-of-00003'" in said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("full/train.parquet", "small/train.parquet"), "in 2 folders ('full', 'small')"),
        (("train/0000.parquet", "more/train/0000.parquet"), "in 2 folders ('more/train', 'train')"),
        (("train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet"), "two copies"),
        (("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"), "two copies"),
        (("train.parquet", "train-00000-of-00001.parquet"), "keep the one file or its parts"),
    ],
)
def test_images_that_would_be_read_twice_are_refused(touch: Touch, names, said) -> None:
    assert said in refusal(touch("test.parquet", *names))


@pytest.mark.parametrize(
    "names",
    [
        ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
        ("data/train-00000-of-00001-b42ea.parquet", "data/test-00000-of-00001-9a80c.parquet"),
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
        ("train_a-00000-of-00001.parquet", "train_b-00000-of-00001.parquet", "test.parquet"),
        ("train.parquet", "test.parquet"),
    ],
)
def test_layouts_of_the_hub_are_read(touch: Touch, names) -> None:
    assert sorted(read(touch(*names))) == sorted(names)


def test_the_hubs_conversion_loads(tmp_path, places, custom, png, write_parquet) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"set/default/{split}/0000.parquet", [png(1), png(2)], [0, 1])
    images = load_images(custom(), places(tmp_path / "set"))
    assert images.train_labels.tolist() == images.test_labels.tolist() == [0, 1]


def test_a_stray_file_is_not_taken_for_a_split_and_is_told(touch: Touch) -> None:
    folder = touch("train.parquet", "test.parquet", "training_log.parquet", "testimony.parquet")
    assert read(folder) == ["train.parquet", "test.parquet"]
    remark = find_files(folder).remark()
    assert remark is not None
    assert "2 of .parquet ('testimony.parquet' first)" in remark


# --- every format that can be decoded ---


def test_the_suffixes_are_those_of_the_formats_that_are_decoded() -> None:
    Image.init()
    known = {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert known - {".pfm"} == IMAGE_SUFFIXES, "a PFM holds floats, which are refused"
    assert set(IMG_EXTENSIONS) <= IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("jfif", "JPEG"), ("ppm", "PPM"), ("pgm", "PPM"), ("jp2", "JPEG2000"), ("TIF", "TIFF")],
)
def test_images_of_every_suffix_are_read(tmp_path, places, custom, png, suffix, kind) -> None:
    if kind == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow was built without JPEG 2000")
    image = Image.open(io.BytesIO(png(1)))
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(png(1))
            image.convert("L" if suffix == "pgm" else "RGB").save(folder / f"2.{suffix}", kind)
    images = load_images(custom(), places(tmp_path / "set"))
    assert images.train_labels.tolist() == [0, 0, 1, 1]


def test_what_is_left_out_is_counted_and_told_once(tmp_path, places, png, monkeypatch) -> None:
    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(1))
    section = {"path": str(folder), "image_size": 8}
    tree = {"data": section, "search": {"methods": ["darts"], "distributions": ["balance"]}}
    (folder / "README.md").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Grid.from_dict(tree)
    for name in ("train/a/GT-1.csv", "train/b/GT-1.csv", "test/2.png", "extra/a/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with pytest.warns(UserWarning, match=r"not read: 2 of \.png, 2 of \.csv") as told:
        grid = Grid.from_dict(tree)
    assert len(told) == 1
    assert find_images(grid.data.spec(0), grid.places).text.endswith("; 4 files not read")


@pytest.mark.parametrize(
    "junk",
    ["train/@eaDir/1.png", "train/#recycle/1.png", "train/a/@eaDir/2.png/SYNOPHOTO_THUMB_M.jpg",
     "train/$RECYCLE.BIN/1.png", "train/__MACOSX/1.png", "test/System Volume Information/1.png",
     "train/a/Thumbs.db", "train/b/desktop.ini", "#snapshot/train.parquet"],
)  # fmt: skip
def test_what_systems_put_beside_files_is_not_seen(touch: Touch, places, junk) -> None:
    images = ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    folder = touch(*images)
    before = fingerprint(folder, places())
    touch(junk)
    assert read(folder) == list(images)
    assert find_files(folder).left_out == ()
    assert fingerprint(folder, places()) == before


# --- near misses ---


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train/a/1.png", "val/a/1.png"), "a validation split ('val'), which is not read"),
        (("train.parquet", "validation.parquet"), "a validation split ('validation.parquet')"),
        (("d/train/0.parquet", "d/validation/0.parquet"), "a validation split ('validation')"),
        (("Train/a/1.png", "Test/a/1.png"), "'Test'; rename it 'test'; 'Train'; rename it 'train'"),
        (("train/a/1.png", "testing/a/1.png"), "'testing'; rename it 'test'"),
        (("training.parquet", "test.parquet"), "'training.parquet'; rename it 'train.parquet'"),
        (("cars/train/a/1.png", "cars/test/a/1.png"), "name {folder}/cars as data.path"),
        (("cat/1.png", "dog/1.png"), "divide their images among train/<class>/ and test/<class>/"),
        (("train/1.png", "test/1.png"), "'test/1.png', which lies in no class folder"),
        (("cifar.tar.gz", "notes.txt"), "Found: files of .gz, .txt"),
    ],
)
def test_a_near_miss_is_named_with_what_to_do(touch: Touch, names, said) -> None:
    folder = touch(*names)
    assert said.format(folder=folder) in refusal(folder)


# --- labels ---


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ((1, 2, 3), ("a", "b", "c"), "label 3 in train, .* labels begin at 1: number them from 0"),
        ((-1, -1, -1), None, "every label is -1, which stands for labels that are kept back"),
        ((0, -1, 1), None, "row 1: label is -1"),
    ],
)
def test_labels_that_do_not_begin_at_0(
    tmp_path, places, custom, png, write_parquet, labels, names, said
) -> None:
    for split in ("train", "test"):
        file = tmp_path / "set" / f"{split}.parquet"
        write_parquet(file, [png(1), png(2), png(3)], labels, names=names)
    with pytest.raises(ValueError, match=said):
        load_images(custom(), places(tmp_path / "set"))


def test_a_file_without_images_may_be_no_part_of_the_data_set(
    tmp_path, places, custom, png, write_parquet
) -> None:
    write_parquet(tmp_path / "set/train.parquet", [png(1), png(2)], [0, 1])
    write_parquet(tmp_path / "set/train_log.parquet", [png(1)], [0], image="loss")
    write_parquet(tmp_path / "set/test.parquet", [png(1), png(2)], [0, 1])
    with pytest.raises(ValueError, match=r"train_log\.parquet: no column.*or move the file else"):
        load_images(custom(), places(tmp_path / "set"))


# --- names, turns and homes ---


def test_a_python_that_reads_names_as_ascii_says_how_to_read_them(touch: Touch) -> None:
    folder = touch("train/jalapeño/1.png", "train/b/1.png", "test/b/1.png")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import sys; from nas_sweeps.data.identity import fingerprint; fingerprint(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        capture_output=True,
        text=True,
        env=os.environ | ascii_only | {"NAS_SWEEPS_CACHE": str(folder.parent / "cache")},
    )
    assert "for ascii and this one is UTF-8; set PYTHONUTF8=1 or a UTF-8 locale" in done.stderr


def test_an_image_is_read_as_it_is_stored_whatever_its_exif_says(
    tmp_path, places, custom, png, write_parquet
) -> None:
    """As torchvision's ImageFolder does; README says so."""
    image = Image.open(io.BytesIO(png(1)))
    turned = Image.Exif()
    turned[0x0112] = 6  # "turn me by 90 degrees"
    plain, marked = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG")
    image.save(marked, "PNG", exif=turned)
    assert Image.open(io.BytesIO(marked.getvalue())).getexif()[0x0112] == 6
    for split in ("train", "test"):
        file = tmp_path / "set" / f"{split}.parquet"
        write_parquet(file, [plain.getvalue(), marked.getvalue()], [0, 1])
    images = load_images(custom(), places(tmp_path / "set")).train_NCHW
    assert (images[0] == images[1]).all()
