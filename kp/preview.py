"""A sheet of labelled pairs, for a person to judge the synthetic world by."""

import numpy as np
import torch

from kp.draw import RED, draw_points, grey_picture, sheet
from kp.geometry import Size
from kp.pairs import view_pairs
from kp.shapes import FAMILIES, render


def pair_sheet(seed: int = 0, size: Size = (240, 320), columns: int = 2) -> np.ndarray:
    """``columns`` pairs of each family, a family a row, corners in red circles: an RGB array (H, W, 3) of uint8."""
    rows = []
    for name in FAMILIES:
        generator = torch.Generator().manual_seed(seed)
        pairs = view_pairs(columns, size, generator, render=lambda *a, name=name: render(*a, families=(name,)))
        pair = next(pairs)
        views = ((pair.image0, pair.corners0, pair.corner_mask0), (pair.image1, pair.corners1, pair.corner_mask1))
        rows.append([draw_points(grey_picture(i[b]), c[b][m[b]], RED, 4) for b in range(columns) for i, c, m in views])
    return sheet(rows)
