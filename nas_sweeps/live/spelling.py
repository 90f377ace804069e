"""Text for outputs whose encoding cannot hold it, such as a Windows code page.

What cannot be written is spelled with what can: ``±`` as ``+/-``, ``✓`` as ``ok``. Tables and
bars are drawn by rich, which does the same with their lines.
"""

from __future__ import annotations

import codecs
import unicodedata

HANDLER = "nas_sweeps.spelled"  # the name of the error handler among Python's codecs
_SPELLED = {
    "±": "+/-",
    "μ": "mu",
    "µ": "mu",
    "×": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "✓": "ok",
    "✗": "!!",
    "━": "#",
    "─": "-",
    "│": "|",
}


def spell(text: str, encoding: str) -> str:
    """The text as an output of this encoding can hold it."""
    return text.encode(encoding, HANDLER).decode(encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError), "only for what is written"
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """One character by ASCII ones: ``ü`` is ``u``, and what looks like nothing is ``?``."""
    if character in _SPELLED or character.isascii():
        return _SPELLED.get(character, character)
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?"


codecs.register_error(HANDLER, _replace)
