from __future__ import annotations

from pathlib import Path

import pytest

from nas_sweeps.publish import publish, publish_text, remove_scratch


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


def test_scratch_of_killed_writers_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a[1].pt.0123.tmp", ".hidden", "b.tmp", "a[1].pt"):
        (tmp_path / name).touch()
    remove_scratch(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".hidden", "b.tmp", "a[1].pt"}
