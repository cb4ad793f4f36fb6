"""Pairs: labels, homography, masks and pixels of the two views tell the same story."""

import pytest
import torch

from kp.data.pairs import PrefetchedPairs, view_pairs
from kp.data.synthetic.scene import Scene
from kp.geometry.coords import inside, sample_at, warp_image, warp_points

SIZE = (96, 128)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_scene(batch, size, generator):
    """A smooth picture without a corner: interpolation costs it nothing."""
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    image = (0.5 + 0.25 * torch.sin(x / 15) + 0.25 * torch.cos(y / 12)).expand(batch, 1, *size)
    corners = torch.rand(batch, 20, 2, generator=generator) * 90 + 30
    return Scene(image, corners, torch.ones(batch, 20, dtype=torch.long), image > 0.9)


def test_the_homography_agrees_with_the_pixels():
    pair = next(view_pairs(6, SIZE, generator(), render=smooth_scene, photometric=0.0))
    seen = warp_image(pair.image0, pair.H_0to1, SIZE)
    shared1 = pair.swap().shared0(border=2)
    assert shared1.float().mean() > 0.2
    assert (seen - pair.image1).abs()[shared1].max() < 0.02


def test_the_homography_agrees_with_the_corners():
    pair = next(view_pairs(6, SIZE, generator()))
    both = pair.corner_mask0 & pair.corner_mask1
    assert both.sum() > 20
    assert torch.allclose(warp_points(pair.corners0, pair.H_0to1)[0][both], pair.corners1[both], atol=0.01)
    assert inside(pair.corners0, SIZE)[pair.corner_mask0].all()


def test_valid_pixels_show_the_scene_and_nothing_else():
    def white(batch, size, generator):
        scene = smooth_scene(batch, size, generator)
        return Scene(torch.ones_like(scene.image), scene.corners, scene.kinds, scene.ignore)

    wild = {"max_translation": 0.5, "max_scale": 2.0}
    pairs = view_pairs(16, SIZE, generator(), render=white, photometric=0.0, **wild)
    pair = next(pairs)
    assert 0.2 < pair.valid0.float().mean() < 0.99
    # Drawn again with nothing around the scene, a pixel that is not wholly of the scene would not be white.
    from kp.geometry.homography import RandomHomography

    look = RandomHomography(SIZE, padding="zeros", generator=generator(), **wild)
    draw = generator()
    canvas = white(16, (144, 192), draw).image
    look.generator, look.strength = draw, torch.rand(16, generator=draw)
    torch.rand(16, generator=draw)  # which pairs differ in what
    assert torch.all(look(canvas)[pair.valid0] > 0.999)


def test_what_is_ignored_moves_with_the_scene():
    pair = next(view_pairs(6, SIZE, generator(), render=smooth_scene, photometric=0.0))
    agree = pair.ignore1 == (pair.image1 > 0.9)
    assert pair.ignore1.any()
    assert agree.float().mean() > 0.98
    assert torch.equal(pair.swap().ignore0, pair.ignore1)


def test_some_pairs_hardly_differ_and_some_do():
    H = next(view_pairs(200, (24, 32), generator(), render=smooth_scene, photometric=0.0)).H_0to1
    centre = torch.tensor([[[15.5, 11.5], [25.5, 11.5]]]).expand(200, -1, -1)
    seen = warp_points(centre, H)[0]
    factor = (seen[:, 1] - seen[:, 0]).norm(dim=1) / 10
    assert ((factor - 1).abs() < 0.1).float().mean() > 0.2
    assert factor.min() < 0.6
    assert factor.max() > 1.6


def test_swap_is_its_own_inverse_and_shares_the_same_area():
    pair = next(view_pairs(4, SIZE, generator()))
    twice = pair.swap().swap()
    assert torch.equal(twice.image0, pair.image0)
    assert torch.allclose(twice.H_0to1 / twice.H_0to1[:, 2:, 2:], pair.H_0to1 / pair.H_0to1[:, 2:, 2:], atol=1e-3)
    assert torch.equal(pair.swap().corners0, pair.corners1)
    identity = pair.to("cpu")
    assert torch.equal(identity.valid1, pair.valid1)


def test_the_same_seed_gives_the_same_batches():
    first, again, other = (view_pairs(3, SIZE, generator(s)) for s in (4, 4, 5))
    for _ in range(2):
        a, b, c = next(first), next(again), next(other)
        for name in ("image0", "image1", "H_0to1", "corners1", "valid0"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert not torch.equal(a.image0, c.image0)


def test_the_two_views_differ_in_light():
    still = {"max_translation": 0.0, "max_scale": 1.0, "max_rotation": 0.0, "max_shear": 0.0, "max_perspective": 0.0}
    pair = next(view_pairs(8, SIZE, generator(), **still))
    assert (pair.image0 - pair.image1).abs().mean() > 0.02
    assert torch.allclose(pair.H_0to1, torch.eye(3).expand(8, 3, 3), atol=1e-4)


def test_points_are_read_where_they_are():
    pair = next(view_pairs(4, SIZE, generator(), render=smooth_scene, photometric=0.0))
    both = pair.corner_mask0 & pair.corner_mask1
    at0, at1 = sample_at(pair.image0, pair.corners0)[:, 0], sample_at(pair.image1, pair.corners1)[:, 0]
    valid = (sample_at(pair.valid0.float(), pair.corners0) == 1)[:, 0] & (
        sample_at(pair.valid1.float(), pair.corners1) == 1
    )[:, 0]
    assert (both & valid).sum() > 10
    assert (at0 - at1).abs()[both & valid].max() < 0.02


def test_some_pairs_differ_in_the_light_only_and_some_in_the_view_only():
    def apart(**shares):
        pair = next(view_pairs(24, SIZE, generator(), render=smooth_scene, **shares))
        corners = torch.tensor([[[0.0, 0.0], [SIZE[1] - 1, 0], [0, SIZE[0] - 1], [SIZE[1] - 1, SIZE[0] - 1]]])
        moved = warp_points(corners.expand(24, -1, -1), pair.H_0to1)[0] - corners
        return (moved - moved.mean(1, keepdim=True)).norm(dim=2).mean(1), pair

    both, pair = apart()
    assert (both < 7).float().mean() < 0.3
    light, _ = apart(illumination_only=1.0)
    assert (light < 7).all()
    view, same = apart(viewpoint_only=1.0)
    assert torch.equal(view, both)  # the views are drawn alike
    seen = warp_image(same.image0, same.H_0to1, SIZE), warp_image(pair.image0, pair.H_0to1, SIZE)
    shared = same.swap().shared0(border=4)
    errors = [((s - p.image1).abs() * shared).sum() / shared.sum() for s, p in zip(seen, (same, pair), strict=True)]
    assert errors[0] < 0.5 * errors[1]


def drawn(seed, steps=3):
    draw = generator(seed)
    return PrefetchedPairs(view_pairs(steps * 4, SIZE, draw, render=smooth_scene), draw, steps)


def test_pairs_drawn_at_once_are_shared_out_to_the_steps():
    at_once = next(view_pairs(12, SIZE, generator(5), render=smooth_scene))
    batches = [batch for batch, _ in zip(drawn(5), range(3), strict=False)]
    images = torch.cat([batch.image0 for batch in batches])
    assert all(len(batch.image0) == len(batch.H_0to1) == len(batch.corner_mask1) == 4 for batch in batches)
    assert torch.equal(images.flatten(1).sum(1).sort()[0], at_once.image0.flatten(1).sum(1).sort()[0])
    assert len(images.flatten(1).unique(dim=0)) == 12


@pytest.mark.parametrize("before", range(5))
def test_prefetched_pairs_go_on_with_the_very_next_batch(before):
    first, second = drawn(5), drawn(6)
    for _ in range(before):
        next(first)
    second.load_state(*first.state())
    for _ in range(4):
        assert torch.equal(next(first).image1, next(second).image1)


def test_one_step_at_a_time_is_the_pairs_themselves():
    pairs = view_pairs(4, SIZE, generator(5), render=smooth_scene)
    for one, other, _ in zip(pairs, drawn(5, steps=1), range(2), strict=False):
        assert torch.equal(one.image1, other.image1)
