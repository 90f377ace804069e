"""What a supernet is trained on: batches, and the model that computes a step's loss from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_sweeps.data.augment import barlow_views, training_batch
from nas_sweeps.data.mixing import Mixing, on_pairs, partner_of
from nas_sweeps.data.splits import DataSplits
from nas_sweeps.losses import Head, Seen, StepLoss
from nas_sweeps.losses.heads import make_head
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.trial import Augment, Policy

OnLogits = Callable[[Tensor, Tensor], Tensor]  # logits (B, K) and labels (B,) to a scalar


class Batch(NamedTuple):
    """The augmented inputs of one step; what its loss does not read is left out."""

    images: tuple[Tensor, ...]  # (B, 3, H, W) once
    views: tuple[Tensor, ...]  # (B, 3, H, W) twice
    labels_B: Tensor
    # With the class counts of the images it was drawn from; of mixed images by their shares.
    supervised: OnLogits
    share: Tensor | None = None  # of mixed images, that of their own labels

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.images + self.views

    def accuracy(self, logits_BK: Tensor) -> Tensor:
        """The share of right predictions; of a mixed image both labels count by their shares."""
        called_B = logits_BK.detach().argmax(1)
        right = (called_B == self.labels_B).double().mean()
        if self.share is None:
            return right
        other = (called_B == partner_of(self.labels_B)).double().mean()
        return torch.lerp(other, right, self.share.double())


def make_batch(
    bundle: DataSplits,
    index: Tensor,
    loss: StepLoss,
    supervised: OnLogits,
    augment: Augment,
    draws: torch.Generator,
    cutout: int = 0,
    mixing: Mixing | None = None,
    policy: Policy = "none",
) -> Batch:
    """Augment the training images at ``index`` for a loss; views are never mixed."""
    raw, mean, std = bundle.images[index], bundle.mean, bundle.std
    images: tuple[Tensor, ...] = ()
    views: tuple[Tensor, ...] = ()
    if loss.reads_images:
        images = (training_batch(raw, augment, mean, std, cutout, draws, policy),)
    share = None
    if images and mixing is not None:
        mixed, share = mixing(images[0], draws)
        images, supervised = (mixed,), on_pairs(supervised, share)
    if loss.reads_views:
        views = barlow_views(raw, mean, std, draws)
    return Batch(
        tuple(x.to(memory_format=torch.channels_last) for x in images),
        tuple(x.to(memory_format=torch.channels_last) for x in views),
        bundle.labels[index],
        supervised,
        share,
    )


class SearchModel(nn.Module):
    """A supernet and the modules of its losses. One call is one loss, so it can be functional.

    The modules are children beside ``supernet``, under the names that the losses give them.
    """

    def __init__(self, supernet: Supernet, head: Head, losses: Iterable[StepLoss]) -> None:
        super().__init__()
        self.supernet = supernet
        supernet.classifier = make_head(head, supernet.classifier)
        for loss in losses:
            for name, module in loss.heads(supernet.feature_dim).items():
                if name not in self.heads():
                    self.add_module(name, module)

    def forward(
        self, loss: StepLoss, batch: Batch, edge_weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss, and the pooled features (B, F) of each input it was computed from."""
        features = [self.supernet.features(x, *edge_weights) for x in batch.inputs]
        once = len(batch.images)
        seen = Seen(
            images=tuple(features[:once]),
            views=tuple(features[once:]),
            labels_B=batch.labels_B,
            classify=self.supernet.classifier,
            supervised=batch.supervised,
            heads=self.heads(),
        )
        return loss(seen), features

    def heads(self) -> dict[str, nn.Module]:
        """The losses' modules by name."""
        return {name: module for name, module in self.named_children() if name != "supernet"}
