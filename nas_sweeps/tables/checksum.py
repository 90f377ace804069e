"""Parquet that carries the digest of its own bytes, so that no flipped bit goes unseen.

Parquet's page checksums leave the footer out. Here a file is written with a placeholder in its
metadata, and the digest of all its bytes then takes the placeholder's place; it stays plain
Parquet for every other tool. A file without a seal is taken as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = b"sealed"
_BLANK = b"sha256:" + b"0" * 64


def with_checksum(table: pa.Table, compression: Literal["zstd", "lz4"] = "zstd") -> bytes:
    """A table as the bytes of a Parquet file. Its own metadata are kept.

    ``zstd`` is small, ``lz4`` four times as fast to read. Floats repeat too seldom for a
    dictionary to be worth its time.
    """
    sink = pa.BufferOutputStream()
    metadata = (table.schema.metadata or {}) | {_KEY: _BLANK}
    recurring = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression=compression,
        use_dictionary=recurring,
    )
    data = bytes(sink.getvalue())
    head, found, tail = data.rpartition(_BLANK)  # metadata stand at a file's end
    assert found, "a file without its metadata"
    return head + _digest(data, _BLANK) + tail


@dataclass(frozen=True, slots=True)
class VerifiedParquet:
    """A Parquet file whose bytes are those that were written, to be decoded when asked."""

    data: bytes
    names: list[str]  # of its columns
    metadata: dict[bytes, bytes]  # less the seal
    sealed: bool

    def read(self, columns: Sequence[str] | None = None, *, use_threads: bool = True) -> pa.Table:
        """The table, or some of its columns. Only without a seal: raises what ``check`` raises."""
        wanted = None if columns is None else list(columns)
        with pq.ParquetFile(pa.BufferReader(self.data)) as file:
            table = file.read(wanted, use_threads=use_threads)
        return table.replace_schema_metadata(self.metadata or None)


def check(data: bytes) -> VerifiedParquet:
    """Hold a Parquet file's bytes against their seal.

    Raises:
        pa.ArrowException, OSError: no Parquet, or not the bytes that were written.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            # Of the footer itself: the schema's copy in it was written before the seal.
            names, metadata = file.schema_arrow.names, dict(file.metadata.metadata or {})
    except ValueError as error:  # names that are no UTF-8
        raise pa.ArrowInvalid(str(error)) from None
    metadata.pop(b"ARROW:schema", None)
    written = metadata.pop(_KEY, None)
    if written is not None and (len(written) != len(_BLANK) or _digest(data, written) != written):
        raise pa.ArrowInvalid("its bytes are not those that were written")
    return VerifiedParquet(data, names, metadata, written is not None)


def read_verified(data: bytes, *, use_threads: bool = True) -> pa.Table:
    """The table in a Parquet file's bytes. Raises what ``check`` raises."""
    return check(data).read(use_threads=use_threads)


def _digest(data: bytes, checksum: bytes) -> bytes:
    """The digest of the bytes with a placeholder where the seal stands; nothing is copied."""
    at = data.rfind(checksum)
    digest, view = hashlib.sha256(), memoryview(data)
    if at < 0:
        digest.update(view)
    else:
        digest.update(view[:at])
        digest.update(_BLANK)
        digest.update(view[at + len(checksum) :])
    return b"sha256:" + digest.hexdigest().encode()
