"""The classical detectors on pictures whose corners are known, and chance."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from kp.evaluation import baselines
from kp.evaluation.baselines import (
    BASELINES,
    Unavailable,
    available,
    harris,
    harris_gaussian,
    make,
    random_scores,
    shi_tomasi,
    to_gray8,
)
from kp.models.keypoints import extract_keypoints

CORNERS = [("harris", 2), ("shi-tomasi", 2), ("fast", 3), ("orb", 5)]
DENSE = [
    "harris-gaussian",
    "shi-tomasi",
    "kornia-harris",
    "kornia-gftt",
    "kornia-dog",
]  # to which noise can be corners everywhere
KORNIA = [name for name in BASELINES if name.startswith("kornia-")]


def here(name):
    """The detector, if the installed OpenCV has it: 5.0 has no AKAZE."""
    try:
        return make(name)
    except Unavailable as reason:
        pytest.skip(str(reason))


def squares(size=(171, 213)):
    """Bright squares on black, a little blurred, and their corners as (x, y): the outermost bright pixels.

    All corners are 40 px from the edge (ORB keeps 31). Unblurred, FAST ties at a corner and suppresses all of it.
    """
    image, corners = np.zeros(size, dtype=np.float32), []
    for x, y, side in ((45, 42, 17), (120, 45, 24), (55, 100, 21), (140, 105, 20)):
        image[y : y + side, x : x + side] = 0.9
        corners += [(u, v) for u in (x, x + side - 1) for v in (y, y + side - 1)]
    image = torch.from_numpy(cv2.GaussianBlur(image, (0, 0), 1.0))[None, None]
    return image, torch.tensor(corners, dtype=torch.float32)


@pytest.mark.parametrize(("name", "within"), [*CORNERS, *((name, 2) for name in KORNIA)])
def test_the_corners_of_squares_are_found(name, within):
    image, corners = squares()
    found = extract_keypoints(here(name)(image), 16)
    assert found.valid.all()
    assert torch.cdist(found.xy, corners[None]).amin(1).max() <= within * 2**0.5


@pytest.mark.parametrize("name", ["sift", "akaze", "kornia-hessian", "kornia-dog"])
def test_blobs_are_found(name):
    y, x = np.mgrid[:101, :143]
    centres = [(30, 30), (70, 60), (110, 35)]
    image = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / 32) for u, v in centres)
    found = extract_keypoints(here(name)(torch.from_numpy(image).float()[None, None] * 0.8), 3)
    assert found.valid.all()
    assert torch.cdist(found.xy, torch.tensor([centres]).float()).amin(1).max() <= 2**0.5


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("size", [(1, 1), (2, 90), (5, 7), (12, 13), (13, 13), (33, 20), (64, 97)])
def test_a_flat_image_of_any_size_has_no_keypoints(name, size):
    scores = here(name)(torch.full((1, 1, *size), 0.4))
    assert scores.shape == (1, 1, *size)
    assert (scores == -torch.inf).all()
    assert not extract_keypoints(scores, 10, border=0).valid.any()


@pytest.mark.parametrize("name", BASELINES)
def test_scores_are_finite_or_minus_infinity_and_colour_is_made_gray(name):
    gray = torch.rand(1, 1, 75, 90, generator=torch.Generator().manual_seed(0))
    scores = here(name)(gray)
    assert scores.dtype == torch.float32
    assert not scores.isnan().any()
    assert (scores < torch.inf).all()
    assert (scores > 0).any()
    assert (scores == -torch.inf).any() or name in DENSE
    torch.testing.assert_close(BASELINES[name](gray.expand(1, 3, 75, 90)), scores)


def structure(image):
    """Sums of products of Sobel derivatives over 4x4 pixels, from the definitions, away from the border."""
    p = image.astype(float)
    gx = (p[:-2, 2:] + 2 * p[1:-1, 2:] + p[2:, 2:]) - (p[:-2, :-2] + 2 * p[1:-1, :-2] + p[2:, :-2])
    gy = (p[2:, :-2] + 2 * p[2:, 1:-1] + p[2:, 2:]) - (p[:-2, :-2] + 2 * p[:-2, 1:-1] + p[:-2, 2:])

    def box(a):
        return sum(a[i : a.shape[0] - 3 + i, j : a.shape[1] - 3 + j] for i in range(4) for j in range(4))

    return box(gx * gx), box(gx * gy), box(gy * gy)


def test_shi_tomasi_is_the_smaller_eigenvalue_over_4x4():
    image = np.random.default_rng(0).integers(0, 256, (41, 57), dtype=np.uint8)
    xx, xy, yy = structure(image)
    smaller = np.linalg.eigvalsh(np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -1))[..., 0]
    ratio = shi_tomasi(torch.from_numpy(image)[None, None] / 255)[0, 0, 3:-2, 3:-2].numpy() / smaller
    assert ratio.std() / ratio.mean() < 1e-3  # equal but for a factor


def test_harris_leaves_edges_out():
    image = torch.zeros(1, 1, 60, 60)
    image[..., 20:, 20:] = 1  # a corner at (20, 20), an edge down and an edge right of it
    scores = harris(image)
    assert scores[..., 18:23, 18:23].max() > 0
    assert (scores[..., 30:, :] == -torch.inf).all()
    assert (scores[..., :, 30:] == -torch.inf).all()


def gaussian_harris(image):
    """Harris with Sobel 3x3 and a Gaussian of 1.5 px by scipy, whose ``mirror`` is OpenCV's default edge."""
    p = image.astype(float)
    dx, dy = (ndimage.sobel(p, axis, mode="mirror") for axis in (1, 0))
    xx, yy, xy = (ndimage.gaussian_filter(a, 1.5, mode="mirror", truncate=4) for a in (dx * dx, dy * dy, dx * dy))
    return xx * yy - xy**2 - 0.04 * (xx + yy) ** 2


def test_harris_gaussian_is_the_definition_thinned():
    image = np.full((41, 57), 40.0)
    image[12:30, 10:25] = 200  # edges and corners
    image[5:20, 38:] += 100 * np.random.default_rng(0).random((15, 19))
    image = ndimage.gaussian_filter(image, 0.7).round().astype(np.uint8)
    response = gaussian_harris(image)
    expected = response - 10 * (ndimage.maximum_filter(response, 3) - response)
    found = harris_gaussian(torch.from_numpy(image)[None, None] / 255)[0, 0].numpy()
    corner = response > 1e-6 * response.max()
    assert 0.1 < corner.mean() < 0.9
    assert np.abs(found - expected)[corner].max() < 1e-5 * response.max()
    assert (found[response < -1e-6 * response.max()] == -np.inf).all()


@pytest.mark.parametrize(("name", "shift"), [("harris", 1), ("shi-tomasi", 1), ("harris-gaussian", 0)])
def test_a_mirrored_image_has_mirrored_corners_which_a_block_of_4_pixels_shifts(name, shift):
    """Half a pixel to the right of what it describes, in the image and in its mirror image: a whole pixel between."""
    image = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    scores = make(name)(image)
    mirrored = make(name)(image.flip(-1, -2)).flip(-1, -2)  # a pixel further left and further up
    size = 30
    torch.testing.assert_close(
        mirrored[..., 5 : 5 + size, 5 : 5 + size],
        scores[..., 5 + shift : 5 + shift + size, 5 + shift : 5 + shift + size],
        rtol=1e-3,
        atol=1e-4 * scores.max().item(),
    )


def test_kornias_harris_leaves_edges_out():
    image = torch.zeros(1, 1, 60, 60)
    image[..., 20:, 20:] = 1
    scores = make("kornia-harris")(image)
    assert scores[..., 18:23, 18:23].max() > 0
    assert (scores[..., 30:, :] == -torch.inf).all()
    assert (scores[..., :, 30:] == -torch.inf).all()


@pytest.mark.parametrize("name", KORNIA)
@pytest.mark.parametrize("grey", range(0, 256, 15))
def test_an_even_area_beside_a_structure_has_no_keypoints(name, grey):
    image = torch.full((1, 1, 90, 60), grey / 255)
    image[..., :20, :30] = 1 - grey / 255
    assert (make(name)(image)[..., 50:, :] == -torch.inf).all()


@pytest.mark.parametrize("name", ["kornia-hessian", "kornia-dog"])
def test_bright_and_dark_blobs_score_alike(name):
    image = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    torch.testing.assert_close(make(name)(image), make(name)(1 - image), rtol=1e-3, atol=1e-2)


def test_without_akaze_there_is_a_reason_of_one_line(monkeypatch):
    monkeypatch.delattr(cv2, "AKAZE_create", raising=False)
    monkeypatch.delattr(cv2, "xfeatures2d", raising=False)
    with pytest.raises(Unavailable, match=f"OpenCV {cv2.__version__} .* no AKAZE") as caught:
        make("akaze")
    assert "\n" not in str(caught.value)
    with pytest.raises(Unavailable):
        BASELINES["akaze"](torch.zeros(1, 1, 64, 64))


class OnePoint:
    """A detector of OpenCV's that finds one keypoint."""

    def detect(self, image, mask):
        return (cv2.KeyPoint(3.4, 2.2, 5, -1, 0.5),)


@pytest.mark.parametrize("contrib", [False, True])
def test_akaze_is_found_where_opencv_has_it(monkeypatch, contrib):
    monkeypatch.delattr(cv2, "AKAZE_create", raising=False)
    module = SimpleNamespace(AKAZE_create=OnePoint)
    monkeypatch.setattr(cv2, *(("xfeatures2d", module) if contrib else ("AKAZE_create", OnePoint)), raising=False)
    scores = make("akaze")(torch.zeros(1, 1, 5, 6))
    assert (scores > -torch.inf).nonzero().tolist() == [[0, 0, 2, 3]]
    assert (make("akaze")(torch.zeros(1, 1, 2, 6)) == -torch.inf).all()


def test_what_cannot_be_made_is_left_out_with_its_reason():
    def absent():
        raise Unavailable("no weights")

    made, skipped = available({"a": absent, "harris": lambda: make("harris")})
    assert made == {"harris": harris}
    assert skipped == {"a": "no weights"}


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match="surf"):
        make("surf")


def finder(*points):
    """A detector of OpenCV's that finds these x, y, response."""
    found = [cv2.KeyPoint(x, y, 5, -1, response) for x, y, response in points]
    return lambda: SimpleNamespace(detect=lambda image, mask: found)


def test_two_keypoints_on_one_pixel_keep_the_better_score_and_its_place(monkeypatch):
    points = [(3.4, 2.2, 0.5), (2.7, 1.8, 0.75), (3.2, 2.1, 0.25), (3.3, 2.3, 0.75)]  # the second and the last tie
    monkeypatch.setattr(baselines.cv2, "SIFT_create", finder(*points))
    scores = BASELINES["sift"](torch.zeros(1, 1, 5, 6))
    assert scores[0, 0, 2, 3] == 0.75
    assert (scores > -torch.inf).sum() == 1
    again, places = BASELINES["sift"].with_places(torch.zeros(1, 1, 5, 6))
    assert torch.equal(again, scores)
    assert places[0, 2, 3].tolist() == pytest.approx([2.7, 1.8])
    assert places[0, 4, 1].tolist() == [1, 4]


def test_a_point_beyond_the_edge_is_at_the_edge(monkeypatch):
    monkeypatch.setattr(baselines.cv2, "SIFT_create", finder((-0.7, 1.25, 0.5)))
    scores, places = BASELINES["sift"].with_places(torch.zeros(1, 1, 5, 6))
    assert scores[0, 0, 1, 0] == 0.5
    assert places[0, 1, 0].tolist() == [-0.5, 1.25]


def test_sift_places_a_blob_between_pixels():
    """Blobs of which one is moved by less than a pixel. OpenCV puts all of them 1/4 px too far right and down."""
    y, x = np.mgrid[:81, :101]
    found = []
    for u, v in ((50.0, 40.0), (50.35, 39.8)):
        blob = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 18)
        scores, places = BASELINES["sift"].with_places(torch.from_numpy(blob).float()[None, None] * 0.8)
        row, column = divmod(int(scores.argmax()), 101)
        found.append(places[0, row, column])
    assert found[0].tolist() == pytest.approx([50.25, 40.25], abs=0.05)
    assert (found[1] - found[0]).tolist() == pytest.approx([0.35, -0.2], abs=0.05)


def test_eight_bits_survive_the_way_there_and_back():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert (to_gray8(values.float() / 255) == values[0, 0].numpy()).all()
    assert to_gray8(torch.tensor([0.0019, 0.002, 0.9979, 0.9981]).view(1, 1, 1, 4)).tolist() == [[0, 1, 254, 255]]


def test_random_is_seeded_and_new_for_every_image():
    image = torch.zeros(1, 1, 41, 53)
    generator, again = (torch.Generator().manual_seed(5) for _ in range(2))
    first, second = random_scores(image, generator), random_scores(image, generator)
    assert first.shape == (1, 1, 41, 53)
    assert torch.equal(first, random_scores(image, again))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1  # 4.6 standard deviations


def test_random_points_lie_everywhere_alike():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(2, 2)
    for _ in range(20):
        found = extract_keypoints(random_scores(torch.zeros(1, 1, 88, 108), generator), 50)
        quadrant = (found.xy[0] >= torch.tensor([54, 44])).long()
        counts.index_put_((quadrant[:, 1], quadrant[:, 0]), torch.ones(50), accumulate=True)
    assert (counts - 250).abs().max() < 5 * (1000 * 0.25 * 0.75) ** 0.5
