"""The loops: what an epoch's row says, and that stopping after any epoch changes no bit."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from nas_sweeps.losses import LOSSES, Loss, LossFunction, Progress
from nas_sweeps.losses.heads import CosineClassifier
from nas_sweeps.space.genotype import EDGES, Genotype
from nas_sweeps.space.precision import precision
from nas_sweeps.tables.schemas import EPOCH_FILE
from nas_sweeps.train.common import TrainingDiverged, predict, stream
from nas_sweeps.train.search import SearchRun
from nas_sweeps.tuning import MEASURES
from tests.train.tiny_runs import (
    CPU,
    RETRAINS,
    Finished,
    bundle,
    finish,
    make,
    retrain_run,
    search_run,
    through_a_file,
    timeless,
    undisturbed,
)


@pytest.mark.parametrize("name", RETRAINS)  # and searches: see test_interrupted.py
def test_a_resumed_retrain_has_the_same_bits(name: str) -> None:
    first = retrain_run(name)
    rows = [timeless(first.run_epoch())]
    second = retrain_run(name)
    torch.rand(7)  # the global generator is nobody's business
    second.load_state_dict(through_a_file(first.state_dict()))
    rows += finish(second)
    Finished.of(second, rows).assert_same_bits(undisturbed(name))


def test_a_method_may_look_at_the_supernet_and_the_validation_half() -> None:
    run = search_run("darts", epochs=1)
    run.run_epoch()
    found = run.reading.searched()
    right, seen = Counter[int](), Counter[int]()
    run.model.eval()
    for x, labels in found.validation():
        predicted = found.supernet(x, *found.edge_weights).argmax(1)
        right.update(labels[predicted == labels].tolist())
        seen.update(labels.tolist())
    assert seen.total() == len(bundle().v_index)
    assert found.accuracy(found.edge_weights) == right.total() / seen.total()
    assert run.tested["accuracy_validation"] == right.total() / seen.total()
    recalls = [right[k] / seen[k] for k in seen]
    assert run.tested["accuracy_macro_validation"] == pytest.approx(sum(recalls) / len(recalls))
    assert sum(recalls) / len(recalls) != right.total() / seen.total()
    weights = tuple(torch.zeros_like(w) for w in found.edge_weights)
    assert found.accuracy(weights) < 0.5, "it is computed at the weights it is given"


def test_a_loss_is_told_the_epochs_that_use_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, int]] = []

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Noting(Loss):
        def prepare(self, counts: Sequence[int]) -> LossFunction:
            def loss(logits: torch.Tensor, labels: torch.Tensor, at: Progress) -> torch.Tensor:
                told.append((float(at.epoch), at.epochs))
                return logits.square().mean()

            return loss

    monkeypatch.setattr(LOSSES, "known", LOSSES.known | {"noting": Noting})
    for run in (search_run("darts", loss="noting"), retrain_run("barlow then all", loss="noting")):
        told.clear()
        finish(run)
        assert sorted(set(told)) == [(0.0, 2), (1.0, 2)]


def test_a_checkpoint_from_before_methods_could_sample_goes_on() -> None:
    first, second = search_run("fairdarts"), search_run("fairdarts")
    rows = [timeless(first.run_epoch())]
    state = through_a_file(first.state_dict())
    del state["noise"]
    second.load_state_dict(state)
    rows += finish(second)
    Finished.of(second, rows).assert_same_bits(undisturbed("fairdarts"))


@pytest.mark.parametrize("name", ["darts", "barlow then all"])
def test_a_state_that_lacks_a_part_is_refused(name: str) -> None:
    run = make(name)
    state = run.state_dict()
    for part in state.keys() - {"noise"}:  # which came later: see above
        with pytest.raises(KeyError, match=part):
            run.load_state_dict({k: v for k, v in state.items() if k != part})


def test_a_seed_decides_everything_and_another_seed_something_else() -> None:
    rows = undisturbed("fairdarts").rows
    assert finish(search_run("fairdarts")) == rows
    assert timeless(search_run("fairdarts", seed=1).run_epoch()) != rows[0]


def test_a_search_row_has_what_the_table_asks_for() -> None:
    run = search_run("darts")
    row = run.run_epoch()
    assert row["stage"] == "search"
    assert row["epoch"] == 1
    assert row["lr"] == 0.025
    for name in ("accuracy_train", *MEASURES, "accuracy_balanced", "accuracy_macro"):
        assert 0 <= row[name] <= 1
    assert 0 < row["alpha_entropy_normal"] <= math.log(8) + 1e-9
    assert Genotype(*map(tuple, json.loads(row["genotype"]))).genotype_id
    assert row["images_per_s"] > 0
    assert set(row) <= set(EPOCH_FILE.names)


@pytest.mark.parametrize("name", ["darts", "fairdarts"])
def test_a_search_row_has_the_weights_of_all_operations(name: str) -> None:
    run = search_run(name)
    row = run.run_epoch()
    operations = row["operations"].split(",")
    assert operations == list(run.method.operations)
    weights = torch.tensor(row["edge_weights"]).reshape(2, len(EDGES), len(operations))
    found = run.method.edge_weights(run.parameters, run.noiseless)
    assert all(torch.equal(a, b) for a, b in zip(weights, found, strict=True))


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
    theirs = other.model.state_dict()
    for name, value in run.model.state_dict().items():
        same = torch.equal(value, theirs[name])
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
    train = run._batch(bundle().t_index[:8], run.weight_loss, run.on_t)
    held_out = run._batch(bundle().v_index[:8], run.arch_loss, run.on_v)
    run._architecture_step(train, held_out)


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


@pytest.mark.parametrize("kind", ["fp32", "tf32", "bf16"])
def test_steps_and_tests_are_computed_in_the_recipes_precision(kind: str) -> None:
    seen = set()

    def look(stem: torch.nn.Module, *_: object) -> None:
        tf32 = {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}
        assert len(tf32) == 1
        seen.add((stem.training, *tf32, torch.is_autocast_enabled("cpu")))

    for run in (search_run("fairdarts", precision=kind), retrain_run(precision=kind)):
        seen.clear()
        net = run.model.supernet if isinstance(run, SearchRun) else run.network
        net.stem.register_forward_pre_hook(look)
        run.run_epoch()
        assert seen == {(mode, kind != "fp32", kind == "bf16") for mode in (True, False)}


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
    run = retrain_run(auxiliary=0.4, image_size=32, epochs=1)
    before = run.network.auxiliary.classifier.weight.clone()
    run.run_epoch()
    assert not torch.equal(before, run.network.auxiliary.classifier.weight)


def test_an_evaluation_that_does_not_fit_goes_on_in_halves() -> None:
    sizes, whole = [], bundle()
    index = torch.arange(len(whole.test_labels))

    def logits(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 11:
            raise torch.OutOfMemoryError("no room for that many images")
        return x.mean(dim=(2, 3))

    def small(x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))

    halved = predict(logits, whole.test_images, index, whole)
    assert torch.equal(halved, predict(small, whole.test_images, index, whole))
    assert sizes[:2] == [len(index), len(index) // 2]
    assert sum(n for n in sizes if n <= 11) == len(index), "no image is predicted twice"
    assert sizes.count(sizes[2]) > 1, "later batches begin with the size that fitted"


def test_an_image_that_does_not_fit_alone_is_an_error() -> None:
    def logits(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room at all")

    with pytest.raises(torch.OutOfMemoryError, match="no room at all"):
        predict(logits, bundle().test_images, torch.arange(4), bundle())
