"""The detector as Kornia's: for ``kornia.feature.LocalFeature``, its descriptors and matchers."""

import torch
from kornia.feature import laf_from_center_scale_ori
from torch import Tensor, nn

from kp.features.extract import Extractor


class KorniaDetector(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> ``lafs`` (B, N, 2, 3), ``responses`` (B, N, 1), as Kornia's detectors.

    A batch has as many keypoints for each image as its image with the fewest: Kornia has no mark for empty places.

    Args:
        extractor: finds the keypoints.
        scale: pixels, the radius of each local affine frame: from the keypoint to the side of a patch. (OpenCV's size
            is a diameter, of which SIFT describes six.)

    Example:
        >>> detector = KorniaDetector(Extractor(max_num_keypoints=500), scale=12.0)
        >>> feature = kornia.feature.LocalFeature(detector, kornia.feature.LAFDescriptor(None))
        >>> lafs, responses, descriptors = feature(image)
    """

    def __init__(self, extractor: Extractor | None = None, scale: float = 12.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be above 0 pixels, not {scale}")
        self.extractor, self.scale = extractor or Extractor(), scale

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if image.ndim != 4:
            raise ValueError(f"a batch of images has the shape (B, C, H, W), not {tuple(image.shape)}")
        masks = [None] * len(image) if mask is None else list(mask)
        each = self.extractor.extract(list(image), masks)
        count = min((features["keypoints"].shape[1] for features in each), default=0)
        xy = torch.cat([features["keypoints"][:, :count] for features in each])
        responses = torch.cat([features["keypoint_scores"][:, :count] for features in each])
        scale = xy.new_full((*xy.shape[:2], 1, 1), self.scale)
        return laf_from_center_scale_ori(xy, scale, torch.zeros_like(scale[..., 0])), responses[..., None]
