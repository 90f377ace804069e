"""A trial says how its depthwise gradients were computed, and does not change that unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.space import kernel
from nas_sweeps.store import Store
from nas_sweeps.sweep.run import run
from nas_sweeps.train.search import SearchRun
from tests.sweep.tiny import TINY

GRID = ns.Grid.from_dict(TINY | {"search": TINY["search"] | {"methods": ["darts"]}})


def test_a_search_whose_kernel_is_gone_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "off")
    kernel._chosen.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "form", lambda: "compiled")
        patch.setattr(SearchRun, "outcome", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(GRID, tmp_path, executor="inline", console="none")
    assert run(GRID, tmp_path, executor="inline", console="none").complete
    store, trials = Store(tmp_path), ns.load(tmp_path).trials.set_index("phase").trial_id
    log = store.layout.trial(trials["search"]).newest.log.read().decode()
    assert "began with the compiled depthwise kernel, which is not here" in log
    search, retrain = store.result(trials["search"]), store.result(trials["retrain"])
    assert search is not None
    assert search.versions["depthwise"] == "plain"
    assert ns.load(tmp_path).trials.set_index("phase").depthwise["search"] == "plain"
    assert retrain is not None
    assert "depthwise" not in retrain.versions, "an evaluation network has one form"
