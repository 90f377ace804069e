"""The check for ten minutes on a GPU: every part starts, and none hangs or stops the others."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.gpu import check
from tests.gpu.parts import PARTS


def checked(out: Path, *arguments: str) -> tuple[int, str]:
    code = check.main(["--out", str(out), "--device", "cpu", *arguments])
    return code, (out / "page.txt").read_text()


def test_every_part_has_a_limit_and_they_fit_into_the_time() -> None:
    assert list(check.LIMITS_S) == list(PARTS)
    assert check.ALL_S < 8 * 60


@pytest.mark.system
def test_a_part_that_fails_or_is_run_again_costs_no_other_its_figures(tmp_path: Path) -> None:
    asked = ("--images", str(tmp_path / "nowhere"), "--part", "trial", "--part", "environment")
    code, page = checked(tmp_path, *asked)
    assert code == 1
    assert "trial        failed" in page
    assert "environment  done" in page
    assert measured(tmp_path) == {"environment"}
    code, page = checked(tmp_path, "--part", "warm-up", "--part-limit", "200")
    assert code == 0, page
    assert measured(tmp_path) == {"environment", "warm-up"}


def measured(out: Path) -> set[str]:
    rows = pq.read_table(out / "figures.parquet").to_pylist()
    assert all(row["device"] and row["date"] and "torch" in row["versions"] for row in rows)
    return {row["part"] for row in rows}


def test_a_part_that_takes_too_long_is_ended_and_said(tmp_path: Path) -> None:
    code, page = checked(tmp_path, "--part", "arithmetic", "--part-limit", "1")
    assert code == 1
    assert "arithmetic   out of time" in page


def test_without_time_a_part_is_not_started(tmp_path: Path) -> None:
    code, page = checked(tmp_path, "--part", "environment", "--limit", "0")
    assert code == 1
    assert "no time was left to start it" in page


def test_what_cannot_begin_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert check.main(["--out", str(tmp_path / "file"), "--device", "cpu"]) == 2
    assert "file" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert check.main(["--out", str(tmp_path / "out")]) == 2
        assert "sees no GPU; --device cpu" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_works_on_a_cpu(tmp_path: Path) -> None:
    code, page = checked(tmp_path, "--limit", "1700", "--part-limit", "300")
    assert code == 0, page
    rows = pq.read_table(tmp_path / "figures.parquet").to_pylist()
    assert measured(tmp_path) == set(PARTS)
    assert all(row["value"] is None or row["value"] >= 0 for row in rows)
