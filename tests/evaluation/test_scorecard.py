"""The scorecard: true points score 1, no points 0; filters move with the image, lattices do not; images made once."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kp.cli.main import main
from kp.data import pairs, photographs
from kp.data.photograph_changes import swept_sequences
from kp.evaluation import scorecard
from kp.evaluation.scorecard import NAMES, shift


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One photograph, one seed's worth of synthetic pairs; and nothing kept from, or for, other tests."""
    monkeypatch.setattr(photographs, "FILES", ("coffee.png",))
    monkeypatch.setattr(scorecard, "held_out_pairs", partial(pairs.held_out_pairs, 1, 2, (96, 120)))
    scorecard._sequences.cache_clear()
    yield
    scorecard._sequences.cache_clear()


def gradients(image):
    """Squared differences of neighbours: by hand, moves with the image."""
    down, right = image.diff(dim=-2)[..., :-1], image.diff(dim=-1)[..., :-1, :]
    return F.pad(down**2 + right**2, (0, 1, 0, 1))


def test_a_filter_moves_with_the_image_and_a_lattice_does_not():
    image = torch.rand(1, 1, 120, 130, generator=torch.Generator().manual_seed(0))
    assert shift(gradients, image) == 0
    y, x = torch.meshgrid(torch.arange(120), torch.arange(130), indexing="ij")
    board = ((x // 4 + y // 4) % 2).float()[None, None]
    tied = shift(lambda i: gradients(i) + board[..., : i.shape[-2], : i.shape[-1]], image)
    deviation = (gradients(image) + board)[..., 32:-32, 32:-32].std().item()
    assert tied == pytest.approx(0.5 / deviation, rel=0.1)  # a quarter of the pixels change by 1 or -1
    noise = iter(torch.rand(3, 1, 1, 119, 129, generator=torch.Generator().manual_seed(1)))
    assert shift(lambda _: next(noise), image) == pytest.approx(2**0.5, rel=0.05)  # independent maps
    assert shift(torch.zeros_like, image) == 0
    assert np.isnan(shift(lambda i: torch.full_like(i, -torch.inf), image))


def test_a_sparse_map_has_a_shift_where_it_has_scores():
    image = torch.rand(1, 1, 120, 130, generator=torch.Generator().manual_seed(0))
    half = shift(lambda i: gradients(i).masked_fill(i > 0.5, -torch.inf), image)
    assert half == 0


def test_a_constant_map_has_no_keypoint_and_no_error():
    scores = scorecard.scorecard(torch.zeros_like, seeds=(1,))
    assert set(scores) == set(NAMES) - {"error_75", "hard_error"}
    assert not any(scores.values())


class Omniscient:
    """Knows the images of all sequences by their bytes: a spike at the pixel where each of view 0's points is.

    The points are a grid of view 0, carried by numpy; an image it does not know gets noise.
    """

    def __init__(self, seeds):
        self.maps = {}
        groups = [photographs.read(seed) for seed in seeds]
        files = [photographs.folder() / file for file in photographs.FILES]
        groups += [[photographs.make_sequence(file, "hard", seed) for file in files] for seed in seeds]
        swept = {"rotation": (0.0, 45.0, 90.0, 180.0), "scale": (0.5,)}  # at scale 2 view 0 is another one
        groups += [swept_sequences(kind, seed, swept[kind]) for seed in seeds for kind in swept]
        grid = np.mgrid[30:300:20, 30:220:20].reshape(2, -1).T.astype(float)
        for sequence in [s for group in groups for s in group]:
            matrices = [np.eye(3), *(H.numpy() for H in sequence.homographies)]
            for load, H in zip(sequence.images, matrices, strict=True):
                image = load()
                points = np.c_[grid, np.ones(len(grid))] @ H.T
                points = np.rint(points[:, :2] / points[:, 2:]).astype(int)
                height, width = image.shape[-2:]
                inside = (points >= 0).all(1) & (points < (width, height)).all(1)
                scores = torch.full_like(image, -torch.inf)
                x, y = points[inside].T
                scores[0, 0, y, x] = torch.from_numpy(1000.0 - inside.nonzero()[0]).float()
                self.maps[image.numpy().tobytes()] = scores

    def __call__(self, image):
        return self.maps.get(image.numpy().tobytes(), torch.rand(image.shape))


def test_true_points_repeat(monkeypatch):
    monkeypatch.setattr(scorecard, "SWEPT", {"rotation": (0.0, 45.0, 90.0, 180.0), "scale": (0.5,)})
    monkeypatch.setattr(scorecard, "NAMES", tuple(name for name in NAMES if name != "scale_2"))
    scores = scorecard.scorecard(Omniscient((1,)), seeds=(1,))
    for name in ("i_75", "i_300", "rotation_0", "rotation_90", "rotation_180"):
        assert scores[name] == 1, name
    suppressed = "rotation_45", "v_300", "hard_75", "hard_300", "scale_0.5"  # neighbours
    assert min(scores[name] for name in suppressed) > 0.85
    assert max(scores["error_75"], scores["hard_error"]) < 0.5
    assert scores["synthetic"] < 0.7, "noise cannot know the synthetic pairs"


def test_images_are_made_once_and_none_is_kept_twice(monkeypatch):
    made = []
    real = photographs.read
    monkeypatch.setattr(photographs, "read", lambda seed: made.append(seed) or real(seed))
    detector = torch.nn.Conv2d(1, 1, 3, padding=1).eval()
    first = scorecard.scorecard(detector, seeds=(1, 2))
    assert made == [1, 2]
    assert scorecard.scorecard(detector, seeds=(1, 2)) == first
    assert made == [1, 2]
    seen, records, real_score = [], [], scorecard.score_sequences
    with monkeypatch.context() as patch:
        patch.setattr(scorecard, "shift", lambda *_: 0.0)
        patch.setattr(scorecard, "score_sequences", lambda *a: (records.append(r) or r for r in real_score(*a)))
        scorecard.scorecard(lambda image: seen.append(image) or detector(image), seeds=(1, 2))
    assert len({image.numpy().tobytes() for image in seen}) == len(seen), "an image is searched twice"
    light_and_view, hard, turned, scaled = 5 + 5, 6, 1 + 4, 2  # at full scale the views are those of rotation 0
    reference, synthetic = 1, 2 * 2  # the reference is the same whatever the seed and the split
    assert len(seen) == reference + synthetic + 2 * (light_and_view + hard + turned + scaled)
    pairs_of_photographs = [r for r in records if r["kind"] != "synthetic"]
    several, one = 3 * (5 + 5 + 5), 4 + 2  # numbers of keypoints that count: three for i, v and hard
    assert len(pairs_of_photographs) == 2 * (several + one)
    assert scorecard.scorecard(detector, seeds=(1,)) != first


def test_subpixel_places_are_nearer():
    def smooth(image):
        return F.avg_pool2d(gradients(image), 9, 1, 4)

    whole, fine = (scorecard.scorecard(smooth, seeds=(1,), subpixel=s) for s in (False, True))
    assert fine["error_75"] < whole["error_75"]
    assert fine["synthetic"] != whole["synthetic"]


# --- the command ---


def test_score_prints_a_line_a_detector_and_writes_json(tmp_path, capsys):
    out = tmp_path / "folder" / "scores.json"
    assert main(["score", "random", "kornia-harris", "--json", str(out), "--device", "cpu"]) == 0
    head, chance, harris = capsys.readouterr().out.splitlines()
    assert head.split() == ["detector", *NAMES]
    assert chance.split()[0] == "random"
    assert harris.split()[0] == "kornia-harris"
    assert len(head) == len(chance) == len(harris)
    content = json.loads(out.read_text())["scores"]
    assert list(content) == ["random", "kornia-harris"]
    assert harris.split()[1:] == [f"{content['kornia-harris'][name]:.3f}" for name in NAMES]
    assert content["random"]["i_75"] < 0.2 < 0.4 < content["kornia-harris"]["i_75"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.safetensors"], "no weights at nowhere.safetensors"),
        (["{tmp}/damaged"], "not a safetensors file"),
        (["harris", "--json", "{tmp}/damaged/scores.json"], "cannot be written"),
        (["harris", "--device", "cuda:99"], "no device cuda:99"),
    ],
)
def test_what_cannot_be_scored_is_told_in_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "damaged").write_text("nothing")
    assert main(["score", *(a.format(tmp=tmp_path) for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
