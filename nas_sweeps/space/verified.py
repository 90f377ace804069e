"""What has passed the arithmetic check on this machine, so that it is checked once.

A record is a small file of its own in a folder of the machine's cache: two processes that check at
once write the same. A folder that cannot be written to or a damaged record means one check more.
Only passes are remembered.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas_sweeps.publish import publish_text
from nas_sweeps.space.arithmetic import Checked, check
from nas_sweeps.space.form import Form

if TYPE_CHECKING:
    from nas_sweeps.trial import Precision

_passed: set[Subject] = set()  # in this process: also where no record can be written


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check is of. Where one of these differs, it says nothing."""

    device: str
    torch: str
    triton: str | None
    form: str
    precision: str
    code: str  # digest of this room's files: of what is checked, and of the check


def verify(
    device: torch.device,
    kind: Precision,
    form: Form,
    folder: Path,
    tell: Callable[[str], None] = lambda text: None,
) -> Checked | None:
    """Check ``device`` unless a record in ``folder`` says that it has passed.

    Returns:
        What the check saw; None where there was a record.

    Raises:
        WrongArithmetic: as ``check``.
    """
    subject = Subject(
        device=model(device),
        torch=torch.__version__,
        triton=_triton(),
        form=form,
        precision=kind,
        code=_code(),
    )
    record = folder / f"{_digest(json.dumps(asdict(subject)).encode())}.json"
    if subject in _passed or _read(record) == asdict(subject):
        _passed.add(subject)
        return None
    checked = check(device, kind, form, tell)
    _passed.add(subject)
    with suppress(OSError):
        text = {"subject": asdict(subject), "passed": asdict(checked)}
        publish_text(record, json.dumps(text, indent=1), durable=False)
    return checked


def _read(record: Path) -> object:
    """The subject of a record; None where there is none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(record.read_text(encoding="utf-8"))["subject"]
    return None


def model(device: torch.device) -> str:
    """The name of a device, the same on machines that compute with the same kernels."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):  # Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _triton() -> str | None:
    with suppress(PackageNotFoundError):
        return version("triton")
    return None


@lru_cache(maxsize=1)
def _code() -> str:
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return _digest(b"".join(file.read_bytes() for file in files))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
