"""One of two images described anew as the other sees it: against warps that are known."""

import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data

import kp
from kp.features.alignment import Aligned
from kp.features.estimate import estimate, in_front
from kp.features.match_pair import describer, fitted, match_places
from kp.features.neighbours import mutual_neighbours
from kp.features.second_look import both_looks, second_look

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


def matched(features, images, by, ratio=None, estimator="opencv", **options):
    found = match_places(features, images, by, ratio, estimator=estimator, **options)
    return fitted(found, features, 3.0, estimator)


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
    first, second = (matched(features, greys, each) for each in (None, by))
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
        assert matched(features, greys, refused)["verified_H"]


def test_images_with_nothing_in_common_are_not_looked_at_again(extractor):
    images = [data.astronaut()[:200, :240], data.coffee()[:200, :240]]
    features = [extractor.extract(image) for image in images]
    greys = [torch.from_numpy(image[..., 1]).float()[None, None] / 255 for image in images]
    found = matched(features, greys, refused)
    assert len(found["matches"]) > 30
    assert not found["verified"]


def squares(count=9, apart=40.0):
    """Places (N, 2) of a lattice with different distances, so that no homography maps it to itself."""
    line = torch.arange(count) * apart
    xy = torch.cartesian_prod(line, line)
    return xy + 9 * torch.rand(xy.shape, generator=torch.Generator().manual_seed(1))


def known(xy, codes):
    return {"keypoints": xy, "descriptors": torch.eye(100)[codes]}


def same(count):
    """Matches of keypoints with the same number."""
    return torch.arange(count)[:, None].expand(-1, 2)


def fit_of(features, matches):
    """The homography of matches, and which it fits."""
    return estimate(*(each["keypoints"][at] for each, at in zip(features, matches.unbind(1), strict=True)))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("back", [False, True])
def test_the_image_that_shows_more_is_described_as_the_other_sees_it(back, sign):
    """Half as large and turned by 90 degrees, so that some are outside. Image 0 or 1 shows more."""
    xy = squares()
    H = np.array([[0, -0.5, 150], [0.5, 0, 10], [0, 0, 1.0]])
    other = there(xy, H)
    seen, small = GREY[..., :400, :400], (200, 140)
    inside = (other >= 0).all(1) & (other <= torch.tensor([139.0, 199])).all(1)
    assert 50 < inside.sum() < 81
    codes = torch.arange(81)
    asked = []

    def describe(image, places):
        asked.append((image, places))
        return {"descriptors": torch.eye(100)[codes[inside]]}

    images = [seen, torch.zeros(1, 1, *small)]
    features = [known(xy, codes), known(other[inside], codes[inside])]
    if back:
        images, features = images[::-1], features[::-1]
    matches = kp.match(*features)["matches"]
    H_0to1, fits = fit_of(features, matches)
    found = second_look(images, features, matches, (sign * H_0to1, fits), describe)
    ((image, places),) = asked
    assert torch.allclose(places, other[inside], atol=1e-3)
    assert image.shape == (1, 1, *small)
    wanted = cv2.warpPerspective(cv2.GaussianBlur(seen[0, 0].numpy(), (0, 0), 0.9), H, small[::-1])
    off = [np.abs(image[0, 0].numpy() - np.roll(wanted, by, 1))[12:-5, 5:-5].mean() for by in (0, 1)]
    assert off[0] < 0.01 < off[1]  # of the image: its first rows are outside of the other
    assert torch.allclose(image[0, 0, 2], image[0, 0, 7], atol=0.01), "the edge of the image is repeated"
    assert image[0, 0, 2].min() > 0.02
    more, less = (found.descriptors1, found.descriptors0) if back else found[:2]
    assert torch.equal(more, torch.eye(100)[codes] * inside[:, None])  # zero where the other does not see it
    assert torch.equal(less, torch.eye(100)[codes[inside]])
    assert (found.rotation, found.scale, found.tilt) == (0, 1, 1)


def test_of_two_looks_the_one_counts_in_which_places_are_more_alike():
    """Cosines of the first look: .96 0 .8 / 0 .8 .6 / .8 .48 .48; of the second, of place 2 alone: 0 .28 .96."""
    one = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.6, 0, 0.8]])
    two = torch.tensor([[0.96, 0, 0.28], [0, 0.8, 0.6], [0.8, 0.6, 0]])
    again = (
        torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1]]),
        torch.tensor([[1.0, 0, 0], [0, 0.96, 0.28], [0, 0.28, 0.96]]),
    )
    assert mutual_neighbours([(one, two)])[0].tolist() == [[0, 0], [1, 1]]
    assert mutual_neighbours([again])[0].tolist() == [[2, 2]]
    pairs, scores = mutual_neighbours([(one, two), again])
    assert pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert scores.tolist() == pytest.approx([0.96, 0.8, 0.96])
    unlike = torch.tensor([[1.0, 0]]), torch.tensor([[-0.6, 0.8], [-0.5, 0.866]])
    not_described = torch.zeros(1, 2), unlike[1]
    assert mutual_neighbours([unlike, not_described])[0].tolist() == [[0, 1]]
    assert mutual_neighbours([not_described, unlike])[0].tolist() == [[0, 1]]
    # distances are the roots of 2 - 2 cos: .283 of .96, .632 of .8, .894 of .6, 1.2 of .28
    assert mutual_neighbours([(one, two), again], 0.5)[0].tolist() == [[0, 0], [2, 2]]
    assert mutual_neighbours([(one, two), again], 0.3)[0].tolist() == []  # next to 2 is 0, by the first look


def test_what_is_not_on_the_plane_of_the_homography_loses_nothing(extractor):
    """Two walls beside each other, of which one turns away; each with its own homography."""
    walls = np.hstack([cv2.resize(each, (350, 400)) for each in (data.astronaut(), data.coffee())])
    views = [
        np.array([[0.6, 0, 60], [-0.12, 0.9, 30], [-3e-4, 0, 1]]),
        np.array([[1.15, 0, -150], [0.1, 1, -30], [3e-4, 0, 1]]),
    ]
    left = np.zeros((400, 700), np.uint8)
    left[:, :350] = 255
    seen = [cv2.warpPerspective(walls, H, (700, 420), flags=cv2.INTER_AREA) for H in views]
    both = np.where(cv2.warpPerspective(left, views[0], (700, 420))[..., None] > 127, *seen)
    for method in (None, "rootsift"):
        features = [extractor.extract(image) for image in (walls, both)]
        if method:
            features = [{"keypoints": f["keypoints"]} for f in features]
            for image, each in zip((walls, both), features, strict=True):
                each["descriptors"] = kp.describe(image, each, method)
        greys = [torch.from_numpy(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255 for i in (walls, both)]
        counts = []
        for by in (None, describer(extractor, method)):
            found = matched(features, greys, by)
            on_left = found["keypoints0"][:, 0] < 350
            of_each = [found["keypoints1"] - there(found["keypoints0"], H) for H in views]
            off = torch.where(on_left[:, None], *of_each).norm(dim=1)
            counts.append([int((off[side] < 3).sum()) for side in (on_left, ~on_left)])
        assert sum(counts[1]) > sum(counts[0])
        assert min(two / one for one, two in zip(*counts, strict=True)) > 0.95


def test_the_ratio_and_the_context_are_those_of_the_first_look(extractor):
    greys, features, by = pair(VIEWS["between two sizes"], extractor)
    counts = {}
    for ratio in (None, 0.8):
        for context in (False, True):
            found = matched(features, greys, by, ratio, context=context)
            counts[ratio, context] = len(found["matches"])
    assert counts[None, True] > counts[0.8, True]
    assert counts[None, False] > counts[0.8, False]
    assert len(set(counts.values())) == 4


def test_nothing_beyond_the_horizon_is_described():
    """With w = 1 - x / 250 places are sent to 600 + 60 / w, 300 + 0.6 y / w: some from beyond the horizon inside."""
    xy = squares(12, 30.0)
    w = 1 - xy[:, 0] / 250
    other = torch.stack([600 + 60 / w, 300 + 0.6 * xy[:, 1] / w], dim=1)
    ahead = w > 0.2
    beyond = (w < 0) & ((other >= 0) & (other < 1000)).all(1)
    assert beyond.sum() > 10
    features = [known(xy, torch.zeros(len(xy)).long()), known(other[ahead], torch.zeros(int(ahead.sum())).long())]
    matches = torch.stack([ahead.nonzero()[:, 0], torch.arange(int(ahead.sum()))], dim=1)
    images = torch.zeros(1, 1, 400, 400), torch.zeros(1, 1, 1000, 1000)
    fit = fit_of(features, matches)
    found = second_look(images, features, matches, fit, lambda _, xy: {"descriptors": torch.ones(len(xy), 100)})
    described = found.descriptors0.any(1)
    assert not described[w < 0].any()
    assert described[ahead & (other < 999).all(1)].all()


def test_a_homography_of_either_sign_has_its_places_in_front():
    xy = squares()
    H = torch.tensor([[0.9, 0.1, 3], [0, 1.1, 2], [1e-3, 0, 1]], dtype=torch.float64)
    for each in (H, -H, 3 * H):
        assert torch.allclose(in_front(each, xy) / in_front(each, xy)[2, 2].abs(), H)


@pytest.mark.parametrize(("times", "looked"), [(12, True), (20, False), (1 / 12, True), (1 / 20, False)])
def test_a_change_that_is_too_large_is_left(times, looked):
    xy = squares(apart=10.0)
    features = [known(times * xy, torch.arange(81)), known(xy, torch.arange(81))]
    if times < 1:  # places of neither image are nearer to each other than those of the lattice
        features = [{**each, "keypoints": 20 * each["keypoints"]} for each in features]
    big = torch.zeros(1, 1, 2400, 2400)
    fit = fit_of(features, same(81))
    found = second_look([big, big], features, same(81), fit, lambda _, xy: {"descriptors": torch.ones(len(xy), 100)})
    assert (found is not None) is looked


def test_the_estimator_is_the_one_that_is_asked_for(monkeypatch, extractor):
    asked = []

    def estimated(*given):
        asked.append(given[-1])
        return estimate(*given[:-1], "opencv")

    for module in ("second_look", "match_pair"):
        monkeypatch.setattr(f"kp.features.{module}.estimate", estimated)
    greys, features, by = pair(VIEWS["turned"], extractor)
    matched(features, greys, by, estimator="another")
    assert asked == ["another"] * 5


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
    first, second = (matched(features, greys, each) for each in (None, by))
    assert right(second, H) > right(first, H) > 50


def test_what_one_homography_fits_of_the_second_look_counts_before_all_else():
    """Of 81 places the second look sees 60 as they are, though not quite; the first has each like the next."""
    xy = squares()
    codes, count = torch.eye(100), 60
    quite = 0.9 * codes[:81] + math.sqrt(1 - 0.9**2) * codes[99]
    shown = (torch.arange(81) < count)[:, None]
    second = Aligned(quite * shown, codes[:81])
    first = Aligned(codes[:81], codes[:81].roll(1, 0))  # place k of image 0 is most alike to place k + 1 of image 1
    found = both_looks(first, second, (xy, 2 * xy))
    wanted = [[k, k] for k in range(count)] + [[k, k + 1] for k in range(count, 80)]  # 80 has 0, which is taken
    assert found["matches"].tolist() == wanted
    assert torch.allclose(found["scores"], torch.tensor([0.9] * count + [1.0] * 20))
    alone = mutual_neighbours([first[:2], second[:2]])[0]
    assert alone.tolist() == [[k, (k + 1) % 81] for k in range(81)]


def test_evidence_is_of_the_first_look(extractor, monkeypatch):
    """Matches of the second are seen by a homography."""
    greys, features, by = pair(VIEWS["turned"], extractor)
    asked = []
    found = {"verified": True, "verified_H": True}
    monkeypatch.setattr("kp.features.match_pair.evidence", lambda *given: asked.append(given) or found)
    second = matched(features, greys, by)
    first = kp.match(*features, context=True)["matches"]
    assert not torch.equal(first, second["matches"])
    ((xy0, xy1, H_0to1, _, threshold, keypoints1),) = asked
    assert torch.equal(xy0, features[0]["keypoints"][0, first[:, 0]])
    assert torch.equal(xy1, features[1]["keypoints"][0, first[:, 1]])
    assert torch.equal(H_0to1, second["H_0to1"])
    assert threshold == 3
    assert torch.equal(keypoints1, features[1]["keypoints"][0])
    assert "first_matches" not in second


@pytest.mark.parametrize(
    ("H", "looked"),
    [
        (np.diag([1.13, 1.13, 1.0]), True),
        (np.diag([1.07, 1.07, 1.0]), False),
        (similar(1, 7)[:3], True),
        (similar(1, 4)[:3], False),
        (np.array([[1, 0, 0], [0, 1, 0], [1.5e-4, 0, 1.0]]), False),  # by more than a tenth at its edge alone
        (np.array([[1, 0, 0], [0, 1, 0], [6e-4, 0, 1.0]]), True),
    ],
)
def test_a_tenth_of_a_vector_at_half_of_the_matches_is_not_alike(H, looked):
    xy = squares()
    features = [known(xy, torch.arange(81)), known(there(xy, H), torch.arange(81))]
    images = [torch.zeros(1, 1, 500, 500)] * 2
    fit = fit_of(features, same(81))
    found = second_look(images, features, same(81), fit, lambda _, xy: {"descriptors": torch.ones(len(xy), 100)})
    assert (found is not None) is looked


def test_no_homography_is_no_second_look(extractor):
    """Of three keypoints."""
    greys, features, by = pair(VIEWS["turned"], extractor)
    each = ("keypoints", "keypoint_scores", "descriptors", "scaled_descriptors")
    few = [{name: values[:, :3] if name in each else values for name, values in one.items()} for one in features]
    found = matched(few, greys, by)
    assert torch.equal(found["matches"], kp.match(*few, context=True)["matches"])


def test_evidence_is_asked_with_all_keypoints(monkeypatch):
    asked = []
    monkeypatch.setattr("kp.features.second_look.evidence", lambda *given: asked.append(given) or {"verified_H": False})
    xy = squares()
    features = [known(xy, torch.arange(81)), known(0.5 * xy, torch.arange(81))]
    matches = same(60)
    assert second_look([torch.zeros(1, 1, 500, 500)] * 2, features, matches, fit_of(features, matches), None) is None
    ((xy0, xy1, _, F_0to1, threshold, keypoints1),) = asked
    assert torch.equal(xy0, xy[:60])
    assert torch.equal(xy1, 0.5 * xy[:60])
    assert torch.equal(keypoints1, 0.5 * xy)
    assert (F_0to1, threshold) == (None, 3)


def test_descriptors_of_another_length_are_told():
    xy = squares()
    features = [known(xy, torch.arange(81)), known(0.5 * xy, torch.arange(81))]
    images = [torch.zeros(1, 1, 500, 500)] * 2
    with pytest.raises(ValueError, match="descriptors of 7 and of 100 numbers cannot be matched"):
        second_look(
            images,
            features,
            same(81),
            fit_of(features, same(81)),
            lambda _, xy: {"descriptors": torch.ones(len(xy), 7)},
        )


@pytest.mark.parametrize("times", [1.2, 1 / 1.2])
def test_the_image_that_shows_a_little_more_is_the_one_that_is_described(times):
    xy = squares(apart=20.0)
    features = [known(xy, torch.arange(81)), known(times * xy, torch.arange(81))]
    images = torch.zeros(1, 1, 300, 300), torch.zeros(1, 1, 310, 310)
    asked = []

    def describe(image, places):
        asked.append(image.shape[-1])
        return {"descriptors": torch.ones(len(places), 100)}

    second_look(images, features, same(81), fit_of(features, same(81)), describe)
    assert asked == [300 if times > 1 else 310]  # in the frame of the other


def test_both_looks_take_the_ratio():
    """Place 0 has a distance of .447 to place 0 and of .538 to place 80: nearer by .83."""
    xy, codes = squares(), torch.eye(100)
    others = codes[:81].clone()
    others[80] = 0.95 * codes[0] + math.sqrt(1 - 0.95**2) * codes[98]
    look = Aligned(0.9 * codes[:81] + math.sqrt(1 - 0.9**2) * codes[99], others)
    for ratio, first in ((None, 0), (0.8, 1)):
        assert both_looks(look, look, (xy, 2 * xy), ratio)["matches"].tolist() == [[k, k] for k in range(first, 80)]


def test_what_the_homography_does_not_fit_is_matched_by_both_looks():
    """Places 11 to 80 are on a plane; of those that are not the second look knows 6 to 10, the first 0 to 5."""
    xy, codes = squares(), torch.eye(100)[:81]
    there = 2 * xy
    there[:11] += torch.tensor([60.0, -50])
    known_by = torch.arange(81)[:, None]
    second, first = Aligned(codes * (known_by > 5), codes), Aligned(codes * (known_by < 6), codes)
    found = both_looks(first, second, (xy, there))
    assert torch.equal(found["matches"], same(81)), "in order"
