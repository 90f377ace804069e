"""Every form in which people have labelled images: what is read, and what belongs together."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas_sweeps.data.files import find_files
from nas_sweeps.data.identity import fingerprint
from nas_sweeps.data.presence import find_images
from nas_sweeps.data.sources import load_images
from nas_sweeps.grid import Grid, GridError
from nas_sweeps.trial import Data, GroupBy, Labels, trial_from_json

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, png: Any) -> Write:
    """A folder with images of these names, each with pixels of its own."""

    def make(*names: str, **options: Any) -> Path:
        for seed, name in enumerate(names):
            file = tmp_path / "set" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(seed, **options))
        return tmp_path / "set"

    return make


def table(file: Path, *rows: Sequence[Any], delimiter: str = ",") -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return file


# CSV and text beside a folder

PHOTOS = ("part 1/A.png", "part 1/B.png", "part 2/C.png", "part 2/D.png", "part 2/E.png")


def test_a_csv_says_image_label_and_split(write, places, custom) -> None:
    folder = write(*PHOTOS)
    rows = [("A", "nv", "train"), ("part 1/B", "mel", "Training"), ("C.png", "nv", "test"),
            ("D", "mel", "test"), ("E", "mel", "val")]  # fmt: skip
    table(folder / "meta.csv", ("image_id", "dx", "set"), *rows)
    labels = Labels(train="meta.csv", image="image_id", label="dx", split="set")
    images = load_images(custom(labels=labels), places(folder))
    assert images.class_names == ("mel", "nv")
    assert images.train_labels.tolist() == [1, 0]
    assert images.test_labels.tolist() == [1, 0]
    remark = find_files(folder, custom(labels=labels)).remark()
    assert remark is not None
    assert "not read: 1 rows of another split, 1 of .png ('part 2/E.png' first)" in remark
    validated = custom(labels=labels, test_split="validation")
    with pytest.raises(ValueError, match="class 'nv' has no images in validation"):
        load_images(validated, places(folder))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_two_files_with_usual_columns_need_no_names(write, places, custom, delimiter) -> None:
    folder = write(*PHOTOS)
    for name, rows in (("a.csv", (("A", 10), ("B", 9))), ("b.csv", (("C", 9), ("D", 10)))):
        table(folder / name, ("filename", "label"), *rows, delimiter=delimiter)
    images = load_images(custom(labels=Labels(train="a.csv", test="b.csv")), places(folder))
    assert images.class_names == ("9", "10"), "numbers stand in their own order"
    assert images.train_labels.tolist() == [1, 0]


def test_lists_of_path_and_label_are_read_as_imagenet_lt_has_them(write, places, custom) -> None:
    folder = write("train/n01/x 1.png", "train/n02/y.png", "val/z.png", "val/w.png")
    (folder / "LT_train.txt").write_text("train/n01/x 1.png 0\ntrain/n02/y.png 7\n\n")
    (folder / "LT_test.txt").write_text("val/z.png 7\nval/w.png 0\n")
    labels = Labels(train="LT_train.txt", test="LT_test.txt")
    images = load_images(custom(labels=labels), places(folder))
    assert images.class_names == ("0", "7")
    assert images.train_labels.tolist() == [0, 1]
    assert images.test_labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("A", "x"), ("Z", "y"), ("Q", "y")], "2 of 3 listed images are not there: 'Z', 'Q'"),
        ([("A", "x"), ("A.png", "y")], "line 3: 'A.png' is listed twice"),
        ([("A", "x"), ("B", "")], "line 3: 'B' has no label"),
        ([("A", "x"), ("B",)], "line 3: has another number of fields than the heading"),
        ([("A", "x"), ("same", "y")], "'same' may be 'one/same.png' or 'two/same.png'"),
        ([("A", "x"), ("C", "y")], "1 images are listed in train and in test, 'part 2/C.png'"),
    ],
)
def test_a_wrong_line_is_named(write, custom, rows, said) -> None:
    folder = write(*PHOTOS, "one/same.png", "two/same.png")
    table(folder / "a.csv", ("file", "label"), *rows)
    table(folder / "b.csv", ("file", "label"), ("C", "x"), ("D", "y"))
    with pytest.raises(ValueError) as error:
        find_files(folder, custom(labels=Labels(train="a.csv", test="b.csv")))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"train": "no.csv", "test": "a.csv"}, "no.csv: cannot be read"),
        ({"train": "a.csv", "test": "a.csv", "label": "dx"}, "no column 'dx' .*'lable'"),
        ({"train": "a.csv", "test": "a.csv"}, "which column is the label"),
        ({"train": "a.csv", "split": "set", "label": "lable"}, "no column 'set'"),
    ],
)
def test_a_wrong_column_or_file_is_named(write, custom, labels, said) -> None:
    folder = write(*PHOTOS)
    table(folder / "a.csv", ("file", "lable"), ("A", "x"), ("B", "y"))
    with pytest.raises(ValueError, match=said):
        find_files(folder, custom(labels=Labels(**labels)))


def test_labels_are_part_of_the_identity(write, places, custom) -> None:
    folder = write(*PHOTOS)
    table(folder / "a.csv", ("file", "label"), ("A", "x"), ("B", "y"))
    table(folder / "b.csv", ("file", "label"), ("C", "x"), ("D", "y"))
    source = custom(labels=Labels(train="a.csv", test="b.csv"))
    first = fingerprint(folder, places(), source)
    assert fingerprint(folder, places(), source) == first
    table(folder / "a.csv", ("file", "label"), ("A", "y"), ("B", "x"))
    assert fingerprint(folder, places(), source) != first
    assert "4 image files of label files" in find_images(source, places(folder)).text


# MedMNIST's archives


def archive(file: Path, channels: tuple[int, ...] = (), **more: Any) -> Path:
    random = np.random.RandomState(0)
    held = {}
    for split, count in (("train", 6), ("val", 4), ("test", 2)):
        held[f"{split}_images"] = random.randint(0, 256, (count, 28, 28, *channels)).astype("uint8")
        held[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype("uint8")
    np.savez(file, **held | more)  # type: ignore[arg-type]
    return file


@pytest.mark.parametrize("channels", [(), (3,)])
def test_an_archive_of_arrays_is_read_as_it_is(tmp_path, places, custom, channels) -> None:
    file = archive(tmp_path / "bloodmnist.npz", channels)
    images = load_images(custom(), places(file))
    stored = np.load(file)["train_images"].reshape(6, 28, 28, -1)
    assert images.train_NCHW.shape == (6, 3, 28, 28)
    assert (images.train_NCHW[:, 0].numpy() == stored[..., 0]).all()
    assert images.train_labels.tolist() == [0, 1] * 3
    assert len(images.test_labels) == 2
    assert len(load_images(custom(test_split="validation"), places(file)).test_labels) == 4
    assert load_images(custom(image_size=8), places(file)).train_NCHW.shape[-1] == 8
    assert "one .npz file" in find_images(custom(), places(file)).text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"train_labels": np.zeros((6, 14), int)}, "14 labels for each image, and one is needed"),
        ({"train_labels": np.zeros(5, int)}, "shape .5,. for 6 images"),
        ({"train_images": np.zeros((6, 28, 28))}, "'train_images' is float64"),
        ({"train_images": np.array([{}] * 6)}, "'train_images' cannot be read"),
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path, places, custom, more, said) -> None:
    with pytest.raises(ValueError, match=said):
        load_images(custom(), places(archive(tmp_path / "x.npz", **more)))


def test_an_archive_without_the_arrays_or_that_is_none_is_refused(tmp_path, places, custom) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="no array 'train_images'; it has 'x'"):
        load_images(custom(), places(tmp_path / "x.npz"))
    (tmp_path / "y.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"y\.npz: cannot be read as \.npz"):
        load_images(custom(), places(tmp_path / "y.npz"))


# Parquet


def test_labels_with_gaps_are_numbered_in_their_order(tmp_path, places, custom, png, write_parquet):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"set/{split}.parquet", [png(s) for s in range(4)], [1, 9, 3, 9])
    images = load_images(custom(), places(tmp_path / "set"))
    assert images.class_names == ("1", "3", "9")
    assert images.train_labels.tolist() == [0, 2, 1, 2]


def test_a_class_name_without_images_is_left_out_and_told(
    tmp_path, places, custom, png, write_parquet, caplog
) -> None:
    for split in ("train", "test"):
        file = tmp_path / f"set/{split}.parquet"
        write_parquet(file, [png(1), png(2)], [0, 2], names=("a", "b", "c"))
    images = load_images(custom(), places(tmp_path / "set"))
    assert images.class_names == ("a", "c")
    assert "1 classes without an image: b" in caplog.text


def test_words_are_labels_and_columns_can_be_chosen(tmp_path, places, custom, png, write_parquet):
    import pyarrow.parquet as pq

    for split in ("train", "test"):
        file = tmp_path / f"set/data/{split}-00000-of-00001.parquet"
        write_parquet(file, [png(1), png(2)], ["dog", "cat"], image="photo", label="animal")
        held = pq.read_table(file)
        pq.write_table(held.append_column("label", [[0, 1]]), file)
    chosen = Labels(image="photo", label="animal")
    images = load_images(custom(labels=chosen), places(tmp_path / "set"))
    assert images.class_names == ("cat", "dog")
    assert images.train_labels.tolist() == [1, 0]
    both = load_images(custom(labels=Labels(image="photo")), places(tmp_path / "set"))
    assert both.class_names == ("0", "1"), "another column is another cache entry too"


def test_many_shards_in_the_hubs_layout_and_a_validation_split(
    tmp_path, places, custom, png, write_parquet
) -> None:
    folder = tmp_path / "set"
    for shard in range(12):
        file = folder / f"data/train-{shard:05}-of-00012.parquet"
        write_parquet(file, [png(2 * shard), png(2 * shard + 1)], [0, 1])
    for seed, split in enumerate(("validation", "test")):
        write_parquet(folder / f"data/{split}-00000-of-00001.parquet", [png(seed), png(9)], [0, 1])
    images = load_images(custom(), places(folder))
    assert len(images.train_labels) == 24
    remark = find_files(folder).remark()
    assert remark is not None
    assert "validation-00000-of-00001.parquet" in remark
    other = load_images(custom(test_split="validation"), places(folder))
    assert not other.test_NCHW.equal(images.test_NCHW)


def test_a_validation_folder_is_tested_on_where_it_is_asked_for(write, places, custom) -> None:
    folder = write("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png")
    found = load_images(custom(test_split="validation"), places(folder))
    assert found.test_labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"set data\.test_split: validation"):
        find_files(folder)


# Sizes


def gradient(width: int, height: int) -> Image.Image:
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.tile(row, (height, 1)))


@pytest.mark.parametrize(
    ("how", "left", "right"),
    [
        ({}, 64, 191),  # the middle half of the width
        ({"short_side": 16}, 96, 159),  # and of that the middle half
        ({"resize": "stretch"}, 0, 255),
        ({"resize": "pad"}, 0, 255),
    ],
)
def test_images_that_are_not_square_are_made_so_as_asked(
    tmp_path, places, custom, how, left, right
) -> None:
    for split in ("train", "test"):
        for name in "ab":
            file = tmp_path / f"set/{split}/{name}/1.pgm"
            file.parent.mkdir(parents=True)
            gradient(64, 32).save(file)
    data = custom(image_size=8, **how)
    images = load_images(data, places(tmp_path / "set")).train_NCHW
    assert images.shape == (2, 3, 8, 8)
    middle = images[0, 0, 4].tolist()
    assert middle[0] == pytest.approx(left, abs=16)
    assert middle[-1] == pytest.approx(right, abs=16)
    assert bool((images[0, 0, 0] == 0).all()) == (how == {"resize": "pad"})


# Groups


def tracks(places: Any, custom: Any, folder: Path, pattern: str) -> list[int]:
    images = load_images(custom(group=GroupBy(pattern=pattern)), places(folder))
    assert images.train_groups is not None
    return images.train_groups.tolist()


def test_a_pattern_finds_groups_in_names(write, places, custom) -> None:
    names = ("0/00000_00001", "0/00000_00002", "0/00001_00001", "1/00000_00001", "1/00001_00009")
    folder = write(*(f"train/{n}.png" for n in names), "test/0/1.png", "test/1/1.png")
    assert tracks(places, custom, folder, r"(\d+)/(\d+)_") == [0, 0, 1, 2, 3]
    assert tracks(places, custom, folder, r"\d+(?=_)") == [0, 0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"the pattern 'x' finds nothing in '0/00000_00001\.png'"):
        tracks(places, custom, folder, "x")


def test_a_column_is_the_group(write, places, custom) -> None:
    folder = write(*PHOTOS)
    head = ("file", "label", "lesion")
    table(folder / "a.csv", head, ("A", "x", "l1"), ("B", "y", "l1"), ("C", "y", "l2"))
    table(folder / "b.csv", head, ("D", "x", "l2"), ("E", "y", "l3"))
    labels = Labels(train="a.csv", test="b.csv")
    data = custom(labels=labels, group=GroupBy(column="lesion"))
    images = load_images(data, places(folder))
    assert images.train_groups is not None
    assert images.train_groups.tolist() == [0, 0, 1]
    assert images.shared_groups == 1
    wrong = custom(labels=labels, group=GroupBy(column="lesson"))
    with pytest.raises(ValueError, match=r"no column 'lesson' for data\.group; it has 'file'"):
        load_images(wrong, places(folder))


def test_a_column_of_parquet_and_names_in_it_are_groups(tmp_path, places, custom, png) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        images = [{"bytes": png(seed), "path": f"p{seed // 2}_{seed}.png"} for seed in range(4)]
        held = {"image": images, "label": [0, 1, 0, 1], "patient": [7, 8, 7, 8]}
        pq.write_table(pa.table(held), tmp_path / f"set/{split}.parquet")
    by_column = load_images(custom(group=GroupBy(column="patient")), places(tmp_path / "set"))
    assert by_column.train_groups is not None
    assert by_column.train_groups.tolist() == [0, 1, 0, 1]
    assert by_column.shared_groups == 2
    assert tracks(places, custom, tmp_path / "set", r"p\d") == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "chosen", [{"labels": Labels(label="dx")}, {"group": GroupBy(column="lesion")}]
)
def test_columns_of_what_has_none_are_refused(write, tmp_path, custom, chosen) -> None:
    folder = write("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    [name] = chosen
    with pytest.raises(
        ValueError, match=f"a folder of class folders, .* no columns that data.{name}"
    ):
        find_files(folder, custom(**chosen))
    with pytest.raises(ValueError, match=f"is an .npz file, which has no columns that data.{name}"):
        find_files(archive(tmp_path / "x.npz"), custom(**chosen))


# In grid files


def grid(folder: Path, **data: Any) -> Grid:
    search = {"methods": ["darts"], "distributions": ["natural"]}
    return Grid.from_dict({"data": {"path": str(folder)} | data, "search": search})


def test_a_grid_says_all_of_it_and_a_trial_carries_it(write, monkeypatch, tmp_path) -> None:
    from nas_sweeps.grid import plan

    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path / "cache"))
    folder = write(*PHOTOS)
    table(folder / "a.csv", ("file", "label"), ("A", "x"), ("B", "y"))
    table(folder / "b.csv", ("file", "label"), ("C", "x"), ("D", "y"))
    with pytest.warns(UserWarning, match="not read: 1 of .png"):
        made = grid(
            folder,
            labels={"train": "a.csv", "test": "b.csv"},
            group={"pattern": r"\w"},
            image_size=16,
            short_side=20,
        )
    (trial,) = plan(made).searches
    assert trial.data.labels == Labels(train="a.csv", test="b.csv")
    assert trial.data.group == GroupBy(pattern=r"\w")
    assert (trial.data.resize, trial.data.short_side) == ("crop", 20)
    assert trial_from_json(trial.to_json()) == trial
    assert Grid.from_json(made.to_json()) == made
    assert plan(Grid.from_json(made.to_json())).searches[0].trial_id == trial.trial_id


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"labels": "a.csv"}, "data.labels: 'a.csv' is not known; name label files or columns"),
        ({"labels": {"trian": "a.csv"}}, "unknown setting 'trian'.*did you mean train"),
        ({"labels": {"train": "a.csv"}}, "name train and test, or one file as train and split"),
        ({"group": {"pattern": "("}}, r"data.group: '\(' is no regular expression"),
        ({"group": ["a"]}, "data.group: .* name a column, or write"),
        ({"resize": "pad"}, "resize and short_side need image_size"),
        ({"image_size": 32, "short_side": 16}, "short_side: must be at least image_size"),
        ({"image_size": 32, "short_side": 40, "resize": "pad"}, "goes with resize: crop"),
        ({"resize": "zoom"}, "unknown choice 'zoom'; choose from crop, stretch, pad"),
    ],
)
def test_what_cannot_be_is_told_at_its_place(write, data, said) -> None:
    folder = write("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    with pytest.raises(GridError, match=said):
        grid(folder, **data)


def test_a_data_set_with_a_name_takes_no_labels(tmp_path) -> None:
    search = {"methods": ["darts"], "distributions": ["natural"]}
    section = {"dataset": "digits", "labels": {"label": "x"}, "group": "y"}
    with pytest.raises(GridError) as error:
        Grid.from_dict({"data": section, "search": search})
    assert "data.labels: is of images at a data.path" in str(error.value)
    assert "data.group: names a column" in str(error.value)


def test_old_identities_stay(custom) -> None:
    assert Data(dataset="digits", label="d", image_size=16).resize == "crop"
