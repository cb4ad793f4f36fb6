"""What a detector scores while it is trained, and which weights are kept."""

from functools import partial

import cv2
import pytest
import torch

from kp.data import photographs
from kp.data.hpatches import HPatchesError
from kp.evaluation import baselines
from kp.evaluation.metrics import repeatability
from kp.models.corner import floor_detector
from kp.models.keypoints import extract_keypoints
from kp.training import validation
from kp.training.validation import Validation, better

CPU = torch.device("cpu")
FILES = photographs.FILES[1:3]


def harris(images):
    return torch.cat([baselines.harris(image[None]) for image in images])


small = partial(Validation, batches=1, batch=2, size=(64, 80))


def test_photographs_are_measured_pair_by_pair():
    scores = small(CPU, files=FILES).measure(harris)
    assert set(scores) == {"repeatability", "localisation_error", "photographs"}
    found = []
    for file in FILES:
        sequence = photographs.make_sequence(photographs.folder() / file, "hard", validation._SEED)
        first, *others = (extract_keypoints(harris(load())) for load in sequence.images)
        for k, other in enumerate(others, start=2):
            H_1tok = sequence.homography(k, photographs.VIEW)
            found.append(repeatability(first, other, H_1tok, photographs.VIEW, photographs.VIEW, 75).repeatability)
    assert len(found) == 2 * photographs.CHANGED
    assert scores["photographs"] == pytest.approx(torch.cat(found).mean().item(), abs=1e-6)


def test_a_detector_that_finds_the_same_again_scores_more():
    chosen = small(CPU, files=FILES)
    random = chosen.measure(lambda images: torch.rand_like(images))["photographs"]
    assert random + 0.1 < chosen.measure(harris)["photographs"] <= 1


def test_without_scikit_image_there_are_pairs_alone(monkeypatch):
    def missing():
        raise HPatchesError("scikit-image is not there")

    monkeypatch.setattr(photographs, "folder", missing)
    assert set(small(CPU).measure(harris)) == {"repeatability", "localisation_error"}


def test_its_photographs_are_not_those_that_settings_or_results_are_measured_on():
    from kp.evaluation.scorecard import SEEDS

    assert validation._SEED not in (*SEEDS, 0)


@pytest.mark.parametrize(
    ("scores", "kept", "expected"),
    [
        ({"repeatability": 0.1}, {}, True),
        ({"repeatability": 0.4, "photographs": 0.2}, {"repeatability": 0.5, "photographs": 0.9}, True),
        ({"validation": 0.5}, {"validation": 0.5}, False),
        ({"validation": 0.6, "photographs": 0.1}, {"validation": 0.5, "photographs": 0.9}, True),
        ({"validation": 0.4, "photographs": 0.9}, {"validation": 0.5, "photographs": 0.1}, False),
        ({"validation": 0.1}, {"repeatability": 0.5}, True),
        ({"repeatability": 0.9}, {"validation": 0.1}, False),
        ({"validation": float("nan")}, {"validation": 0.5}, False),
        ({"validation": 0.1}, {"validation": float("nan")}, True),
    ],
)
def test_better(scores, kept, expected):
    assert better(scores, kept) is expected


def test_real_sequences_are_measured_beside_the_floor(tmp_path):
    """A tilted plane: the floor is above itself by nothing, and a detector of noise is below it."""
    write_sequence(tmp_path / "v_plane")
    chosen = small(CPU, files=(), root=tmp_path)
    scores = chosen.measure(floor_detector())
    assert scores["validation"] == pytest.approx(chosen.real[-1].floor["all"])
    assert scores["validation"] > 0.5
    assert scores["above_floor_v"] == scores["above_floor_all"] == 0
    assert "above_floor_i" not in scores
    torch.manual_seed(0)
    assert chosen.measure(lambda images: torch.rand_like(images))["above_floor_all"] < -0.2


def write_sequence(folder):
    """A photograph, and the same moved by 12 and 8 pixels."""
    folder.mkdir()
    image = cv2.imread(str(photographs.folder() / FILES[0]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "1.png"), image[8:260, 12:340])
    cv2.imwrite(str(folder / "2.png"), image[:252, :328])
    (folder / "H_1_2").write_text("1 0 12 0 1 8 0 0 1")
