"""Coverage against brute force: a shape is looked at in 256 places of every pixel."""

import numpy as np
import pytest
import torch

from kp.data.synthetic.random import Draw
from kp.data.synthetic.raster import (
    Cells,
    board_tones,
    convex_polygons,
    crossings,
    ellipse_coverage,
    polygon_coverage,
    stroke_outline,
)
from kp.geometry.coords import warp_points

SIZE, SAMPLES = (40, 44), 16


def sampled(inside, size=SIZE, softness=1.0):
    """The share of a square of ``softness`` pixels about each pixel centre for which inside(x, y) is true."""
    steps = ((np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5) * softness
    y = np.arange(size[0])[:, None, None, None] + steps[:, None]
    x = np.arange(size[1])[None, :, None, None] + steps
    return inside(x, y).mean((2, 3))


def in_polygon(vertices):
    """Even-odd rule, edge by edge."""

    def inside(x, y):
        odd = np.zeros(np.broadcast(x, y).shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(vertices, np.roll(vertices, -1, 0), strict=True):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return odd

    return inside


def random_polygon(rng, count):
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    return np.stack([14 * np.cos(angle), 9 * np.sin(angle)], -1) + rng.uniform(18, 22, 2)


@pytest.mark.parametrize("softness", [1.0, 4.0])
@pytest.mark.parametrize("count", [3, 4, 6])
def test_polygons_cover_their_area(count, softness):
    rng = np.random.default_rng(count)
    for _ in range(3):
        vertices = random_polygon(rng, count)
        cover = polygon_coverage(torch.tensor(vertices)[None], SIZE, softness)[0].numpy()
        assert np.abs(cover - sampled(in_polygon(vertices), softness=softness)).max() < 0.04
        x, y = vertices.T
        area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
        assert abs(cover.sum() - area) < 0.01 * area


def test_polygons_that_are_not_convex_go_round_backwards_or_leave_the_patch():
    arrow = np.array([[5.0, 5], [30, 20], [5, 35], [15, 20]])
    for vertices in (arrow, arrow[::-1].copy(), arrow + np.array([25, 10]), arrow - np.array([12.3, 14.7])):
        cover = polygon_coverage(torch.tensor(vertices)[None], SIZE)[0].numpy()
        assert np.abs(cover - sampled(in_polygon(vertices))).max() < 0.04


def test_level_edges_and_repeated_vertices_are_exact():
    square = torch.tensor([[[10.25, 10.5], [20.25, 10.5], [20.25, 10.5], [20.25, 20.75], [10.25, 20.75]]])
    cover = polygon_coverage(square, SIZE)[0]
    assert cover[11:20, 11:20].eq(1).all()
    assert torch.allclose(cover[15, [9, 10, 20, 21]], torch.tensor([0, 0.25, 0.75, 0]), atol=1e-3)
    assert torch.allclose(cover[[10, 21], 15], torch.tensor([0.0, 0.25]), atol=1e-3)
    tilted = square + torch.tensor([[0.0, 1e-5], [0, 0], [0, 0], [0, 0], [0, 0]])
    assert torch.allclose(polygon_coverage(tilted, SIZE)[0], cover, atol=1e-3)


def test_far_coordinates_lose_little():
    wide = torch.tensor([[[470.3, 3.1], [479.9, 5.2], [471.2, 9.7]]])
    near = wide - torch.tensor([440.0, 0.0])
    far = polygon_coverage(wide, (12, 484))[0, :, 440:]
    assert (far - polygon_coverage(near, (12, 44))[0]).abs().max() < 2e-3


def test_ellipses_cover_their_area():
    def inside(x, y):
        u, v = (x - 20.2) * np.cos(0.7) + (y - 18.7) * np.sin(0.7), (y - 18.7) * np.cos(0.7) - (x - 20.2) * np.sin(0.7)
        return (u / 15) ** 2 + (v / 6) ** 2 < 1

    shape = torch.tensor([[20.2, 18.7]]), torch.tensor([[15.0, 6.0]]), torch.tensor([0.7])
    cover = ellipse_coverage(*shape, SIZE)[0].numpy()
    assert np.abs(cover - sampled(inside)).max() < 0.08  # to first order
    assert abs(cover.sum() / (np.pi * 90) - 1) < 0.01
    soft = ellipse_coverage(*shape, SIZE, 3.0)[0].numpy()
    assert abs(soft.sum() / (np.pi * 90) - 1) < 0.05
    assert ((soft > 0.1) & (soft < 0.9)).sum() > 2 * ((cover > 0.1) & (cover < 0.9)).sum()


def test_a_stroke_is_a_rectangle_about_its_axis():
    outline = stroke_outline(torch.tensor([[5.0, 5]]), torch.tensor([[15.0, 5]]), torch.tensor([4.0]))
    assert outline.tolist() == [[[5, 3], [15, 3], [15, 7], [5, 7]]]


def test_cells_tile_the_canvas_where_their_origins_say():
    cells = Cells((30, 50), (8, 12), (5, 7))
    values = torch.arange(2.0 * cells.count).view(2, cells.count)
    patches = values.view(-1, 1, 1) + torch.zeros(1, *cells.cell)
    tiled = cells.tile(patches)
    assert tiled.shape == (2, 1, 30, 50)
    assert torch.equal(tiled, cells.expand(values))
    for i, (x, y) in enumerate(cells.origins(values).long().tolist()):
        shown = tiled[0, 0, max(y, 0) : y + 8, max(x, 0) : x + 12]
        assert (shown == i).all()
        assert shown.numel()


def test_random_polygons_are_convex_and_no_larger_than_said():
    draw = Draw(50, torch.Generator().manual_seed(0))
    for _ in range(10):
        outline, corners = convex_polygons(torch.full((50, 3), 7.0), draw)
        edge = outline.roll(-1, 2) - outline
        after = edge.roll(-1, 2)
        assert (edge[..., 0] * after[..., 1] - edge[..., 1] * after[..., 0] > -1e-3).all()
        assert outline.norm(dim=-1).max() <= 7.001
        assert corners.any(2).all()


def test_crossings_by_hand():
    a, b = torch.tensor([[[0.0, 0]]]), torch.tensor([[[10.0, 10]]])
    point, crosses = crossings(a, b, torch.tensor([[[0.0, 8]]]), torch.tensor([[[8.0, 0]]]))
    assert point.tolist() == [[[4, 4]]]
    assert crosses.all()
    assert not crossings(a, b, torch.tensor([[[0.0, 30]]]), torch.tensor([[[30.0, 0]]]))[1].any()
    assert not crossings(a, b, torch.tensor([[[0.0, 1]]]), torch.tensor([[[10.0, 11]]]))[1].any()


def test_a_board_in_perspective_shows_the_cell_that_each_pixel_sees():
    H = torch.tensor([[[6.0, 1.0, 4.0], [-0.5, 5.0, 6.0], [0.02, 0.01, 1.0]]])
    tones = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    board = board_tones(H, tones, SIZE)[0, 0].numpy()

    def tone(x, y):
        points = torch.tensor(np.stack(np.broadcast_arrays(x, y), -1).reshape(1, -1, 2), dtype=torch.float32)
        u, v = warp_points(points, H.inverse())[0][0].floor().long().unbind(-1)
        return tones[0, v.clamp(0, 3), u.clamp(0, 4)].view(np.broadcast(x, y).shape).numpy()

    on_board = sampled(lambda x, y: np.abs(tone(x, y)) >= 0) > 0
    difference = np.abs(board - sampled(tone))[on_board]
    assert np.median(difference) < 1e-4
    assert np.quantile(difference, 0.99) < 0.1
