"""What a checkpoint file holds, and how one of any version is read.

A checkpoint is written once and read by every later version. ``FORMAT`` counts the changes of
its content; whoever changes it adds a step to ``_MIGRATIONS`` that turns the content of the
format before into the new one, and a store written by the older version to ``tests/fixtures``.

Three ways of not being readable are kept apart. Bytes that are damaged show by the digest in the
file's name: the checkpoint before is used, or none. A file system that fails for a while raises
``OSError``, and the trial is tried again. A file that is whole and still cannot be used is a
mistake of somebody's, and never a reason to compute everything again unasked.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from nas_sweeps.numerics import Numerics
from nas_sweeps.store.files import File
from nas_sweeps.store.layout import Checkpoint
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.trial_files import all_checkpoints
from nas_sweeps.tables.schemas import FORM_OF_DEPTHWISE
from nas_sweeps.train.common import Row

FORMAT = 2  # 1: without a number and without numerics


class Damaged(Exception):
    """The bytes of a checkpoint are not those that were written, or cannot be read at all."""


class CheckpointNotUsable(RuntimeError):
    """A checkpoint is whole, and this process cannot go on from it."""


@dataclass(kw_only=True)
class Content:
    """Everything needed to go on with a trial."""

    device: str  # cpu or cuda: their random generators have nothing in common
    run: dict[str, Any]  # state of the run
    rows: list[Row]  # of all epochs so far
    numerics: list[Numerics] = field(default_factory=list)  # that the trial had, in order
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mem_gib: float = 0.0


def digest(data: bytes) -> str:
    """The digest in a checkpoint's name, which shows damage."""
    return hashlib.sha256(data).hexdigest()[:16]


def encode(content: Content) -> bytes:
    """The bytes of a checkpoint file. Tensors are shared with the run until then."""
    state = {"format": FORMAT} | {k: getattr(content, k) for k in content.__dataclass_fields__}
    state["numerics"] = [asdict(one) for one in content.numerics]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read(checkpoint: Checkpoint) -> Content:
    """The content of a checkpoint of any version.

    Raises:
        Damaged: its bytes are not those that were written, or gone.
        CheckpointNotUsable: they are, and this version cannot read them.
        OSError: the store does not answer at this moment.
    """
    data = _bytes(checkpoint)
    try:
        # Tensors and plain values only: a checkpoint of a stranger's runs no code.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        state = _migrated(state)
        numerics = [Numerics(**one) for one in state.pop("numerics")]
        return Content(numerics=numerics, **state)
    except MemoryError:
        raise
    except Exception as error:  # torch raises anything at all
        raise not_usable(checkpoint.file, error) from error


def state_of(store: Store, trial_id: str) -> dict[str, Any]:
    """What the run of a trial that is done has left for those that go on from it.

    Raises:
        ValueError: its checkpoint is gone.
        Damaged, CheckpointNotUsable, OSError: as ``read``.
    """
    kept = all_checkpoints(store.layout.trial(trial_id))
    if not kept:
        raise ValueError(f"trial {trial_id}, which this one goes on from, has no checkpoint left")
    return read(kept[0]).run


def not_usable(file: File, why: object) -> CheckpointNotUsable:
    """The error, with what to do about it."""
    said = f"{type(why).__name__}: {why}" if isinstance(why, BaseException) else why
    first = str(said).strip().splitlines()[0]
    return CheckpointNotUsable(
        f"checkpoint '{file}' is whole, but cannot be gone on from ({first}); nothing was computed "
        "again. Run with --retry failed where it can be used (the version of nas_sweeps, and the "
        "kind of device, that wrote it), or remove the file to go on from the one before it, or "
        "from the start where there is none"
    )


def _bytes(checkpoint: Checkpoint) -> bytes:
    try:
        data = checkpoint.file.read()
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.EIO:
            raise Damaged(error) from error
        raise
    if digest(data) != checkpoint.digest:
        raise Damaged("its bytes are not those that were written")
    return data


# Older formats


def _migrated(state: dict[str, Any]) -> dict[str, Any]:
    """The content in today's format, without its number. Raises ValueError."""
    if not isinstance(state, dict):
        raise ValueError("not a checkpoint's content")
    number = state.pop("format", 1)
    if not isinstance(number, int) or number > FORMAT:
        raise ValueError(f"its format is {number}, and this version reads up to {FORMAT}")
    for older in range(number, FORMAT):
        state = _MIGRATIONS[older](state)
    return state


def _with_numerics(state: dict[str, Any]) -> dict[str, Any]:
    """Format 1 said only which of two ways a search on a CPU computed its gradients."""
    depthwise = state.pop("depthwise", "")
    form = FORM_OF_DEPTHWISE.get(depthwise)
    begun = Numerics(
        device_kind=state["device"],
        device_model=None,
        threads=None,
        precision=None,
        form=form,
        torch=None,
    )
    return state | {"numerics": [asdict(begun)]}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_numerics}
