"""Sizes of one cell for one batch, and how they are cut into programs of kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

# P fits into registers up to 64 channels; below 16, tensor cores cannot multiply.
DOT_CHANNELS = (16, 64)
PIXELS = 16  # of a tile at least: what tensor cores multiply at once
VALUES = 2048  # of a program that stays at its pixels
PROGRAMS = 1056  # eight on each of 132 multiprocessors: with fewer, a reduction is not chunked
TRITON_TYPE = {torch.float32: tl.float32, torch.float64: tl.float64}


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two that is not below n >= 1."""
    return 1 << (n - 1).bit_length()


def sums_of(maps: torch.dtype) -> torch.dtype:
    """Sums, moments and weights are float64 for float64 maps, else float32."""
    return torch.float64 if maps == torch.float64 else torch.float32


def products_of(maps: torch.dtype) -> str:
    """How Triton multiplies: as ``precision`` has set torch to multiply.

    float32 without TF32 is three TF32 products, which keep float32's digits.
    """
    if maps == torch.float64:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


@dataclass(frozen=True)
class Shape:
    """Sizes of a cell; the inputs have ``height`` x ``width`` pixels."""

    batch: int
    channels: int
    height: int
    width: int
    stride: int
    nodes: int  # living ones: the output has nodes * channels channels
    maps: torch.dtype

    @property
    def sums(self) -> torch.dtype:
        return sums_of(self.maps)

    @property
    def out_height(self) -> int:
        return cdiv(self.height, self.stride)

    @property
    def out_width(self) -> int:
        return cdiv(self.width, self.stride)

    @property
    def pixels(self) -> int:
        return self.batch * self.out_height * self.out_width

    @property
    def pixels_in(self) -> int:
        return self.batch * self.height * self.width

    @property
    def dot(self) -> bool:
        """Whether kernels multiply by P themselves, all channels at once."""
        low = 1 if triton.knobs.runtime.interpret else DOT_CHANNELS[0]
        power = power_of_2(self.channels) == self.channels
        return power and low <= self.channels <= DOT_CHANNELS[1]

    @property
    def block(self) -> int:
        """Channels of a program: all of them, or blocks that waste little."""
        whole = power_of_2(self.channels)
        if self.dot or (whole <= DOT_CHANNELS[1] and 3 * whole <= 4 * self.channels):
            return whole
        return min(16, whole)

    @property
    def blocks(self) -> int:
        return cdiv(self.channels, self.block)

    @property
    def rows(self) -> int:
        """Pixels of a program that stays at its pixels."""
        return max(PIXELS, VALUES // self.block)

    @property
    def tiles(self) -> int:
        return cdiv(self.pixels, self.rows)

    def chunks(self, lanes: int) -> int:
        """Programs a lane in reductions: up to eight tiles each where there are enough."""
        return cdiv(self.tiles, max(1, min(8, self.tiles * lanes // PROGRAMS)))

    @property
    def tile(self) -> dict[str, int]:
        """Pixels of a program that moves along rows: BP, of images that lie BW apart."""
        wide = power_of_2(self.out_width)
        return {"BW": wide, "BP": max(PIXELS, wide)}

    @property
    def tile_rows(self) -> int:
        """Tiles of four rows in an image."""
        return cdiv(self.out_height, 4)

    @property
    def row_tiles(self) -> int:
        """Tiles of four rows in the batch."""
        return cdiv(self.batch, self.tile["BP"] // self.tile["BW"]) * self.tile_rows
