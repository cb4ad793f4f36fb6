"""Which weights are kept: those best on photographs that nothing was trained on."""

from functools import partial

import pytest
import torch

from kp.data import photographs
from kp.data.hpatches import HPatchesError
from kp.evaluation import baselines
from kp.evaluation.metrics import repeatability
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


def test_without_scikit_image_the_pairs_decide(monkeypatch):
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
        ({"repeatability": 0.6}, {"repeatability": 0.5}, True),
        ({"repeatability": 0.5}, {"repeatability": 0.5}, False),
        ({"repeatability": 0.9, "photographs": 0.5}, {"repeatability": 0.5, "photographs": 0.6}, False),
        ({"repeatability": 0.4, "photographs": 0.7}, {"repeatability": 0.9, "photographs": 0.6}, True),
        ({"repeatability": 0.6}, {"repeatability": 0.5, "photographs": 0.9}, True),
        ({"repeatability": 0.4, "photographs": 0.9}, {"repeatability": 0.5}, False),
        ({"repeatability": float("nan")}, {"repeatability": 0.5}, False),
        ({"repeatability": 0.1}, {"repeatability": float("nan")}, True),
        ({"repeatability": 0.6, "localisation_error": 2}, {"repeatability": 0.5, "localisation_error": 1}, True),
        ({}, {"repeatability": 0.5}, False),
    ],
)
def test_better(scores, kept, expected):
    assert better(scores, kept) is expected
