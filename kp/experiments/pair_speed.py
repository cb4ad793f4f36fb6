"""What it costs to match two photographs: the parts of kp.match_pair, and SIFT of OpenCV in its place."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch

from kp.config import DESCRIBED
from kp.data import photographs
from kp.features.estimate import FIT, choose_estimator, estimate
from kp.features.extract import Extractor
from kp.features.images import to_grey_image
from kp.features.match import compared, match
from kp.features.match_pair import describer, match_pair
from kp.features.refine import refine
from kp.features.second_look import second_look

_FILES = ("motorcycle_left.png", "motorcycle_right.png")  # of the built-in photographs
_COUNT = 1000  # keypoints of an image, at most
_MODELS = ("homography", "fundamental")


def works(device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each part by name, and what does it once."""
    images = [cv2.imread(str(photographs.folder() / name), cv2.IMREAD_GRAYSCALE) for name in _FILES]
    extractor, estimator = Extractor(DESCRIBED, max_num_keypoints=_COUNT, device=device), choose_estimator()
    features = [extractor.extract(image) for image in images]
    found = match(*features, context=True)
    xy0, xy1 = (each["keypoints"][0, at] for each, at in zip(features, found["matches"].unbind(1), strict=True))
    of = f"of {len(xy0)} matches"
    turned = cv2.rotate(images[1], cv2.ROTATE_90_CLOCKWISE)  # is not seen alike
    pair = features[0], extractor.extract(turned)
    seen = tuple(to_grey_image(image).grey for image in (images[0], turned))
    both = tuple(compared(each) | {"keypoints": each["keypoints"][0]} for each in pair)
    first, by = match(*pair, context=True)["matches"], describer(extractor)
    places = (each["keypoints"][0, at] for each, at in zip(pair, first.unbind(1), strict=True))
    fit = estimate(*places, FIT, "homography", estimator)
    yield "keypoints and descriptors of both", lambda: [extractor.extract(image) for image in images]
    yield "matches", lambda: match(*features, context=True)
    yield "matches, upright", lambda: match(*features, upright=True)
    yield "second look at a turned picture", lambda: second_look(seen, both, first, fit, by, True)
    yield f"refined places {of}", lambda: refine(*images, xy0, xy1, found["rotation"], found["scale"], estimator)
    yield f"homography {of}, {estimator}", lambda: estimate(xy0, xy1, FIT, "homography", estimator)
    yield f"fundamental matrix {of}, {estimator}", lambda: estimate(xy0, xy1, FIT, "fundamental", estimator)
    yield "all of it: kp.match_pair", lambda: match_pair(*images, extractor)
    yield "SIFT of OpenCV, all of it, MAGSAC", lambda: _by_sift(*images)


def _by_sift(image0: np.ndarray, image1: np.ndarray) -> None:
    sift = cv2.SIFT_create(_COUNT)
    (points0, codes0), (points1, codes1) = (sift.detectAndCompute(image, None) for image in (image0, image1))
    pairs = [(m.queryIdx, m.trainIdx) for m in cv2.BFMatcher(crossCheck=True).match(codes0, codes1)]
    at0, at1 = np.array(pairs).T
    xy0 = torch.from_numpy(cv2.KeyPoint_convert(points0)[at0])
    xy1 = torch.from_numpy(cv2.KeyPoint_convert(points1)[at1])
    for model in _MODELS:
        estimate(xy0, xy1, FIT, model, "opencv")
