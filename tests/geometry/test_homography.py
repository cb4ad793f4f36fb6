"""RandomHomography as a Kornia augmentation: the matrix agrees with pixels, keypoints and masks; every draw is sane."""

import pytest
import torch
from kornia.augmentation import AugmentationSequential

from kp.geometry.coords import inside, sample_at, warp_points
from kp.geometry.homography import RandomHomography, compose, random_homographies

SIZE = (60, 80)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ramps(batch):
    x, y = torch.arange(80.0).expand(60, 80), torch.arange(60.0)[:, None].expand(60, 80)
    return torch.stack([x, y]).expand(batch, 2, 60, 80)


def test_images_keypoints_and_masks_follow_the_matrix():
    augment = AugmentationSequential(
        RandomHomography(generator=generator()), data_keys=["image", "keypoints", "mask"], same_on_batch=False
    )
    points = torch.rand(16, 30, 2) * torch.tensor([60.0, 40.0]) + 10
    image, moved, mask = augment(ramps(16).clone(), points, torch.ones(16, 1, *SIZE))
    by_hand = torch.cat([points, torch.ones(16, 30, 1)], -1) @ augment.transform_matrix.transpose(1, 2)
    assert torch.allclose(moved, by_hand[..., :2] / by_hand[..., 2:], atol=1e-3)
    seen = inside(moved, SIZE, border=1.5)
    assert seen.sum() > 100
    assert (sample_at(image, moved).transpose(1, 2) - points)[seen].abs().max() < 1e-2  # a ramp reads its own place
    assert (sample_at(mask, moved)[:, 0][seen] > 0.999).all()


def test_the_inverse_brings_keypoints_and_image_back():
    augment = AugmentationSequential(RandomHomography(generator=generator(3)), data_keys=["image", "keypoints"])
    points = torch.rand(4, 10, 2) * 20 + torch.tensor([30.0, 20.0])
    image, moved = augment(ramps(4).clone(), points)
    back, points_back = augment.inverse(image, moved)
    assert torch.allclose(points_back, points, atol=1e-2)
    centre = back[:, :, 28:32, 38:42]
    assert (centre - ramps(4)[:, :, 28:32, 38:42]).abs().max() < 0.05


@pytest.mark.parametrize("size", [None, (33, 95)])
def test_extreme_draws_are_convex_and_in_front(size):
    ranges = {
        "max_rotation": 180.0,
        "max_shear": 60.0,
        "max_perspective": 0.95,
        "max_scale": 4.0,
        "max_translation": 1.0,
    }
    H = random_homographies(2000, SIZE, size or SIZE, generator=generator(), **ranges).double()
    corners = torch.tensor([[-0.5, -0.5], [79.5, -0.5], [79.5, 59.5], [-0.5, 59.5]]).double().expand(2000, 4, 2)
    quad, in_front = warp_points(corners, H)
    assert in_front.all()
    edge = quad.roll(-1, 1) - quad
    turn = edge[..., 0] * edge.roll(-1, 1)[..., 1] - edge[..., 1] * edge.roll(-1, 1)[..., 0]
    assert (turn > 0).all()  # always the same way round: convex, and never mirrored


def test_the_centre_goes_to_the_centre_within_the_translation():
    H = random_homographies(500, SIZE, (30, 40), generator=generator(), max_translation=0.2)
    centre, _ = warp_points(torch.tensor([[[39.5, 29.5]]]).expand(500, 1, 2), H)
    away = (centre[:, 0] - torch.tensor([19.5, 14.5])).abs()
    assert (away <= torch.tensor([8.0, 6.0]) + 1e-3).all()
    assert away.max() > 6


def test_ranges_are_kept_and_used():
    quiet = {"max_translation": 0.0, "max_shear": 0.0, "max_perspective": 0.0}
    H = random_homographies(2000, SIZE, SIZE, generator=generator(), max_rotation=30.0, max_scale=2.0, **quiet)
    scale = torch.linalg.det(H[:, :2, :2]).sqrt()
    angle = torch.rad2deg(torch.atan2(H[:, 1, 0], H[:, 0, 0]))
    assert 0.5 <= scale.min() < 0.52
    assert 1.9 < scale.max() <= 2.0 + 1e-4
    assert -30.01 <= angle.min() < -29
    assert 29 < angle.max() <= 30.01


def test_the_same_seed_draws_the_same_and_leaves_the_global_generator_alone():
    image = torch.rand(3, 1, *SIZE)
    before = torch.get_rng_state()
    first, second = (RandomHomography(generator=generator(5)) for _ in range(2))
    assert torch.equal(first(image), second(image))
    assert torch.equal(first.transform_matrix, second.transform_matrix)
    other = RandomHomography(generator=generator(6))
    assert not torch.equal(first(image), other(image))
    assert torch.equal(before, torch.get_rng_state()), "a draw came from the global generator"


def test_size_crops_about_the_centre_and_same_on_batch_draws_once():
    augment = RandomHomography((31, 47), generator=generator(), same_on_batch=True)
    assert augment(torch.rand(3, 1, *SIZE)).shape == (3, 1, 31, 47)
    assert torch.equal(augment.transform_matrix[0], augment.transform_matrix[2])


def test_p_leaves_some_images_as_they_are():
    torch.manual_seed(0)
    augment = RandomHomography(p=0.5, generator=generator())
    image = torch.rand(40, 1, *SIZE)
    same = (augment(image) == image).flatten(1).all(1)
    assert 5 < same.sum() < 35
    assert torch.equal(augment.transform_matrix[same], torch.eye(3).expand(int(same.sum()), 3, 3))


def test_compose_goes_through_the_scene():
    H_0to1, H_0to2 = random_homographies(2, SIZE, SIZE, generator=generator()).double().split(1)
    points = torch.rand(1, 10, 2).double() * 50
    through = warp_points(warp_points(points, H_0to1)[0], compose(H_0to2, H_0to1))[0]
    assert torch.allclose(through, warp_points(points, H_0to2)[0], atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_scale": 0.5},
        {"max_perspective": 1.0},
        {"max_shear": 90.0},
        {"max_rotation": -1.0},
        {"max_translation": -0.1},
    ],
)
def test_ranges_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        RandomHomography(**wrong)


def test_a_size_needs_to_apply_to_all():
    with pytest.raises(ValueError, match="p must be 1"):
        RandomHomography((10, 10), p=0.5)


def test_strength_scales_every_range_but_the_translation_for_each_image():
    strength = torch.tensor([0.0, 0.1, 1.0]).repeat(100)
    H = random_homographies(300, SIZE, SIZE, strength=strength, generator=generator(), max_rotation=90)
    centre, corners = torch.tensor([[[39.5, 29.5]]]), torch.tensor([[0.0, 0], [79, 0], [79, 59], [0, 59]])
    shift = warp_points(centre.expand(300, -1, -1), H)[0] - centre
    moved = (warp_points(corners.expand(300, -1, -1), H)[0] - corners - shift).norm(dim=-1).amax(1).view(100, 3)
    assert moved[:, 0].max() < 1e-4
    for each in shift[:, 0].view(100, 3, 2).unbind(1):
        assert 0.1 < (each / torch.tensor([80, 60])).abs().amax() <= 0.15 + 1e-6
    assert 1 < moved[:, 1].median() < 20
    assert moved[:, 2].median() > 4 * moved[:, 1].median()
