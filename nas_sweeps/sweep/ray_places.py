"""The folders that a Ray session needs on this machine, for messages when it cannot start."""

from __future__ import annotations

import os
import tempfile

from nas_sweeps.paths import user_path

_INLINE = "or use --executor inline, which needs no Ray"


def require_home() -> None:
    """Raises ValueError where this user has no home folder."""
    try:
        user_path("~")
    except ValueError:
        raise ValueError(
            f"Ray needs a home folder, and the user with the number {os.getuid()} has none; set "
            f"HOME to a folder that can be written, {_INLINE}"
        ) from None


def session_folder() -> tuple[str, str]:
    """Where Ray puts its sockets and logs, and the variable that says so, as Ray decides it."""
    for variable in ("RAY_TMPDIR", "TMPDIR"):
        if os.environ.get(variable):
            return os.environ[variable], variable
    return tempfile.gettempdir(), "RAY_TMPDIR"


def remedy(error: Exception) -> str:
    """What to do about a session that did not start: the folder at fault and its variable."""
    folder, variable = session_folder()
    if "AF_UNIX" in str(error):
        return (
            f"the name of the folder for its sockets, {folder} (${variable}), is too long; set "
            f"RAY_TMPDIR to a folder with a short name, such as /tmp, {_INLINE}"
        )
    for place, named_by in ((folder, variable), (str(user_path("~/.ray")), "HOME")):
        if (place in str(error) and isinstance(error, OSError)) or not _can_be_written(place):
            return (
                f"it cannot write to {place} (${named_by}); set {named_by} to a folder that can "
                f"be written, {_INLINE}"
            )
    return f"run again when the machine is less busy, {_INLINE}"


def _can_be_written(place: str) -> bool:
    """Whether a file can be made there. It is tried: permissions do not tell it all."""
    try:
        os.makedirs(place, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False
