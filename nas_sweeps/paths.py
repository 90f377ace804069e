"""Paths as people write them, with ``~`` for the home folder. Every path from outside comes here.

A shell expands ``~`` only at the beginning of a word: not in ``--store=~/runs``, not in a grid
file, and never for a call from Python.
"""

from __future__ import annotations

import os
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """The path with a leading ``~`` replaced by the home folder, otherwise as it is.

    Raises:
        ValueError: this user has no home folder, as in a container that was started with the
            number of a user whom nobody entered there.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return Path(path)
    expanded = os.path.expanduser(text)
    if expanded == text and text.partition("/")[0] == "~":
        raise ValueError(
            f"'{text}': the user with the number {os.getuid()} has no home folder; set HOME, or "
            "write the path without ~"
        )
    return Path(expanded)  # ``~name`` of nobody is a file of that name, as for a shell
