"""What the canvas says of corners and junctions, on scenes made by hand."""

import torch

from kp.data.synthetic.raster import polygon_coverage
from kp.data.synthetic.scene import Canvas, Kind, max_filter, pack

SIZE = (50, 60)
SQUARE = torch.tensor([[[10.0, 10], [30, 10], [30, 30], [10, 30]]])
LATER = SQUARE + 10


def painted(*squares, tones=(0.9, 0.2, 0.6)):
    canvas = Canvas(torch.full((1, 1, *SIZE), 0.5))
    for square, tone in zip(squares, tones, strict=False):
        change = canvas.paint(polygon_coverage(square, SIZE)[:, None], torch.tensor(tone).view(1, 1, 1, 1))
        canvas.mark(square, Kind.VERTEX, change=change)
    return canvas


def corners(scene):
    return sorted(map(tuple, scene.corners[scene.corner_mask].tolist()))


def test_what_a_later_layer_hides_is_no_corner():
    assert corners(painted(SQUARE, LATER).scene()) == sorted(
        [(10, 10), (30, 10), (10, 30), (20, 20), (40, 20), (40, 40), (20, 40)]
    )
    assert corners(painted(LATER, SQUARE).scene()) == sorted(
        [(10, 10), (30, 10), (30, 30), (10, 30), (40, 20), (40, 40), (20, 40)]
    )


def test_a_corner_at_the_edge_of_a_later_layer_is_hidden_too():
    beside = SQUARE + torch.tensor([20.8, 0.0])  # begins 0.8 px to the right of the first one's corners
    assert (30, 10) not in corners(painted(SQUARE, beside).scene())
    assert (30, 10) in corners(painted(SQUARE, beside + torch.tensor([3.0, 0.0])).scene())


def test_out_of_the_frame_there_are_no_corners():
    assert corners(painted(SQUARE + torch.tensor([40.0, 0.0])).scene()) == [(50, 10), (50, 30)]


def test_a_corner_without_contrast_is_none():
    assert corners(painted(SQUARE, tones=(0.55,)).scene()) == []
    assert len(corners(painted(SQUARE, tones=(0.65,)).scene())) == 4
    same = painted(SQUARE, LATER, tones=(0.9, 0.9))  # two squares that melt into one
    assert (20, 20) not in corners(same.scene())


def test_junctions_of_occlusion_are_ignored_and_nothing_else():
    ignore = painted(SQUARE, LATER).scene().ignore[0, 0]
    y, x = ignore.nonzero().float().mean(0), ignore.nonzero().float().std(0)
    assert torch.allclose(y, torch.tensor([25.0, 25.0]), atol=1)  # the outlines cross at (30, 20) and at (20, 30)
    assert ignore[20, 30]
    assert ignore[30, 20]
    assert not ignore[10, 10]
    assert not ignore[20, 20]
    assert not ignore[30, 30]
    assert x.max() < 8
    assert not painted(SQUARE).scene().ignore.any()


def test_a_later_layer_hides_junctions():
    scene = painted(SQUARE, LATER, torch.tensor([[[0.0, 0], [55, 0], [55, 45], [0, 45]]])).scene()
    assert not scene.ignore.any()


def test_textures_are_ignored_where_they_can_be_seen():
    canvas = Canvas(torch.full((1, 1, *SIZE), 0.5), ignored=True)
    canvas.paint(polygon_coverage(SQUARE, SIZE)[:, None], torch.tensor(0.9).view(1, 1, 1, 1))
    ignore = canvas.scene().ignore[0, 0]
    assert not ignore[12:29, 12:29].any()
    assert ignore[:8].all()


def test_a_shadow_takes_its_share_of_the_light():
    canvas = Canvas(torch.full((1, 1, *SIZE), 0.5))
    canvas.shade(polygon_coverage(SQUARE, SIZE)[:, None] * 0.4)
    assert torch.isclose(canvas.image[0, 0, 20, 20], torch.tensor(0.3))
    assert canvas.image[0, 0, 5, 5] == 0.5


def test_pack_keeps_every_corner_of_every_image():
    corners = torch.arange(12.0).view(2, 3, 2)
    kinds = torch.tensor([[0, 2, 0], [1, 0, 3]])
    packed, packed_kinds = pack(corners, kinds)
    assert packed_kinds.tolist() == [[2, 0], [1, 3]]
    assert packed[0, 0].tolist() == [2, 3]
    assert packed[1].tolist() == [[6, 7], [10, 11]]
    assert pack(corners, torch.zeros(2, 3, dtype=torch.long))[1].tolist() == [[0], [0]]


def test_the_max_filter_a_square():
    maps = torch.randn(2, 1, 13, 17, generator=torch.Generator().manual_seed(0))
    for side in (1, 3, 5, 9):
        pooled = torch.nn.functional.max_pool2d(maps, side, 1, side // 2)
        assert torch.equal(max_filter(maps, side), pooled)
