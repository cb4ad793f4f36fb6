import json

import pytest
import torch
from torch import Tensor

from kp.cli.main import main
from kp.data.hpatches import ImageSequence
from kp.data.pairs import held_out_pairs
from kp.experiments import covariance
from kp.experiments.covariance import Errors, by_size, nse, repeated_keypoints, scale_that_fits
from kp.models.corner import CornerDetector, inverse_sharpness
from kp.models.keypoints import Keypoints, sharpness


def drawn(scale: float, count: int = 20_000) -> Errors:
    """Errors of known covariances, foretold too small by the factor ``scale``."""
    g = torch.Generator().manual_seed(1)
    root = torch.randn(count, 2, 2, generator=g, dtype=torch.float64)
    true = root @ root.mT + 0.1 * torch.eye(2, dtype=torch.float64)
    error = torch.linalg.cholesky(true) @ torch.randn(count, 2, 1, generator=g, dtype=torch.float64)
    return Errors(error[..., 0], true / scale)


def test_the_normalised_error_of_right_covariances_is_2_and_the_scale_is_found():
    assert nse(drawn(1.0)).mean().item() == pytest.approx(2, rel=0.03)
    assert scale_that_fits(drawn(5.0)) == pytest.approx(5, rel=0.03)


def test_larger_foretold_errors_are_larger():
    for foretold, true in by_size(drawn(1.0)):
        assert true == pytest.approx(foretold, rel=0.1)


def test_sharpness_is_that_of_a_quadric_and_its_inverse_has_a_bound():
    y, x = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(11.0) - 5, indexing="ij")
    scores = -(0.5 * x**2 + 0.3 * x * y + 0.4 * y**2)[None, None]
    found = sharpness(scores, torch.tensor([[[5.0, 4.0], [4.7, 3.6]]]))
    wanted = torch.tensor([[1.0, 0.3], [0.3, 0.8]])
    assert torch.allclose(found, wanted.expand(1, 2, 2, 2), atol=1e-5)
    assert torch.allclose(inverse_sharpness(wanted) @ wanted, torch.eye(2), atol=1e-5)
    flat = inverse_sharpness(torch.diag(torch.tensor([-1.0, 4.0])))
    assert torch.allclose(flat, torch.diag(torch.tensor([50.0, 0.25])))


class Known:
    """A detector of two keypoints an image, the second image's 1.5 px beside those of the homography."""

    def __init__(self, places: list[Tensor]) -> None:
        self.places = iter(places)

    def keypoints(self, image: Tensor, count: int, subpixel: bool) -> Keypoints:
        xy = next(self.places)
        return Keypoints(xy, xy[..., 0], torch.ones(1, len(xy[0])).bool())

    def covariances(self, image: Tensor, xy: Tensor) -> Tensor:
        return torch.diag(torch.tensor([0.5, 0.25])).expand(1, xy.shape[1], 2, 2)


def test_covariances_of_view_0_are_carried_to_view_1():
    """Under a scale of 2 in x: variances of 4 * 0.5 + 0.5 and 0.25 + 0.25. The far keypoint is not repeated."""
    H = torch.diag(torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    there = torch.tensor([[[21.5, 20.0], [80.0, 99.0]]])
    detector = Known([torch.tensor([[[10.0, 20.0], [40.0, 50.0]]]), there])
    blank = torch.zeros(1, 1, 120, 100)
    found = repeated_keypoints(detector, [ImageSequence("a", "v", (blank.clone, blank.clone), (H,), kind="v")])
    assert found.error.tolist() == [[1.5, 0.0]]
    assert found.covariance[0].tolist() == [[2.5, 0.0], [0.0, 0.5]]
    assert nse(found).tolist() == [pytest.approx(1.5**2 / 2.5)]


def test_foretold_errors_of_drawn_pairs_are_near_the_true_ones():
    detector = CornerDetector(ranker_width=0).eval()
    errors = repeated_keypoints(detector, covariance.synthetic(2))
    assert 1 < nse(errors).mean() < 4
    smallest, *_, largest = by_size(errors)
    assert largest[1] > 1.5 * smallest[1]


def test_covariances_turn_with_the_image():
    image = held_out_pairs(1, 1, (96, 120))[0].image0
    detector = CornerDetector(ranker_width=0).eval()
    found = detector.keypoints(image, 20, subpixel=True)
    upright = detector.covariances(image, found.xy)
    lying = detector.covariances(image.mT.contiguous(), found.xy.flip(2))
    assert torch.allclose(upright, lying.flip(2, 3), rtol=0.05, atol=1e-3)


def test_the_command(tmp_path, capsys):
    assert main(["covariance", "--batches", "2", "--json", str(tmp_path / "c.json")]) == 0
    out = capsys.readouterr().out
    rows = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert "scale that fits: 0.0" in out
    assert f"{rows['synthetic']['nse_mean']:.2f}" in out
    assert set(rows) == {"synthetic, fitted", "synthetic"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--weights", "mobilenet_v3_small"], "no covariances"),
        (["--batches", "1"], "at least 2"),
        (["--hpatches", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(flags, text, capsys):
    assert main(["covariance", *flags]) != 0
    err = capsys.readouterr().err
    assert text in err
    assert len(err.splitlines()) == 1
