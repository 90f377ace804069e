"""A device that has passed is not checked again, and no harm to its record is a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas_sweeps.space import verified
from nas_sweeps.space.arithmetic import Checked, WrongArithmetic
from nas_sweeps.space.comparison import Error

CPU = torch.device("cpu")


class Checks:
    """Stands for the check, and counts."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.wrong = False

    def __call__(self, device: torch.device, kind: str, form: str, tell: object) -> Checked:
        self.made.append((kind, form))
        if self.wrong:
            raise WrongArithmetic("off")
        return Checked(1, Error("skip_connect", "output", 0.0, "operation"), 0.1)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    checks = Checks()
    monkeypatch.setattr(verified, "check", checks)
    new_process()
    yield checks
    new_process()


def new_process() -> None:
    verified._passed.clear()


def verify(folder: Path, kind: str = "fp32", form: str = "plain") -> Checked | None:
    return verified.verify(CPU, kind, form, folder)


def test_a_record_spares_other_processes_the_check(checks: Checks, tmp_path: Path) -> None:
    assert verify(tmp_path / "new")
    assert verify(tmp_path / "new") is None
    new_process()
    assert verify(tmp_path / "new") is None
    assert len(checks.made) == 1


def test_every_precision_and_form_is_checked(checks: Checks, tmp_path: Path) -> None:
    for kind in ("fp32", "tf32"):
        for form in ("plain", "arranged"):
            assert verify(tmp_path, kind, form)
    assert len(set(checks.made)) == 4
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("changed", ["torch", "triton", "device", "code"])
def test_another_version_or_device_is_checked_again(
    checks: Checks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    verify(tmp_path)
    patches = {
        "torch": (torch, "__version__", "2.11.0"),
        "triton": (verified, "_triton", lambda: "0.0.1"),
        "device": (verified, "model", lambda device: "another"),
        "code": (verified, "_code", lambda: "another"),
    }
    monkeypatch.setattr(*patches[changed])
    new_process()
    assert verify(tmp_path)
    monkeypatch.undo()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"subject": 1}'])
def test_a_damaged_record_is_no_record(checks: Checks, tmp_path: Path, damage: bytes) -> None:
    verify(tmp_path)
    (record,) = tmp_path.iterdir()
    whole = record.read_bytes()
    record.write_bytes(damage)
    new_process()
    assert verify(tmp_path)
    assert record.read_bytes() == whole, "and it is mended"


def test_a_folder_that_cannot_be_is_no_failure(checks: Checks, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert verify(tmp_path / "file" / "arithmetic")
    assert verify(tmp_path / "file" / "arithmetic") is None, "this process remembers"
    new_process()
    assert verify(tmp_path / "file" / "arithmetic")


def test_a_miss_is_not_remembered(checks: Checks, tmp_path: Path) -> None:
    checks.wrong = True
    for _ in range(2):
        with pytest.raises(WrongArithmetic):
            verify(tmp_path)
    assert len(checks.made) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_of_this_room_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An operation that is changed is checked again, without anybody counting versions."""
    (tmp_path / "operations.py").write_text("one")
    monkeypatch.setattr(verified, "__file__", str(tmp_path / "verified.py"))
    verified._code.cache_clear()
    before = verified._code()
    (tmp_path / "operations.py").write_text("other")
    verified._code.cache_clear()
    assert verified._code() != before
    verified._code.cache_clear()
