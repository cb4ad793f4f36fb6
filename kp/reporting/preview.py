"""A sheet of labelled pairs, for a person to judge the synthetic world by."""

import numpy as np
import torch

from kp.data.pairs import ViewPair, view_pairs
from kp.data.synthetic.render import FAMILIES, render
from kp.geometry.coords import Size
from kp.reporting.images import RED, caption, draw_points, grey_picture, sheet, tint


def pair_sheet(seed: int = 0, size: Size = (240, 320), columns: int = 2) -> np.ndarray:
    """``columns`` pairs of each family, a family a row: an RGB array (H, W, 3) of uint8.

    Red circles are corners; what is ignored, junctions of occlusion and textures, is blue in the second view.
    """
    rows = []
    for name in FAMILIES:
        generator = torch.Generator().manual_seed(seed)
        pair = next(view_pairs(columns, size, generator, render=lambda *a, name=name: render(*a, families=(name,))))
        pictures = [picture for b in range(columns) for picture in _pair_pictures(pair, b)]
        rows.append([caption(pictures[0], name), *pictures[1:]])
    return sheet(rows)


def _pair_pictures(pair: ViewPair, b: int) -> tuple[np.ndarray, np.ndarray]:
    view0 = draw_points(grey_picture(pair.image0[b]), pair.corners0[b][pair.corner_mask0[b]], RED, 4)
    view1 = tint(grey_picture(pair.image1[b]), pair.ignore1[b])
    return view0, draw_points(view1, pair.corners1[b][pair.corner_mask1[b]], RED, 4)
