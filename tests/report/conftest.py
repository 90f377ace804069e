from __future__ import annotations

from pathlib import Path

import pytest

from nas_sweeps.report.page import write_report
from nas_sweeps.tables import Frames, load
from tests.report.lab import Lab, new_lab, sweep_into
from tests.report.tuned import tuned_into


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return new_lab(tmp_path)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """``sweep_into`` a store that tests only read."""
    lab = new_lab(tmp_path_factory.mktemp("sweep"))
    sweep_into(lab)
    return lab


@pytest.fixture(scope="session")
def frames(sweep: Lab) -> Frames:
    return load(sweep.store)


@pytest.fixture(scope="session")
def page(sweep: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ``sweep``, in a folder with a difficult name."""
    return write_report(sweep.store, tmp_path_factory.mktemp("report") / "it's 100% <done>#1")


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of ``tuned_into``, which tests only read."""
    store = tmp_path_factory.mktemp("tuned") / "a 'tuned' store"
    tuned_into(store)
    return store


@pytest.fixture(scope="session")
def tuned_frames(tuned: Path) -> Frames:
    return load(tuned)
