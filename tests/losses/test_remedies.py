"""Losses with knobs and schedules: golden values, exact properties, and their grid settings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_sweeps.losses import LOSSES, Progress, supervised_loss
from nas_sweeps.losses.functions import class_weights, smoothing_by_label
from nas_sweeps.trial import Choice, Chosen, choose
from tests.losses.test_losses import EXP_01, LABELS, START, close, golden_logits


def value(loss: Chosen, logits: Tensor, progress: Progress = START) -> Tensor:
    return supervised_loss(loss, EXP_01, progress)(logits, LABELS)


def with_knobs(name: str, **knobs: object) -> Chosen:
    return choose(LOSSES, name, knobs)


def at(epoch: int, epochs: int = 10) -> Progress:
    return Progress(torch.full((), epoch, dtype=torch.float64), epochs)


def test_focal_with_gamma_two_is_the_golden_value() -> None:
    close(value(with_knobs("focal", gamma=2), golden_logits()), 2.156554404064)


def test_balanced_softmax_is_the_golden_value_of_logit_adjustment() -> None:
    close(value("balanced_softmax", golden_logits()), 3.009633528189)
    counts = torch.tensor(EXP_01, dtype=torch.float64)
    by_counts = F.cross_entropy(golden_logits() + counts.log(), LABELS)  # Eq 4 as printed
    close(value("balanced_softmax", golden_logits()), float(by_counts))


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_tau_scales_the_log_priors(tau: float) -> None:
    priors = torch.tensor(EXP_01, dtype=torch.float64) / sum(EXP_01)
    expected = F.cross_entropy(golden_logits() + tau * priors.log(), LABELS)
    close(value(with_knobs("logit_adjust", tau=tau), golden_logits()), float(expected))


@pytest.mark.parametrize(
    ("epoch", "golden"), [(0, 2.548184977326), (7, 2.548184977326), (8, 2.730364325823)]
)
def test_drw_is_plain_until_four_fifths_and_weighted_after(epoch: int, golden: float) -> None:
    close(value("drw", golden_logits(), at(epoch)), golden)


def test_the_epoch_of_drw_is_a_knob() -> None:
    early = with_knobs("drw", after=0.5)
    close(value(early, golden_logits(), at(4)), 2.548184977326)
    close(value(early, golden_logits(), at(5)), 2.730364325823)


def test_ldam_drw_weighs_late_epochs_as_effective_does() -> None:
    loss, halved = with_knobs("ldam", after=0.8), golden_logits() / 2
    close(value(loss, halved, at(7)), 29.748172952277)
    late = value(loss, halved, at(8))
    per_image = torch.stack(
        [supervised_loss("ldam", EXP_01, START)(halved[i : i + 1], LABELS[i : i + 1])
         for i in range(6)]
    )  # fmt: skip
    weights = torch.tensor(class_weights("effective", EXP_01), dtype=torch.float64)[LABELS]
    close(late, float((weights * per_image).sum() / weights.sum()))


def test_smoothing_mixes_uniform_labels_in() -> None:
    logits = golden_logits()
    uniform = -logits.log_softmax(1).mean()
    expected = 0.9 * 2.548184977326 + 0.1 * float(uniform)
    close(value(with_knobs("ce", smoothing=0.1), logits), expected)


@pytest.mark.parametrize(
    ("shape", "middle"),
    [("concave", math.sin(math.pi / 4)), ("linear", 0.5), ("convex", 1 - math.sin(math.pi / 4))],
)
def test_labels_are_smoothed_more_where_a_class_has_more_images(shape: str, middle: float) -> None:
    head, mid, tail = smoothing_by_label((300, 200, 100), 0.4, 0.1, shape)
    assert (head, tail) == (pytest.approx(0.4), pytest.approx(0.1))
    assert mid == pytest.approx(0.1 + 0.3 * middle)


def test_equal_counts_are_smoothed_as_the_tail_is() -> None:
    assert smoothing_by_label((70, 70), 0.3, 0.05, "concave") == [0.05, 0.05]


def test_label_aware_smoothing_smooths_each_image_by_its_class() -> None:
    logits = golden_logits()
    smoothing = smoothing_by_label(EXP_01, 0.3, 0.02, "concave")
    expected = sum(
        F.cross_entropy(logits[i : i + 1], LABELS[i : i + 1], label_smoothing=smoothing[k])
        for i, k in enumerate(LABELS.tolist())
    )
    loss = with_knobs("label_aware_smoothing", smoothing_head=0.3, smoothing_tail=0.02)
    close(value(loss, logits), float(expected) / 6)


def test_default_knobs_are_the_bare_name() -> None:
    assert with_knobs("focal", gamma=1) == "focal"
    assert with_knobs("focal", gamma=2) == Choice(name="focal", knobs=(("gamma", 2.0),))
    assert str(with_knobs("focal", gamma=2)) == "focal(gamma=2.0)"
