"""Parquet that carries the digest of its own bytes, so that no flipped bit goes unseen.

Parquet's page checksums leave the footer out. Here a file is written with a placeholder in its
metadata, and the digest of all its bytes then takes the placeholder's place; it stays plain
Parquet for every other tool. A file without a seal is taken as it is.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = b"sealed"
_BLANK = b"sha256:" + b"0" * 64


def seal(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file. Its own metadata are kept."""
    sink = pa.BufferOutputStream()
    metadata = (table.schema.metadata or {}) | {_KEY: _BLANK}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    data = bytes(sink.getvalue())
    return _with(data, _BLANK, _digest(data))


def unseal(data: bytes, *, use_threads: bool = True) -> pa.Table:
    """The table in a Parquet file's bytes.

    Raises:
        pa.ArrowException, OSError: no Parquet, or not the bytes that were written.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=use_threads)
    except ValueError as error:  # names that are no UTF-8
        raise pa.ArrowInvalid(str(error)) from None
    metadata = table.schema.metadata or {}
    written = metadata.get(_KEY)
    if written is None:
        return table
    if len(written) != len(_BLANK) or _digest(_with(data, written, _BLANK)) != written:
        raise pa.ArrowInvalid("its bytes are not those that were written")
    rest = {key: value for key, value in metadata.items() if key != _KEY}
    return table.replace_schema_metadata(rest or None)


def _digest(data: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(data).hexdigest().encode()


def _with(data: bytes, old: bytes, new: bytes) -> bytes:
    """With the last occurrence replaced: metadata stand at a file's end."""
    head, found, tail = data.rpartition(old)
    return head + new + tail if found else data
