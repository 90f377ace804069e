"""The command line in this process: what it prints, and the exit code."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from nas_sweeps import cli as command_line
from nas_sweeps.cli.options import err, out
from nas_sweeps.sweep.stopping import SIGNALS


@dataclass(frozen=True)
class Done:
    """How a verb ended."""

    returncode: int
    stdout: str
    stderr: str


def cli(*arguments: object) -> Done:
    """``nas-sweeps ARGUMENTS`` on a screen of 100 columns. Raises what escapes ``main``."""
    said, complained = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        redirect_stdout(said),
        redirect_stderr(complained),
    ):
        warnings.simplefilter("default")
        patch.setattr(sys, "argv", ["nas-sweeps", *map(str, arguments)])
        patch.setattr(command_line, "_warned", set())
        for console in (out, err):
            patch.setattr(console, "_width", 100)
            patch.setattr(console, "_file", None)  # where a run leaves what it printed to
        try:
            command_line.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    assert code is None or isinstance(code, int)
    return Done(code or 0, said.getvalue(), complained.getvalue())
