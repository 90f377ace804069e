"""On what terms a trial runs: what stops it, and with whom it is compared.

A driver writes them when it hands the trial out, in a file of its own; the worker reads them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nas_sweeps.store.files import File, warn_skipped
from nas_sweeps.store.layout import TrialFiles
from nas_sweeps.tuning.stop import Collapse, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """``peers`` are trials by id, and ``number`` and theirs their places among each other."""

    stop: Stop
    number: int = 0
    peers: Mapping[str, int] = field(default_factory=dict)

    def publish(self, file: File) -> None:
        """Raises OSError."""
        file.publish_json(asdict(self))

    @classmethod
    def read(cls, file: File) -> Terms | None:
        """What ``publish`` wrote; None for nothing, or (with a warning) for what cannot be read."""
        value = file.read_json()
        try:
            return None if value is None else cls._of(**value)
        except (TypeError, AttributeError) as error:
            warn_skipped(file, error)
            return None

    @classmethod
    def _of(cls, stop: dict[str, Any], number: int, peers: dict[str, int]) -> Terms:
        collapse = Collapse(**stop.pop("collapse"))
        return cls(stop=Stop(**stop, collapse=collapse), number=number, peers=peers)


def say_terms(files: TrialFiles, driver: str, terms: Terms | None) -> None:
    """Write down on what terms a trial is handed out, and forget those of drivers that are gone.

    Raises OSError.
    """
    if terms is None:
        return
    mine = files.terms(driver)
    terms.publish(mine)
    for other in files.old_terms:
        if other.name != mine.name:
            other.remove()
