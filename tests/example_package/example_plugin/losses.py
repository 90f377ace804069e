"""Cross-entropy, re-weighted by effective numbers in the last fifth of the training (DRW)."""

from dataclasses import dataclass
from typing import ClassVar

from nas_sweeps.losses import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred(Loss):
    needs_counts: ClassVar[bool] = True

    def prepare(self, counts):
        import torch
        from torch.nn.functional import cross_entropy

        from nas_sweeps.losses.functions import class_weights, constant

        effective_K = constant(class_weights("effective", counts))

        def loss(logits_BK, labels_B, progress):
            late = progress.epoch >= 0.8 * progress.epochs  # a tensor: no if
            weights_K = torch.where(late, effective_K(logits_BK), 1.0)
            return cross_entropy(logits_BK, labels_B, weights_K)

        return loss
