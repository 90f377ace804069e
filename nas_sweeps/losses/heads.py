"""Classifiers on pooled features. Shapes: B batch, F features, K classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.losses.contract import Head


class CosineClassifier(nn.Linear):
    """Cosines between features (B, F) and class vectors (LDAM resnet_cifar.py, NormedLinear)."""

    cosine_scale = 1.0  # of the cosines; 1 where the loss scales them itself

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits (B, K) in [-1, 1], times ``cosine_scale``."""
        cosines_BK = F.linear(F.normalize(features_BF), F.normalize(self.weight))
        return cosines_BK if self.cosine_scale == 1 else self.cosine_scale * cosines_BK


class EquiangularClassifier(nn.Module):
    """Cosines between features (B, F) and the fixed corners of a simplex, which never learn.

    The class vectors are the columns of sqrt(K / (K - 1)) U (I - 1 1^T / K), U (F, K) with
    orthonormal columns drawn once: of unit length, and any two at cosine -1 / (K - 1), the
    farthest that K vectors can be apart. LT-DARTS (arXiv 2411.06098) after Yang et al. 2022, arXiv
    2203.09081.

    Raises:
        ValueError: one class, or more classes than features.
    """

    cosine_scale = 1.0
    vectors_KF: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        if not 2 <= classes <= features:
            raise ValueError(
                f"classifier etf takes two classes or more, and as many features: here are "
                f"{classes} and {features}; raise channels, or choose another classifier"
            )
        drawn_FK = torch.randn(features, classes, dtype=torch.float64)
        basis_FK = torch.linalg.qr(drawn_FK)[0]
        centred_KK = torch.eye(classes, dtype=torch.float64) - 1 / classes
        vectors_FK = math.sqrt(classes / (classes - 1)) * basis_FK @ centred_KK
        self.register_buffer("vectors_KF", vectors_FK.T.contiguous().float())

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits (B, K) in [-1, 1], times ``cosine_scale``."""
        cosines_BK = F.linear(F.normalize(features_BF), self.vectors_KF)
        return cosines_BK if self.cosine_scale == 1 else self.cosine_scale * cosines_BK


class ScaledClassifier(nn.Module):
    """A classifier, and a factor for the logit of each class (LWS, arXiv 1910.09217, Eq 6)."""

    def __init__(self, classifier: nn.Module, classes: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.scale_K = nn.Parameter(torch.ones(classes))

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits_BK: Tensor = self.classifier(features_BF) * self.scale_K
        return logits_BK


def cosine_classifier(classifier: nn.Linear) -> CosineClassifier:
    """A classifier of the same size that gives cosines: no bias, the same weights."""
    cosine = CosineClassifier(classifier.in_features, classifier.out_features, bias=False)
    cosine.weight = classifier.weight
    return cosine


def make_head(kind: Head, classifier: nn.Module) -> nn.Module:
    """A classifier of a kind, of the same size as ``classifier``, which is linear."""
    assert isinstance(classifier, nn.Linear)
    if kind == "etf":
        return EquiangularClassifier(classifier.in_features, classifier.out_features)
    return cosine_classifier(classifier) if kind == "cosine" else classifier


def scale_cosines(module: nn.Module, scale: float) -> None:
    """Set the scale of every classifier in a network that gives cosines."""
    for part in module.modules():
        if isinstance(part, CosineClassifier | EquiangularClassifier):
            part.cosine_scale = scale


def begin_anew(classifier: nn.Module) -> None:
    """Draw a classifier's weights again, on the CPU by torch's default, as for a new network."""
    inner = classifier.classifier if isinstance(classifier, ScaledClassifier) else classifier
    assert isinstance(inner, nn.Linear)
    drawn = nn.Linear(inner.in_features, inner.out_features, bias=inner.bias is not None)
    inner.load_state_dict(drawn.state_dict())
