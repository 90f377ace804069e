"""Accuracies of a classifier, all from one confusion matrix. Shapes: K classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Group = Literal["head", "medium", "tail"]


def confusion(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """How often class k (row) was called class l (column): (K, K) int64."""
    pairs = labels.long() * num_classes + predictions.long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def mean_recall(confusion_KK: Tensor) -> float:
    """The mean recall of the classes that have images, a fraction in [0, 1].

    It is called macro or balanced accuracy (Brodersen et al., ICPR 2010, for two classes): what the
    plain accuracy would come to if each of these classes had equally many images.
    """
    table = confusion_KK.double().cpu()
    support_K = table.sum(1)
    there_K = support_K > 0
    return float((table.diagonal()[there_K] / support_K[there_K]).mean())


def summarise(
    confusion_KK: Tensor, lt_test_counts: Sequence[float], groups: Sequence[Group]
) -> dict[str, Any]:
    """Accuracies and macro F1 as fractions in [0, 1]; every class must have test images.

    ``accuracy_balanced`` is the plain accuracy on the given test set. ``accuracy_long_tailed``
    weighs the recall of each class by ``lt_test_counts``: the exact expectation over long-tailed
    subsets of the test set, free of the noise of drawing one. ``accuracy_head``, ``_medium`` and
    ``_tail`` are the mean recalls of the classes in a group, None where a group is empty.
    """
    table = confusion_KK.double().cpu()
    right_K, support_K = table.diagonal(), table.sum(1)
    assert bool((support_K > 0).all()), "a class without test images has no recall"
    recall_K = right_K / support_K
    lt_K = torch.tensor(lt_test_counts, dtype=torch.float64)
    f1_K = 2 * right_K / (support_K + table.sum(0))
    return {
        "accuracy_balanced": float(right_K.sum() / support_K.sum()),
        "accuracy_long_tailed": float((lt_K * recall_K).sum() / lt_K.sum()),
        "accuracy_macro": mean_recall(confusion_KK),
        "accuracy_head": _group_accuracy(recall_K, groups, "head"),
        "accuracy_medium": _group_accuracy(recall_K, groups, "medium"),
        "accuracy_tail": _group_accuracy(recall_K, groups, "tail"),
        "macro_f1": float(f1_K.mean()),
        "recall": recall_K.tolist(),
    }


def _group_accuracy(recall_K: Tensor, groups: Sequence[Group], group: Group) -> float | None:
    inside = [k for k, g in enumerate(groups) if g == group]
    return float(recall_K[inside].mean()) if inside else None
