"""What somebody may have meant, for messages about names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """`` (did you mean fairdarts?)``, or nothing where no choice is like it. Case is no matter.

    A choice that is the value with more words after it comes first: DARTS_V2 for DARTS, not PDARTS.
    """
    known = {str(choice).casefold(): str(choice) for choice in choices}
    said = str(value).casefold()
    longer = [name for name in known if name.startswith(f"{said}_")]
    near = difflib.get_close_matches(said, longer, n=1, cutoff=0)
    near = near or difflib.get_close_matches(said, known, n=1)
    return f" (did you mean {known[near[0]]}?)" if near else ""
