"""Random numbers for a batch, all from one generator, so that a seed decides everything."""

import torch
from torch import Tensor

from kp.geometry import Size, stretch


class Draw:
    """Draws for the B images of a batch, on the device of the generator."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.batch, self.generator, self.device = batch, generator, generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) between low and high."""
        return low + (high - low) * torch.rand(self.batch, *shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) of mean 0 and deviation 1."""
        return torch.randn(self.batch, *shape, generator=self.generator, device=self.device)

    def integer(self, low: int, high: int) -> int:
        """One number for the whole batch, from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator, device=self.device))

    def field(self, size: Size, cells: Size) -> Tensor:
        """A smooth field (B, 1, H, W) in about [-1, 1], made of so many ``cells`` (rows, columns)."""
        return stretch(self.uniform(-1, 1, 1, *cells), size)
