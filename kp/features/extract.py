"""From any image to keypoints: what users of kp call. The names and the result are LightGlue's."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from kp.config import DESCRIPTOR_SCALES, DETECTION_THRESHOLD, WEIGHTS
from kp.features.found import Found
from kp.features.images import EXIF, GreyImage, near_invalid, places_in, to_grey_image, to_mask
from kp.geometry.coords import Size, resize
from kp.models.checkpoint import load_detector
from kp.models.corner import CornerDetector
from kp.models.detector import describes
from kp.models.keypoints import Keypoints, most_keypoints, resized
from kp.support.device import choose_device

if TYPE_CHECKING:
    from kp.features.images import Mask, Source

Features = dict[str, Tensor]


class Extractor(nn.Module):
    """Keypoints of any image, best first, in pixels of that image.

    Args:
        weights: a name that ``kp models`` prints, or the path of a file that training wrote.
        max_num_keypoints: at most so many for each image; None: all.
        nms_radius: pixels in x and y within which a keypoint is the best.
        remove_borders: pixels from the edge of the image, and from pixels without a value, without a keypoint.
        detection_threshold: least score of a keypoint, in (0, 1), before a ranker orders them; 0: none.
        subpixel: refine positions to a fraction of a pixel.
        resize: pixels of the longer side of the image in which keypoints are sought; None: as it is.
        descriptors: describe the keypoints, where the weights have a describer; False: find them only, which is faster.
        descriptor_scales: sizes of the image in which keypoints are described, each half of the one before, so that
            :func:`kp.match` knows them where the camera came nearer or went away; 1: the image's own size only.
        covariances: say how far each keypoint may be off, which takes one more look at the image; only detectors
            without an encoder can.
        exif: ``ignore`` or ``apply`` the orientation that a file or PIL image asks a viewer for.
        device: of the detector, and of the keypoints.

    Raises:
        ValueError: an argument is out of bounds, or there are no such weights or no such device.

    Example:
        >>> features = Extractor(max_num_keypoints=500).extract("photo.jpg")
        >>> features["keypoints"].shape  # (1, N, 2)
    """

    def __init__(
        self,
        weights: str | Path = WEIGHTS,
        *,
        max_num_keypoints: int | None = 1024,
        nms_radius: int = 4,
        remove_borders: int = 4,
        detection_threshold: float = DETECTION_THRESHOLD,
        subpixel: bool = True,
        resize: int | None = None,
        descriptors: bool = True,
        descriptor_scales: int = DESCRIPTOR_SCALES,
        covariances: bool = False,
        exif: str = "ignore",
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        _at_least("max_num_keypoints", max_num_keypoints, 1)
        _at_least("nms_radius", nms_radius, 0)
        _at_least("remove_borders", remove_borders, 0)
        _at_least("resize", resize, 32)
        _at_least("descriptor_scales", descriptor_scales, 1)
        if not 0 <= detection_threshold < 1:
            raise ValueError(f"detection_threshold must be in [0, 1), not {detection_threshold}")
        if exif not in EXIF:
            raise ValueError(f"exif must be {' or '.join(EXIF)}, not {exif!r}")
        self.max_num_keypoints, self.nms_radius, self.remove_borders = max_num_keypoints, nms_radius, remove_borders
        self.detection_threshold, self.subpixel, self.resize, self.exif = detection_threshold, subpixel, resize, exif
        device = choose_device(str(device))
        self.detector = load_detector(weights, device)
        self.describes, self.descriptor_scales = bool(descriptors) and describes(self.detector), descriptor_scales
        describer = self.detector.describer if self.describes else None
        self.register_buffer("_turn", describer and describer.turn(), persistent=False)
        self.register_buffer("_tilts", describer and describer.tilts(), persistent=False)
        if covariances and not isinstance(self.detector, CornerDetector):
            raise ValueError(f"covariances: the weights {weights} have an encoder and give none: take {WEIGHTS}")
        self.covariances = bool(covariances)
        self.register_buffer("_anchor", torch.zeros((), device=device), persistent=False)  # knows the device

    @property
    def device(self) -> torch.device:
        """Where the detector is."""
        return self._anchor.device

    def train(self, mode: bool = True) -> "Extractor":
        """The detector stays in evaluation mode: in another it gives no keypoints."""
        super().train(mode)
        self.detector.eval()
        return self

    @torch.no_grad()
    def extract(
        self, image: "Source | Sequence[Source]", mask: "Mask | Sequence[Mask | None] | None" = None
    ) -> Features | list[Features]:
        """The keypoints of an image; of a list of images, of any sizes, a list.

        Args:
            image: a path, a PIL image, an array (H, W) or (H, W, C) or a tensor (C, H, W) or (1, C, H, W); what values
                are taken for what is said at :func:`kp.features.images.to_grey_image`.
            mask: (H, W), as large as the image: where there may be keypoints. True, not zero, or above one half.

        Returns:
            ``keypoints`` (1, N, 2), float32, (x, y) in pixels of the image, (0, 0) the centre of the top-left pixel;
            ``keypoint_scores`` (1, N) in (0, 1), best first; ``image_size`` (1, 2), its width and height. Where the
            weights have a describer, ``descriptors`` (1, N, D), float32, of unit length, and for :func:`kp.match`
            ``scaled_descriptors`` (1, N, S, D), the same in S sizes of the image, ``turn`` (1, D, D), a matrix that
            turns descriptors by 45 degrees, and ``tilts`` (1, T, D, D), matrices that make of them those of the image
            seen from the side. With ``covariances`` also ``keypoint_covariances`` (1, N, 2, 2), float32, square pixels
            of the image.

        Raises:
            ImageError: (a ValueError) the image or mask cannot be read, or it is not certain what is meant.
        """
        if isinstance(image, list | tuple) and not isinstance(image, GreyImage):
            stacked = getattr(mask, "ndim", 0) >= 3 and len(mask) == len(image)
            masks = mask if isinstance(mask, list | tuple) or stacked else [mask] * len(image)
            if len(masks) != len(image):
                raise ValueError(f"{len(image)} images with {len(masks)} masks")
            return [self.extract(*pair) for pair in zip(image, masks, strict=True)]
        grey, valid = self._loaded(image)
        allowed = None if mask is None else to_mask(mask, tuple(grey.shape[-2:])).to(self.device)
        found = self._find(GreyImage(grey, valid), allowed)
        return {
            name: values[:, found.keypoints.valid[0]] for name, values in found.named().items() if name != "valid"
        } | self._of_all([grey.shape])

    @torch.no_grad()
    def describe(self, image: "Source", features: Mapping[str, Tensor]) -> Features:
        """Own descriptors of any places of an image, as of the keypoints of another detector.

        What is outside of the image is taken for what is at its edge.

        Args:
            image: one, as of :meth:`extract`.
            features: ``keypoints`` (1, N, 2), in pixels of the image; optional ``valid`` (1, N), which of them are.

        Returns:
            ``descriptors``, ``scaled_descriptors``, ``turn`` and ``tilts`` as of :meth:`extract`, zero for keypoints
            that are not valid.

        Raises:
            ValueError: the weights have no describer, or the keypoints cannot be of this image.

        Example:
            >>> points = cv2.ORB_create().detect(cv2.imread("photo.jpg"))
            >>> features = {"keypoints": np.float32([point.pt for point in points])[None]}
            >>> features |= Extractor("described").describe("photo.jpg", features)
        """
        if not self.describes:
            raise ValueError('these weights give no descriptors: take kp.Extractor("described"), or kp.describe')
        grey = self._loaded(image).grey
        xy = places_in(grey, features).to(self.device).float()
        resized, back = self._resized(grey)
        descriptors = self._nothing().descriptors
        if xy.shape[1]:
            descriptors = self.detector.describe_in_sizes(resized, (xy + 0.5) / back - 0.5, self.descriptor_scales)
        if "valid" in features:
            valid = torch.as_tensor(features["valid"]).bool().to(self.device)
            descriptors = descriptors.masked_fill(~valid[..., None, None], 0)
        scaled = {"scaled_descriptors": descriptors} if self.descriptor_scales > 1 else {}
        return {"descriptors": descriptors[:, :, 0]} | scaled | self._matrices(1)

    @torch.no_grad()
    def forward(self, data: Mapping[str, Tensor]) -> Features:
        """A batch of images, padded to one size, with exactly ``max_num_keypoints`` places for each.

        Args:
            data: ``image`` (B, C, H, W), values as of :meth:`extract`; optional ``mask`` (B, H, W) or (B, 1, H, W),
                where there may be keypoints. Rows at the bottom and columns at the right in which it is nowhere True
                are padding: the result is that of the image without them.

        Returns:
            ``keypoints`` (B, K, 2), ``keypoint_scores`` (B, K), ``valid`` (B, K) bool and ``image_size`` (B, 2), width
            and height without the padding. Where ``valid`` is False there is no keypoint, its place and score are 0.
            ``descriptors`` (B, K, D), ``scaled_descriptors`` (B, K, S, D), ``turn`` (B, D, D), ``tilts`` (B, T, D, D)
            and ``keypoint_covariances`` (B, K, 2, 2) as of :meth:`extract`, 0 where there is no keypoint.

        Raises:
            ImageError: (a ValueError) as of :meth:`extract`.
        """
        if "image" not in data:
            raise ValueError(f'the images of a batch are data["image"]; there is {", ".join(data) or "nothing"}')
        images, masks = data["image"], data.get("mask")
        if images.ndim == 4 and images.shape[1] not in (1, 2, 3, 4):
            images = images.movedim(-1, 1) if isinstance(images, Tensor) else np.moveaxis(images, -1, 1)
        if images.ndim != 4 or images.shape[1] not in (1, 2, 3, 4):
            raise ValueError(f"a batch of images has the shape (B, C, H, W), not {tuple(images.shape)}")
        found, sizes = [], []
        for index, image in enumerate(images):
            mask = None if masks is None else to_mask(masks[index], tuple(image.shape[-2:])).to(self.device)
            height, width = image.shape[-2:] if mask is None else _extent(mask)
            sizes.append((height, width))
            if not height or not width:
                found.append(self._nothing())
                continue
            loaded = self._loaded(image[..., :height, :width])
            found.append(self._find(loaded, None if mask is None else mask[..., :height, :width]))
        count = self.max_num_keypoints or max((each.keypoints.valid.shape[1] for each in found), default=0)
        named = [each.resized(count).named() for each in found or [self._nothing()]]
        batch = {name: torch.cat([each[name] for each in named])[: len(images)] for name in named[0]}
        return batch | self._of_all(sizes)

    def _of_all(self, shapes: Sequence[Sequence[int]]) -> Features:
        """What is of images (B), whose shapes end with (H, W), and not of a keypoint."""
        sizes = [[float(shape[-1]), float(shape[-2])] for shape in shapes]
        found = {"image_size": torch.tensor(sizes, dtype=torch.float32, device=self.device).reshape(-1, 2)}
        return found | self._matrices(len(shapes))

    def _matrices(self, count: int) -> Features:
        """Those that change descriptors, for so many images."""
        matrices = {"turn": self._turn, "tilts": self._tilts}
        return {name: each.expand(count, *each.shape) for name, each in matrices.items() if each is not None}

    def _resized(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """An image (1, 1, H, W) in the size in which it is looked at, and how many of its pixels (2,) one there is."""
        height, width = grey.shape[-2:]
        if self.resize is not None and (scale := self.resize / max(height, width)) != 1:
            grey = resize(grey, tuple(max(round(scale * side), 1) for side in (height, width))).clamp(0, 1)
        return grey, torch.tensor([width / grey.shape[-1], height / grey.shape[-2]], device=self.device)

    def _loaded(self, image: "Source") -> GreyImage:
        grey, valid = to_grey_image(image, self.exif)
        return GreyImage(grey.to(self.device), None if valid is None else valid.to(self.device))

    def _nothing(self) -> Found:
        xy = torch.zeros(1, 0, 2, device=self.device)
        return Found(
            Keypoints(xy, xy[..., 0], xy[..., 0].bool()),
            xy.new_zeros(1, 0, self.descriptor_scales, self.detector.settings.descriptor_size)
            if self.describes
            else None,
            xy.new_zeros(1, 0, 2, 2) if self.covariances else None,
        )

    def _find(self, image: GreyImage, allowed: Tensor | None) -> Found:
        """The keypoints (B = 1), at most ``max_num_keypoints``, in pixels of the image."""
        grey, back = self._resized(image.grey)
        height, width = grey.shape[-2:]
        mask = self._mask(image.valid, allowed, (height, width))
        if min(height, width) <= max(2, 2 * self.remove_borders) or (mask is not None and not mask.any()):
            return self._nothing()
        nms_size, most = 2 * self.nms_radius + 1, self.max_num_keypoints
        found = self.detector.keypoints(
            grey,
            None if most is None else min(most, most_keypoints((height, width), nms_size)),
            nms_size=nms_size,
            border=self.remove_borders,
            subpixel=self.subpixel,
            mask=mask,
            threshold=self.detection_threshold,
        )
        descriptors = None
        if self.describes:
            found, descriptors = self._described(grey, found)
        covariances = self.detector.covariances(grey, found.xy) if self.covariances else None
        if grey is image.grey:
            return Found(found, descriptors, covariances)
        if covariances is not None:
            covariances = back[:, None] * covariances * back
        return Found(Keypoints((found.xy + 0.5) * back - 0.5, found.scores, found.valid), descriptors, covariances)

    def _described(self, grey: Tensor, found: Keypoints) -> tuple[Keypoints, Tensor]:
        """Those of the keypoints (1, K) that there are, and their descriptors (1, N, S, D)."""
        found = resized(found, int(found.valid.sum()))
        if not found.valid.any():
            return found, self._nothing().descriptors
        return found, self.detector.describe_in_sizes(grey, found.xy, self.descriptor_scales)

    def _mask(self, valid: Tensor | None, allowed: Tensor | None, size: Size) -> Tensor | None:
        """Where there may be keypoints, at another size."""
        mask = allowed
        if valid is not None:
            mask = ~near_invalid(valid, self.remove_borders)
            mask = mask if allowed is None else mask & allowed
        if mask is None or mask.shape[-2:] == torch.Size(size):
            return mask
        return resize(mask.float(), size) > 0.5


def _at_least(name: str, value: int | None, least: int) -> None:
    optional = value is None and name in ("max_num_keypoints", "resize")
    if not optional and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _extent(mask: Tensor) -> Size:
    """Height and width of what is left of a mask (1, 1, H, W) without rows below and columns right of it."""
    rows, columns = mask[0, 0].any(1).nonzero(), mask[0, 0].any(0).nonzero()
    return (int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else (0, 0)
