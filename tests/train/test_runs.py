"""The loops: what an epoch's row says, and that stopping after any epoch changes no bit."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from nas_sweeps import methods
from nas_sweeps.data.bundle import Bundle, prepare
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import published
from nas_sweeps.train.common import Meter, TrainingDiverged, precision, stream
from nas_sweeps.train.losses import CosineClassifier
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import (
    Barlow,
    Data,
    Distribution,
    Places,
    Pretrain,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
)

CPU = torch.device("cpu")
DATA = Data(dataset="digits", label="digits", image_size=8, n_max=14, test_n_max=4)
EXP = Distribution(kind="exp", mu=0.25)
SEARCH = SearchRecipe(channels=4, layers=3, epochs=2, batch_size=16)
RETRAIN = RetrainRecipe(channels=4, layers=3, epochs=2, batch_size=16)
SMALL_BARLOW = {"barlow_dim": 16, "barlow_hidden": 16}
SEARCHES = {
    "darts": ("darts", {}),
    "darts second fd": ("darts", {"order": "second"}),
    "darts second exact": ("darts", {"order": "second", "hvp": "exact"}),
    "fairdarts": ("fairdarts", {}),
    "ssf_nas": ("ssf_nas", SMALL_BARLOW),
    "ssf_nas joint": ("ssf_nas", SMALL_BARLOW | {"where": "joint"}),
    "ssf_nas w_only": ("ssf_nas", SMALL_BARLOW | {"where": "w_only"}),
    "ssf_nas alpha_only": ("ssf_nas", SMALL_BARLOW | {"where": "alpha_only"}),
}
RETRAINS = {
    "plain": {},
    "all the trimmings": {"drop_path": 0.3, "cutout": 3, "loss": "ldam"},
    "barlow then all": {"pretrain": Pretrain(epochs=2, barlow=Barlow(dim=16, hidden=16))},
    "barlow then linear": {
        "pretrain": Pretrain(epochs=1, then="linear", barlow=Barlow(dim=16, hidden=16))
    },
    "search half": {"images": "search_half"},
}


@cache
def bundle() -> Bundle:
    torch.set_num_threads(1)
    return prepare(DATA, EXP, Places(), CPU)


def search_run(name: str, seed: int = 0, **recipe: object) -> SearchRun:
    method, knobs = SEARCHES[name]
    trial = SearchTrial(
        data=DATA,
        distribution=EXP,
        method=methods.resolve(method, knobs),
        recipe=replace(SEARCH, **recipe),
        seed=seed,
    )
    return SearchRun(trial, bundle(), CPU)


def retrain_run(name: str = "plain", **recipe: object) -> RetrainRun:
    trial = RetrainTrial(
        data=DATA,
        distribution=EXP,
        genotype=published("DARTS_V2"),
        recipe=replace(RETRAIN, **(RETRAINS[name] | recipe)),
        seed=3,
    )
    return RetrainRun(trial, bundle(), CPU)


def timeless(row: dict) -> dict:
    return {k: v for k, v in row.items() if k not in ("epoch_s", "images_per_s", "peak_mem_gib")}


def through_a_file(state: dict) -> dict:
    """As a checkpoint travels: loading must need no code from the file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def finish(run: SearchRun | RetrainRun) -> list[dict]:
    rows = []
    while run.epochs_done < run.epochs_total:
        rows.append(timeless(run.run_epoch()))
    return rows


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def assert_resumes(make) -> None:
    straight = make()
    rows = finish(straight)
    first = make()
    resumed_rows = [timeless(first.run_epoch())]
    second = make()
    torch.rand(7)  # the global generator is nobody's business
    second.load_state_dict(through_a_file(first.state_dict()))
    resumed_rows += finish(second)
    assert resumed_rows == rows
    ours, theirs = tensors(second.state_dict()), tensors(straight.state_dict())
    assert len(ours) == len(theirs) > 50
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert second.outcome() == straight.outcome()


@pytest.mark.parametrize("name", SEARCHES)
def test_a_resumed_search_has_the_same_bits(name: str) -> None:
    assert_resumes(lambda: search_run(name))


@pytest.mark.parametrize("name", RETRAINS)
def test_a_resumed_retrain_has_the_same_bits(name: str) -> None:
    assert_resumes(lambda: retrain_run(name))


def test_a_seed_decides_everything_and_another_seed_something_else() -> None:
    assert finish(search_run("fairdarts")) == finish(search_run("fairdarts"))
    assert finish(search_run("fairdarts", seed=1)) != finish(search_run("fairdarts"))


def test_a_search_row_has_what_the_table_asks_for() -> None:
    run = search_run("darts")
    row = run.run_epoch()
    assert row["stage"] == "search"
    assert row["epoch"] == 1
    assert row["lr"] == 0.025
    for name in ("accuracy_train", "accuracy_validation", "accuracy_balanced", "accuracy_macro"):
        assert 0 <= row[name] <= 1
    assert 0 < row["alpha_entropy_normal"] <= math.log(8) + 1e-9
    assert Genotype(*map(tuple, json.loads(row["genotype"]))).genotype_id
    assert row["images_per_s"] > 0


def test_the_learning_rate_falls_along_the_cosine() -> None:
    run = retrain_run(epochs=4)
    rates = [row["lr"] for row in finish(run)]
    expected = [0.001 + 0.012 * (1 + math.cos(math.pi * e / 4)) for e in range(4)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_tests_happen_when_asked_and_always_at_the_end() -> None:
    rows = finish(retrain_run(epochs=5, test_every=2))
    assert ["accuracy_balanced" in row for row in rows] == [False, True, False, True, True]


def test_labels_never_reach_the_weights_of_a_self_supervised_search() -> None:
    run, other = search_run("ssf_nas"), search_run("ssf_nas")
    shuffled = replace(bundle(), labels=bundle().labels.roll(5))
    other.bundle = shuffled
    run.run_epoch()
    other.run_epoch()
    for name, value in run.model.state_dict().items():
        same = torch.equal(value, other.model.state_dict()[name])
        assert same != name.startswith("supernet.classifier."), name
    assert all(torch.equal(a, b) for a, b in zip(run.alphas, other.alphas, strict=True))


def test_alpha_moves_and_is_no_weight() -> None:
    run = search_run("darts")
    before = [a.detach().clone() for a in run.alphas]
    run.run_epoch()
    assert all(not torch.equal(a, b) for a, b in zip(run.alphas, before, strict=True))
    assert not {id(a) for a in run.alphas} & {id(w) for w in run.weights}


@pytest.mark.parametrize("name", ["darts", "darts second fd", "darts second exact"])
def test_frozen_statistics_survive_an_architecture_step(name: str) -> None:
    for mode in ("freeze", "update"):
        run = search_run(name, bn_stats_in_arch_step=mode)
        before = statistics(run)
        architecture_step(run)
        same = all(torch.equal(a, b) for a, b in zip(before, statistics(run), strict=True))
        assert same == (mode == "freeze")


def test_the_unrolled_model_has_statistics_of_its_own() -> None:
    """As in DARTS, where it is a copy: the live model sees w three times and w' never."""
    run = search_run("darts second exact")
    architecture_step(run)
    passes = [b for n, b in run.model.named_buffers() if n.endswith("num_batches_tracked")]
    assert {int(count) for count in passes} == {1}, "the training loss at w, and nothing else"
    run = search_run("darts second fd")
    architecture_step(run)
    passes = [b for n, b in run.model.named_buffers() if n.endswith("num_batches_tracked")]
    assert {int(count) for count in passes} == {3}, "the training loss at w, w+ and w-"


def test_the_architecture_moves_before_the_weights() -> None:
    run, order = search_run("darts"), []
    run.adam.register_step_post_hook(lambda *_: order.append("alpha"))
    run.sgd.register_step_post_hook(lambda *_: order.append("weights"))
    run.run_epoch()
    assert order == ["alpha", "weights"] * (len(order) // 2)
    assert len(order) >= 4


def architecture_step(run: SearchRun) -> None:
    method = run.method
    train = run._batch(bundle().t_index[:8], method.weight_objective, run.on_t)
    held_out = run._batch(bundle().v_index[:8], method.arch_objective, run.on_v)
    run._architecture_step(train, held_out, Meter(CPU))


def statistics(run: SearchRun) -> list[torch.Tensor]:
    return [b.clone() for n, b in run.model.named_buffers() if "running" in n]


def test_pretraining_comes_first_and_uses_no_label() -> None:
    rows = finish(retrain_run("barlow then all"))
    assert [row["stage"] for row in rows] == ["pretrain", "pretrain", "finetune", "finetune"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert "accuracy_train" not in rows[0]
    assert rows[0]["lr"] == rows[2]["lr"] == 0.025


def test_a_linear_head_leaves_the_features_alone() -> None:
    run = retrain_run("barlow then linear")
    run.run_epoch()
    before = {n: p.clone() for n, p in run.network.state_dict().items()}
    finish(run)
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("classifier."), name


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(TrainingDiverged, match="lower the recipe's lr"):
        finish(retrain_run(lr=1e30, grad_clip=1e30))


def test_barlow_twins_refuses_fewer_images_than_a_batch() -> None:
    with pytest.raises(ValueError, match="lower batch_size"):
        search_run("ssf_nas", batch_size=512).run_epoch()


def test_streams_are_independent() -> None:
    assert len({stream(seed, name) for seed in range(50) for name in ("order", "augment")}) == 100


def test_precision_is_put_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    with precision("fp32", CPU):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
    with precision("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_trains_and_tests_the_weights_of_now() -> None:
    """Autocast caches cast weights for as long as it is on: an epoch must not be one context."""
    run = retrain_run(precision="bf16", epochs=1)
    row = run.run_epoch()
    assert math.isfinite(row["loss_weights"])
    with precision("bf16", CPU):
        x = bundle().images[:16].float() / 255
        run.network.eval()
        inside = run.network(x)[0]
        with torch.no_grad():
            for weight in run.network.parameters():
                weight.mul_(2)
        assert not torch.equal(inside, run.network(x)[0])


def test_finite_differences_are_refused_where_they_would_be_rounded_away() -> None:
    with pytest.raises(ValueError, match="use fp32, or hvp: exact"):
        search_run("darts second fd", precision="bf16")


def test_every_head_is_cosine_under_ldam() -> None:
    run = retrain_run(auxiliary=0.4, loss="ldam")
    assert isinstance(run.network.classifier, CosineClassifier)
    assert isinstance(run.network.auxiliary.classifier, CosineClassifier)


def test_an_auxiliary_head_trains_with_the_rest() -> None:
    big = prepare(replace(DATA, image_size=32), EXP, Places(), CPU)
    trial = replace(retrain_run().trial, recipe=replace(RETRAIN, auxiliary=0.4, epochs=1))
    run = RetrainRun(trial, big, CPU)
    before = run.network.auxiliary.classifier.weight.clone()
    run.run_epoch()
    assert not torch.equal(before, run.network.auxiliary.classifier.weight)
