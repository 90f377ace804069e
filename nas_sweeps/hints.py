"""What somebody may have meant, for messages about names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """`` (did you mean fairdarts?)``, or nothing where no choice is like it. Case is no matter."""
    known = {str(choice).casefold(): str(choice) for choice in choices}
    near = difflib.get_close_matches(str(value).casefold(), known, n=1)
    return f" (did you mean {known[near[0]]}?)" if near else ""
