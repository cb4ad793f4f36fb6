"""The corner response at several scales, and the default detector: its peaks, in an order that is learnt."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from kornia.filters import spatial_gradient
from torch import Tensor
from torch.nn import functional as F

from kp.config import DetectorSettings
from kp.geometry.block_filters import at_half_size, double, opencv_can
from kp.geometry.coords import Size
from kp.models import corner_cpu
from kp.models.corner_cpu import RESPONSE_FLOOR, CornerNumbers, halved
from kp.models.describer import Describer
from kp.models.detector import Detector, blur, to_grey
from kp.models.keypoints import Keypoints, extract_keypoints, resized, sharpness
from kp.models.ranker import Ranker, reranked
from kp.support.device import full_precision, keep_freed_memory

CANDIDATES_PER_KEYPOINT = 4  # keypoints in order of score that the ranker judges, for each that is wanted
_LEAST_SHARPNESS = 0.02  # of a score map per square pixel: a peak that is flatter counts as so sharp
_CANDIDATES = 1500  # keypoints a megapixel that the ranker sees at least


class CornerDetector(Detector):
    """A detector without an encoder: the prominence of the corner response, averaged over scales, and a ranker.

    The score map is the mean over the scales of half the log of Noble's response (:func:`noble_response`), blurred,
    less a share of its mean around. The coarsest scales are computed at half the size of the image. Nothing of this is
    learnt. What is learnt is the order of the keypoints (:class:`kp.models.ranker.Ranker`), which :meth:`keypoints`
    applies, and their descriptors (:class:`kp.models.describer.Describer`).

    On a CPU, in evaluation mode, without gradient and in float32, OpenCV computes the same map in a tenth of the time
    and in bounded memory (:mod:`kp.models.corner_cpu`). Set ``use_opencv`` to False to have torch compute it.
    """

    def __init__(
        self, settings: DetectorSettings = DetectorSettings(), *, num_scales: int = 1, **changes: object
    ) -> None:
        super().__init__(settings, num_scales=num_scales, **changes)
        s = self.settings
        if s.encoder != "none":
            raise ValueError(f"this detector has no encoder {s.encoder}")
        self.numbers = CornerNumbers(
            weight=s.response_gain / len(s.window_sigmas),
            derivative_sigmas=s.derivative_sigmas,
            window_sigmas=s.window_sigmas,
            half_size_scales=s.half_size_scales,
            score_blur=s.score_blur,
            surround_sigma=s.surround_sigma,
            surround_weight=s.surround_weight,
        )
        self.ranker = Ranker(s.ranker_width) if s.ranker_width else None
        self.describer = Describer(s.descriptor_size) if s.descriptor_size else None
        self.use_opencv = True

    def score_map(self, image: Tensor) -> Tensor:
        if self.num_scales == 1 and self._opencv_can(grey := to_grey(image)):
            return self._by_opencv(grey, self.settings.thinning)
        return super().score_map(image)

    def at_one_scale(self, grey: Tensor) -> Tensor:
        if self._opencv_can(grey):
            return self._by_opencv(grey, 0.0)
        n = self.numbers
        with full_precision(grey.device):  # neighbouring scores would be equal in half precision
            total = _total(grey, n)
            return blur(total, n.score_blur) - n.surround_weight * blur(total, n.surround_sigma)

    def keypoints(self, image: Tensor, max_keypoints: int | None = None, **options: Any) -> Keypoints:
        if self.ranker is None or not self.settings.ranker_weight:
            return super().keypoints(image, max_keypoints, **options)
        found = unranked(self, image, max_keypoints, **options)
        found = reranked(found, self.settings.ranker_weight * self.ranker.judge(to_grey(image), found))
        return found if max_keypoints is None else resized(found, max_keypoints)

    def describe(self, image: Tensor, xy: Tensor) -> Tensor:
        """Descriptors (B, K, D) of unit length, of places (B, K, 2) in images (B, 1 or 3, H, W). Float32.

        Raises:
            ValueError: the detector has no describer.
        """
        if self.describer is None:
            raise ValueError("these weights have no descriptors: take weights with a describer, or kp.describe")
        return self.describer(to_grey(image), xy.float())

    def describe_in_sizes(self, image: Tensor, xy: Tensor, count: int) -> Tensor:
        """Descriptors (B, K, count, D) as of :meth:`describe`, in ``count`` sizes of the images.

        The first is of the image, the second of one half as large, and so on. A second thread, where torch has one on a
        CPU, describes the smaller ones: their parts are too small to be shared.
        """
        if count == 1 or image.device.type != "cpu" or torch.get_num_threads() == 1:
            descriptors = self.describe(image, xy)
            smaller = self.describe_smaller(image, xy, count - 1)
        else:
            running = _second_thread(os.getpid()).submit(torch.no_grad()(self.describe_smaller), image, xy, count - 1)
            descriptors = self.describe(image, xy)
            smaller = running.result()
        return torch.cat([descriptors[:, :, None], smaller], dim=2)

    def describe_smaller(self, image: Tensor, xy: Tensor, count: int) -> Tensor:
        """Descriptors (B, K, count, D) of places (B, K, 2) of images (B, 1 or 3, H, W), seen in smaller images.

        The first is half as large as the image, each of the others half as large as the one before.
        """
        grey, found = to_grey(image), []
        for _ in range(count):
            grey, xy = at_half_size(grey), (xy - 0.5) / 2
            found.append(self.describe(grey, xy))
        return torch.stack(found, dim=2) if found else grey.new_zeros(*xy.shape[:2], 0, self.settings.descriptor_size)

    def covariances(self, image: Tensor, xy: Tensor) -> Tensor:
        """How far keypoints at ``xy`` (B, K, 2) of images (B, 1 or 3, H, W) may be off: covariances (B, K, 2, 2), px^2.

        The inverse of the score map's sharpness there, times ``covariance_scale`` of the settings, which ``kp
        covariance`` measures on synthetic pairs.
        """
        return self.settings.covariance_scale * inverse_sharpness(sharpness(self.dense(image), xy.float()))

    def _opencv_can(self, image: Tensor) -> bool:
        return self.use_opencv and opencv_can(image)

    def _by_opencv(self, grey: Tensor, thinning: float) -> Tensor:
        keep_freed_memory()
        threads = torch.get_num_threads()
        images = [np.ascontiguousarray(image[0].numpy()) for image in grey]
        maps = [corner_cpu.score_map(image, self.numbers, thinning, threads) for image in images]
        return torch.from_numpy(np.stack(maps))[:, None]


def inverse_sharpness(sharp: Tensor) -> Tensor:
    """The inverse of symmetric matrices (..., 2, 2) whose eigenvalues are raised to a least value: a flat peak."""
    values, vectors = torch.linalg.eigh(sharp)
    return vectors @ torch.diag_embed(1 / values.clamp(min=_LEAST_SHARPNESS)) @ vectors.mT


@cache
def _second_thread(process: int) -> ThreadPoolExecutor:
    """One that waits for work: a new one would take milliseconds. A fork has its own, as threads do not survive it."""
    return ThreadPoolExecutor(1)


def candidates(max_keypoints: int, size: Size) -> int:
    """How many keypoints of an image of this size, the best by score, a ranker sees to choose ``max_keypoints``."""
    least = -(-_CANDIDATES * size[0] * size[1] // 1_000_000)
    return torch.sym_max(CANDIDATES_PER_KEYPOINT * max_keypoints, least)  # in a graph the size is a symbol


def unranked(detector: Detector, image: Tensor, max_keypoints: int | None = None, **options: Any) -> Keypoints:
    """The keypoints (B, K) among which a ranker chooses ``max_keypoints``, by score; K is the most of any image.

    Options are those of :func:`kp.models.keypoints.extract_keypoints`. No gradient is kept.
    """
    if max_keypoints is not None:
        max_keypoints = candidates(max_keypoints, tuple(image.shape[-2:]))
    with torch.no_grad():
        found = extract_keypoints(detector.score_map(image), max_keypoints, **options)
    return resized(found, max(1, int(found.valid.sum(1).max())))


def _total(grey: Tensor, n: CornerNumbers) -> Tensor:
    """The weighted sum (B, 1, H, W) over the scales of grey images (B, 1, H, W)."""
    scales = list(zip(n.derivative_sigmas, n.window_sigmas, strict=True))
    fine = len(scales) - n.half_size_scales
    total = sum(n.weight * noble_response(grey, sigma, window) for sigma, window in scales[:fine])
    if not n.half_size_scales:
        return total
    height, width = grey.shape[-2:]
    half = at_half_size(grey)
    coarse = sum(n.weight * noble_response(half, halved(sigma), window / 2) for sigma, window in scales[fine:])
    return total + F.pad(double(coarse), (0, -(width % 2), 0, -(height % 2)))  # exports for odd sizes, unlike a slice


def corner_response(grey: Tensor, derivative_sigmas: tuple[float, ...], window_sigmas: tuple[float, ...]) -> Tensor:
    """Half the log of Noble's response of grey images (B, 1, H, W), a map for each scale: (B, S, H, W).

    A clear corner is at about zero. H and W must be at least 2 pixels.

    Args:
        derivative_sigmas: pixels, blur of the image before its derivatives, for each scale.
        window_sigmas: pixels, blur of the products of the derivatives, for each scale.
    """
    scales = zip(derivative_sigmas, window_sigmas, strict=True)
    return torch.cat([noble_response(grey, sigma, window) + 1.5 for sigma, window in scales], dim=1)


def noble_response(grey: Tensor, derivative_sigma: float, window_sigma: float) -> Tensor:
    """Half the log of Noble's corner response of grey images (B, 1, H, W), as large.

    The response is the determinant over the trace of the structure tensor (Noble 1988; Brown, Szeliski and Winder, CVPR
    2005), which is half the harmonic mean of its eigenvalues. On photographs it repeats better than Harris' or the
    smaller eigenvalue.

    Args:
        derivative_sigma: pixels, blur of the image before its derivatives.
        window_sigma: pixels, blur of the products of the derivatives.
    """
    dx, dy = spatial_gradient(blur(grey, derivative_sigma))[:, 0].split(1, dim=1)
    xx, yy, xy = blur(torch.cat([dx * dx, dy * dy, dx * dy], dim=1), window_sigma).split(1, dim=1)
    response = ((xx * yy - xy**2) / (xx + yy + RESPONSE_FLOOR)).clamp(min=0)
    return torch.log(response + RESPONSE_FLOOR) / 2


def floor_detector() -> CornerDetector:
    """The corner response with nothing learnt: what every learnt detector has to beat. In evaluation mode.

    Three scales at the size of the image, each with the same weight.
    """
    return CornerDetector(
        derivative_sigmas=(0.7, 1.4, 2.8),
        window_sigmas=(1.5, 2.0, 4.0),
        half_size_scales=0,
        score_blur=1.0,
        surround_sigma=4.0,
        surround_weight=0.9,
        thinning=10.0,
        ranker_width=0,
        descriptor_size=0,
    ).eval()
