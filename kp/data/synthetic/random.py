"""Random numbers for a batch of images. All come from one generator, so a seed fixes all of them."""

from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import TypeVar

import torch
from torch import Tensor

from kp.geometry.coords import Size, stretch

T = TypeVar("T")


class Draw:
    """Random numbers for the B images of a batch, on the device of the generator."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.batch, self.generator, self.device = batch, generator, generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers (B, *shape) from ``low`` to ``high``."""
        return low + (high - low) * torch.rand(self.batch, *shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers (B, *shape) of mean 0 and standard deviation 1."""
        return torch.randn(self.batch, *shape, generator=self.generator, device=self.device)

    def integer(self, low: int, high: int) -> int:
        """One integer for the whole batch, from ``low`` to ``high``, both included."""
        return self._host.randint(low, high)

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """The values in a random order, one order for the whole batch."""
        return self._host.sample(values, len(values))

    @cached_property
    def _host(self) -> Random:
        """A Python generator for single numbers. Read one by one from a GPU, each would make the host wait."""
        return Random(int(torch.randint(2**62, (), generator=self.generator, device=self.device)))

    def field(self, size: Size, cells: Size) -> Tensor:
        """A smooth random field (B, 1, H, W) in about [-1, 1], through random values on a lattice of ``cells``."""
        return stretch(self.uniform(-1, 1, 1, *cells), size)
