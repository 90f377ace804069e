from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nas_sweeps.publish import (
    publish,
    publish_json,
    publish_text,
    read_json,
    remove_scratch,
)


@pytest.mark.parametrize("name", ["plain.json", "two words.txt", "q'uo\"te\n漢.parquet"])
def test_published_text_is_read_back_and_no_scratch_is_left(tmp_path: Path, name: str) -> None:
    target = tmp_path / "new folder" / name
    publish_text(target, "a\r\nb\u2028")
    assert target.read_bytes().decode() == "a\r\nb\u2028"
    assert [p.name for p in target.parent.iterdir()] == [name]


def test_scratch_lies_beside_the_target_and_is_hidden(tmp_path: Path) -> None:
    with publish(tmp_path / "x.parquet") as scratch:
        assert scratch.parent == tmp_path
        assert scratch.name.startswith(".")
        scratch.write_text("")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_scratch(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "x"
    publish_text(target, "old")

    def write_half() -> None:
        with publish(target) as scratch:
            scratch.write_text("ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_readers_see_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "x"
    publish_text(target, "old")
    with publish(target, durable=False) as scratch:
        scratch.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    publish_json(tmp_path / "x", {"a": [math.nan, 1.5], "b": {"c": -math.inf}})
    assert json.loads((tmp_path / "x").read_text()) == {"a": [None, 1.5], "b": {"c": None}}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_reported_by_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "torn.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"torn\.json"):
        assert read_json(path) is None


def test_scratch_of_killed_writers_is_removed_for_one_target_only(tmp_path: Path) -> None:
    for name in (".a[1].pt.0123.tmp", ".b.pt.0123.tmp", "a[1].pt"):
        (tmp_path / name).touch()
    remove_scratch(tmp_path / "a[1].pt")
    assert {p.name for p in tmp_path.iterdir()} == {".b.pt.0123.tmp", "a[1].pt"}
