"""Repeatability against examples by hand, a loop in plain numpy, and the formula for chance."""

import math

import numpy as np
import pytest
import torch

from kp.evaluation.metrics import chance_repeatability, coverage, one_to_one, refitted_error, repeatability
from kp.geometry.coords import covisible_mask, warp_points
from kp.models.keypoints import Keypoints

SIZE = (60, 80)
IDENTITY = torch.eye(3)[None]


def keypoints(*points, dtype=torch.float32):
    """Keypoints of one image from (x, y) in falling order of score."""
    xy = torch.tensor(points, dtype=dtype).view(1, -1, 2)
    return Keypoints(xy, -torch.arange(xy.shape[1], dtype=dtype)[None], torch.ones(xy.shape[:2], dtype=torch.bool))


def score(points0, points1, H_0to1=IDENTITY, size0=SIZE, size1=SIZE, **settings):
    scores = repeatability(points0, points1, H_0to1, size0, size1, **settings)
    return [float(v) for v in (scores.repeatability, scores.localisation_error, scores.common, scores.repeated)]


def by_loops(xy0, xy1, H, size0, size1, k, threshold):
    """The protocol, one point at a time, for points (N, 2) in falling order of score."""

    def project(M, p):
        x, y, w = M @ np.array([*p, 1.0])
        return None if w <= 0 else np.array([x / w, y / w])

    def sees(size, p):
        return p is not None and -0.5 <= p[0] <= size[1] - 0.5 and -0.5 <= p[1] <= size[0] - 0.5

    in1 = [q for q in (project(H, p) for p in xy0) if sees(size1, q)][:k]
    inverse = np.linalg.inv(H)
    of1 = [p for p in xy1 if sees(size0, project(inverse, p))][:k]
    if not in1 or not of1:
        return 0.0, math.nan, (len(in1) + len(of1)) / 2
    near = [min(math.dist(p, q) for q in of1) for p in in1] + [min(math.dist(p, q) for q in in1) for p in of1]
    hits = [d for d in near if d <= threshold]
    return len(hits) / len(near), np.mean(hits) if hits else math.nan, len(near) / 2


def test_by_hand():
    points0 = keypoints((5, 5), (20, 10), (30, 5))
    points1 = keypoints((5, 8), (20, 14))
    assert score(points0, points1) == [2 / 5, 3.0, 2.5, 1.0]  # (5, 5) and (5, 8) are 3 px apart: near


def test_just_beyond_the_threshold_is_not_near():
    value, error, common, repeated = score(keypoints((5, 5)), keypoints((5, 8)), threshold=2.999999)
    assert (value, common, repeated) == (0, 1, 0)
    assert math.isnan(error)


def test_neighbours_may_be_shared():
    assert score(keypoints((10, 10), (12, 10)), keypoints((11, 10)))[:2] == [1, 1]


def test_a_perfect_detector_scores_one():
    generator = torch.Generator().manual_seed(0)
    H_0to1 = torch.tensor([[[0.9, -0.3, 12.0], [0.25, 1.1, -6.0], [1e-3, -5e-4, 1.0]]], dtype=torch.float64)
    xy0 = torch.rand(1, 500, 2, generator=generator, dtype=torch.float64) * torch.tensor([79.0, 59.0])
    homogeneous = torch.cat([xy0, torch.ones(1, 500, 1)], dim=2) @ H_0to1.mT
    xy1 = homogeneous[..., :2] / homogeneous[..., 2:]
    scores, valid = torch.arange(500.0).flip(0)[None], torch.ones(1, 500, dtype=torch.bool)
    on_image = ((xy1 >= -0.5) & (xy1 <= torch.tensor([79.5, 59.5]))).all(-1)  # none is found outside the picture
    value, error, common, _ = score(Keypoints(xy0, scores, valid), Keypoints(xy1, scores, on_image), H_0to1)
    assert value == 1
    assert error < 1e-9
    assert 50 < common <= 300  # some points leave the view


def test_distances_are_pixels_of_view_1():
    zoom = torch.diag(torch.tensor([2.0, 2.0, 1.0]))[None]
    small, large = (30, 40), (60, 80)
    points0, points1 = keypoints((10, 10)), keypoints((24, 20))  # 4 px apart in view 1, 2 px in view 0
    assert score(points0, points1, zoom, small, large)[0] == 0
    value, error, *_ = score(points1, points0, torch.linalg.inv(zoom), large, small)
    assert (value, error) == (1, 2)


def test_the_best_are_taken_among_what_both_views_see():
    shift = torch.tensor([[[1.0, 0, 50], [0, 1, 0], [0, 0, 1]]])  # view 1 sees x <= 29.5 of view 0
    points0 = keypoints((70, 9), (60, 9), (20, 9), (10, 9))
    points1 = keypoints((20, 9), (70, 9), (60, 20))  # view 0 sees x >= 49.5
    assert score(points0, points1, shift, max_keypoints=1) == [1, 0, 1, 1]
    assert score(points0, points1, shift, max_keypoints=2) == [0.5, 0, 2, 1]


@pytest.mark.parametrize(("x", "common"), [(-0.5, 1), (-0.51, 0.5), (79.5, 1), (79.51, 0.5)])
def test_the_edge_of_the_image_is_inside(x, common):
    shift = torch.tensor([[[1.0, 0, x - 200], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    points0, points1 = keypoints((200, 9)), keypoints((40, 9))  # the latter is always seen in view 0
    assert score(points0, points1, shift, size0=(60, 400))[2] == common


def test_what_is_behind_the_camera_does_not_count():
    H_0to1 = torch.tensor([[[-1.0, 0, 39], [0, 1, -30], [-1 / 40, 0, 1]]])
    ahead, behind = (20, 31), (79, 30)  # behind has w < 0 and would be drawn at (41, 0)
    assert score(keypoints(behind, ahead), keypoints((38, 2)), H_0to1)[:3] == pytest.approx([1, 0, 1], abs=1e-5)
    assert score(keypoints(behind), keypoints((41, 0)), H_0to1)[:1] == [0]


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_agrees_with_loops(seed):
    rng = np.random.default_rng(seed)
    B, size0, size1 = 3, (47, 61), (53, 40)
    H = np.eye(3) + rng.normal(size=(B, 3, 3)) * [[0.2, 0.2, 6], [0.2, 0.2, 6], [6e-3, 6e-3, 0]]
    views = []
    for size, places in ((size0, 70), (size1, 55)):
        xy = rng.integers(0, size[::-1], (B, places, 2)).astype(float)
        count = rng.integers(0, places, B)  # the rest of the places hold nothing
        valid = np.arange(places) < count[:, None]
        scores = np.where(valid, -np.arange(places), -np.inf)
        views.append(Keypoints(*(torch.from_numpy(a) for a in (xy, scores, valid))))
    k, threshold = int(rng.integers(5, 40)), float(rng.uniform(0.5, 4))
    result = repeatability(*views, torch.from_numpy(H), size0, size1, k, threshold)
    for b in range(B):
        xy0, xy1 = (view.xy[b][view.valid[b]].numpy() for view in views)
        value, error, common = by_loops(xy0, xy1, H[b], size0, size1, k, threshold)
        assert float(result.repeatability[b]) == pytest.approx(value, abs=1e-12)
        assert float(result.localisation_error[b]) == pytest.approx(error, abs=1e-9, nan_ok=True)
        assert float(result.common[b]) == common
        assert float(result.repeated[b]) == pytest.approx(value * common, abs=1e-9)


@pytest.mark.parametrize("counts", [(0, 0), (0, 4), (4, 0)])
@pytest.mark.parametrize("places", ["absent", "invalid"])
def test_a_view_without_keypoints_scores_zero(counts, places):
    views = []
    for count in counts:
        view = keypoints(*[(10 * i + 5, 9) for i in range(4)])
        view = Keypoints(view.xy, view.scores, torch.arange(4)[None] < count)
        views.append(view if places == "invalid" else keypoints(*view.xy[0, :count].tolist()))
    value, error, common, repeated = score(*views)
    assert (value, common, repeated) == (0, sum(counts) / 2, 0)
    assert math.isnan(error)


def test_chance_repeatability():
    """Points at random in the same view: the chance of a neighbour follows from the area of a disc in the image."""
    (H, W), n, r, pairs = (240, 320), 300, 3.0, 200
    generator = torch.Generator().manual_seed(1)
    valid = torch.ones(pairs, n, dtype=torch.bool)
    views = []
    for _ in range(2):
        xy = torch.rand(pairs, n, 2, generator=generator, dtype=torch.float64) * torch.tensor([W, H]) - 0.5
        views.append(Keypoints(xy, torch.zeros(pairs, n), valid))
    result = repeatability(*views, torch.eye(3).expand(pairs, 3, 3), (H, W), (H, W), n, r)
    disc = math.pi * r**2 - 4 * r**3 / 3 * (1 / W + 1 / H) + r**4 / (2 * W * H)  # mean area of it in the image
    assert float(result.repeatability.mean()) == pytest.approx(1 - (1 - disc / (W * H)) ** n, abs=0.003)


def test_exact_where_float32_products_are_not():
    far = torch.tensor([[3000.0, 2000.0]])
    value, error, *_ = score(keypoints(*far.tolist()), keypoints((3000, 2003)), size0=(4000, 4000), size1=(4000, 4000))
    assert (value, error) == (1, 3)


def test_a_singular_homography_is_an_error():
    with pytest.raises(ValueError, match="singular"):
        score(keypoints((5, 5)), keypoints((5, 5)), torch.ones(1, 3, 3))


# --- beyond the usual count ---

EYE = torch.eye(3, dtype=torch.float64)[None]


def at(*places):
    xy = torch.tensor([places], dtype=torch.float32).reshape(1, -1, 2)
    return Keypoints(xy, torch.ones(xy.shape[:2]), torch.ones(xy.shape[:2], dtype=torch.bool))


def test_one_to_one_counts_no_point_twice():
    huddle, single = at((10, 10), (11, 10), (10, 11), (12, 10)), at((10.5, 10.5))
    assert one_to_one(huddle, single, EYE, 3.0) == 2 * 1 / 5
    assert one_to_one(single, huddle, EYE, 3.0) == 2 * 1 / 5
    assert one_to_one(huddle, huddle, EYE, 0.5) == 1
    assert one_to_one(huddle, at(), EYE) == 0


def test_one_to_one_finds_the_most_pairs_that_there_are():
    """The first point could take either, the second only one of them: greedy nearest first would lose a pair."""
    assert one_to_one(at((0, 0), (-2.5, 0)), at((-1, 0), (2, 0)), EYE, 2.0) == 1


def test_one_to_one_follows_the_homography():
    H = torch.tensor([[[2.0, 0, 5], [0, 2, -3], [0, 0, 1]]], dtype=torch.float64)
    assert one_to_one(at((10, 10), (20, 30)), at((25, 17), (45, 57.0)), H, 0.1) == 1


def test_chance_by_strewing_points():
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        first, second = (torch.rand(1, n, 2, generator=rng) * torch.tensor([320.0, 240]) - 0.5 for n in (300, 200))
        sides = [
            Keypoints(xy, torch.ones(xy.shape[:2]), torch.ones(xy.shape[:2], dtype=torch.bool))
            for xy in (first, second)
        ]
        found.append(repeatability(*sides, EYE, (240, 320), (240, 320)).repeatability.item())
    assert abs(sum(found) / 200 - chance_repeatability(300, 200, 240 * 320)) < 0.003
    assert chance_repeatability(0, 10, 100) == chance_repeatability(10, 0, 100) == chance_repeatability(5, 5, 0) == 0
    assert chance_repeatability(3, 3, 1.0, 5.0) == 1


def test_coverage_of_a_lattice_of_a_heap_and_of_chance():
    size = (240, 320)
    everything = torch.ones(1, 1, *size, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(8, 240, 16.0), torch.arange(8, 320, 16.0), indexing="ij")
    lattice = at(*torch.stack([x, y], -1).reshape(-1, 2).tolist())
    assert len(lattice.xy[0]) == 300
    assert coverage(lattice, everything) > 0.85
    heap = at(*[(100 + i % 17, 100 + i // 17) for i in range(300)])
    assert coverage(heap, everything) < 0.05
    strewn = at(*(torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([319.0, 239])).tolist())
    assert abs(coverage(strewn, everything) - (1 - 1 / 2.718)) < 0.06
    assert coverage(at(), everything) == 0
    away = torch.tensor([[[1.0, 0, 1000], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    assert coverage(lattice, covisible_mask(away, size, size)) == 0


def test_an_error_that_is_the_homographys_goes_when_it_is_fitted():
    rng = torch.Generator().manual_seed(0)
    xy = torch.rand(100, 2, generator=rng) * torch.tensor([310.0, 230])
    off = torch.eye(3, dtype=torch.float64)[None]
    off[0, 0, 1], off[0, 2, 0], off[0, 0, 2] = 0.003, 1e-5, 0.8  # shear, perspective, a shift: of a pixel or so
    moved, _ = warp_points(xy[None].double(), off)
    apart = keypoints(*xy.tolist()), keypoints(*moved[0].tolist(), dtype=torch.float64)
    wrong = repeatability(*apart, EYE, (240, 320), (240, 320), threshold=3.0).localisation_error.item()
    assert wrong > 0.8
    assert refitted_error(*apart, EYE.double()) < 0.01
    shaken = moved[0] + 0.5 * torch.randn(100, 2, generator=rng)
    left = refitted_error(apart[0], keypoints(*shaken.tolist(), dtype=torch.float64), EYE.double())
    assert left == pytest.approx(0.5 * math.sqrt(math.pi / 2), rel=0.15)  # Rayleigh's mean: what no homography explains


def test_a_homography_is_fitted_to_enough_points_or_none():
    line = [(10.0 * i, 50.0) for i in range(30)]
    lattice = [(20.0 * (i % 5), 20.0 * (i // 5)) for i in range(30)]
    assert refitted_error(at(*lattice), at(*lattice), EYE.double()) < 1e-6
    assert math.isnan(refitted_error(at(*lattice[:19]), at(*lattice[:19]), EYE.double()))
    assert math.isnan(refitted_error(at(*line), at(*line), EYE.double()))
    assert math.isnan(refitted_error(at(), at(*lattice), EYE.double()))
    assert math.isnan(refitted_error(at(*lattice), at(), EYE.double()))
