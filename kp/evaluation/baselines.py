"""The classical detectors of OpenCV and Kornia, and chance: image (1, C, H, W) in [0, 1] -> score map (1, 1, H, W).

A pixel that is no keypoint of the detector has the score -inf. All of them see the same 8-bit gray picture; none
applies the non-maximum suppression of the comparison, which ``kp.models.keypoints`` does for every detector alike.
SIFT, ORB and AKAZE find points between pixels, and say where: see ``OwnPoints``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from kornia.feature import dog_response_single, gftt_response, harris_response, hessian_response
from torch import Tensor

from kp.models.detector import thin

ScoreMap = Callable[[Tensor], Tensor]

_ORB_FEATURES = 100_000  # more features than ORB finds: it would otherwise keep its own best 500
_ORB_EDGE = 31  # pixels at the edge of an image where ORB has no keypoints: OpenCV's default
_AKAZE_MIN_SIDE = 3  # pixels: OpenCV fails on an image with a smaller side
_DOG_SIGMAS = (1.0, 1.6)  # pixels: Kornia's default
_KORNIA_MIN_SIDE = 13  # pixels: the largest kernel of Kornia's responses, that of sigma 1.6
_ROUNDOFF = 1e-3  # grey levels: two blurs of an even area differ by less, those of anything seen in 8 bits by more


_HARRIS_K = 0.04  # weight of the squared trace
_GAUSSIAN_SIGMA = 1.5  # pixels: the window of harris-gaussian
_THINNING = 10.0  # of harris-gaussian: kp's own


class Unavailable(RuntimeError):
    """A detector that this machine does not have; the message is one line: what is missing, and what to do."""


def harris(image: Tensor) -> Tensor:
    """Harris and Stephens' response (1, 1, H, W) over 4x4 blocks, Sobel 3x3, k = 0.04; -inf where it is not positive.

    A negative response is an edge and 0 is flat: neither is a corner. A block of even size has no middle pixel: the
    response lies half a pixel to the right of, and below, what it describes. The localisation error has this shift in
    it wherever two views differ by more than a translation.
    """
    return _positive(_as_map(cv2.cornerHarris(to_gray8(image), 4, 3, _HARRIS_K)))


def harris_gaussian(image: Tensor) -> Tensor:
    """Harris' response (1, 1, H, W) over a Gaussian of sigma 1.5 px, Sobel 3x3, k = 0.04; -inf where not positive.

    Unlike :func:`harris`, its window is round and not shifted, and it is thinned as kp's score maps are, see
    :func:`kp.models.detector.thin`: what a careful user makes of Harris' response.
    """
    gray = to_gray8(image).astype(np.float32)
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    xx, yy, xy = (cv2.GaussianBlur(product, (0, 0), _GAUSSIAN_SIGMA) for product in (dx * dx, dy * dy, dx * dy))
    response = _as_map(xx * yy - xy**2 - _HARRIS_K * (xx + yy) ** 2)
    return thin(response, _THINNING).masked_fill(response <= 0, -torch.inf)


def shi_tomasi(image: Tensor) -> Tensor:
    """The smaller eigenvalue (1, 1, H, W) of the structure tensor over 4x4 blocks, Sobel 3x3; -inf where it is 0.

    ``cv2.goodFeaturesToTrack`` with the block of :func:`harris`, and the half pixel of its shift, without its quality
    level and minimum distance.
    """
    return _positive(_as_map(cv2.cornerMinEigenVal(to_gray8(image), 4, ksize=3)))


def fast(image: Tensor) -> Tensor:
    """FAST-9/16 with threshold 10 and its own 3x3 suppression (1, 1, H, W). Its points are at whole pixels.

    Its scores are small integers and often tie; ``extract_keypoints`` then prefers the pixel first in raster order.
    """
    gray = to_gray8(image)
    return _at_pixels(cv2.FastFeatureDetector_create(threshold=10).detect(gray, None), gray.shape)[0]


@dataclass(frozen=True)
class OwnPoints:
    """A detector that finds points between pixels: called with an image, it gives a score map like all others.

    ``find`` gives the keypoints of an 8-bit gray picture (H, W).
    """

    find: Callable[[np.ndarray], Sequence[cv2.KeyPoint]]

    def __call__(self, image: Tensor) -> Tensor:
        """Each point's response (1, 1, H, W) at its nearest pixel, -inf elsewhere."""
        return self.with_places(image)[0]

    def with_places(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The score map (1, 1, H, W) and places (1, H, W, 2): x, y of the point that made a pixel's score.

        Of several points at a pixel the best makes its score, the first of them where they are equal. A pixel without
        a point is its own place. A place is at most half a pixel from its pixel, in x and in y.
        """
        gray = to_gray8(image)
        return _at_pixels(self.find(gray), gray.shape)


def _sift(gray: np.ndarray) -> Sequence[cv2.KeyPoint]:
    """SIFT's keypoints of all scales, scored by contrast; OpenCV's defaults, no limit on their number.

    By default OpenCV 4 puts them a quarter of a pixel too far to the right and down.
    """
    return cv2.SIFT_create().detect(gray, None)


def _orb(gray: np.ndarray) -> Sequence[cv2.KeyPoint]:
    """ORB's keypoints of all 8 levels, scored by Harris; OpenCV's defaults, no limit on their number."""
    if min(gray.shape) <= 2 * _ORB_EDGE:  # there can be none, and OpenCV fails on a level without pixels
        return ()
    return cv2.ORB_create(nfeatures=_ORB_FEATURES, edgeThreshold=_ORB_EDGE).detect(gray, None)


def _akaze(gray: np.ndarray) -> Sequence[cv2.KeyPoint]:
    """AKAZE's keypoints of all scales, scored by the determinant of the Hessian; OpenCV's defaults.

    Raises Unavailable where the installed OpenCV has no AKAZE.
    """
    detector = _make_akaze()
    return detector.detect(gray, None) if min(gray.shape) >= _AKAZE_MIN_SIDE else ()


def kornia_harris(image: Tensor) -> Tensor:
    """Harris' response (1, 1, H, W) by Kornia: Sobel 3x3, Gaussian window of sigma 1 px, k = 0.04."""
    return _kornia(harris_response, image)


def kornia_gftt(image: Tensor) -> Tensor:
    """Shi and Tomasi's response (1, 1, H, W) by Kornia, with the derivatives and window of :func:`kornia_harris`."""
    return _kornia(gftt_response, image)


def kornia_hessian(image: Tensor) -> Tensor:
    """The determinant of the Hessian (1, 1, H, W) by Kornia: bright and dark blobs alike, and the insides of corners.

    Second derivatives are those of Sobel 5x5, whose binomials blur by a sigma of 1 px; there is no other blur.
    """
    return _kornia(hessian_response, image)


def kornia_dog(image: Tensor) -> Tensor:
    """The size (1, 1, H, W) of the difference of Gaussians of sigma 1 and 1.6 px by Kornia, bright or dark."""
    sigma1, sigma2 = _DOG_SIGMAS
    return _kornia(lambda gray: dog_response_single(gray, sigma1, sigma2).abs(), image, least=_ROUNDOFF)


def random_scores(image: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise (1, 1, H, W): chance. The generator moves on, so every image gets points of its own."""
    return torch.rand((1, 1, *image.shape[-2:]), generator=generator)


BASELINES: dict[str, ScoreMap] = {
    "harris": harris,
    "harris-gaussian": harris_gaussian,
    "shi-tomasi": shi_tomasi,
    "fast": fast,
    "sift": OwnPoints(_sift),
    "orb": OwnPoints(_orb),
    "akaze": OwnPoints(_akaze),
    "kornia-harris": kornia_harris,
    "kornia-gftt": kornia_gftt,
    "kornia-hessian": kornia_hessian,
    "kornia-dog": kornia_dog,
}


def make(name: str) -> ScoreMap:
    """The detector of that name in ``BASELINES``. Raises Unavailable where it cannot run, ValueError on no name."""
    if name not in BASELINES:
        raise ValueError(f"no classical detector is called {name}: there are {', '.join(BASELINES)}")
    if name == "akaze":
        _make_akaze()
    return BASELINES[name]


def available(makers: Mapping[str, Callable[[], ScoreMap]]) -> tuple[dict[str, ScoreMap], dict[str, str]]:
    """The detectors that can be made here, by name; and for each of the others the reason, in one line."""
    made, skipped = {}, {}
    for name, maker in makers.items():
        try:
            made[name] = maker()
        except Unavailable as reason:
            skipped[name] = str(reason)
    return made, skipped


def to_gray8(image: Tensor) -> np.ndarray:
    """An image (1, C, H, W) in [0, 1], C = 1 or 3 (RGB), as 8-bit gray (H, W): what OpenCV's detectors take."""
    array = (image[0].detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return array[0].copy() if len(array) == 1 else cv2.cvtColor(array.transpose(1, 2, 0).copy(), cv2.COLOR_RGB2GRAY)


def _as_map(response: np.ndarray) -> Tensor:
    return torch.from_numpy(response)[None, None]  # (1, 1, H, W)


def _positive(scores: Tensor, least: float = 0.0) -> Tensor:
    return scores.masked_fill(scores <= least, -torch.inf)


def _kornia(response: Callable[[Tensor], Tensor], image: Tensor, least: float = 0.0) -> Tensor:
    """A response to the 8-bit gray picture, in grey levels, on the image's device; -inf where not above ``least``."""
    gray = _as_map(to_gray8(image)).to(image.device, torch.float32)
    if min(gray.shape[-2:]) < _KORNIA_MIN_SIDE:
        return torch.full_like(gray, -torch.inf)
    return _positive(response(gray), least)


def _make_akaze() -> cv2.Feature2D:
    """OpenCV's AKAZE, which OpenCV 5 keeps in a module of its own. Raises Unavailable."""
    create = getattr(cv2, "AKAZE_create", None) or getattr(getattr(cv2, "xfeatures2d", None), "AKAZE_create", None)
    if create is None:
        raise Unavailable(
            f"OpenCV {cv2.__version__} as installed has no AKAZE: opencv-python 4 has it, as has opencv-contrib-python"
        )
    return create()


def _at_pixels(found: Sequence[cv2.KeyPoint], size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Scores (1, 1, H, W) and places (1, H, W, 2), see ``OwnPoints.with_places``."""
    scores = np.full(size, -np.inf, dtype=np.float32)
    places = np.moveaxis(np.indices(size, dtype=np.float32)[::-1], 0, -1).copy()  # (H, W, 2) x, y
    if found:
        responses = np.array([point.response for point in found], dtype=np.float32)
        worst_first = np.argsort(-responses, kind="stable")[::-1]  # NumPy keeps what is assigned last
        xy = cv2.KeyPoint_convert(found)[worst_first]  # (N, 2)
        x, y = np.rint(xy).astype(int).clip(0, (size[1] - 1, size[0] - 1)).T
        scores[y, x] = responses[worst_first]
        places[y, x] += (xy - places[y, x]).clip(-0.5, 0.5)
    return _as_map(scores), torch.from_numpy(places)[None]
