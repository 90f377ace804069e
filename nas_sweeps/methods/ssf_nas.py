"""SSF-NAS: FairDARTS whose losses see no labels (the paper, Eq 5, 6, 8 and 9).

The paper says that Barlow Twins "replaces the supervised loss"; in which step, and with which
projector and scale, is our reading, hence the knobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from nas_sweeps.losses.steps import BarlowTwins, Joint, StepLoss, Supervised
from nas_sweeps.methods.contract import register
from nas_sweeps.methods.fairdarts import FairDARTS
from nas_sweeps.trial import Barlow, Positive, Rate


@register("ssf_nas")
@dataclass(frozen=True, slots=True, kw_only=True)
class SSFNAS(FairDARTS):
    """Barlow Twins in place of cross-entropy; a linear probe on the side reads accuracy.

    Where no label reaches the weights, a linear classifier on detached features is trained
    beside them; under ``w_only`` the architecture's cross-entropy goes through it.
    """

    pretrain: ClassVar[bool] = True  # "searched and trained by SSF-NAS" (the paper, section IV)

    where: Literal["both", "w_only", "alpha_only", "joint"] = "both"  # which step it replaces
    joint_weight: Rate = 1.0  # ours; of where=joint: cross-entropy + joint_weight * barlow
    barlow_lambda: Rate = 0.0051  # barlowtwins main.py --lambd
    barlow_dim: Positive = 512  # ours: at batch 64 a wider output drowns in off-diagonal noise
    barlow_hidden: Positive = 512  # ours; barlowtwins main.py has 8192 for ImageNet
    barlow_centered: bool = True  # barlowtwins main.py; false is the paper's Eq 9 as printed
    barlow_scale: Rate | None = None  # None: 1/dim, else the loss starts near dim and clips
    probe_lr: Rate = 0.1  # ours; SGD, momentum 0.9, no weight decay

    @property
    def weight_loss(self) -> StepLoss:
        """The loss of the weight step, chosen by ``where``."""
        return {"joint": self._joint, "alpha_only": Supervised()}.get(self.where, self._barlow)

    @property
    def arch_loss(self) -> StepLoss:
        """The loss of the architecture step, chosen by ``where``, before the zero-one loss."""
        return {"joint": self._joint, "w_only": Supervised()}.get(self.where, self._barlow)

    @property
    def _joint(self) -> StepLoss:
        return Joint(other=self._barlow, weight=self.joint_weight)

    @property
    def _barlow(self) -> StepLoss:
        barlow = Barlow(
            lambda_=self.barlow_lambda,
            dim=self.barlow_dim,
            hidden=self.barlow_hidden,
            centered=self.barlow_centered,
            scale=self.barlow_scale,
        )
        return BarlowTwins(barlow=barlow, probe_lr=self.probe_lr)
