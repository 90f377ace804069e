"""Outputs that come to an end without ending the program: what is computed matters more.

A full device, a terminal that was closed, a reader that has left: whatever cannot be written any
more is dropped, and the exit code is what it would have been.
"""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any, cast

LACKING = "replace"  # by a question mark: what an encoding, such as that of a code page, lacks


class _Dropping(io.FileIO):
    """A descriptor that leads nowhere after its first failure, for everybody who writes to it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


class _Quiet:
    """A text stream of somebody else's, of which only writing is changed."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._ended = False

    def write(self, text: str) -> int:
        if not self._ended:
            try:
                return self._stream.write(text)
            except UnicodeEncodeError as error:
                return self.write(text.encode(error.encoding, LACKING).decode(error.encoding))
            except (OSError, ValueError):  # the latter where it was closed
                self._ended = True
        return len(text)

    def flush(self) -> None:
        if not self._ended:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._ended = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def quiet_after_failure(stream: IO[str]) -> IO[str]:
    """The stream, except that a failure to write silences it and is not raised."""
    return stream if isinstance(stream, _Quiet) else cast(IO[str], _Quiet(stream))


def use_lasting_streams() -> None:
    """Make this process's standard output and error such that writing to them never raises.

    Streams that a caller has put in the place of the process's own keep their ways of failing.
    """
    for name in ("stdout", "stderr"):
        stream, own = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is None:  # it was closed when this process began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is own and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _lasting(stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=LACKING)


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    raw = _Dropping(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=LACKING,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
