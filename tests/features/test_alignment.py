"""The turn, sizes and tilt that are chosen for two images: photographs turned, resized and narrowed by other code."""

import json
import math
import os

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import rescale, resize, rotate
from torch.nn import functional as F

import kp
from kp.cli.main import main
from kp.config import DESCRIBED
from kp.features import alignment
from kp.features.alignment import TURNS, align
from kp.models import corner
from kp.models.checkpoint import load_detector
from kp.models.describer import TILTS, Describer
from kp.models.gradient_histograms import ORBITS, SIZE, gradient_histograms

PHOTO = data.camera()[60:420, 100:460]  # 360 x 360
CENTRE = torch.tensor([179.5, 179.5])


@pytest.fixture(scope="module")
def extractor():
    return kp.Extractor(DESCRIBED, max_num_keypoints=500)


@pytest.fixture(scope="module")
def features(extractor):
    return extractor.extract(PHOTO)


def right(features0, features1, found, to1):
    """How many matches are within 3 px of the truth."""
    at0, at1 = found["matches"].unbind(1)
    xy0, xy1 = features0["keypoints"][0, at0], features1["keypoints"][0, at1]
    return int(((to1(xy0) - xy1).norm(dim=1) < 3).sum())


def clockwise(xy, degrees):
    """Places of the photograph after a turn from the x axis to the y axis about its centre."""
    a = torch.tensor(np.deg2rad(degrees))
    return (xy - CENTRE) @ torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]]).float() + CENTRE


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_histograms_of_a_turned_image_are_the_same_numbers_elsewhere(quarters):
    image = cv2.GaussianBlur(PHOTO, (0, 0), 2).astype(np.float32) / 255
    half = torch.from_numpy(cv2.resize(image, (180, 180), interpolation=cv2.INTER_AREA))[None, None]
    xy = torch.tensor([[[120.0, 150.3], [179.5, 200.0], [231.7, 140.9]]])
    turned = torch.rot90(half, -quarters, (2, 3))  # clockwise, as from the x axis to the y axis
    found = gradient_histograms(turned, clockwise(xy, 90 * quarters))
    wanted = torch.empty_like(found)
    wanted[..., ORBITS.roll(-2 * quarters, 1)] = gradient_histograms(half, xy)[..., ORBITS]
    assert torch.allclose(found, wanted, atol=2e-4)
    assert sorted(ORBITS.flatten().tolist()) == list(range(SIZE))


def test_the_matrix_turns_descriptors(extractor, features):
    turn = features["turn"][0]
    around = torch.linalg.matrix_power(turn, TURNS)
    assert torch.allclose(around, torch.eye(128), atol=1e-4)
    assert (turn - torch.eye(128)).norm() > 1
    xy = features["keypoints"][:, :100]
    grey = torch.from_numpy(PHOTO).float()[None, None] / 255
    after = extractor.detector.describe(torch.rot90(grey, -1, (2, 3)), clockwise(xy, 90))
    before = features["descriptors"][0, :100]
    assert ((before @ turn.mT @ turn.mT) * after[0]).sum(1).min() > 0.999
    assert (before * after[0]).sum(1).mean() < 0.5


def test_turns_between_those_of_45_degrees_follow_from_them():
    """Two numbers that go round once, twice, three times as the image does, and one that changes its sign."""

    def turned(angle):
        a = [math.radians(times * angle) for times in (1, 2, 3)]
        each = [torch.tensor([[math.cos(b), -math.sin(b)], [math.sin(b), math.cos(b)]]) for b in a]
        return torch.block_diag(*each, torch.tensor([[math.cos(math.radians(4 * angle))]]), torch.eye(1))

    eighths = torch.stack([turned(45 * number) for number in range(TURNS)])
    found = torch.stack([alignment._turn(eighths, part) for part in range(4 * TURNS)])
    wanted = torch.stack([turned(11.25 * part) for part in range(4 * TURNS)])
    assert torch.equal(found[::4], eighths)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_wall_that_is_turned_between_is_matched(extractor, monkeypatch):
    """Straight edges in two directions: descriptors hold for a few degrees."""
    photo = data.brick()
    matrix = cv2.getRotationMatrix2D((255.5, 255.5), 20, 1)
    found = [extractor.extract(image) for image in (photo, cv2.warpAffine(photo, matrix, (512, 512)))]

    def hits():
        result = kp.match(*found)
        return right(*found, result, lambda xy: xy @ torch.tensor(matrix[:, :2].T).float() + torch.tensor(matrix[:, 2]))

    between = hits()
    monkeypatch.setattr(alignment._Pair, "turned_finer", lambda *_: [])
    assert between > 250 > 4 * hits()


def test_a_picture_from_nearer_is_not_lost_to_a_small_turn():
    """Tilts are tried beside the turns of 45 degrees and beside those between."""
    photo = data.chelsea()
    near = cv2.resize(photo[97:203, 145:306], None, fx=2.8, fy=2.8, interpolation=cv2.INTER_CUBIC)
    extractor = kp.Extractor(DESCRIBED, max_num_keypoints=1024)
    found = [extractor.extract(image) for image in (photo, near)]
    hits = right(*found, kp.match(*found), lambda xy: (xy - torch.tensor([145.0, 97]) + 0.5) * 2.8 - 0.5)
    assert hits > 40


def test_what_lies_around_tells_repeated_patterns_apart():
    """Keypoints look alike; at half the size they do not, and at a quarter they would be taken for each other."""
    a, b, c, d = torch.eye(8)[:4]
    sizes0 = torch.stack([torch.stack([a, a]), torch.stack([c, d]), torch.stack([c, d])], dim=1)
    sizes1 = torch.stack([torch.stack([a + 0.01 * b, a]), torch.stack([d, c]), torch.stack([c, d])], dim=1)
    one, two = (
        {"descriptors": F.normalize(each[:, 0], dim=1), "scaled_descriptors": F.normalize(each, dim=2)}
        for each in (sizes0, sizes1)
    )
    found = kp.match(one, two, context=True)
    assert found["matches"].tolist() == [[0, 1], [1, 0]]
    assert found["scores"].tolist() == pytest.approx([1, 1], abs=1e-4)
    assert kp.match(one, two)["matches"].tolist() != [[0, 1], [1, 0]]
    for each in (one, two):  # of one size there is no other
        each["scaled_descriptors"] = each["scaled_descriptors"][:, :1]
    assert torch.equal(kp.match(one, two, context=True)["matches"], kp.match(one, two)["matches"])


def test_a_descriptor_that_is_zero_has_no_match_by_its_context(features):
    alone = {key: features[key].clone() for key in ("descriptors", "scaled_descriptors", "turn", "tilts")}
    alone["descriptors"][:, :10] = alone["scaled_descriptors"][:, :10, 0] = 0
    found = kp.match(alone, features, context=True)["matches"]
    assert len(found) > 400
    assert found[:, 0].min() == 10


def of_one(features):
    return {key: features[key][0] for key in ("descriptors", "scaled_descriptors", "turn", "tilts")}


@pytest.mark.parametrize(("photo", "width", "numbers"), [(data.camera, 450, 256), (data.grass, 275, 128)])
def test_images_that_overlap_little_have_no_context(extractor, photo, width, numbers):
    """By 38 of 512 pixels: what lies around differs."""
    one, two = (extractor.extract(each) for each in (photo()[:, :width], photo()[:, -width:]))
    assert align(of_one(one), of_one(two), context=True).descriptors0.shape[1] == numbers


@pytest.mark.parametrize("change", ["none", "turned", "half", "quarter", "narrowed"])
def test_context_follows_what_is_chosen(extractor, features, change, monkeypatch):
    """Of the image and of half its size, changed alike, as if it cost no vote; the smallest size has none."""
    votes = alignment._Pair.votes
    monkeypatch.setattr(alignment._Pair, "votes", lambda pair, each: np.inf if each.context else votes(pair, each))
    image = {
        "none": lambda: PHOTO,
        "turned": lambda: np.rot90(PHOTO, -1),
        "half": lambda: 255 * rescale(PHOTO, 0.5, anti_aliasing=True),
        "quarter": lambda: 255 * rescale(PHOTO, 0.25, anti_aliasing=True),
        "narrowed": lambda: 255 * resize(PHOTO, (360, 195), anti_aliasing=True),
    }[change]()
    other = extractor.extract(np.ascontiguousarray(image).astype(np.uint8))
    found = align(of_one(features), of_one(other), context=True)
    alone = align(of_one(features), of_one(other))
    assert found[2:] == alone[2:]
    assert found[2:] == {"none": (0, 1, 1), "turned": (90, 1, 1), "half": (0, 0.5, 1), "quarter": (0, 0.25, 1)}.get(
        change, (0, 1, TILTS[0])
    )
    if change == "quarter":
        assert torch.equal(found.descriptors0, alone.descriptors0)
        return
    size = {"half": 1}.get(change, 0)
    scaled, turn = features["scaled_descriptors"][0], features["turn"][0]
    wanted = []
    for each in scaled[:, size], scaled[:, size + 1]:
        if change == "turned":
            each = each @ torch.linalg.inv(turn @ turn)
        elif change == "narrowed":
            each = F.normalize(each @ features["tilts"][0, 0].mT, dim=1)
        wanted.append(each)
    assert torch.allclose(found.descriptors0, F.normalize(torch.cat(wanted, dim=1), dim=1), atol=1e-4)
    scaled = other["scaled_descriptors"][0]
    assert torch.allclose(
        found.descriptors1, F.normalize(torch.cat([scaled[:, 0], scaled[:, 1]], dim=1), dim=1), atol=1e-5
    )


@pytest.mark.parametrize(
    ("degrees", "away"), [(45, 5.7), (26, 5.7), (90, 5.7), (170, 11.25), (-60, 5.7), (-130, 5.7), (10, 11.25)]
)
def test_the_turn_of_a_pair_is_found(extractor, features, degrees, away):
    """To half a step; near turns of 90 degrees, which are likelier, to a step."""
    turned = rotate(PHOTO, -degrees, preserve_range=True, mode="reflect")  # scikit-image's turns are the other way
    turned = turned.astype(np.uint8)
    other = extractor.extract(turned)
    found = kp.match(features, other)
    assert found["rotation"] == pytest.approx(degrees, abs=away)
    assert found["scale"] == 1
    hits = right(features, other, found, lambda xy: clockwise(xy, degrees))
    assert hits > 120
    upright = kp.match(features, other, upright=True)
    assert (upright["rotation"], upright["scale"]) == (0, 1)
    if abs(degrees) >= 60:
        assert hits > 2 * right(features, other, upright, lambda xy: clockwise(xy, degrees))


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.8, 0.3])
def test_the_sizes_of_a_pair_are_found(extractor, features, factor):
    resized = (rescale(PHOTO, factor, order=3, anti_aliasing=factor < 1) * 255).round().astype(np.uint8)
    other = extractor.extract(resized)
    found = kp.match(features, other)
    assert found["rotation"] == 0
    assert found["scale"] == pytest.approx(factor, rel=0.25)

    def to1(xy):
        return (xy + 0.5) * resized.shape[0] / 360 - 0.5

    upright = kp.match(features, other, upright=True)
    assert right(features, other, found, to1) > max(40, 1.3 * right(features, other, upright, to1))


def test_a_picture_from_four_times_nearer_is_matched(extractor):
    near = cv2.resize(data.coffee(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    far = cv2.resize(near, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    found = [extractor.extract(image) for image in (near, far)]

    def to1(xy):
        return (xy + 0.5) / 4 - 0.5

    wanted, upright = kp.match(*found), kp.match(*found, upright=True)
    assert (wanted["rotation"], wanted["scale"]) == (0, 0.25)
    assert right(*found, wanted, to1) > 40 > 2 * right(*found, upright, to1)


def test_a_second_thread_changes_nothing(extractor, features, monkeypatch):
    grey, xy = torch.from_numpy(PHOTO).float()[None, None] / 255, features["keypoints"]
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with torch.inference_mode():
            found.append(extractor.detector.describe_in_sizes(grey, xy, 3))
    assert torch.equal(*found)
    assert corner._second_thread(os.getpid()) is corner._second_thread(os.getpid())
    assert corner._second_thread(os.getpid()) is not corner._second_thread(-1), "threads do not survive a fork"


def test_the_same_image_is_neither_turned_nor_resized(features):
    found = kp.match(features, features)
    assert (found["rotation"], found["scale"]) == (0, 1)
    assert torch.equal(found["matches"][:, 0], found["matches"][:, 1])
    assert len(found["matches"]) == features["keypoints"].shape[1]


def test_each_size_is_described_in_an_image_half_as_large(extractor, features):
    scaled = features["scaled_descriptors"]
    assert scaled.shape[1:] == (features["keypoints"].shape[1], 3, 128)
    assert torch.equal(scaled[:, :, 0], features["descriptors"])
    grey = torch.from_numpy(PHOTO).float()[None, None] / 255
    for size in (1, 2):
        grey = torch.from_numpy(cv2.resize(grey[0, 0].numpy(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        grey, xy = grey[None, None], (features["keypoints"] + 0.5) / 2**size - 0.5
        wanted = extractor.detector.describe(grey, xy)
        assert torch.allclose(scaled[:, :, size], wanted, atol=1e-3)


def test_one_size_may_be_enough(features):
    alone = kp.Extractor(DESCRIBED, max_num_keypoints=500, descriptor_scales=1).extract(PHOTO)
    assert "scaled_descriptors" not in alone
    assert torch.equal(alone["descriptors"], features["descriptors"])
    assert kp.match(alone, features)["scale"] == 1
    with pytest.raises(ValueError, match="descriptor_scales must be a whole number of at least 1, not 0"):
        kp.Extractor(DESCRIBED, descriptor_scales=0)


def test_descriptors_put_in_their_place_are_not_turned(features):
    g = torch.Generator().manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(features["descriptors"].shape, generator=g), dim=2)
    found = kp.match(features | {"descriptors": others}, features | {"descriptors": others @ features["turn"]})
    assert (found["rotation"], found["scale"]) == (0, 1), "the matrix is not theirs"


def test_descriptors_put_in_their_place_are_compared_as_they_are(features):
    g = torch.Generator().manual_seed(0)
    count = features["keypoints"].shape[1]
    others = torch.nn.functional.normalize(torch.randn(1, count, 128, generator=g), dim=2)
    found = kp.match(features | {"descriptors": others}, features | {"descriptors": others})
    assert (found["rotation"], found["scale"]) == (0, 1)
    assert torch.equal(found["matches"][:, 0], found["matches"][:, 1])
    assert len(found["matches"]) == count


def test_a_map_that_is_not_closed_has_no_turn():
    torch.manual_seed(0)
    describer = Describer(64)  # random
    assert describer.turn() is None
    nothing_lost = Describer(SIZE)
    assert nothing_lost.turn().shape == (SIZE, SIZE)


# --- tilts ---


def narrowed(image, factor, degrees):
    """An image made narrower along a direction by scikit-image, and the homography (3, 3) that did it.

    It is turned, resized and turned back, in an image large enough for all of it.
    """
    turned = rotate(image, degrees, resize=True, preserve_range=True, mode="edge")  # the other way than ours
    height, width = turned.shape
    thin = resize(turned, (height, round(width / factor)), anti_aliasing=True, preserve_range=True)
    back = rotate(thin, -degrees, resize=True, preserve_range=True, mode="edge")

    def about(shape, to, angle):
        """A turn about the centre of an image of one shape, which comes to that of another."""
        a = np.deg2rad(angle)
        matrix = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        centre, there = (np.array([(s[1] - 1) / 2, (s[0] - 1) / 2]) for s in (shape, to))
        matrix[:2, 2] = there - matrix[:2, :2] @ centre
        return matrix

    x = thin.shape[1] / width
    squeeze = np.array([[x, 0, (x - 1) / 2], [0, 1, 0], [0, 0, 1]])
    H = about(thin.shape, back.shape, degrees) @ squeeze @ about(image.shape, turned.shape, -degrees)
    return back.round().astype(np.uint8), torch.from_numpy(H).float()


def by(H):
    def to1(xy):
        places = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1) @ H.mT
        return places[:, :2] / places[:, 2:]

    return to1


@pytest.mark.parametrize(("factor", "degrees"), [(2.2, 0), (3.0, 0), (1.9, 45), (2.5, 90), (2.5, 135)])
def test_pictures_from_the_side_are_matched(extractor, features, factor, degrees):
    """A size and a tilt together may be the same change as another tilt, so it does not matter which one is chosen."""
    image, H = narrowed(PHOTO, factor, degrees)
    other = extractor.extract(image)
    found = kp.match(features, other)
    plain = kp.match(*({k: v for k, v in each.items() if k != "tilts"} for each in (features, other)))
    assert plain["tilt"] == 1
    assert found["tilt"] != 1
    hits, without = (right(features, other, each, by(H)) for each in (found, plain))
    assert hits > max(100, 1.2 * without)
    found = kp.match(other, features)
    plain = kp.match(*({k: v for k, v in each.items() if k != "tilts"} for each in (other, features)))
    hits, without = (right(other, features, each, by(torch.linalg.inv(H))) for each in (found, plain))
    assert found["tilt"] != 1
    assert hits > max(100, 1.2 * without)


def test_the_matrices_make_descriptors_of_the_narrow_image(extractor, features):
    width = 200
    narrow = resize(PHOTO, (360, width), anti_aliasing=True, preserve_range=True)
    xy = features["keypoints"][:, :200]
    places = torch.stack([(xy[..., 0] + 0.5) * width / 360 - 0.5, xy[..., 1]], dim=2)
    grey = torch.from_numpy(narrow).float()[None, None] / 255
    after = extractor.detector.describe(grey, places)
    before, (small, large) = features["descriptors"][0, :200], features["tilts"][0]
    alike = [(torch.nn.functional.normalize(before @ m.mT, dim=1) * after[0]).sum(1).mean() for m in (small, large)]
    assert alike[0] > 0.15 + (before * after[0]).sum(1).mean()  # narrower by 1.8, which is nearer to 1.6 than to 3
    assert alike[0] > alike[1]


def test_weights_of_before_have_no_tilts():
    detector = load_detector(DESCRIBED)
    state = {name: values for name, values in detector.state_dict().items() if not name.endswith("side_maps")}
    assert len(state) == len(detector.state_dict()) - 1
    detector.load_state_dict(state)
    assert detector.describer.tilts() is None
    assert detector.describer.turn() is not None
    assert load_detector(DESCRIBED).describer.tilts().shape == (len(TILTS), 128, 128)


def test_of_an_image_that_is_alike_no_tilt_is_tried(extractor, features, monkeypatch):
    tried = []
    monkeypatch.setattr(alignment._Pair, "tilted", lambda self, change: tried.append(change) or [])
    darker = extractor.extract((PHOTO * 0.6).astype(np.uint8))
    assert (kp.match(features, darker)["rotation"], kp.match(features, darker)["tilt"]) == (0, 1)
    assert not tried
    kp.match(features, extractor.extract(narrowed(PHOTO, 2.2, 0)[0]))
    assert len(tried) == 2


def test_of_an_image_that_is_alike_no_turn_is_tried(extractor, features, monkeypatch):
    tried, votes = [], alignment._Pair.votes
    monkeypatch.setattr(alignment._Pair, "votes", lambda self, change: tried.append(change) or votes(self, change))
    darker = extractor.extract((PHOTO * 0.6).astype(np.uint8))
    assert kp.match(features, darker)["rotation"] == 0
    assert len(tried) == 1
    assert kp.match(features, extractor.extract(np.rot90(PHOTO).copy()))["rotation"] == -90
    assert len(tried) > 1 + TURNS


@pytest.mark.parametrize(("votes", "alike"), [(204, True), (203, False)])  # four more than there are
def test_two_thirds_of_all_votes_are_enough(features, monkeypatch, votes, alike):
    tried = []
    monkeypatch.setattr(alignment._Pair, "votes", lambda _, change: tried.append(change) or votes)
    kp.match(features, features)
    assert (len(tried) == 1) is alike


@pytest.mark.parametrize("count", [2, 3, 5, 8, 12])
def test_an_image_and_a_few_of_its_own_keypoints_are_not_changed(features, count):
    """Of few descriptors one is by chance much nearer than the others, in one of many turns, sizes and tilts."""
    g, each = torch.Generator().manual_seed(0), ("keypoints", "descriptors", "scaled_descriptors")
    for _ in range(5):
        some = torch.randperm(features["keypoints"].shape[1], generator=g)[:count]
        few = {name: values[:, some] if name in each else values for name, values in features.items()}
        found = kp.match(features, few)
        assert torch.equal(found["matches"][:, 0].sort().values, some.sort().values)
        assert torch.equal(some[found["matches"][:, 1]], found["matches"][:, 0])


def test_kp_match_says_that_a_picture_is_seen_from_another_side(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), PHOTO)
    cv2.imwrite(str(tmp_path / "b.png"), narrowed(PHOTO, 2.8, 90)[0])
    for (first, second), along, across in (("ab", "1", "0.36"), ("ba", "2.8", "1")):
        names = [str(tmp_path / f"{name}.png") for name in (first, second)]
        assert main(["match", *names]) == 0
        text = f"things in {names[1]} are about {along} times as large along one direction and {across} across it\n"
        assert text in capsys.readouterr().out


@pytest.mark.parametrize(("degrees", "times"), [(37, 0.8), (-68, 0.7), (0, 1.3), (2, 1.05)])
def test_kp_match_says_by_how_much_as_the_homography_has_it(tmp_path, capsys, degrees, times):
    """Not in the steps that descriptors are compared in."""
    matrix = cv2.getRotationMatrix2D((179.5, 179.5), -degrees, times)
    cv2.imwrite(str(tmp_path / "a.png"), PHOTO)
    cv2.imwrite(str(tmp_path / "b.png"), cv2.warpAffine(PHOTO, matrix, (360, 360), flags=cv2.INTER_AREA))
    assert main(["match", str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 0
    said = capsys.readouterr().out.split("\n")[0].partition("; things in ")[2]
    way = "clockwise" if degrees > 0 else "anticlockwise"
    told = [f"turned by about {abs(degrees)} degrees {way}"] * (abs(degrees) > 3)
    told += [f"about {times} times as large"] * (abs(times - 1) > 0.1)
    assert said == (f"{tmp_path / 'b.png'} are {', '.join(told)}" if told else "")


def test_images_without_keypoints_have_no_match(extractor, features):
    empty = extractor.extract(np.zeros((80, 90), np.uint8))
    for pair in ((empty, features), (features, empty), (empty, empty)):
        assert kp.match(*pair)["matches"].shape == (0, 2)


def test_the_chosen_descriptors_are_of_unit_length(extractor, features):
    other = extractor.extract(narrowed(PHOTO, 2.5, 0)[0])
    names = ("descriptors", "scaled_descriptors", "turn", "tilts")
    aligned = align(*({name: each[name][0] for name in names} for each in (features, other)))
    assert aligned.tilt != 1
    for each in (aligned.descriptors0, aligned.descriptors1):
        assert torch.allclose(each.norm(dim=1), torch.ones(len(each)), atol=1e-4)


def test_files_keep_what_they_are_aligned_by(features, tmp_path):
    for name in ("f.h5", "f.npz", "f.json"):
        kp.save(tmp_path / name, "photo", features)
        again = kp.load(tmp_path / name, "photo")
        for key in ("descriptors", "scaled_descriptors", "turn", "tilts"):
            assert torch.equal(again[key], features[key]), (name, key)
        assert torch.equal(kp.match(again, features)["matches"], kp.match(features, features)["matches"])


def test_a_batch_is_aligned_as_single_images_are(extractor, features):
    turned = np.ascontiguousarray(np.rot90(PHOTO))
    batch = extractor({"image": torch.from_numpy(np.stack([PHOTO, turned]))[:, None]})
    each = [{name: values[index : index + 1] for name, values in batch.items()} for index in range(2)]
    assert each[0]["turn"].shape == (1, 128, 128)
    assert each[0]["tilts"].shape == (1, len(TILTS), 128, 128)
    found, wanted = kp.match(*each), kp.match(features, extractor.extract(turned))
    assert found["rotation"] == wanted["rotation"] == -90  # numpy: from the y axis to the x axis
    assert torch.equal(found["matches"], wanted["matches"])


def test_kp_match_says_how_the_pictures_are_turned(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), PHOTO)
    cv2.imwrite(str(tmp_path / "b.png"), np.rot90(cv2.resize(PHOTO, (180, 180), interpolation=cv2.INTER_AREA)))
    names = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main(["match", *names]) == 0
    text = f"things in {names[1]} are turned by about 90 degrees anticlockwise, about 0.5 times as large\n"
    assert text in capsys.readouterr().out
    found = []
    for words in ([], ["--upright"]):
        assert main(["match", *names, "--json", *words]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [(each["rotation"], each["scale"]) for each in found] == [(-90, 0.5), (0, 1)]
    assert sum(found[0]["inliers"]) > 3 * sum(found[1]["inliers"])
    # pixel (x, y) of the picture is ((y + 0.5) / 2 - 0.5, 179 - (x + 0.5) / 2 + 0.5) of the other
    assert np.abs(np.array(found[0]["H_0to1"]) - [[0, 0.5, -0.25], [-0.5, 0, 179.25], [0, 0, 1]]).max() < 0.5
