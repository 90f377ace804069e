"""Deterministic inputs, weights and checksums behind ``goldens.json``.

Weights depend on a tensor's shape alone, so any implementation of a layer can be compared
with the golden values. Everything is float64.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_MODULUS = 2147483647


def u(n: int, off: int = 0) -> Tensor:
    """``n`` numbers in [0, 1): u(off), u(off + 1), ..."""
    k = torch.arange(off, off + n, dtype=torch.int64)
    quadratic = (k * k % _MODULUS) * 1103515245 % _MODULUS
    mixed = (quadratic + 12345 * k % _MODULUS + 67890) % _MODULUS
    return mixed.double() / _MODULUS


def inp(B: int, C: int, S: int, off: int = 0) -> Tensor:
    """A batch (B, C, S, S) of about unit variance."""
    return ((2 * u(B * C * S * S, off) - 1) * math.sqrt(3)).reshape(B, C, S, S)


def fill(module: nn.Module) -> nn.Module:
    """Overwrite every parameter of ``module`` by its shape, in float64; returns the module."""
    module.double()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                weight = layer.weight
                bound = math.sqrt(3 / weight[0].numel())
                weight.copy_(((2 * u(weight.numel()) - 1) * bound).reshape(weight.shape))
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
                layer.weight.fill_(1)
                layer.bias.zero_()
    return module


def checksum(t: Tensor) -> tuple[float, float, float]:
    """(sum, sum of t_k * sin(k) with k from 1, L2 norm) over the elements in C order."""
    flat = t.detach().double().reshape(-1)
    k = torch.arange(1, flat.numel() + 1, dtype=torch.float64)
    return flat.sum().item(), (flat * k.sin()).sum().item(), flat.norm().item()


def alphas(n_ops: int) -> tuple[Tensor, Tensor]:
    """The golden architecture parameters (normal, reduce), each (14, n_ops)."""
    e = torch.arange(14, dtype=torch.float64)[:, None]
    o = torch.arange(n_ops, dtype=torch.float64)[None, :]
    return (e + 3 * o + 1).sin(), (e - 2 * o).cos()


@cache
def goldens() -> dict[str, Any]:
    """All golden values, by section."""
    path = Path(__file__).with_name("goldens.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
