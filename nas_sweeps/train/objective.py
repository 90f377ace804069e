"""What a supernet is trained on: batches, and the objectives computed from them.

``supervised`` is a loss on labels, ``barlow`` is Barlow Twins on two views of unlabelled images
(the paper, Eq 8 and 9), ``joint`` is the first plus a weight times the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_sweeps.data.augment import barlow_views, training_batch
from nas_sweeps.data.bundle import Bundle
from nas_sweeps.methods.contract import Objective
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.losses import Projector, barlow_twins, cosine_classifier
from nas_sweeps.trial import Augment, Barlow

Supervised = Callable[[Tensor, Tensor], Tensor]  # of logits (B, K) and labels (B,)


class Batch(NamedTuple):
    """The augmented inputs of one step; what the objective does not read is left out."""

    images: tuple[Tensor, ...]  # (B, 3, H, W) once, for a supervised loss
    views: tuple[Tensor, ...]  # (B, 3, H, W) twice, for Barlow Twins
    labels_B: Tensor
    supervised: Supervised  # with the class counts of the images it was drawn from

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.images + self.views


def make_batch(
    bundle: Bundle,
    index: Tensor,
    objective: Objective,
    supervised: Supervised,
    augment: Augment,
    draws: torch.Generator,
    cutout: int = 0,
) -> Batch:
    """Augment the training images at ``index`` for an objective."""
    raw, mean, std = bundle.images[index], bundle.mean, bundle.std
    images: tuple[Tensor, ...] = ()
    views: tuple[Tensor, ...] = ()
    if objective != "barlow":
        images = (training_batch(raw, augment, mean, std, cutout, draws),)
    if objective != "supervised":
        views = barlow_views(raw, mean, std, draws)
    return Batch(
        tuple(x.to(memory_format=torch.channels_last) for x in images),
        tuple(x.to(memory_format=torch.channels_last) for x in views),
        bundle.labels[index],
        supervised,
    )


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


class SearchModel(nn.Module):
    """A supernet with its objectives. One call is one loss, so that it can be functional."""

    def __init__(
        self,
        supernet: Supernet,
        barlow: Barlow | None,
        joint_weight: float,
        cosine: bool,
    ) -> None:
        super().__init__()
        self.supernet = supernet
        if cosine:
            supernet.classifier = cosine_classifier(supernet.classifier)
        self.joint_weight = joint_weight
        self.barlow = BarlowHead(supernet.feature_dim, barlow) if barlow else None

    def forward(
        self, objective: Objective, batch: Batch, edge_weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss, and the pooled features (B, F) of each input it was computed from."""
        features = [self.supernet.features(x, *edge_weights) for x in batch.inputs]
        loss = features[0].new_zeros(())
        if objective != "barlow":
            logits = self.supernet.classifier(features[0])
            loss = loss + batch.supervised(logits, batch.labels_B)
        if objective != "supervised":
            assert self.barlow is not None
            scale = self.joint_weight if objective == "joint" else 1.0
            loss = loss + scale * self.barlow(*features[-2:])
        return loss, features
