"""Which failures are nobody's mistake, and when a run had better stop."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import torch

from nas_sweeps.store import Result, State

ALIKE = 3  # so many first failures with one cause, and nothing else: the next would be one too

# An OSError that another attempt, on another day or another node, may not meet. Not among them:
# what is missing, forbidden, or of the wrong kind.
_PASSING = {
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EPIPE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EREMOTEIO,
}
# A broken CUDA context (an uncorrectable memory error, a fallen-off device) is the node's.
_OF_THE_MACHINE = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError, ConnectionError)


def is_transient(error: BaseException) -> bool:
    """Whether trying again from the last checkpoint can help."""
    if isinstance(error, _OF_THE_MACHINE):
        return True
    if isinstance(error, OSError):
        # Object stores report without a number whatever is not "not found" or "forbidden".
        known = isinstance(error, FileNotFoundError | PermissionError)
        return error.errno in _PASSING or (error.errno is None and not known)
    return False


def all_alike(results: Sequence[Result]) -> bool:
    """Whether a run's first results are failures with one cause."""
    first = results[:ALIKE]
    failed = [result for result in first if result.state == State.FAILED]
    return len(failed) == ALIKE and len({result.cause for result in failed}) == 1
