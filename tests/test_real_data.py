"""Data sets as people have them, from the grid file to the tables, by real trainings.

Random search trains no supernet; its networks are trained on T and validated on V.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import nas_sweeps as ns
from nas_sweeps.data.splits import prepare
from nas_sweeps.grid import Grid
from nas_sweeps.sweep.doctor import drawn
from tests.verbs import cli

SMALL = {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8}


def picture(seed: int, label: int, size: tuple[int, int]) -> Image.Image:
    """Noise, brighter for every class, so that a training has something to find."""
    width, height = size
    noise = np.random.RandomState(seed).randint(0, 60, (height, width, 3))
    return Image.fromarray((noise + 40 * label).astype(np.uint8))


def grid(path: Path, distributions: list[Any], **data: Any) -> Grid:
    return Grid.from_dict(
        {
            "name": "real",
            "data": {"path": str(path)} | data,
            "search": {"methods": ["random"], "distributions": distributions, "recipe": SMALL},
            "retrain": {"recipe": SMALL | {"images": "search_half"}},
        }
    )


def run(made: Grid, store: Path) -> ns.Frames:
    summary = ns.run(made, store, executor="inline", console="none")
    frames = ns.load(store)
    assert summary.complete, frames.trials.error_message.tolist()
    return frames


def test_a_natural_folder_of_ppm_files_with_tracks(tmp_path: Path) -> None:
    """As GTSRB: tracks of frames in folders of classes, images of any shape, an uneven test set."""
    root, seed = tmp_path / "signs", 0
    for split, tracks in (("train", (12, 3, 2)), ("test", (2, 1, 1))):
        for label, count in enumerate(tracks):
            folder = root / split / f"{label:05}"
            folder.mkdir(parents=True)
            (folder / f"GT-{label:05}.csv").write_text("Filename;ClassId\n")
            for track in range(count):
                for frame in range(3):
                    seed += 1
                    image = picture(seed, label, (9 + seed % 5, 12))
                    image.save(folder / f"{track:05}_{frame:05}.ppm")
    with pytest.warns(UserWarning, match=r"not read: 6 of \.csv"):
        made = grid(
            root,
            ["natural"],
            image_size=8,
            group={"pattern": r"(\d+)/(\d+)_"},
            groups={"many": 20, "few": 8},
        )
    (natural,) = ns.plan(made).searches
    bundle = prepare(natural.data, natural.distribution, made.places, "cpu")
    assert bundle.train_counts == (36, 9, 6)
    track_of = np.repeat(np.arange(17), 3)
    t, v = (set(track_of[index.numpy()]) for index in (bundle.t_index, bundle.v_index))
    assert (len(t), len(v), t & v) == (9, 8, set())
    frames = run(made, tmp_path / "store")
    (row,) = frames.trials[frames.trials.phase == "retrain"].itertuples()
    classes = frames.classes[frames.classes.trial_id == row.trial_id]
    assert classes.train_count.tolist() == [36, 9, 6]
    assert classes.group.tolist() == ["head", "medium", "tail"]
    recall = dict(zip(classes.group, classes.recall, strict=True))
    assert row.accuracy_head == recall["head"]
    assert row.accuracy_tail == recall["tail"]
    assert row.accuracy_macro == pytest.approx(sum(recall.values()) / 3)
    assert 0 <= row.accuracy_validation <= 1
    assert row.accuracy_long_tailed == pytest.approx(row.accuracy_balanced), "natural itself"
    attempts = frames.attempts.set_index("trial_id")
    assert "T and V by 17 groups" in attempts.note[row.trial_id]
    table = cli("table", tmp_path / "store", "--format", "markdown").stdout
    assert "| method | natural |" in table
    doctor = drawn(ns.plan(made), made.places)
    assert doctor.startswith("training images: natural 51 (6 to 36 a class); T and V by 17 groups")


def test_a_folder_labelled_by_a_csv(tmp_path: Path) -> None:
    """As HAM10000: one folder of images, a table of diagnoses and lesions."""
    root = tmp_path / "skin"
    (root / "images").mkdir(parents=True)
    rows = []
    for seed in range(60):
        label = int(seed % 10 >= 7)
        split = "test" if seed % 5 == 0 else "train"
        picture(seed, label, (16, 12)).save(root / f"images/ISIC_{seed:04}.jpg", quality=95)
        rows.append((f"ISIC_{seed:04}", f"HAM_{seed // 2}", ("nv", "mel")[label], split))
    for seed in (0, 5, 10, 15, 57, 58):
        rows[seed] = (*rows[seed][:2], ("nv", "mel")[seed > 50 or seed == 15], "test")
    with (root / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image_id", "lesion_id", "dx", "split"), *rows])
    made = grid(
        root,
        ["natural"],
        image_size=8,
        resize="stretch",
        labels={"train": "metadata.csv", "image": "image_id", "label": "dx", "split": "split"},
        group="lesion_id",
    )
    frames = run(made, tmp_path / "store")
    counts = pd.Series([row[2] for row in rows if row[3] == "train"]).value_counts()
    for _, classes in frames.classes.groupby("trial_id"):
        found = dict(zip(classes.class_name, classes.train_count, strict=True))
        assert found == counts.to_dict()
    retrained = frames.trials[frames.trials.phase == "retrain"]
    assert retrained.setting.str.contains("data.group=lesion_id").all()
    assert retrained.setting.str.contains("data.resize=stretch").all()
    assert retrained.accuracy_macro.notna().all()


def test_an_archive_of_medmnist(tmp_path: Path) -> None:
    held: dict[str, Any] = {}
    for split, counts in (("train", (30, 8, 4)), ("val", (2, 2, 2)), ("test", (6, 3, 2))):
        labels = np.repeat(np.arange(3), counts)
        pixels = [np.asarray(picture(i, k, (28, 28)).convert("L")) for i, k in enumerate(labels)]
        held |= {f"{split}_images": np.stack(pixels), f"{split}_labels": labels[:, None]}
    np.savez(tmp_path / "bloodmnist.npz", **held)
    kinds = ["natural", {"natural": {"n_max": 9}}]
    made = grid(tmp_path / "bloodmnist.npz", kinds, image_size=8)
    frames = run(made, tmp_path / "store")
    assert set(frames.trials.dataset) == {"bloodmnist.npz"}
    counts = frames.classes.groupby("trial_id").train_count.agg(list)
    assert sorted(counts.tolist()) == [[9, 8, 4], [30, 8, 4]]
    table = cli("table", tmp_path / "store", "--format", "markdown").stdout
    assert "| method | natural | natural n\\_max=9 |" in table


# Case 20: a path on the command line takes the place of the data set that a file names


def test_a_path_set_on_the_command_line_replaces_the_data_set(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            (tmp_path / f"set/{split}/{name}").mkdir(parents=True)
            for seed in range(4):
                picture(seed, label, (8, 8)).save(tmp_path / f"set/{split}/{name}/{seed}.png")
    file = tmp_path / "grid.yaml"
    file.write_text(
        "data: {dataset: digits}\nsearch: {methods: [random], distributions: [natural]}"
    )
    made = ns.load_grid(file, [f"data.path={tmp_path / 'set'}"])
    assert (made.data.dataset, made.data.path) == (None, str(tmp_path / "set"))
    done = cli("plan", file, "--set", f"data.path={tmp_path / 'set'}", "--store", tmp_path / "s")
    assert (done.returncode, done.stderr) == (0, "")
