from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_sweeps.store.files import File, LocalFiles
from nas_sweeps.tables.checksum import read_verified, with_checksum

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "ä", None]}).replace_schema_metadata({"k": "v"})


def flips(data: bytes) -> list[bytes]:
    """The data with each of its bits flipped in turn."""
    return [
        data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :]
        for i in range(len(data))
        for bit in range(8)
    ]


def test_a_sealed_table_is_plain_parquet_and_reads_back_with_its_metadata() -> None:
    data = with_checksum(TABLE)
    assert read_verified(data).equals(TABLE, check_metadata=True)
    assert pq.read_table(io.BytesIO(data)).equals(TABLE)


def test_no_flipped_bit_of_a_table_gives_another_table_unseen() -> None:
    """A flip is an error; where it hits the name of the seal alone, the table is the same."""
    unseen = 0
    for data in flips(with_checksum(TABLE)):
        try:
            assert read_verified(data).equals(TABLE)
            unseen += 1
        except (pa.ArrowException, OSError):
            pass
    assert unseen < 100


def test_a_table_without_a_seal_is_taken_as_it_is() -> None:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    assert read_verified(sink.getvalue()).equals(TABLE)


@pytest.mark.filterwarnings("ignore:skipped unreadable")
def test_no_flipped_bit_of_a_json_file_gives_other_content_unseen(tmp_path: Path) -> None:
    file = File(LocalFiles(tmp_path), "x.json")
    content = {"accuracy": 0.4986, "n": 12, "text": "ä b"}
    file.publish_json(content)
    for data in flips(file.read()):
        Path(file).write_bytes(data)
        found = file.read_json()
        assert found is None or found == content or any(k not in content for k in found)


def test_json_written_by_hand_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert File(LocalFiles(tmp_path), "x.json").read_json() == {"a": 1}
