"""Matches moved to where the pictures fit: against warps that are known."""

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data

import kp

PHOTO = data.astronaut()
SIZE = (360, 400)  # of image 1
VIEW = np.array([[0.8, 0.15, 10], [-0.1, 0.9, 30], [2e-4, 1e-4, 1]])


def warped(H, size=SIZE):
    return cv2.warpPerspective(PHOTO, H, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def there(xy0, H):
    return torch.from_numpy(cv2.perspectiveTransform(xy0.double().numpy()[:, None], H)[:, 0]).float()


def corners(H, size=SIZE):
    """Keypoints of the photograph that image 1 sees, 20 px and more from its edge, and where they are there."""
    xy0 = kp.Extractor(max_num_keypoints=None).extract(PHOTO)["keypoints"][0]
    xy1 = there(xy0, H)
    seen = (xy1 > 20).all(1) & (xy1 < torch.tensor(size[::-1]) - 20.0).all(1)
    return xy0[seen], xy1[seen]


def scattered(xy, pixels):
    return xy + pixels * torch.randn(xy.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("light", ["same", "darker", "gamma"])
def test_a_view_from_the_side_fits_to_a_tenth_of_a_pixel(light):
    image1 = warped(VIEW)
    if light == "darker":
        image1 = (image1 * 0.4 + 20).astype(np.uint8)
    elif light == "gamma":
        image1 = (255 * (image1 / 255) ** 1.8).round().astype(np.uint8)
    xy0, xy1 = corners(VIEW)
    rough = scattered(xy1, 1.0)
    found = kp.refine(PHOTO, image1, xy0, rough)
    assert found.dtype == torch.float32
    assert (rough - xy1).norm(dim=1).median() > 1
    assert (found - xy1).norm(dim=1).median() < 0.1


@pytest.mark.parametrize(("rotation", "scale"), [(0.0, 1.0), (90.0, 1.0), (-135.0, 1.0), (0.0, 0.5), (180.0, 2.0)])
def test_three_matches_are_refined_in_the_turn_and_size_of_the_images(rotation, scale):
    """No homography fits three matches."""
    size = (round(512 * scale),) * 2
    H = np.vstack([cv2.getRotationMatrix2D((255.5, 255.5), -rotation, scale), [0, 0, 1]])
    H[:2, 2] += (size[0] - 1) / 2 - 255.5
    image0 = PHOTO if scale >= 1 else cv2.GaussianBlur(PHOTO, (0, 0), 1)  # warpPerspective does not filter
    image1 = cv2.warpPerspective(image0, H, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    xy0, xy1 = corners(H, size)
    off = []
    for at in range(0, 60, 3):
        found = kp.refine(PHOTO, image1, xy0[at : at + 3], scattered(xy1[at : at + 3], 0.7 * scale), rotation, scale)
        off.append((found - xy1[at : at + 3]).norm(dim=1))
    assert torch.cat(off).median() < 0.15 * scale


@pytest.mark.parametrize("count", [4, 6, 8])
def test_the_homography_of_a_few_matches_is_not_believed(count):
    """Four matches always have one. They are off by 4 px, and the turn and size of the images are known."""
    H = np.vstack([cv2.getRotationMatrix2D((255.5, 255.5), -20, 0.9), [0, 0, 1]])
    image1 = cv2.warpPerspective(PHOTO, H, (512, 512), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    xy0, xy1 = corners(H, (512, 512))
    angles = 2.4 * torch.arange(len(xy1))
    rough = xy1 + 4 * torch.stack([angles.cos(), angles.sin()], dim=1)
    off = []
    for at in range(0, 160, count):
        found = kp.refine(PHOTO, image1, xy0[at : at + count], rough[at : at + count], 20, 0.9)
        off.append((found - xy1[at : at + count]).norm(dim=1))
    assert (torch.cat(off) < 0.5).float().mean() > 0.85


def test_what_does_not_fit_stays_to_the_last_bit():
    xy0, xy1 = corners(VIEW)
    even = np.full((*SIZE, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, even.shape, np.uint8)
    wrong = xy1.roll(1, 0)
    for image1 in (noise, even):
        assert ((kp.refine(PHOTO, image1, xy0, wrong) == wrong).all(1)).float().mean() > 0.99
    assert torch.equal(kp.refine(even, even, xy0, wrong), wrong)


def test_wrong_matches_move_by_no_more_than_the_neighbourhood():
    """Something alike is in many neighbourhoods of another picture."""
    xy0, xy1 = corners(VIEW)
    wrong = xy1.roll(1, 0)
    moved = (kp.refine(PHOTO, cv2.flip(warped(VIEW), 1), xy0, wrong) - wrong).norm(dim=1)
    assert (moved == 0).float().mean() > 0.7
    assert moved.max() < math.hypot(8, 8) + 3


def beside_the_right_places(xy1, pixels):
    """Every second match off by so many pixels, in all directions, and which."""
    beside = torch.arange(len(xy1)) % 2 == 0
    angles = 2.4 * torch.arange(len(xy1))
    return xy1 + pixels * beside[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1), beside


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
def test_a_match_at_a_place_beside_the_right_one_is_put_right(scale):
    """Pixels of the image that shows less. The other matches are right, so that the homography fits."""
    size = tuple(round(scale * each) for each in SIZE)
    image1 = cv2.resize(warped(VIEW), size[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    xy0, xy1 = corners(VIEW)
    xy1 = scale * (xy1 + 0.5) - 0.5  # cv2.resize keeps the edges of pixels
    rough, beside = beside_the_right_places(xy1, 6.5 * scale)
    off = (kp.refine(PHOTO, image1, xy0, rough) - xy1).norm(dim=1)
    assert (off[beside] < scale).float().mean() > 0.8
    assert off[beside].median() < 0.15 * scale
    assert (off[~beside] < scale).float().mean() > 0.95


@pytest.mark.parametrize("seen", ["shadows", "blurred"])
def test_what_hardly_fits_is_no_worse_for_the_search(seen):
    """Under shadows of 15 pixels, or blurred by 4, most windows do not fit well."""
    image1 = warped(VIEW)
    if seen == "shadows":
        yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
        image1 = (image1 * np.where((xx // 17 + yy // 13) % 2, 1, 0.35)[..., None]).astype(np.uint8)
    else:
        image1 = cv2.GaussianBlur(image1, (0, 0), 4)
    xy0, xy1 = corners(VIEW)
    rough, beside = beside_the_right_places(scattered(xy1, 0.5), 6.5)
    off = (kp.refine(PHOTO, image1, xy0, rough) - xy1).norm(dim=1)
    assert (off[~beside] < 3).float().mean() > 0.95
    assert (off[beside] < 3).float().mean() > 0.25


def test_a_pattern_that_repeats_moves_no_match_by_a_period():
    """Faint in its noise, so that windows do not fit well."""
    yy, xx = np.mgrid[:200, :200]
    rng = np.random.default_rng(0)
    tiles = 128 + 12 * np.sign(np.sin(2 * np.pi * (xx + 0.5) / 12) * np.sin(2 * np.pi * (yy + 0.5) / 12))
    image0, image1 = (cv2.GaussianBlur(tiles + rng.normal(0, 12, tiles.shape), (0, 0), 0.8) for _ in "01")
    xy = torch.cartesian_prod(*[torch.arange(23.5, 180, 6)] * 2)
    found = kp.refine(image0.round().astype(np.uint8), image1.round().astype(np.uint8), xy, scattered(xy, 0.4))
    assert (found - xy).norm(dim=1).max() < 3


@pytest.mark.parametrize("estimator", ["opencv", "poselib"])
def test_a_floor_whose_horizon_is_below_the_first_pixel(estimator):
    """The last number of its homography, 1, has the sign of places behind the camera."""
    if estimator == "poselib":
        pytest.importorskip("poselib")
    seen_at = np.float32([[180, 170], [330, 170], [20, 500], [490, 500]])
    H = cv2.getPerspectiveTransform(seen_at, np.float32([[100, 0], [700, 0], [100, 700], [700, 700]]))
    floor = cv2.resize(PHOTO, (800, 800))
    image0 = cv2.warpPerspective(floor, H, (512, 512), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    xy0 = kp.Extractor(max_num_keypoints=None).extract(image0)["keypoints"][0]
    xy0 = xy0[xy0[:, 1] > 180]
    xy1 = there(xy0, H)
    seen = ((xy1 > 20) & (xy1 < 780)).all(1)
    xy0, xy1 = xy0[seen], xy1[seen]
    off = (kp.refine(image0, floor, xy0, scattered(xy1, 1.0), estimator=estimator) - xy1).norm(dim=1)
    assert off.median() < 0.2


def test_matches_near_the_edge_are_refined_too():
    """What is outside of an image is not black: else its edge, which moves with no content, would hold windows."""
    image0, image1 = PHOTO[:400, :400], PHOTO[20:420, 30:430]
    xy0 = kp.Extractor(max_num_keypoints=None, remove_borders=3).extract(image0)["keypoints"][0]
    xy1 = xy0 - torch.tensor([30.0, 20])
    gap = torch.minimum(torch.minimum(xy1, 399 - xy1).amin(1), torch.minimum(xy0, 399 - xy0).amin(1))
    near = (gap > 3) & (gap < 7)
    assert near.sum() > 20
    rough = scattered(xy1, 0.5)
    off = (kp.refine(image0, image1, xy0, rough) - xy1).norm(dim=1)
    assert off[near].median() < 0.1
    assert off[near].mean() < 0.6 * (rough - xy1)[near].norm(dim=1).mean()


def test_beyond_the_edge_of_the_second_image_alone_nothing_is_black():
    """What image 0 shows beyond that edge differs from its last pixels, so places are less exact there."""
    xy0 = kp.Extractor(max_num_keypoints=None).extract(PHOTO)["keypoints"][0]
    xy1 = xy0 - torch.tensor([70.0, 90])
    xy0, xy1 = (each[(xy1 > 1).all(1) & (xy0 < 490).all(1)] for each in (xy0, xy1))
    near = (xy1 < 6).any(1)
    assert near.sum() > 20
    off = (kp.refine(PHOTO, PHOTO[90:, 70:], xy0, scattered(xy1, 0.5)) - xy1).norm(dim=1)
    assert off[near].median() < 0.3


def test_a_faint_picture_fits_as_well():
    """A contrast of 3 % of the photograph's."""
    faint = 0.5 + 0.03 * (torch.from_numpy(PHOTO).float().mean(2)[None, None] / 255 - 0.5)
    xy0 = kp.Extractor(max_num_keypoints=None).extract(PHOTO)["keypoints"][0]
    xy1 = xy0 - torch.tensor([70.0, 90])
    xy0, xy1 = (each[(xy1 > 20).all(1) & (xy0 < 490).all(1)] for each in (xy0, xy1))
    off = (kp.refine(faint, faint[..., 90:, 70:], xy0, scattered(xy1, 0.5)) - xy1).norm(dim=1)
    assert off.median() < 0.01


@pytest.mark.parametrize("scale", [8.0, 0.125])
@pytest.mark.parametrize("size", [(8, 8), (12, 90)])
def test_tiny_images(size, scale):
    image = PHOTO[: size[0], : size[1]]
    xy = torch.tensor([[2.0, 2], [5, 5], [6, 3]])
    assert kp.refine(image, image, xy, xy, 0, scale).isfinite().all()


def test_what_opencv_gives_is_taken():
    xy0, xy1 = corners(VIEW)
    found = kp.refine(PHOTO, warped(VIEW), xy0.numpy(), scattered(xy1, 1.0).numpy())
    assert torch.equal(found, kp.refine(PHOTO, warped(VIEW), xy0, scattered(xy1, 1.0)))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="scale must be above 0"):
        kp.refine(PHOTO, PHOTO, torch.zeros(3, 2), torch.zeros(3, 2), 0, scale)


def test_an_image_is_turned_as_its_file_says(tmp_path):
    """The second picture is stored upside down: matches, refined, are those of the picture as it is shown."""
    from PIL import Image

    image1 = warped(VIEW)
    stored = Image.fromarray(image1[::-1, ::-1])
    exif = stored.getexif()
    exif[0x0112] = 3
    stored.save(tmp_path / "b.png", exif=exif)
    xy0, xy1 = corners(VIEW)
    rough = scattered(xy1, 0.5)
    shown = kp.refine(PHOTO, tmp_path / "b.png", xy0, rough, exif="apply")
    assert torch.equal(shown, kp.refine(PHOTO, image1, xy0, rough))


def test_matches_at_the_edge_and_outside_stay_finite():
    xy = torch.tensor([[0.0, 0], [399, 359], [-50, 20], [1e6, 1e6], [200, -3]])
    found = kp.refine(PHOTO, warped(VIEW), xy, xy)
    assert found.isfinite().all()
    assert torch.equal(found[3], xy[3])


@pytest.mark.parametrize("count", [0, 1])
def test_few_matches(count):
    xy = torch.full((count, 2), 100.0)
    assert kp.refine(PHOTO, PHOTO, xy, xy).shape == (count, 2)


def test_an_estimator_that_is_none_is_refused_without_matches_too():
    with pytest.raises(ValueError, match="no estimator is called 'ransac'"):
        kp.refine(PHOTO, PHOTO, torch.zeros(0, 2), torch.zeros(0, 2), estimator="ransac")


@pytest.mark.parametrize("shapes", [((3, 2), (4, 2)), ((1, 3, 2), (1, 3, 2)), ((3, 3), (3, 3))])
def test_matches_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"have the shape \(M, 2\) each"):
        kp.refine(PHOTO, PHOTO, *(torch.zeros(shape) for shape in shapes))


def test_many_matches_are_refined_in_parts(monkeypatch):
    xy0, xy1 = corners(VIEW)
    whole = kp.refine(PHOTO, warped(VIEW), xy0, scattered(xy1, 0.5))
    monkeypatch.setattr("kp.features.refine._AT_ONCE", 7)
    assert torch.allclose(kp.refine(PHOTO, warped(VIEW), xy0, scattered(xy1, 0.5)), whole, atol=1e-3)


def test_a_pair_is_refined_unless_asked_not_to():
    image1 = warped(VIEW)
    rough, found = (kp.match_pair(PHOTO, image1, refined=refined) for refined in (False, True))
    wanted = kp.match(rough["features0"], rough["features1"])
    assert torch.equal(rough["matches"], wanted["matches"])
    assert torch.equal(rough["keypoints1"], rough["features1"]["keypoints"][0, rough["matches"][:, 1]])
    assert torch.equal(found["keypoints0"], found["features0"]["keypoints"][0, found["matches"][:, 0]])
    off = [(each["keypoints1"] - there(each["keypoints0"], VIEW)).norm(dim=1) for each in (rough, found)]
    right = [each < 3 for each in off]
    assert right[0].float().mean() > 0.7
    assert right[1].sum() > right[0].sum()
    assert off[1][right[1]].median() < 0.5 * off[0][right[0]].median()
    places = [
        there(torch.tensor([[0.0, 0], [511, 0], [0, 511], [511, 511]]), each["H_0to1"].numpy())
        for each in (rough, found)
    ]
    true = there(torch.tensor([[0.0, 0], [511, 0], [0, 511], [511, 511]]), VIEW)
    assert (places[1] - true).norm(dim=1).mean() < (places[0] - true).norm(dim=1).mean()
