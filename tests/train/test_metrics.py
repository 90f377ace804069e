from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas_sweeps.train.metrics import Group, confusion, mean_recall, summarise

GROUPS: tuple[Group, ...] = ("head", "head", "medium", "tail")


@pytest.fixture
def answers() -> tuple[Tensor, Tensor]:
    """Labels and predictions of 400 images, some classes much harder than others."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    noise = torch.randint(0, 4, (400,), generator=draws)
    wrong = torch.rand(400, generator=draws) < torch.tensor([0.1, 0.3, 0.6, 0.9])[labels]
    return labels, torch.where(wrong, noise, labels)


def test_confusion_has_labels_in_rows_and_predictions_in_columns() -> None:
    table = confusion(torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert table.dtype == torch.int64


def test_summary_agrees_with_torchmetrics(answers: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.functional import classification  # all of scipy.signal comes with it

    labels, predictions = answers
    summary = summarise(confusion(labels, predictions, 4), (1, 1, 1, 1), GROUPS)

    def oracle(metric: str, average: str) -> Tensor:
        measure = getattr(classification, f"multiclass_{metric}")
        value: Tensor = measure(predictions, labels, num_classes=4, average=average)
        return value

    assert summary["accuracy_balanced"] == pytest.approx(float(oracle("accuracy", "micro")))
    assert summary["accuracy_macro"] == pytest.approx(float(oracle("accuracy", "macro")))
    assert summary["macro_f1"] == pytest.approx(float(oracle("f1_score", "macro")))
    assert summary["recall"] == pytest.approx(oracle("recall", "none").tolist())
    table = classification.multiclass_confusion_matrix(predictions, labels, num_classes=4)
    assert torch.equal(confusion(labels, predictions, 4), table)


def test_long_tailed_accuracy_is_the_expectation_over_subsampled_test_sets(
    answers: tuple[Tensor, Tensor],
) -> None:
    labels, predictions = answers
    counts = (100, 50, 20, 10)
    exact = summarise(confusion(labels, predictions, 4), counts, GROUPS)["accuracy_long_tailed"]
    draws, sampled = torch.Generator().manual_seed(1), []
    for _ in range(400):
        order = torch.randperm(400, generator=draws)
        chosen = torch.cat([order[labels[order] == k][:n] for k, n in enumerate(counts)])
        sampled.append(float((labels[chosen] == predictions[chosen]).double().mean()))
    assert exact == pytest.approx(sum(sampled) / len(sampled), abs=3e-3)


def test_long_tailed_accuracy_depends_on_the_profile_and_not_on_its_size() -> None:
    table = torch.tensor([[9, 1], [5, 5]])
    by_hand = (10 * 0.9 + 1 * 0.5) / 11
    for counts in ((10, 1), (1000.0, 100.0)):
        summary = summarise(table, counts, ("head", "tail"))
        assert summary["accuracy_long_tailed"] == pytest.approx(by_hand)
    assert summary["accuracy_balanced"] == pytest.approx(0.7)


def test_group_accuracies_are_mean_recalls_and_empty_groups_have_none() -> None:
    table = torch.tensor([[8, 2, 0], [0, 6, 4], [5, 5, 0]])
    summary = summarise(table, (1, 1, 1), ("head", "head", "tail"))
    assert summary["accuracy_head"] == pytest.approx(0.7)
    assert summary["accuracy_medium"] is None
    assert summary["accuracy_tail"] == 0.0


def test_a_class_without_images_is_no_part_of_the_mean_recall() -> None:
    table = torch.tensor([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    assert mean_recall(table) == pytest.approx((0.8 + 0.75) / 2)


def test_a_class_never_predicted_counts_as_zero_in_f1() -> None:
    summary = summarise(torch.tensor([[4, 0], [4, 0]]), (1, 1), ("head", "tail"))
    assert summary["macro_f1"] == pytest.approx((2 * 4 / 12) / 2)
