"""The losses' formulas, and Barlow Twins with its projector.

Shapes: B batch, K classes, F features, N batch of views, D projector outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.losses.constants import EFFECTIVE_BETA, FOCAL_GAMMA, LDAM_MARGIN, LDAM_SCALE
from nas_sweeps.progress import Progress
from nas_sweeps.trial import Barlow

OnLogits = Callable[[Tensor, Tensor], Tensor]  # logits (B, K) and labels (B,) to a scalar

GHM_BINS = 10  # Li et al. 2019, arXiv 1811.05181: the released GHM-C


def class_weights(name: str, counts: Sequence[int], beta: float = EFFECTIVE_BETA) -> list[float]:
    """Class weights that sum to K: ``inv_freq``, ``inv_sqrt`` or ``effective`` (number)."""
    if name == "effective":  # (1 - beta) / (1 - beta^n), Cui et al. 2019
        raw = [(1 - beta) / -math.expm1(n * math.log(beta)) for n in counts]
    else:
        raw = [n ** {"inv_freq": -1.0, "inv_sqrt": -0.5}[name] for n in counts]
    return [w * len(counts) / sum(raw) for w in raw]


def deferred(weights: Sequence[float], after: float) -> Callable[[Tensor, Progress], Tensor]:
    """Ones (K,) until a share of the epochs is over, then the weights, like a given tensor.

    DRW: Cao et al. 2019, arXiv 1906.07413, whose cifar_train.py changes the weights at epoch 160
    of 200.
    """
    weights_K = constant(weights)

    def at(like: Tensor, progress: Progress) -> Tensor:
        late = progress.epoch >= after * progress.epochs
        return torch.where(late, weights_K(like), 1.0)

    return at


def ldam_margins(counts: Sequence[int], largest: float = LDAM_MARGIN) -> list[float]:
    """Margins proportional to n^(-1/4), the largest being that of the rarest class."""
    return [largest * (min(counts) / n) ** 0.25 for n in counts]


def smoothing_by_label(counts: Sequence[int], head: float, tail: float, shape: str) -> list[float]:
    """How much of a label each class gives away: ``head`` the largest one, ``tail`` the smallest.

    With r = (n - n_min) / (n_max - n_min) and d = head - tail: concave tail + d sin(r pi/2),
    linear tail + d r, convex head + d sin((3 + r) pi/2) (Zhong et al. 2021, arXiv 2104.00466, Eq
    4 and 5, and MiSLAS methods.py). Equal counts have r = 0.
    """
    span = max(max(counts) - min(counts), 1)
    shares = [(n - min(counts)) / span for n in counts]
    rise: Callable[[float], float] = {
        "concave": lambda r: math.sin(r * math.pi / 2),
        "linear": lambda r: r,
        "convex": lambda r: 1 + math.sin((3 + r) * math.pi / 2),
    }[shape]
    return [tail + (head - tail) * rise(r) for r in shares]


def label_aware_smoothed(smoothing: Sequence[float]) -> OnLogits:
    """Mean of (1 - e_y) times cross-entropy plus e_y times that with uniform labels.

    MiSLAS methods.py; Eq 3 of arXiv 2104.00466 shares e_y among the other K - 1 classes instead.
    """
    smoothing_K = constant(smoothing)

    def loss(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        log_p_BK = logits_BK.log_softmax(1)
        given_B = smoothing_K(logits_BK)[labels_B]
        own_B = log_p_BK.gather(1, labels_B[:, None]).squeeze(1)
        return -torch.lerp(own_B, log_p_BK.mean(1), given_B).mean()

    return loss


def weighted(weights: Sequence[float]) -> OnLogits:
    """Cross-entropy as torch weighs it: divided by the sum of the images' weights."""
    weights_K = constant(weights)
    return lambda logits_BK, labels_B: F.cross_entropy(logits_BK, labels_B, weights_K(logits_BK))


def ldam_logits(
    margins: Sequence[float], scale: float = LDAM_SCALE
) -> Callable[[Tensor, Tensor], Tensor]:
    """Scaled cosines, that of the own class less its margin (LDAM losses.py)."""
    margins_K = constant(margins)

    def logits(cosines_BK: Tensor, labels_B: Tensor) -> Tensor:
        classes_K = torch.arange(cosines_BK.shape[1], device=labels_B.device)
        own_BK = (labels_B[:, None] == classes_K) * margins_K(cosines_BK)
        return scale * (cosines_BK - own_BK)

    return logits


def logit_adjusted(counts: Sequence[int], tau: float = 1.0) -> OnLogits:
    """Logits plus tau times log priors: Menon et al. 2021, arXiv 2007.07314, Eq 10."""
    priors_K = constant([tau * math.log(n / sum(counts)) for n in counts])
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
