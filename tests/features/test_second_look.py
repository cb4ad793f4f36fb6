"""One of two images described anew as the other sees it: against warps that are known."""

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data

import kp
from kp.features.estimate import in_front
from kp.features.match_pair import describer, match_features
from kp.features.second_look import look_again

PHOTO = data.astronaut()[:400, :480]
SIZE = (360, 440)  # of the other image
GREY = torch.from_numpy(cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255


def similar(scale, degrees, narrower=1.0):
    """About the centres of both images: turned, then narrower from left to right."""
    a = math.radians(degrees)
    turn = scale * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    matrix = np.diag([1 / narrower, 1]) @ turn
    centre0, centre1 = (np.array([side - 1 for side in size[::-1]]) / 2 for size in (PHOTO.shape[:2], SIZE))
    return np.vstack([np.hstack([matrix, (centre1 - matrix @ centre0)[:, None]]), [0, 0, 1]])


VIEWS = {
    "between two sizes": similar(0.7, 0),
    "nearer": similar(1.4, 0),
    "turned": similar(0.9, 25),
    "narrower": similar(1, 0, 1.5),
    "from the side": np.array([[0.75, 0.2, 10], [-0.1, 0.9, 30], [4e-4, 2e-4, 1]]),
}


def warped(H, image=PHOTO, size=SIZE):
    """As the other image sees it, by OpenCV, blurred where it shrinks."""
    shrinks = max(1.0, 1 / math.sqrt(abs(np.linalg.det(H[:2, :2]))))
    image = cv2.GaussianBlur(image, (0, 0), max(0.5 * math.sqrt(shrinks**2 - 1), 0.01))
    return cv2.warpPerspective(image, H, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def there(xy0, H):
    return torch.from_numpy(cv2.perspectiveTransform(xy0.double().numpy()[:, None], H)[:, 0]).float()


def right(found, H):
    return int(((found["keypoints1"] - there(found["keypoints0"], H)).norm(dim=1) < 3).sum())


@pytest.fixture(scope="module")
def extractor():
    return kp.Extractor("described", max_num_keypoints=500)


def pair(H, extractor, method=None, back=False):
    """Images, features of both, and what describes; ``back``: the warped image first."""
    images = [PHOTO, warped(H)]
    images = images[::-1] if back else images
    features = [extractor.extract(image) for image in images]
    if method:
        features = [{"keypoints": f["keypoints"]} for f in features]
        for image, each in zip(images, features, strict=True):
            each["descriptors"] = kp.describe(image, each, method)
    greys = [torch.from_numpy(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255 for i in images]
    return greys, features, describer(extractor, method)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("method", [None, "rootsift"])
def test_more_matches_are_right_in_any_view(extractor, view, back, method):
    greys, features, by = pair(VIEWS[view], extractor, method, back)
    H = np.linalg.inv(VIEWS[view]) if back else VIEWS[view]
    first, second = (match_features(features, greys, each) for each in (None, by))
    counts = right(first, H), right(second, H)
    assert counts[1] > counts[0] > 50
    assert counts[1] / len(second["matches"]) > counts[0] / len(first["matches"])
    assert second["inliers"].sum() > first["inliers"].sum()


def test_keypoints_stay_and_matches_name_them(extractor):
    image1 = warped(VIEWS["between two sizes"])
    found = kp.match_pair(PHOTO, image1, extractor)
    for image, name, at in ((PHOTO, "features0", 0), (image1, "features1", 1)):
        alone = extractor.extract(image)
        assert all(torch.equal(alone[each], found[name][each]) for each in alone)
        assert found["matches"][:, at].unique().numel() == len(found["matches"])
    assert torch.equal(found["keypoints0"], found["features0"]["keypoints"][0, found["matches"][:, 0]])
    first = kp.match(found["features0"], found["features1"], context=True)
    assert not torch.equal(found["matches"], first["matches"])
    assert (found["scale"], found["rotation"]) == (first["scale"], first["rotation"])
    assert found["scores"].shape == (len(found["matches"]),)
    assert (found["scores"].median() > first["scores"].median()).item()


@pytest.mark.parametrize(("upright", "refined"), [(True, True), (False, False)])
def test_no_second_look_where_it_is_not_asked_for(extractor, upright, refined):
    found = kp.match_pair(PHOTO, warped(VIEWS["turned"]), extractor, upright=upright, refined=refined)
    first = kp.match(found["features0"], found["features1"], upright=upright, context=refined)
    assert torch.equal(found["matches"], first["matches"])


def refused(*_):
    raise AssertionError("nothing is to be described")


def test_images_that_are_seen_alike_are_not_looked_at_again(extractor):
    for H, light in ((similar(1, 0), 0.5), (similar(1.05, 1), 1.0)):
        greys, features, _ = pair(H, extractor)
        greys[1] *= light
        assert match_features(features, greys, refused)["verified_H"]


def test_images_with_nothing_in_common_are_not_looked_at_again(extractor):
    images = [data.astronaut()[:200, :240], data.coffee()[:200, :240]]
    features = [extractor.extract(image) for image in images]
    greys = [torch.from_numpy(image[..., 1]).float()[None, None] / 255 for image in images]
    found = match_features(features, greys, refused)
    assert len(found["matches"]) > 30
    assert not found["verified"]


def squares(count=9, apart=40.0):
    """Places (N, 2) of a lattice with different distances, so that no homography maps it to itself."""
    line = torch.arange(count) * apart
    xy = torch.cartesian_prod(line, line)
    return xy + 9 * torch.rand(xy.shape, generator=torch.Generator().manual_seed(1))


def known(xy, codes):
    return {"keypoints": xy, "descriptors": torch.eye(100)[codes]}


@pytest.mark.parametrize("back", [False, True])
def test_the_image_that_shows_more_is_described_as_the_other_sees_it(back):
    """Half as large and turned by 90 degrees, so that some are outside. Image 0 or 1 shows more."""
    xy = squares()
    H = np.array([[0, -0.5, 150], [0.5, 0, 10], [0, 0, 1.0]])
    other = there(xy, H)
    seen, small = GREY[..., :400, :400], (200, 140)
    inside = (other >= 0).all(1) & (other <= torch.tensor([139.0, 199])).all(1)
    assert 50 < inside.sum() < 81
    codes = torch.arange(81)
    wrong = codes.clone()
    wrong[inside.nonzero()[:10, 0]] = 99  # ten are not matched at first
    asked = []

    def describe(image, places):
        asked.append((image, places))
        return {"descriptors": torch.eye(100)[codes[inside]]}

    images = [seen, torch.zeros(1, 1, *small)]
    features = [known(xy, wrong), known(other[inside], codes[inside])]
    named = torch.stack([inside.nonzero()[:, 0], torch.arange(int(inside.sum()))], dim=1)
    if back:
        images, features, named = images[::-1], features[::-1], named.flip(1)
    first = kp.match(*features)["matches"]
    found = look_again(images, features, first, describe)
    ((image, places),) = asked
    assert torch.allclose(places, other[inside], atol=1e-3)
    assert image.shape == (1, 1, *small)
    wanted = cv2.warpPerspective(cv2.GaussianBlur(seen[0, 0].numpy(), (0, 0), 0.9), H, small[::-1])
    off = [np.abs(image[0, 0].numpy() - np.roll(wanted, by, 1))[12:-5, 5:-5].mean() for by in (0, 1)]
    assert off[0] < 0.01 < off[1]  # of the image: its first rows are outside of the other
    assert torch.equal(found["matches"], named)
    assert torch.allclose(found["scores"], torch.ones(int(inside.sum())))


def test_a_second_look_that_fits_fewer_matches_does_not_count():
    xy = squares()
    features = [known(xy, torch.arange(81)), known(0.8 * xy, torch.arange(81))]
    first = kp.match(*features)["matches"]
    assert len(first) == 81
    shown = torch.arange(81).clone()
    for lost, counts in ((0, False), (30, False)):
        shown[:lost] = 99
        found = look_again(
            [GREY, GREY], features, first, lambda _, xy: {"descriptors": torch.eye(100)[shown[: len(xy)]]}
        )
        assert bool(found) is counts
    some = first[:60]  # now all 81 are more
    found = look_again([GREY, GREY], features, some, lambda _, xy: {"descriptors": torch.eye(100)[: len(xy)]})
    assert len(found["matches"]) == 81


def test_the_ratio_and_the_context_are_those_of_the_first_look(extractor):
    greys, features, by = pair(VIEWS["between two sizes"], extractor)
    counts = {}
    for ratio in (None, 0.8):
        for context in (False, True):
            found = match_features(features, greys, by, ratio, context=context)
            counts[ratio, context] = len(found["matches"])
    assert counts[None, True] > counts[0.8, True]
    assert counts[None, False] > counts[0.8, False]
    assert len(set(counts.values())) == 4


def test_a_floor_below_its_horizon_is_described_where_it_is(extractor):
    """Keypoints above the horizon, as the first pixel, are described nowhere."""
    H = np.array([[0.9, -0.3, 60], [0, 0.35, 0], [0, -1.6e-3, 1.2]])
    back = np.linalg.inv(H)
    image0 = cv2.warpPerspective(PHOTO, back, (480, 400), borderMode=cv2.BORDER_REFLECT)
    features = [extractor.extract(image) for image in (image0, PHOTO)]
    greys = [torch.from_numpy(image[..., 1]).float()[None, None] / 255 for image in (image0, PHOTO)]
    asked = []
    by = describer(extractor)

    def describe(image, xy):
        asked.append(xy)
        return by(image, xy)

    first, second = (match_features(features, greys, each) for each in (None, describe))
    assert len(asked) == 1
    assert asked[0].isfinite().all()
    assert right(second, H) >= right(first, H) > 30


def test_a_homography_of_either_sign_has_its_places_in_front():
    xy = squares()
    H = torch.tensor([[0.9, 0.1, 3], [0, 1.1, 2], [1e-3, 0, 1]], dtype=torch.float64)
    for each in (H, -H, 3 * H):
        assert torch.allclose(in_front(each, xy) / in_front(each, xy)[2, 2].abs(), H)


def test_a_change_that_is_too_large_is_left():
    """A thing that is twenty times larger."""
    xy = squares(apart=1.0)
    features = [known(20 * xy, torch.arange(81)), known(xy, torch.arange(81))]
    assert look_again([GREY, GREY], features, torch.arange(70)[:, None].expand(-1, 2), refused) == {}


def test_a_plane_that_is_near_at_one_side_is_not_seen_alike(extractor):
    """Its middle is as large as before."""
    H = np.array([[1.0, 0, 0], [0, 1, 0], [2e-3, 0, 1]])
    H = (
        similar(1, 0)
        @ np.array([[1, 0, 240], [0, 1, 200], [0, 0, 1]])
        @ H
        @ np.array([[1, 0, -240], [0, 1, -200], [0, 0, 1.0]])
    )
    greys, features, by = pair(H, extractor)
    first, second = (match_features(features, greys, each) for each in (None, by))
    assert right(second, H) > right(first, H) > 50
