"""The losses' formulas, classifiers that suit them, and Barlow Twins with its projector.

Shapes: B batch, K classes, F features, N batch of views, D projector outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.losses.contract import Head
from nas_sweeps.trial import Barlow

OnLogits = Callable[[Tensor, Tensor], Tensor]  # logits (B, K) and labels (B,) to a scalar

EFFECTIVE_BETA = 0.9999  # LDAM cifar_train.py; Cui et al. 2019, arXiv 1901.05555
FOCAL_GAMMA = 1.0  # LDAM losses.py; Lin et al. 2017 prefer 2 for detection
GHM_BINS = 10  # Li et al. 2019, arXiv 1811.05181: the released GHM-C
LDAM_MARGIN = 0.5  # LDAM losses.py: the margin of the rarest class
LDAM_SCALE = 30.0  # LDAM losses.py: s


def class_weights(name: str, counts: Sequence[int]) -> list[float]:
    """Class weights that sum to K: ``inv_freq``, ``inv_sqrt`` or ``effective`` (number)."""
    if name == "effective":  # (1 - beta) / (1 - beta^n), Cui et al. 2019
        raw = [(1 - EFFECTIVE_BETA) / -math.expm1(n * math.log(EFFECTIVE_BETA)) for n in counts]
    else:
        raw = [n ** {"inv_freq": -1.0, "inv_sqrt": -0.5}[name] for n in counts]
    return [w * len(counts) / sum(raw) for w in raw]


def ldam_margins(counts: Sequence[int]) -> list[float]:
    """Margins proportional to n^(-1/4), the largest being 0.5 (LDAM losses.py)."""
    return [LDAM_MARGIN * (min(counts) / n) ** 0.25 for n in counts]


def weighted(weights: Sequence[float]) -> OnLogits:
    """Cross-entropy as torch weighs it: divided by the sum of the images' weights."""
    weights_K = constant(weights)
    return lambda logits_BK, labels_B: F.cross_entropy(logits_BK, labels_B, weights_K(logits_BK))


def ldam(margins: Sequence[float]) -> OnLogits:
    """Cross-entropy of scaled cosines, that of the own class less its margin (LDAM losses.py)."""
    margins_K = constant(margins)

    def loss(cosines_BK: Tensor, labels_B: Tensor) -> Tensor:
        classes_K = torch.arange(cosines_BK.shape[1], device=labels_B.device)
        own_BK = (labels_B[:, None] == classes_K) * margins_K(cosines_BK)
        return F.cross_entropy(LDAM_SCALE * (cosines_BK - own_BK), labels_B)

    return loss


def logit_adjusted(counts: Sequence[int]) -> OnLogits:
    """Logits plus log priors: Menon et al. 2021, arXiv 2007.07314, at tau = 1."""
    priors_K = constant([math.log(n / sum(counts)) for n in counts])
    return lambda logits_BK, labels_B: F.cross_entropy(logits_BK + priors_K(logits_BK), labels_B)


def constant(values: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """The values with the device and dtype of a given tensor, copied to each device once."""

    @lru_cache
    def on(device: torch.device, dtype: torch.dtype) -> Tensor:
        with torch.inference_mode(False):  # else a first use there spoils it for training
            return torch.tensor(values, device=device, dtype=dtype)

    return lambda like: on(like.device, like.dtype)


def focal(logits_BK: Tensor, labels_B: Tensor, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Mean of (1 - p_y)^gamma times cross-entropy (LDAM losses.py)."""
    ce_B = F.cross_entropy(logits_BK, labels_B, reduction="none")
    return ((1 - (-ce_B).exp()) ** gamma * ce_B).mean()


def ghm(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """GHM-C on g = 1 - p_y: an image weighs N / (images in its bin of g * non-empty bins).

    The released code's form, which divides by the non-empty bins; the paper's (arXiv
    1811.05181) divides by all of them.
    """
    ce_B = F.cross_entropy(logits_BK, labels_B, reduction="none")
    g_B = 1 - (-ce_B.detach()).exp()
    bins_B = (g_B * GHM_BINS).long().clamp(0, GHM_BINS - 1)
    member_BM = bins_B[:, None] == torch.arange(GHM_BINS, device=bins_B.device)
    filled_M = member_BM.sum(0)
    return (ce_B / filled_M[bins_B]).sum() / (filled_M > 0).sum()


class CosineClassifier(nn.Linear):
    """Cosines between features (B, F) and class vectors (LDAM resnet_cifar.py, NormedLinear)."""

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits (B, K) in [-1, 1]."""
        return F.linear(F.normalize(features_BF), F.normalize(self.weight))


def cosine_classifier(classifier: nn.Linear) -> CosineClassifier:
    """A classifier of the same size whose logits suit ``ldam``: no bias, the same weights."""
    cosine = CosineClassifier(classifier.in_features, classifier.out_features, bias=False)
    cosine.weight = classifier.weight
    return cosine


def make_head(kind: Head, classifier: nn.Linear) -> nn.Linear:
    """The classifier that a loss needs, of the same size as ``classifier``."""
    return cosine_classifier(classifier) if kind == "cosine" else classifier


class Projector(nn.Sequential):
    """Three linear layers, BatchNorm and ReLU between, no biases (barlowtwins main.py)."""

    def __init__(self, in_dim: int, hidden: int, dim: int) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim, bias=False),
        )


def barlow_twins(z_a_ND: Tensor, z_b_ND: Tensor, *, lambda_: float, centered: bool) -> Tensor:
    """The Barlow Twins loss of two views' projections (the paper, Eq 8 and 9): about D at start.

    ``centered`` subtracts the batch mean first, as barlowtwins main.py does through BatchNorm;
    Eq 9 as printed does not, and is then near 0 for collapsed (constant) projections. Computed
    in float32 at least, autocast or not.
    """
    with torch.autocast(z_a_ND.device.type, enabled=False):
        a_ND, b_ND = (_unit_columns(full(z), centered) for z in (z_a_ND, z_b_ND))
        c_DD = a_ND.T @ b_ND
        diagonal_D = c_DD.diagonal()
        off_DD = c_DD - diagonal_D.diag()
        return (1 - diagonal_D).square().sum() + lambda_ * off_DD.square().sum()


def _unit_columns(z_ND: Tensor, centered: bool) -> Tensor:
    if centered:
        z_ND = z_ND - z_ND.mean(0)
    return F.normalize(z_ND, dim=0)


def full(x: Tensor) -> Tensor:
    """At least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class BarlowHead(nn.Module):
    """The projector and the scaled loss, so that it stands beside a cross-entropy."""

    def __init__(self, features: int, barlow: Barlow) -> None:
        super().__init__()
        self.barlow = barlow
        self.projector = Projector(features, barlow.hidden, barlow.dim)

    def forward(self, features_a_BF: Tensor, features_b_BF: Tensor) -> Tensor:
        """Each view has BatchNorm statistics of its own, as in barlowtwins main.py."""
        z_a, z_b = self.projector(features_a_BF), self.projector(features_b_BF)
        barlow = self.barlow
        loss = barlow_twins(z_a, z_b, lambda_=barlow.lambda_, centered=barlow.centered)
        return loss * (barlow.scale or 1 / barlow.dim)
