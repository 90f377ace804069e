"""The log of an attempt, a file of the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nas_sweeps.store.files import File


class _Append(logging.Handler):
    """Appends to a file of a store. A log that cannot be written stops no trial."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self.file = file
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self.file.files.append(self.file.key, self.format(record) + "\n")


@contextmanager
def trial_log(file: File, name: str) -> Iterator[logging.Logger]:
    """A logger that appends to the attempt's log file and to nothing else."""
    logger = logging.getLogger(f"nas_sweeps.trial.{name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = _Append(file)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
