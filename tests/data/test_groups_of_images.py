"""Images that belong together are in T or in V, never in both, and classes stay balanced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from nas_sweeps.data.longtail import split_groups, split_half


def split(labels: list[int], groups: list[int], seed: int = 0) -> tuple[set[int], set[int]]:
    index = np.arange(len(labels))
    halves = split_groups(np.array(labels), index, np.array(groups), seed)
    t, v = (set(half.tolist()) for half in halves)
    return t, v


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=40, max_size=200))
def test_no_group_is_split_and_no_image_lost(pairs: list[tuple[int, int]]) -> None:
    labels, groups = (list(part) for part in zip(*pairs, strict=True))
    try:
        t, v = split(labels, groups)
    except ValueError:
        reject()  # a class of one group, say
    assert t | v == set(range(len(labels)))
    assert not t & v
    assert not {groups[i] for i in t} & {groups[i] for i in v}
    assert {labels[i] for i in t} == {labels[i] for i in v} == set(labels)
    assert len(t) >= len(v)


def test_groups_of_one_image_are_split_as_images_are() -> None:
    labels = np.repeat([0, 1, 2], [101, 10, 3])
    index = np.arange(len(labels))
    ours = split_groups(labels, index, index, 0)
    for half, other in zip(ours, split_half(labels, index, 0), strict=True):
        counts, wanted = np.bincount(labels[half]), np.bincount(labels[other])
        assert (abs(counts - wanted) <= 1).all()


def test_tracks_of_thirty_images_stay_nearly_stratified() -> None:
    """As in GTSRB: tracks of 30 images of one sign, 7 to 75 tracks a class."""
    tracks_of = [7, 8, 14, 25, 75]
    labels = np.repeat(np.arange(5), [30 * n for n in tracks_of])
    groups = np.arange(len(labels)) // 30
    t, _ = split_groups(labels, np.arange(len(labels)), groups, 3)
    for label, tracks in enumerate(tracks_of):
        assert abs((labels[t] == label).sum() - 15 * tracks) <= 15


def test_patients_with_several_classes_are_kept_whole_and_balanced() -> None:
    random = np.random.RandomState(0)
    groups = np.repeat(np.arange(300), 10)
    labels = (random.rand(3000) < 0.05 + 0.4 * (groups % 2)).astype(int)
    t, v = split_groups(labels, np.arange(3000), groups, 0)
    for label in (0, 1):
        share = (labels[t] == label).sum() / (labels == label).sum()
        assert abs(share - 0.5) < 0.02
    assert not set(groups[t].tolist()) & set(groups[v].tolist())


def test_the_seed_alone_decides() -> None:
    labels, groups = [0, 1] * 40, [i // 4 for i in range(80)]
    assert split(labels, groups, 1) == split(labels, groups, 1)
    assert len({tuple(sorted(split(labels, groups, seed)[0])) for seed in range(8)}) > 1


def test_the_split_is_pinned() -> None:
    """Identities name the rule and the seed: another split would be another trial."""
    labels, groups = [0] * 12 + [1] * 6, [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 7, 8]
    t, _ = split(labels, groups, 0)
    assert sorted({groups[i] for i in t}) == [2, 3, 4, 6, 7]


def test_a_class_of_one_group_is_named() -> None:
    with pytest.raises(ValueError, match=r"class 1 has images of 1 group, .* give it a second"):
        split([0, 0, 0, 1, 1], [0, 1, 2, 3, 3])
