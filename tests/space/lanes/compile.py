"""Compile the kernels of real steps for a chip that is not here.

``python -m tests.space.lanes.compile [--every] [--capability 80]`` prints a line for every variant,
and at the end how many there are.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_sweeps.space.lanes import warm
from nas_sweeps.space.network import Network
from nas_sweeps.space.precision import precision
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.space.supernet import Supernet

Step = Callable[[], object]


def search_step(channels: int, batch: int, dtype: torch.dtype) -> Step:
    """Both steps of a first-order search and a test, at the sizes of the paper's CIFAR-10."""
    net = Supernet(channels, 8, 10).to("meta", dtype)
    net.form = "triton"

    def run() -> None:
        x, y = images(batch, dtype)
        alphas = [torch.empty(14, 8, device="meta", requires_grad=True) for _ in "nr"]
        weights = [alpha.softmax(-1) for alpha in alphas]
        state = {name: p.detach() for name, p in net.named_parameters()}
        loss = F.cross_entropy(torch.func.functional_call(net, state, (x, *weights)).float(), y)
        torch.autograd.grad(loss, alphas)
        loss = F.cross_entropy(net(x, *(w.detach() for w in weights)).float(), y)
        torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            net.eval()(x, *weights)
        net.train()

    return run


def retrain_step(
    name: str, channels: int, layers: int, batch: int, drop_path: float, dtype: torch.dtype
) -> Step:
    """A training step and a test of a genotype's network."""
    net = Network(PUBLISHED[name], channels, layers, 10).to("meta", dtype)
    net.form = "triton"

    def run() -> None:
        x, y = images(batch, dtype)
        loss = F.cross_entropy(net(x, drop_path)[0].float(), y)
        torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            net.eval()(x)
        net.train()

    return run


def images(batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.empty(batch, 3, 32, 32, device="meta", dtype=dtype)
    return x, torch.empty(batch, device="meta", dtype=torch.int64)


def wanted(every: bool) -> list[warm.Variant]:
    """All variants of the steps that README names; or each kernel once."""
    found: set[warm.Variant] = set()
    for kind in ("tf32", "bf16", "fp32") if every else ("tf32",):
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        steps = [search_step(16, 64, dtype)]
        steps += [retrain_step("FairDARTS_a", 36, 20, 96, 0.2, dtype)]
        if every:
            steps += [retrain_step("DARTS_V2", 16, 8, 64, 0.0, dtype)]
        with precision("fp32" if kind == "fp32" else "tf32", torch.device("cpu")):
            for step in steps:
                found |= set(warm.variants(step))
    variants = sorted(found, key=str)
    if every:
        return variants
    # Those that multiply, where there is a choice: they are the hardest to compile.
    variants.sort(key=lambda v: ("DOT", True) in v.keywords)
    return list({v.kernel: v for v in variants}.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    def tell(done: int, one: warm.Compiled) -> None:
        print(
            f"{done:4d} {one.variant.name:20s} {one.seconds:6.1f} s {one.shared:7d} bytes",
            flush=True,
        )

    chosen = wanted(options.every)
    done = warm.compile_all(chosen, warm.Target(options.capability), options.workers, tell)
    kernels = {one.variant.kernel for one in done}
    print(f"{len(done)} variants of {len(kernels)} kernels for sm_{options.capability}")


if __name__ == "__main__":
    main()
