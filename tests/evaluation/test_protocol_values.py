"""Keypoints placed by construction score, under every protocol, what is counted by hand or in plain numpy.

Nothing of kp is used to know what to expect: where a pixel goes is written here once more, about the edges of the
image, and the sizes and crops are worked out on paper.
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

import evaluate as script
from kp.data import hpatches
from kp.evaluation import benchmark
from kp.evaluation.protocols import PROTOCOLS
from kp.models.keypoints import Keypoints

NAMES = ("native", "240x320", "480x640", "squash")
SHOWN = {"240x320": (240, 320), "480x640": (480, 640), "squash": (240, 320)}
MOST = {"native": 300, "240x320": 300, "480x640": 1000, "squash": 300}
# size of an image -> its size when it covers the protocol's, and top and left of what is cut out. On paper: 301x457
# covers 240x320 when scaled by 240/301 = 0.797 (320/457 = 0.700 would leave it too low): 457 * 240/301 = 364.4
COVERS = {
    "240x320": {
        (301, 457): ((240, 364), (0, 22)),
        (517, 333): ((497, 320), (128, 0)),
        (101, 143): ((240, 340), (0, 10)),
        (161, 90): ((572, 320), (166, 0)),
        (205, 777): ((240, 910), (0, 295)),
        (480, 640): ((240, 320), (0, 0)),
        (480, 680): ((240, 340), (0, 10)),
    },
    "480x640": {
        (301, 457): ((480, 729), (0, 44)),
        (517, 333): ((994, 640), (257, 0)),
        (101, 143): ((480, 680), (0, 20)),
        (161, 90): ((1145, 640), (332, 0)),
        (205, 777): ((480, 1819), (0, 589)),
        (480, 640): ((480, 640), (0, 0)),
        (480, 680): ((480, 680), (0, 20)),
    },
}
PAIRS = (
    ((301, 457), (517, 333)),
    ((517, 333), (301, 457)),
    ((101, 143), (161, 90)),
    ((205, 777), (480, 640)),
)
every_protocol = pytest.mark.parametrize("name", NAMES)
every_pair = pytest.mark.parametrize("sizes", PAIRS, ids=lambda s: "{}x{}-{}x{}".format(*s[0], *s[1]))


class Look:
    """How a protocol looks at an image of a size: native pixels (N, 2) to pixels of what a detector sees, and back."""

    def __init__(self, name, size):
        (high, wide), (top, left) = COVERS.get(name, {}).get(size, (SHOWN.get(name, size), (0, 0)))
        self.scale, self.cut = np.array([wide / size[1], high / size[0]]), np.array([left, top])
        self.size = SHOWN.get(name, size)

    def seen(self, native, half=0.5, cut=1):
        """``half`` and ``cut`` are changed to make a mistake on purpose."""
        return (native + half) * self.scale - half - self.cut * cut

    def native(self, seen, half=0.5, cut=1):
        return (seen + self.cut * cut + half) / self.scale - half

    def shows(self, seen, margin=0.0):
        """Which points lie in the image, whose outer pixels reach half a pixel beyond their centres."""
        low, high = margin - 0.5, np.array(self.size[::-1]) - 0.5 - margin
        return ((seen >= low) & (seen <= high)).all(1)


def project(H, points):
    """Points (N, 2) through H (3, 3), and their depth."""
    x, y, w = H @ np.vstack([np.transpose(points), np.ones(len(points))])
    return np.stack([x / w, y / w], axis=1), w


def carry(points, H, look0, look1, **mistake):
    """Where points (N, 2) that a detector sees in one image are in the other, and which are in front of its camera."""
    native, w = project(H, look0.native(points, **mistake))
    return look1.seen(native, **mistake), w > 0


def homography(size0, size1, perspective=(2e-4, -1e-4)):
    """From the centre to near the centre, turned, sheared and tilted, at about the same share of the image."""
    centres = [np.array([[1, 0, (w - 1) / 2], [0, 1, (h - 1) / 2], [0, 0, 1]]) for h, w in (size0, size1)]
    zoom = np.diag([*[np.sqrt(size1[0] * size1[1] / size0[0] / size0[1])] * 2, 1])
    change = np.array([[0.97, 0.09, 5.3], [-0.07, 1.04, -3.6], [*perspective, 1]])
    return centres[1] @ zoom @ change @ np.linalg.inv(centres[0])  # depth 1 at the centre of image 0


def write(folder, images, homographies):
    """A sequence on disk, image 1 as PPM and the others as PNG, and read back from there."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        assert cv2.imwrite(str(folder / f"{number}.{'ppm' if number == 1 else 'png'}"), np.dstack([image] * 3))
    for number, H in enumerate(homographies, start=2):
        (folder / f"H_1_{number}").write_text("\n".join(" ".join(map(repr, row)) for row in H.tolist()))
    return hpatches.read(folder)


def measured(tmp_path, sizes, H, points, protocol, tied=False):
    """The record of a detector that finds these points, best first, in images it tells apart by their grey."""
    sequences = write(
        tmp_path / "v_pair", [np.full(s, g, np.uint8) for s, g in zip(sizes, (50, 200), strict=True)], [H]
    )

    def detector(image):
        which = int(image.mean() > 0.5)
        assert tuple(image.shape) == (1, 1, *SHOWN.get(protocol.name, sizes[which]))
        xy = torch.tensor(points[which], dtype=torch.float64)
        scores = torch.zeros(len(xy)) if tied else torch.linspace(9, -9, len(xy))
        return Keypoints(xy[None], scores[None], torch.ones(1, len(xy), dtype=torch.bool))

    (record,) = benchmark.evaluate(sequences, lambda: {"fake": detector}, protocol)
    assert (record["protocol"], record["image"]) == (protocol.name, 2)
    return record


def lattice(size, step):
    y, x = np.mgrid[step : size[0] - step / 2 : step, step : size[1] - step / 2 : step]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(float)


def edge(look, off):
    """Places ``off`` pixels beyond (or within, if negative) the sides of what a detector sees."""
    (h, w), t = look.size, np.linspace(0.1, 0.9, 9)
    sides = ((t * w, -0.5 - off), (t * w, h - 0.5 + off), (-0.5 - off, t * h), (w - 0.5 + off, t * h))
    return np.vstack([np.stack(np.broadcast_arrays(*side), axis=1) for side in sides])


def expected(points0, points1, H, looks, most, threshold=3.0):
    """All of a record that depends on where keypoints are, one definition after the other."""
    (look0, look1), H_1to0 = looks, np.linalg.inv(H)
    to1, front = carry(points0, H, look0, look1)
    to1 = to1[front & look1.shows(to1)][:most]
    back, front = carry(points1, H_1to0, look1, look0)
    of1 = points1[front & look0.shows(back)][:most]
    apart = np.hypot(*(to1[:, None] - of1[None]).transpose(2, 0, 1))
    nearest = np.concatenate([apart.min(1), apart.min(0)])
    rows, columns = linear_sum_assignment(apart > threshold)
    y, x = np.indices(look1.size)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    back, front = carry(pixels, H_1to0, look1, look0)
    shared = (front & look0.shows(back)).sum()
    alone = 1 - np.pi * threshold**2 / shared  # the chance that one strewn point is not near
    found = len(to1) * (1 - alone ** len(of1)) + len(of1) * (1 - alone ** len(to1))
    return {
        "repeatability": (nearest <= threshold).mean(),
        **{f"repeatability_{t}px": (nearest <= t).mean() for t in (1, 3, 5)},
        "localisation_error": nearest[nearest <= threshold].mean(),
        "common": len(nearest) / 2,
        "repeated": (nearest <= threshold).sum() / 2,
        "one_to_one": 2 * (apart[rows, columns] <= threshold).sum() / len(nearest),
        "chance": found / len(nearest),
    }


@every_protocol
@every_pair
def test_known_offsets_and_edges_are_counted_as_by_hand(tmp_path, name, sizes):
    looks, H = [Look(name, size) for size in sizes], homography(*sizes)
    lengths = np.array([0, 1 - 1e-6, 1 + 1e-6, 2.9, 3 - 1e-6, 3 + 1e-6, 3.1, 4.9, 5.1, 6])  # 2, 5 and 8 are near
    places1 = lattice(looks[1].size, 13)
    places0, _ = carry(places1, np.linalg.inv(H), *looks[::-1])
    well = looks[0].shows(places0, 15) & looks[1].shows(places1, 15)
    count = min(well.sum(), 150) // 10 * 10  # with those at the edge, fewer than count at most
    assert count >= 10
    places0, places1 = places0[well][:count], places1[well][:count]
    angle = np.arange(count) * 2.4
    moved = places1 + np.tile(lengths, count // 10)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    barely, hardly = [], []  # just seen by the other image, just not: of each image
    for (own, other), M in ((looks, np.linalg.inv(H)), (looks[::-1], H)):
        for kind, off in ((barely, -0.01), (hardly, 0.01)):
            back, _ = carry(edge(other, off), M, other, own)
            kind.append(back[own.shows(back)])
    assert sum(map(len, barely)) >= 9
    assert sum(map(len, hardly)) >= 9
    points = [np.vstack([hardly[i], barely[i], (places0, moved)[i]]) for i in (0, 1)]
    record = measured(tmp_path, sizes, H, points, PROTOCOLS[name])
    total = 2 * count + sum(map(len, barely))
    assert record["common"] == total / 2
    assert record["repeated"] == count / 2
    for field, share in (("", 0.5), ("_1px", 0.2), ("_3px", 0.5), ("_5px", 0.8)):
        assert record["repeatability" + field] == pytest.approx(2 * share * count / total, abs=1e-12)
    assert record["one_to_one"] == pytest.approx(count / total, abs=1e-12)
    assert record["localisation_error"] == pytest.approx((0 + 1 + 1 + 2.9 + 3) / 5, abs=1e-6)


@every_protocol
@pytest.mark.parametrize(("length", "near"), [(3.0, 1), (3.0 + 1e-12, 0)])
def test_exactly_the_threshold_still_counts(tmp_path, name, length, near):
    """Sizes that scale by 1/2 or 1 and a shift of whole pixels: no rounding anywhere."""
    size = (480, 640) if name == "squash" else (480, 680)
    look = Look(name, size)
    H = np.array([[1.0, 0, 8], [0, 1, -4], [0, 0, 1]])
    points0 = np.array([[40.0, 50], [160, 100]])
    points1 = points0 + [8, -4] * look.scale + np.array([[length, 0], [0, -length]])
    record = measured(tmp_path, (size, size), H, (points0, points1), PROTOCOLS[name])
    assert record["repeatability"] == near
    assert record["localisation_error"] == (length if near else None)


@every_protocol
@pytest.mark.parametrize("tied", [False, True])
def test_the_best_count_of_those_that_the_other_image_sees(tmp_path, name, tied):
    """First come points that the other image does not see, then as many true ones as count, then false ones."""
    sizes = ((301, 457), (517, 333))
    looks, H, most = [Look(name, size) for size in sizes], homography(*sizes), 40 if tied else MOST[name]
    places1 = lattice(looks[1].size, 4)
    places0, _ = carry(places1, np.linalg.inv(H), *looks[::-1])
    both = looks[0].shows(places0, 1) & looks[1].shows(places1, 1)
    assert both.sum() > most
    true = np.flatnonzero(both)[:: both.sum() // most][:most]
    unseen = [lattice(look.size, 7) for look in looks]
    to1, to0 = carry(unseen[0], H, *looks)[0], carry(unseen[1], np.linalg.inv(H), *looks[::-1])[0]
    unseen = [unseen[0][~looks[1].shows(to1, -1)], unseen[1][~looks[0].shows(to0, -1)]]
    assert sum(map(len, unseen)) > 50
    false = np.random.default_rng(0).permutation(np.flatnonzero(both))[:90]
    points = [np.vstack([u, p[true], p[false] + 2.1]) for u, p in zip(unseen, (places0, places1), strict=True)]
    protocol = replace(PROTOCOLS[name], max_keypoints=40) if tied else PROTOCOLS[name]
    record = measured(tmp_path, sizes, H, points, protocol, tied)
    assert record["common"] == record["repeated"] == most
    assert record["repeatability_1px"] == record["one_to_one"] == 1
    assert record["localisation_error"] < 1e-9


def clusters(rng, look, centres, spread):
    """Points huddled about centres, in no order, none outside the image, with one and the same place twice."""
    points = np.repeat(centres, 4, axis=0) + rng.normal(size=(4 * len(centres), 2)) * spread
    points = np.vstack([points, points[:3]])
    return rng.permutation(points[look.shows(points)])


@every_protocol
@pytest.mark.parametrize(
    ("sizes", "perspective", "factor"),
    [*[(sizes, (2e-4, -1e-4), 1.0) for sizes in PAIRS], (((301, 457), (517, 333)), (2e-2, 5e-3), -2.5)],
    ids=[*"abcd", "behind"],
)
def test_huddles_agree_with_plain_numpy(tmp_path, name, sizes, perspective, factor):
    rng = np.random.default_rng(len(name))
    looks, H = [Look(name, size) for size in sizes], homography(*sizes, perspective)
    pixels = lattice(looks[0].size, 11)
    to1, front = carry(pixels, H, *looks)
    behind = np.flatnonzero(~front & looks[1].shows(to1))  # they look as if they were seen
    assert (len(behind) >= 10) == (factor < 0)
    chosen = rng.permutation(np.flatnonzero(looks[1].shows(to1, -9)))[:40]  # some are not seen
    chosen = np.concatenate([chosen, rng.permutation(behind)[:10]])
    points0 = clusters(rng, looks[0], pixels[chosen], 1.5)
    points1 = clusters(rng, looks[1], np.vstack([to1[chosen[:35]], lattice(looks[1].size, 61)]), 2.0)
    most = 90
    right = expected(points0, points1, H, looks, most)
    record = measured(tmp_path, sizes, H * factor, (points0, points1), replace(PROTOCOLS[name], max_keypoints=most))
    assert 0.05 < right["one_to_one"] < right["repeatability"] < 1
    for field, value in right.items():
        assert record[field] == pytest.approx(value, abs=1e-9), field


@every_protocol
@pytest.mark.parametrize("sizes", PAIRS[::2], ids=["large", "small"])
def test_coverage_is_the_share_of_shared_pixels_near_a_point(tmp_path, name, sizes):
    looks, H, most = [Look(name, size) for size in sizes], homography(*sizes), 60
    points = [np.random.default_rng(i).permutation(lattice(look.size, 23))[:50] for i, look in enumerate(looks)]
    shares = []
    for own, other, M, found in ((*looks, H, points[0]), (*looks[::-1], np.linalg.inv(H), points[1])):
        y, x = np.indices(own.size)
        pixels = np.stack([x.ravel(), y.ravel()], axis=1)
        pixels = pixels[other.shows(carry(pixels, M, own, other)[0])]
        counted = found[other.shows(carry(found, M, own, other)[0])]
        radius = np.sqrt(len(pixels) / np.pi / most)
        shares.append((cKDTree(counted).query(pixels)[0] <= radius).mean())
    record = measured(tmp_path, sizes, H, points, replace(PROTOCOLS[name], max_keypoints=most))
    assert 0.1 < np.mean(shares) < 0.95
    assert record["coverage"] == pytest.approx(np.mean(shares), abs=0.02)  # kp may measure on every other pixel


def draw(size, places, sigma):
    """A picture (H, W) of bright round dots on black, each at a fraction of a pixel."""
    y, x = np.mgrid[: size[0], : size[1]]
    canvas = np.zeros(size)
    for px, py in places:
        top, left = max(int(py) - 15, 0), max(int(px) - 15, 0)
        near = np.s_[top : max(int(py) + 17, 0), left : max(int(px) + 17, 0)]
        canvas[near] += 230 * np.exp(-((x[near] - px) ** 2 + (y[near] - py) ** 2) / (2 * sigma**2))
    return canvas.clip(0, 255).round().astype(np.uint8)


def find_dots(image):
    """The centres of mass of the bright spots of an image (1, 1, H, W), less those that its edge cuts."""
    gray = image[0, 0].double().numpy()
    labels, count = ndimage.label(gray > 0.04, np.ones((3, 3)))
    at_edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    whole = np.setdiff1d(np.arange(1, count + 1), at_edge)
    yx = np.array(ndimage.center_of_mass(gray, labels, whole)).reshape(-1, 2)
    xy = torch.from_numpy(yx[:, ::-1].copy())[None]
    return Keypoints(xy, torch.zeros(xy.shape[:2]), torch.ones(xy.shape[:2], dtype=torch.bool))


@every_protocol
@every_pair
def test_dots_repeat_and_a_shifted_homography_costs_what_it_must(tmp_path, name, sizes):
    """Drawn at full size, resized by kp, found by their centres of mass. H_1_3 and H_1_4 are off by 1 and 4 px."""
    looks, H = [Look(name, size) for size in sizes], homography(*sizes)
    step = 13 if sizes[0] == (101, 143) else 20
    sigma = step / 9  # native pixels
    places = lattice(sizes[0], step)
    places += np.random.default_rng(1).uniform(-1, 1, places.shape)
    there, _ = project(H, places)
    margins = [4 * sigma * look.scale.max() for look in looks]
    seen = [look.seen(p) for look, p in zip(looks, (places, there), strict=True)]
    views = list(zip(looks, seen, margins, strict=True))
    both = np.all([look.shows(p, m) for look, p, m in views], axis=0)
    clear = both | np.any([~look.shows(p, -m) for look, p, m in views], axis=0)  # none on an edge
    assert both.sum() >= 8
    if name in COVERS:
        assert (clear & ~both).sum() >= 8, "no dot that is cut off"

    shift = np.array([0.6, 0.8])
    moved = [np.array([[1, 0, n * shift[0]], [0, 1, n * shift[1]], [0, 0, 1]]) @ H for n in (0, 1, 4)]
    images = [draw(size, p[clear], sigma) for size, p in zip(sizes, (places, there), strict=True)]
    sequences = write(tmp_path / "v_dots", [images[0], *[images[1]] * 3], moved)
    exact, *off = benchmark.evaluate(sequences, lambda: {"dots": find_dots}, PROTOCOLS[name])
    assert exact["common"] == exact["repeated"] == both.sum()
    assert exact["repeatability_1px"] == exact["repeatability"] == exact["one_to_one"] == 1
    assert exact["localisation_error"] < 0.035
    for record, native in zip(off, (1, 4), strict=True):
        length = np.hypot(*(native * shift * looks[1].scale))
        assert record["common"] == both.sum()
        assert record["repeatability"] == (length <= 3)
        if length <= 3:
            assert record["localisation_error"] == pytest.approx(length, abs=0.035)
        else:
            assert record["localisation_error"] is None

    if name != "native":  # the mistakes that people make are greater than what was allowed above
        right = carry(seen[0][both], H, *looks)[0]
        no_half = carry(seen[0][both], H, *looks, half=0.0)[0]
        assert np.hypot(*(no_half - right).T).mean() > 0.06
    if name in COVERS:
        no_crop = carry(seen[0][both], H, *looks, cut=0)[0]
        assert np.hypot(*(no_crop - right).T).mean() > 5


def read_back(folder, k, most):
    """Repeatability at 1, 3 and 5 px of images 1 and k from exported files alone."""
    maps, H = [np.load(folder / f"{i}_det.npy") for i in (1, k)], np.loadtxt(folder / f"H_1_{k}")
    H = H / project(H, [(np.array(maps[0].shape[::-1]) - 1) / 2])[1]
    kept = []
    for own, other, M in ((*maps, H), (*maps[::-1], np.linalg.inv(H))):
        y, x = np.nonzero(own)
        assert (own[y, x] > 0).all()
        points = np.stack([x, y], axis=1)[np.argsort(-own[y, x])]
        there, w = project(M, points)
        inside = (w > 0) & (there >= -0.5).all(1) & (there <= np.array(other.shape[::-1]) - 0.5).all(1)
        kept.append((points if own is maps[1] else there)[inside][:most])
    apart = np.hypot(*(kept[0][:, None] - kept[1][None]).transpose(2, 0, 1))
    nearest = np.concatenate([apart.min(1), apart.min(0)])
    return {f"repeatability_{t}px": (nearest <= t).mean() for t in (1, 3, 5)} | {"common": len(nearest) / 2}


@every_protocol
def test_files_that_the_command_exports_give_the_numbers_it_reports(tmp_path, capsys, name):
    sizes, rng = ((301, 457), (517, 333), (101, 143)), np.random.default_rng(3)
    scene = ndimage.gaussian_filter(rng.random(sizes[0]), 2)
    scene = ((scene - scene.min()) / np.ptp(scene) * 255).astype(np.uint8)
    homographies = [homography(sizes[0], size) for size in sizes[1:]]
    views = [cv2.warpPerspective(scene, H, s[::-1]) for H, s in zip(homographies, sizes[1:], strict=True)]
    write(tmp_path / "root" / "v_scene", [scene, *views], homographies)
    out, table = tmp_path / "maps", tmp_path / "t.json"
    flags = ["--detectors", "harris", "--protocol", name, "--max-keypoints", 70, "--export", out, "--json", table]
    assert script.main([str(a) for a in ["--hpatches", tmp_path / "root", *flags]]) == 0
    content, values = json.loads(table.read_text()), []
    assert [pair["image"] for pair in content["pairs"]] == [2, 3]
    for pair, size, H in zip(content["pairs"], sizes[1:], homographies, strict=True):
        looks = [Look(name, sizes[0]), Look(name, size)]
        assert np.load(out / "v_scene" / f"{pair['image']}_det.npy").shape == looks[1].size
        points = lattice(looks[0].size, 31)
        written, _ = project(np.loadtxt(out / "v_scene" / f"H_1_{pair['image']}"), points)
        np.testing.assert_allclose(written, carry(points, H, *looks)[0], atol=1e-9)
        right = read_back(out / "v_scene", pair["image"], 70)
        assert 0 < right["repeatability_3px"] < 1
        assert pair["repeatability"] == pytest.approx(right["repeatability_3px"], abs=1e-9)
        for field, value in right.items():
            assert pair[field] == pytest.approx(value, abs=1e-9), field
        values.append(right["repeatability_3px"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("harris"))
    assert row.split()[2] == f"{np.mean(values):.3f}"
    assert content["rows"][0]["repeatability"] == pytest.approx(np.mean(values), abs=1e-9)
