"""Gradients of the validation loss for the architecture, first and second order.

A loss is a function ``(weights, alphas) -> scalar`` of the tensors it is given, so weights other
than the model's own can be tried without touching the model. Whatever else it does (BatchNorm
statistics) is its own affair.

Here w are the weights and a the alphas. With w'(a) = w - lr * (momentum * buffer + dL_train/dw
+ weight_decay * w), one step of SGD not clipped, the second order is (the paper, Eq 3; DARTS
architect.py)

    d/da L_val(w'(a), a) = dL_val/da - lr * d2L_train/(da dw) . v,    v = dL_val/dw at w'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

LossAt = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def first_order(
    val_loss: LossAt, weights: Sequence[Tensor], alphas: Sequence[Tensor]
) -> list[Tensor]:
    """dL_val/da at the present weights. ``alphas`` must require gradients.

    The loss is given the weights without their gradients, so that none is computed.
    """
    return _gradients(val_loss([w.detach() for w in weights], alphas), alphas)


def second_order(
    train_loss: LossAt,
    val_loss: LossAt,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    *,
    buffers: Sequence[Tensor | None],
    lr: float | Tensor,
    momentum: float,
    weight_decay: float,
    hvp: Literal["fd", "exact"] = "fd",
    radius: float = 0.01,
) -> list[Tensor]:
    """The gradient through one unrolled step of SGD on ``train_loss``.

    ``weights`` and ``alphas`` are leaves that require gradients; they are read, never written,
    and a weight that a loss does not use counts as one with gradient zero. ``buffers`` are SGD's
    momentum buffers, None before its first step; ``lr`` is a number or a scalar tensor.

    ``fd`` is DARTS' central difference of dL_train/da at w +- radius * v/|v|: two more passes.
    On networks with ReLU and max pooling it is far from the true product. No value is read
    back to the host. ``exact``
    differentiates twice: about double the memory, no more passes.
    """
    exact = hvp == "exact"
    fixed = alphas if exact else [a.detach() for a in alphas]
    slopes = _gradients(train_loss(weights, fixed), weights, create_graph=exact)
    unrolled = _sgd_step(weights, slopes, buffers, lr, momentum, weight_decay)
    gradients = _gradients(val_loss(unrolled, alphas), [*alphas, *unrolled])
    direct, v = gradients[: len(alphas)], gradients[len(alphas) :]
    if exact:
        mixed = _exact_product(slopes, v, alphas)
    else:
        mixed = _difference(train_loss, weights, alphas, v, radius)
    return [g - lr * h for g, h in zip(direct, mixed, strict=True)]


def _sgd_step(
    weights: Sequence[Tensor],
    slopes: Sequence[Tensor],
    buffers: Sequence[Tensor | None],
    lr: float | Tensor,
    momentum: float,
    weight_decay: float,
) -> list[Tensor]:
    """What SGD would make of ``weights``, as new leaves."""
    # A call for all weights at once: on a GPU each would else be five kernels of a microsecond.
    fixed = [w.detach() for w in weights]
    step = torch._foreach_add([s.detach() for s in slopes], torch._foreach_mul(fixed, weight_decay))
    moving = [(at, buffer) for at, buffer in zip(step, buffers, strict=True) if buffer is not None]
    if moving:
        before = torch._foreach_mul([buffer for _, buffer in moving], momentum)
        torch._foreach_add_([at for at, _ in moving], before)
    torch._foreach_mul_(step, lr)
    return [w.requires_grad_() for w in torch._foreach_sub(fixed, step)]


def _exact_product(
    slopes: Sequence[Tensor], v: Sequence[Tensor], alphas: Sequence[Tensor]
) -> list[Tensor]:
    """d(dL_train/dw . v)/da by differentiating the gradient itself."""
    pairs = [(s, x) for s, x in zip(slopes, v, strict=True) if s.requires_grad]
    if not pairs:  # a gradient that does not depend on alpha
        return [torch.zeros_like(a) for a in alphas]
    product = torch.stack([(s * x).sum() for s, x in pairs]).sum()
    return _gradients(product, alphas)


def _difference(
    train_loss: LossAt,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    v: Sequence[Tensor],
    radius: float,
) -> list[Tensor]:
    """The same by a central difference whose two points are ``radius`` away from w."""
    length = get_total_norm(v).double()
    # DARTS architect.py: R = radius / |v|. Where v is 0 any step gives the difference 0.
    epsilon = torch.where(length == 0, radius, radius / length)

    fixed = [w.detach() for w in weights]

    def slope_at(step: Tensor) -> list[Tensor]:
        moved = torch._foreach_add(fixed, torch._foreach_mul(list(v), step.to(fixed[0].dtype)))
        return _gradients(train_loss(moved, alphas), alphas)

    above, below = slope_at(epsilon), slope_at(-epsilon)
    return [(p - n) / (2 * epsilon) for p, n in zip(above, below, strict=True)]


def _gradients(loss: Tensor, of: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Gradients, zero for what the loss does not use."""
    return list(
        torch.autograd.grad(
            loss, list(of), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    )
