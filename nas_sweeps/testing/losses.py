"""What every supervised loss promises the loops, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nas_sweeps.losses import LOSSES, Progress, supervised_loss
from nas_sweeps.testing.tiny import assert_goes_on, heavy_imports, tiny_retrain

COUNTS = (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500)  # CIFAR-10, exp mu=0.1
LABELS = torch.tensor([0, 3, 5, 7, 8, 9])
EPOCHS = 10


def cosines() -> Tensor:
    """Float32 logits (6, 10) in (-1, 1), as a cosine classifier gives them."""
    i, j = torch.arange(6.0)[:, None], torch.arange(10.0)[None, :]
    return ((i + 2 * j).sin() + 0.5 * (3 * i - j).cos()) / 2


def made(
    name: str, epoch: int = 0, device: str = "cpu", counts: tuple[int, ...] = COUNTS
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss in this epoch, of 10."""
    at = torch.full((), epoch, dtype=torch.float64, device=device)
    return supervised_loss(name, counts, Progress(at, EPOCHS))


class LossContract:
    """Subclass it, parametrised by ``name``."""

    @pytest.mark.parametrize("epoch", [0, EPOCHS - 1])
    def test_extreme_logits_have_a_finite_loss_and_finite_gradients(
        self, name: str, epoch: int
    ) -> None:
        scale = 1.0 if LOSSES.get(name).head == "cosine" else 1e4
        logits = (scale * cosines()).requires_grad_()
        loss = made(name, epoch)(logits, LABELS)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.shape == ()
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert (gradient != 0).any()

    def test_half_precision_is_raised_to_float32(self, name: str) -> None:
        logits, loss = cosines().bfloat16(), made(name)
        assert loss(logits, LABELS).dtype == torch.float32
        assert loss(logits, LABELS) == loss(logits.float(), LABELS)

    def test_a_first_use_in_an_evaluation_spoils_no_training(self, name: str) -> None:
        loss = made(name)
        with torch.inference_mode():
            loss(cosines(), LABELS)
        logits = cosines().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits, LABELS), logits)
        assert gradient.abs().max() > 0

    def test_a_class_without_images_is_refused_where_counts_matter(self, name: str) -> None:
        empty = (COUNTS[0], 0, *COUNTS[2:])
        if LOSSES.get(name).needs_counts:
            with pytest.raises(ValueError, match=f"'{name}'.*class 1 has no training image"):
                made(name, counts=empty)
        else:
            assert made(name, counts=empty)(cosines(), LABELS).isfinite()

    def test_a_step_asks_no_tensor_for_its_value(self, name: str) -> None:
        """Tensors without values raise an error when one is asked for, where a GPU would wait."""
        loss = made(name, device="meta")(cosines().to("meta"), LABELS.to("meta"))
        assert loss.device.type == "meta"

    def test_a_tiny_retraining_goes_on_from_a_checkpoint(self, name: str) -> None:
        assert_goes_on(*(tiny_retrain(loss=name) for _ in range(3)))

    def test_planning_does_not_import_torch(self, name: str) -> None:
        module = LOSSES.get(name).__module__
        built = f"import {module}\nfrom nas_sweeps import losses\nlosses.LOSSES.build({name!r})"
        assert heavy_imports(built) == []
