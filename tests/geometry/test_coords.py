"""Oracles: ramps that hold their own coordinates, closed forms, there and back."""

import pytest
import torch

from kp.geometry.coords import (
    covisible,
    covisible_mask,
    inside,
    invert,
    jacobian,
    pixel_grid,
    resize_matrix,
    sample_at,
    sample_windows,
    stretch,
    translation,
    upsample,
    warp_image,
    warp_points,
)

SIZE = (37, 53)


def ramp(size, dtype=torch.float64):
    """An image (1, 2, H, W) whose every pixel holds its own x and y."""
    y = torch.arange(size[0], dtype=dtype)[:, None].expand(size)
    x = torch.arange(size[1], dtype=dtype)[None].expand(size)
    return torch.stack([x, y])[None]


@pytest.fixture
def H():
    return torch.tensor([[[1.1, 0.2, -3.0], [-0.1, 0.9, 4.0], [1e-3, -2e-3, 1.0]]], dtype=torch.float64)


def test_warp_points_by_hand():
    H = torch.tensor([[[2.0, 0, 1], [0, 3, -1], [0, 0.5, 1]]])
    points, in_front = warp_points(torch.tensor([[[1.0, 2.0], [1.0, -2.0], [1.0, -4.0]]]), H)
    assert torch.allclose(points[0, 0], torch.tensor([3 / 2, 5 / 2]))
    assert in_front.tolist() == [[True, False, False]]  # w = 2, 0, -1
    assert points.isfinite().all()


def test_there_and_back_is_identity(H):
    points = pixel_grid(SIZE, H)
    there, in_front = warp_points(points, H)
    back, _ = warp_points(there, invert(H))
    assert in_front.all()
    assert torch.allclose(back, points, atol=1e-9)


def test_a_warped_pixel_reads_its_own_source_coordinates(H):
    seen = warp_image(ramp(SIZE), H, (41, 47))
    points0, _ = warp_points(pixel_grid((41, 47), H), invert(H))
    read = seen.flatten(2).transpose(1, 2)
    whole = inside(points0, SIZE, border=0.5)  # half a pixel further out, the sampler mixes in what is outside
    assert whole.float().mean() > 0.5
    assert torch.allclose(read[whole], points0[whole], atol=1e-9)


def test_what_is_behind_the_camera_is_not_drawn():
    H_1to0 = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-0.05, 0, 1]]], dtype=torch.float64)  # w = 0 at x = 20
    seen = warp_image(torch.ones(1, 1, *SIZE, dtype=torch.float64), invert(H_1to0), SIZE)
    assert (seen[..., 21:] == 0).all()
    assert not covisible_mask(H_1to0, SIZE, SIZE)[..., 20:].any()


def test_an_image_reaches_half_a_pixel_beyond_its_outer_centres():
    points = torch.tensor([[[-0.5, 0.0], [-0.51, 0.0], [52.5, 36.5], [52.51, 0.0], [0.0, 36.51], [3.4, 9.0]]])
    assert inside(points, SIZE).tolist() == [[True, False, True, False, False, True]]
    assert inside(points, SIZE, border=4).tolist() == [[False, False, False, False, False, False]]
    assert inside(torch.tensor([[[3.5, 32.5]]]), SIZE, border=4).all()


def test_covisible_is_inside_and_in_front(H):
    points = torch.rand(1, 500, 2, dtype=torch.float64) * 200 - 70
    warped = torch.cat([points, torch.ones_like(points[..., :1])], -1)[0] @ H[0].T
    x, y = warped[:, 0] / warped[:, 2], warped[:, 1] / warped[:, 2]
    expected = (warped[:, 2] > 1e-6) & (x >= -0.5) & (x <= 52.5) & (y >= -0.5) & (y <= 36.5)
    assert 0 < expected.sum() < 500
    assert torch.equal(covisible(points, H, SIZE)[0], expected)


def test_sample_at_reads_a_ramp_and_nothing_outside():
    points = torch.tensor([[[3.25, 7.75], [0.0, 0.0], [52.0, 36.0], [80.0, 5.0]]], dtype=torch.float64)
    assert torch.allclose(
        sample_at(ramp(SIZE), points)[0].T, torch.tensor([[3.25, 7.75], [0, 0], [52, 36], [0, 0]]).double()
    )


def test_sample_windows_reads_a_ramp_where_a_change_brings_each_offset():
    """Window 0 as it is; window 1 turned by 90 degrees and twice as large: (1, 0) becomes (0, 2), (0, 1) (-2, 0)."""
    centres = torch.tensor([[20.5, 9.25], [30.0, 12.0]], dtype=torch.float64)
    changes = torch.tensor([[[1.0, 0], [0, 1]], [[0, -2], [2, 0]]], dtype=torch.float64)
    offsets = torch.tensor([[0.0, 0], [1, 0], [0, 1], [-3, 2]], dtype=torch.float64)
    found = torch.stack([sample_windows(ramp(SIZE)[:, i : i + 1], centres, changes, offsets) for i in (0, 1)], dim=2)
    expected = [[[20.5, 9.25], [30, 12]], [[21.5, 9.25], [30, 14]], [[20.5, 10.25], [28, 12]], [[17.5, 11.25], [26, 6]]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_sample_windows_pads_as_it_is_told():
    centre, change = torch.tensor([[-1.0, 5]]), torch.eye(2)[None]
    image, offsets = torch.ones(1, 1, *SIZE), torch.tensor([[0.0, 0], [3, 0]])
    assert sample_windows(image, centre, change, offsets)[:, 0].tolist() == [0, 1]
    assert sample_windows(image, centre, change, offsets, "border")[:, 0].tolist() == [1, 1]


def test_sample_at_and_warp_points_are_differentiable(H):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 9, 11, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(1, 5, 2, dtype=torch.float64) * 6 + 1.1).requires_grad_()
    assert torch.autograd.gradcheck(sample_at, (image, points))
    assert torch.autograd.gradcheck(lambda p, h: warp_points(p, h)[0], (points, H.clone().requires_grad_()))


@pytest.mark.parametrize("stride", [2, 8, 16])
def test_upsampled_pixel_x_reads_feature_x_over_stride(stride):
    drawn = upsample(ramp((4, 5)), stride)
    assert torch.allclose(drawn, ramp(drawn.shape[-2:]) / stride)


def test_resize_matrix_moves_edges_to_edges():
    M = resize_matrix((100, 200), (50, 300))
    edges = torch.tensor([[[-0.5, -0.5], [199.5, 99.5]]], dtype=torch.float64)
    assert torch.allclose(warp_points(edges, M[None])[0], torch.tensor([[[-0.5, -0.5], [299.5, 49.5]]]).double())


def test_translation_moves_points():
    moved, _ = warp_points(torch.zeros(1, 1, 2, dtype=torch.float64), translation(3, -2)[None])
    assert moved.tolist() == [[[3.0, -2.0]]]


def test_a_singular_homography_is_refused():
    with pytest.raises(ValueError, match="singular"):
        invert(torch.zeros(1, 3, 3))


def test_the_jacobian_against_finite_differences():
    H = torch.tensor([[[0.9, -0.4, 3], [0.3, 0.8, -2], [1e-3, -2e-3, 1]]], dtype=torch.float64)
    points = torch.tensor([[[10.0, 20.0], [50.0, 5.0]]], dtype=torch.float64)
    for axis, step in enumerate(1e-4 * torch.eye(2, dtype=torch.float64)):
        ahead, behind = (warp_points(points + sign * step, H)[0] for sign in (1, -1))
        assert torch.allclose(jacobian(H, points)[..., axis], (ahead - behind) / 2e-4, rtol=1e-6, atol=1e-6)


def test_a_shrinking_view_does_not_alias_when_asked():
    """Stripes two pixels wide, seen at half their size, are an even grey, and at their own size as they were."""
    stripes = (torch.arange(80) // 2 % 2).float().expand(1, 1, 60, 80).contiguous()
    half, same = torch.diag(torch.tensor([0.5, 0.5, 1]))[None], torch.eye(3)[None]
    aliased = warp_image(stripes, half, (30, 40))[..., 5:-5, 5:-5]
    filtered = warp_image(stripes, half, (30, 40), antialias=True)[..., 5:-5, 5:-5]
    assert aliased.std() > 0.4
    assert filtered.std() < 0.25
    assert torch.allclose(warp_image(stripes, same, (60, 80), antialias=True), stripes, atol=1e-3)


def test_stretched_values_are_bicubic_and_meet_the_corners():
    lattice = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(lattice, (31, 47), mode="bicubic", align_corners=True)
    drawn = stretch(lattice, (31, 47))
    assert torch.allclose(drawn, whole, atol=1e-5)
    assert torch.allclose(drawn[..., [0, 0, -1], [0, -1, 0]], lattice[..., [0, 0, -1], [0, -1, 0]], atol=1e-5)
