"""Rendered corners against an oracle that shares no code with the renderer.

As many corners of every kind as the environment variable KP_CORNERS says, by default some hundreds:
``KP_CORNERS=10000 python -m pytest tests/test_corner_exactness.py -s`` prints the errors of ten thousand.
"""

import os

import numpy as np
import pytest
import torch
from corner_oracle import isolated, locate

from kp.data.synthetic.render import render
from kp.data.synthetic.scene import Kind

SIZE = (240, 320)
WANTED = int(os.environ.get("KP_CORNERS", 200))
WHERE = {
    Kind.VERTEX: ("polygon", "polygons"),
    Kind.CROSSING: ("checkerboard",),
    Kind.END: ("lines",),
    Kind.LINE_CROSSING: ("lines", "star"),
}


def errors(kind, families, wanted):
    """Pixels between rendered corners of a kind and the oracle's, and the share of corners that it found."""
    generator, found, asked = torch.Generator().manual_seed(0), [], 0
    while len(found) < wanted:
        scene = render(16, SIZE, generator, families)
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


@pytest.mark.parametrize("kind", list(WHERE), ids=lambda kind: kind.name)
def test_corners_are_where_they_are_said_to_be(kind):
    found, share = errors(kind, WHERE[kind], WANTED)
    median, most = np.quantile(found, [0.5, 0.9])
    print(f"{kind.name}: {len(found)} corners, median {median:.3f} px, 90 % {most:.3f} px, {share:.0%} found")
    assert median < 0.1
    assert most < 0.3
    assert share > 0.4
