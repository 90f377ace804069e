from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas_sweeps.data import identity
from nas_sweeps.data.cache import cache_folder
from nas_sweeps.data.files import find_files
from nas_sweeps.data.identity import fingerprint
from nas_sweeps.trial import DataPaths


def test_identity_imports_neither_torch_nor_pyarrow():
    code = (
        "import sys, nas_sweeps.data.identity as i; "
        "print({'torch', 'torchvision', 'pyarrow', 'ray', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_cache_folder_is_the_place_then_the_variable_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path))
    assert cache_folder(DataPaths(cache="/elsewhere")) == Path("/elsewhere")
    assert cache_folder(DataPaths()) == tmp_path
    monkeypatch.delenv("NAS_SWEEPS_CACHE")
    assert cache_folder(DataPaths()) == Path.home() / ".cache/nas_sweeps"


def test_fingerprint_is_of_contents_and_relative_names(dataset, places, tmp_path):
    folder = dataset()
    first = fingerprint(folder, places())
    assert len(first) == 64
    moved = folder.rename(tmp_path / "moved")
    assert fingerprint(moved, places()) == first
    (moved / "README.md").write_text("not data")
    (moved / ".hidden.parquet").write_text("not data")
    assert fingerprint(moved, places()) == first
    file = next(moved.glob("train*"))
    renamed = file.rename(moved / "train-other.parquet")
    assert fingerprint(moved, places()) != first
    renamed.rename(file)
    assert fingerprint(moved, places()) == first
    file.write_bytes(file.read_bytes() + b"x")
    assert fingerprint(moved, places()) != first


def test_second_fingerprint_reads_no_image(dataset, places, monkeypatch):
    folder = dataset()
    first = fingerprint(folder, places())
    monkeypatch.setattr(identity, "_hash_contents", lambda files: pytest.fail("read again"))
    assert fingerprint(folder, places()) == first


def test_a_touched_file_is_read_again_and_keeps_its_fingerprint(dataset, places):
    folder = dataset()
    first = fingerprint(folder, places())
    file = next(folder.glob("train*"))
    same_size = bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]
    os.utime(file, ns=(0, 1))
    assert fingerprint(folder, places()) == first
    file.write_bytes(same_size)
    assert fingerprint(folder, places()) != first


def test_a_broken_or_unwritable_memo_only_costs_time(dataset, places, tmp_path):
    folder = dataset()
    first = fingerprint(folder, places())
    (memo,) = (cache_folder(places()) / "fingerprints").iterdir()
    memo.write_bytes(b"\xff garbage")
    assert fingerprint(folder, places()) == first
    assert memo.read_text() == first
    (tmp_path / "a file").touch()
    assert fingerprint(folder, DataPaths(cache=str(tmp_path / "a file"))) == first


def test_image_folders_through_links_are_found(tmp_path, png):
    real = tmp_path / "real" / "cat"
    real.mkdir(parents=True)
    (real / "1.PNG").write_bytes(png())
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        (tmp_path / "set" / split / "cat").symlink_to(real)
    files = find_files(tmp_path / "set")
    assert files.layout == "folder"
    assert [file.name for file in files.train + files.test] == ["1.PNG", "1.PNG"]


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ((), "is empty"),
        (("notes.txt",), "holds no data set"),
        (("train-0.parquet",), "train images but no test"),
        (("test/cat/1.png",), "test images but no train"),
        (("train/1.png", "test/1.png"), "holds no data set"),
    ],
)
def test_a_folder_that_is_no_data_set_says_what_it_needs(tmp_path, present, message):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in present:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with pytest.raises(ValueError, match=message) as error:
        find_files(folder)
    assert str(folder) in str(error.value)
    assert "train*.parquet and test*.parquet, or train/<class>/" in str(error.value)


def test_a_missing_path_or_a_file_is_named(tmp_path):
    (tmp_path / "one.parquet").touch()
    with pytest.raises(ValueError, match=r"one\.parquet is a file"):
        fingerprint(tmp_path / "one.parquet")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        fingerprint(tmp_path / "nowhere")


def test_identity_is_that_of_images_and_labels_alone(tmp_path, png, places):
    def build(name: str, order: int, labels: dict[str, str]) -> str:
        for file, label in list(labels.items())[::order]:
            for split in ("train", "test"):
                path = tmp_path / name / split / label / f"{file}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(int(file)))
                os.utime(path, ns=(0, order))
        return fingerprint(tmp_path / name, places())

    labels = {"1": "cat", "2": "dog", "3": "dog"}
    first = build("here", 1, labels)
    assert build("there it's", -1, labels) == first  # other path, order of creation and times
    assert build("relabelled", 1, labels | {"3": "cat"}) != first
    assert build("fewer", 1, {"1": "cat", "2": "dog"}) != first


@pytest.mark.parametrize("changed", ["image", "label"])
def test_a_changed_image_or_label_is_seen_though_size_and_times_are_kept(
    tmp_path, png, write_parquet, places, changed
):
    folder = tmp_path / "set"
    file = write_parquet(folder / "train.parquet", [png(1), png(2)], [0, 1])
    write_parquet(folder / "test.parquet", [png(3), png(4)], [0, 1])
    first, before = fingerprint(folder, places()), file.stat()
    other = png(1)[:-20] + bytes(8) + png(1)[-12:]  # of the same length
    blobs, labels = ([other, png(2)], [0, 1]) if changed == "image" else ([png(1), png(2)], [1, 0])
    write_parquet(file, blobs, labels)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert fingerprint(folder, places()) != first
