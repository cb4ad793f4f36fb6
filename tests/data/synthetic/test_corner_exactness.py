"""Rendered corners against an oracle that shares no code with the renderer.

The normal run checks some tens of corners of each kind. The long run (marker ``exact``) checks as many as the
environment variable KP_CORNERS says, by default 200, and prints their errors:
``KP_CORNERS=10000 python -m pytest -m exact -s tests/data/synthetic/test_corner_exactness.py``.
"""

import os

import numpy as np
import pytest
import torch
from corner_oracle import isolated, locate

from kp.data.synthetic.render import render
from kp.data.synthetic.scene import Kind

SIZE = (240, 320)
FEW, MANY = 20, int(os.environ.get("KP_CORNERS", 200))  # corners of each kind
WHERE = {
    Kind.VERTEX: ("polygon", "polygons"),
    Kind.CROSSING: ("checkerboard",),
    Kind.END: ("lines",),
    Kind.LINE_CROSSING: ("lines", "star"),
}


def errors(kind, families, wanted):
    """Pixels between rendered corners of a kind and the oracle's, and the share of corners that the oracle found."""
    batch = 16 if wanted > FEW else 3
    generator, found, asked = torch.Generator().manual_seed(0), [], 0
    while len(found) < wanted:
        scene = render(batch, SIZE, generator, families)
        for image, corners, kinds in zip(scene.image[:, 0].numpy(), scene.corners, scene.kinds, strict=True):
            real = kinds != Kind.NONE
            corners, kinds = corners[real].numpy(), kinds[real].numpy()
            alone = isolated(corners, kinds, SIZE, 12, 10) & (kinds == kind)
            for corner in corners[alone]:
                start = corner + np.random.default_rng(asked).uniform(-1.4, 1.4, 2)  # up to 2 px away
                place, is_there = locate(image, start, kind.name.lower().replace("_", " "))
                asked += 1
                if is_there:
                    found.append(np.linalg.norm(place - corner))
        assert asked < 20 * wanted + 1000, "the oracle does not find the corners"
    return np.array(found), len(found) / asked


def check(kind, wanted):
    found, share = errors(kind, WHERE[kind], wanted)
    median, most = np.quantile(found, [0.5, 0.9])
    print(f"{kind.name}: {len(found)} corners, median {median:.3f} px, 90 % {most:.3f} px, {share:.0%} found")
    assert median < 0.1
    assert most < 0.3
    assert share > 0.4


@pytest.mark.parametrize("kind", list(WHERE), ids=lambda kind: kind.name)
def test_corners_are_where_their_labels_are(kind):
    check(kind, FEW)


@pytest.mark.exact
@pytest.mark.parametrize("kind", list(WHERE), ids=lambda kind: kind.name)
def test_many_corners_are_where_their_labels_are(kind):
    check(kind, MANY)
