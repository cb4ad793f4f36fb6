"""Convolutions that do not know which way up an image is: kernels that are the same when turned or mirrored."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Symmetric(nn.Module):
    """Weights (O, I, k, k), k being ``side`` -> their mean over the eight turns and mirrorings of the square, as large.

    With such kernels, maps of a turned image are the turned maps of the image (Cohen and Welling, ICML 2016, for the
    group of the square and maps that carry no direction). At run time it costs nothing: see :func:`settle`.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        each = torch.eye(side**2).view(side**2, side, side)
        turned = sum(each.rot90(turn, (1, 2)) for turn in range(4))
        self.register_buffer("mean", ((turned + turned.flip(2)) / 8).flatten(1), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return (weight.flatten(2) @ self.mean).view_as(weight)


def symmetrise(module: nn.Module) -> None:
    """Make every convolution in a module symmetric, from now on and while it trains; pointwise ones are already."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1):
            parametrize.register_parametrization(conv, "weight", Symmetric(conv.kernel_size[0]))


def settle(module: nn.Module) -> None:
    """Replace symmetric convolutions by plain ones with the same weights: they can no longer be trained as such."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and parametrize.is_parametrized(conv):
            parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)
