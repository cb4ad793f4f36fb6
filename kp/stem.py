"""The stem: learnt maps at full resolution, from as wide a surrounding as there are levels."""

import itertools

from kornia.filters import blur_pool2d
from torch import Tensor, nn
from torch.nn import functional as F

from kp.geometry import upsample

_CHANNELS = (12, 16, 24)  # of the levels: at full resolution, at half of it, at a quarter
_REACH = 2  # pixels of the blur before every second one is kept


class Stem(nn.Module):
    """Maps (B, inputs, H, W) -> learnt maps (B, 12, H, W); H - 1 and W - 1 are multiples of 2 ** (levels - 1).

    With one of ``levels`` these are two convolutions, which see 5x5 pixels; with two or three a U-Net (Ronneberger et
    al., MICCAI 2015), which sees 17x17 or 45x45. What is shrunk is blurred before (Zhang, ICML 2019), so that the maps
    of a moved image are nearly the moved maps. With ``deep`` channels, features of the coarsest level's stride are
    added there. Raises ValueError on other numbers of levels.
    """

    def __init__(self, inputs: int, levels: int = 1, deep: int = 0) -> None:
        super().__init__()
        if levels not in range(1, len(_CHANNELS) + 1):
            raise ValueError(f"a stem has 1 to {len(_CHANNELS)} levels, not {levels}")
        widths = _CHANNELS[:levels]
        self.down = nn.ModuleList(_conv(*pair) for pair in zip((inputs, *widths), widths, strict=False))
        self.up = nn.ModuleList(_conv(width, width) for width in widths)
        self.lateral = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.deep = nn.Conv2d(deep, widths[-1], 1) if deep else None
        self.channels = widths[0]

    def forward(self, maps: Tensor, deep: Tensor | None = None) -> Tensor:
        levels = [self.down[0](maps)]
        for down in self.down[1:]:
            levels.append(down(_halve(levels[-1])))
        found = levels[-1] if self.deep is None else levels[-1] + self.deep(deep)
        found = self.up[-1](found)
        for up, lateral, level in zip(self.up[-2::-1], self.lateral[::-1], levels[-2::-1], strict=True):
            found = up(level + upsample(lateral(found), 2))
        return found


def _halve(maps: Tensor) -> Tensor:
    """Every second pixel of maps (B, C, 2 h - 1, 2 w - 1), blurred: (B, C, h, w), feature i centred on pixel 2 i."""
    edges = F.pad(maps, (_REACH,) * 4, mode="replicate")
    return blur_pool2d(edges, 2 * _REACH + 1, 2)[..., 1:-1, 1:-1]


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate", bias=False),
        nn.BatchNorm2d(outputs),
        nn.Hardswish(),
    )
