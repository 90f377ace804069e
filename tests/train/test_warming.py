"""What a trial tells the warm-up of its kernels."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from nas_sweeps.space.lanes import ready
from nas_sweeps.train.warming import warm_up_run
from tests.train.tiny_runs import make


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ready.Need]:
    needs: list[ready.Need] = []
    monkeypatch.setattr(ready, "warm_up", lambda many, *_, **__: needs.extend(many))
    return needs


def test_a_search_and_a_retrain_ask_for_what_they_train_and_test(asked: list[ready.Need]) -> None:
    search, retrain = make("darts"), make("all the trimmings", precision="bf16")
    search.model.supernet.form = retrain.network.form = "triton"
    for run in (search, retrain):
        warm_up_run(run, print)
    assert [need.net for need in asked] == [search.model.supernet, retrain.network]
    assert [need.batch for need in asked] == [16, 16]
    assert [need.kind for need in asked] == ["fp32", "bf16"]
    assert [need.drop_path for need in asked] == [False, True]
    assert {need.image for need in asked} == {(3, 8, 8)}
    assert {need.tested for need in asked} == {len(search.bundle.test_labels)}


def test_other_forms_have_nothing_to_compile(asked: list[ready.Need]) -> None:
    warm_up_run(make("darts"), print)
    warm_up_run(make("plain"), print)
    assert asked == []
