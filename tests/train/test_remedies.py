"""Stages of the classifier, mixing, fixed classifiers, rates and averages, in trainings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_sweeps.losses.heads import EquiangularClassifier, ScaledClassifier, begin_anew
from nas_sweeps.train.optimise import CYCLE_RISE, rate
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.trial import ClassifierStage, RetrainRecipe
from tests.train.tiny_runs import finish, retrain_run, search_run, tensors, undisturbed

STAGE = ClassifierStage(epochs=1)


def weights_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


# The classifier's stage


def test_the_classifier_begins_anew_and_nothing_else_is_touched() -> None:
    run = retrain_run(epochs=1, classifier_stage=STAGE)
    run.run_epoch()
    before = weights_of(run.network)
    row = run.run_epoch()
    assert row["stage"] == "classifier"
    assert row["lr"] == 0.025
    assert changed(before, weights_of(run.network)) == {"classifier.weight", "classifier.bias"}


def test_a_new_classifier_is_drawn_and_not_the_first_one_again() -> None:
    run = retrain_run(epochs=1, classifier_stage=STAGE)
    first = weights_of(run.network)["classifier.weight"]
    run._enter(run.stages[1])
    run._begin()
    drawn = weights_of(run.network)["classifier.weight"]
    assert not torch.equal(first, drawn)
    bound = 1 / math.sqrt(run.network.feature_dim)  # of torch's default
    assert 0.9 * bound < drawn.abs().max() <= bound


def test_scales_learn_alone_and_only_in_their_stage() -> None:
    run = retrain_run(epochs=1, classifier_stage=replace(STAGE, learn="scale", lr=0.2))
    assert isinstance(run.network.classifier, ScaledClassifier)
    run.run_epoch()
    before = weights_of(run.network)
    assert (before["classifier.scale_K"] == 1).all()
    run.run_epoch()
    assert changed(before, weights_of(run.network)) == {"classifier.scale_K"}


def test_scales_of_one_change_no_bit_of_the_training_before() -> None:
    run = retrain_run(classifier_stage=replace(STAGE, learn="scale"))
    rows = [run.run_epoch() for _ in range(2)]
    plain = undisturbed("plain").rows
    assert [row["loss_weights"] for row in rows] == [row["loss_weights"] for row in plain]


def test_the_classifiers_stage_sees_classes_by_its_own_sampler() -> None:
    run = retrain_run(epochs=1, classifier_stage=STAGE)
    run.run_epoch()
    seen: list[Tensor] = []
    run._enter(run.stages[1])
    step = run.step
    run.step = lambda index: (seen.append(run.bundle.labels[index]), step(index))[1]  # type: ignore[assignment]
    run.run_epoch()
    counts = torch.cat(seen).bincount()
    assert counts.max() - counts.min() <= 1


# Averages


def test_what_is_tested_is_the_average_of_the_weights_after_each_step() -> None:
    run = retrain_run(ema=0.9, epochs=1)
    assert run.averages is not None
    expected, steps = weights_of(run.network), 0

    def count() -> None:
        nonlocal steps
        if steps < 5:  # then comes the test
            keep = min(0.9, (1 + steps) / (10 + steps))
            for name, value in run.network.state_dict().items():
                if value.is_floating_point():
                    expected[name] = keep * expected[name] + (1 - keep) * value
            steps += 1

    row = run.run_epoch(count)
    averaged = run.averages.network.state_dict()
    for name, value in expected.items():
        if value.is_floating_point():
            assert torch.allclose(averaged[name], value, rtol=1e-4, atol=1e-6), name
    assert torch.equal(averaged["stem.1.num_batches_tracked"], torch.tensor(5))
    assert run._test(lambda: None)["accuracy_balanced"] == row["accuracy_balanced"]
    for part in run.averages.network.classifier.parameters():
        part.zero_()
    assert run._test(lambda: None)["recall"] == [1.0] + [0.0] * 9, "it is this one that is asked"


def test_averages_begin_with_the_weights_that_training_begins_with() -> None:
    """Which may be those of another trial, loaded after the run was made."""
    run = retrain_run(ema=0.9, epochs=1)
    with torch.no_grad():
        for weight in run.network.parameters():
            weight.add_(1.0)
    begun = weights_of(run.network)
    stop_after_one_step(run)
    assert run.averages is not None
    for name, value in run.averages.network.named_parameters():
        expected = 0.1 * begun[name] + 0.9 * run.network.get_parameter(name)
        assert torch.allclose(value, expected, atol=1e-5), name


def stop_after_one_step(run: RetrainRun) -> None:
    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        run.run_epoch(stop)


class Stop(Exception):
    pass


def test_averaging_changes_nothing_of_the_training_itself() -> None:
    plain, averaged = retrain_run(), retrain_run(ema=0.99)
    losses = [[row["loss_weights"] for row in finish(run)] for run in (plain, averaged)]
    assert losses[0] == losses[1]
    assert not changed(weights_of(plain.network), weights_of(averaged.network))


def test_the_classifiers_stage_goes_on_from_the_averages_and_is_not_averaged() -> None:
    run = retrain_run(ema=0.9, epochs=1, classifier_stage=STAGE)
    assert run.averages is not None
    run.run_epoch()
    averaged = weights_of(run.averages.network)
    run.run_epoch()
    assert changed(averaged, weights_of(run.network)) == {"classifier.weight", "classifier.bias"}
    assert not changed(averaged, weights_of(run.averages.network))


# The fixed classifier


def test_class_vectors_are_as_far_apart_as_they_can_be() -> None:
    head = EquiangularClassifier(64, 10)
    vectors = head.vectors_KF.double()
    cosines = vectors @ vectors.T
    expected = torch.full((10, 10), -1 / 9, dtype=torch.float64).fill_diagonal_(1.0)
    assert torch.allclose(cosines, expected, atol=1e-6)
    assert vectors.sum(0).abs().max() < 1e-6
    assert not list(head.parameters())


def test_logits_are_cosines_times_the_scale() -> None:
    head, features = EquiangularClassifier(8, 3), torch.randn(5, 8)
    head.cosine_scale = 7.0
    expected = F.cosine_similarity(features[:, None], head.vectors_KF[None], dim=2)
    assert torch.allclose(head(9 * features), 7 * expected, atol=1e-5)


@pytest.mark.parametrize(("features", "classes"), [(4, 5), (4, 1)])
def test_too_few_features_are_refused(features: int, classes: int) -> None:
    with pytest.raises(ValueError, match=f"classifier etf .* {classes} and {features}"):
        EquiangularClassifier(features, classes)


@pytest.mark.parametrize("loss", ["ce", "ldam"])
def test_a_fixed_classifier_stays_and_the_features_learn(loss: str) -> None:
    run = retrain_run(classifier="etf", loss=loss, auxiliary=0.4, image_size=32, epochs=1)
    before = weights_of(run.network)
    run.run_epoch()
    after = weights_of(run.network)
    assert torch.equal(before["classifier.vectors_KF"], after["classifier.vectors_KF"])
    assert "stem.0.weight" in changed(before, after)
    assert run.network.auxiliary is not None
    assert isinstance(run.network.auxiliary.classifier, EquiangularClassifier)
    scale = 1.0 if loss == "ldam" else 30.0  # LDAM scales cosines itself
    assert run.network.classifier.cosine_scale == scale


def test_a_search_may_have_a_fixed_classifier_and_mixed_images() -> None:
    run = search_run("darts", classifier="etf", cutmix=1.0)
    before = weights_of(run.model)
    run.run_epoch()
    moved = changed(before, weights_of(run.model))
    assert "supernet.stem.0.weight" in moved
    assert not any("classifier" in name for name in moved)


def test_a_cosine_classifier_is_drawn_anew_too() -> None:
    run = retrain_run(classifier="cosine")
    before = run.network.classifier.weight.detach().clone()
    with torch.random.fork_rng():
        begin_anew(run.network.classifier)
    assert not torch.equal(before, run.network.classifier.weight)


# Rates


def rates(**recipe: object) -> list[float]:
    made = RetrainRecipe(epochs=10, lr=1.0, lr_min=0.1, **recipe)  # type: ignore[arg-type]
    return [rate(made, epoch, 10) for epoch in range(10)]


def test_rates_follow_their_formulas() -> None:
    cosine = [0.1 + 0.45 * (1 + math.cos(math.pi * e / 10)) for e in range(10)]
    assert rates() == pytest.approx(cosine)
    assert rates(schedule="linear") == pytest.approx([1 - 0.09 * e for e in range(10)])
    warm = rates(warmup_epochs=4)
    assert warm[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert warm[7] == pytest.approx(0.55)


def test_one_cycle_is_torchs_read_in_the_middle_of_each_epoch() -> None:
    weight, steps = torch.nn.Parameter(torch.zeros(1)), 1000
    sgd = torch.optim.SGD([weight], 1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        sgd, 1.0, total_steps=steps, pct_start=CYCLE_RISE, cycle_momentum=False,
        final_div_factor=0.4,
    )  # fmt: skip
    by_step = []
    for _ in range(steps):
        by_step.append(sgd.param_groups[0]["lr"])
        sgd.step()
        cycle.step()
    middles = [by_step[100 * e + 50] for e in range(10)]
    assert rates(schedule="one_cycle") == pytest.approx(middles, abs=0.01)


def test_a_run_has_the_rates_of_its_recipe_and_a_plain_cosine_in_other_stages() -> None:
    run = retrain_run(
        "barlow then all", warmup_epochs=1, schedule="linear", classifier_stage=STAGE, lr_min=0.0
    )
    found = [row["lr"] for row in finish(run)]
    assert found == pytest.approx([0.025, 0.0125, 0.0125, 0.025, 0.025])
    assert run.sgd.param_groups[0]["nesterov"] is False


def test_nesterov_reaches_the_optimiser() -> None:
    run = retrain_run(nesterov=True)
    assert run.sgd.param_groups[0]["nesterov"]
    run.run_epoch()
    assert tensors(run.network.state_dict())
