"""What an extractor finds in one image, before it is named for users."""

from typing import NamedTuple

from torch import Tensor

from kp.models.keypoints import Keypoints, resized


class Found(NamedTuple):
    """Keypoints (B = 1) of an image, and their descriptors (1, K, S, D) and covariances (1, K, 2, 2), or None."""

    keypoints: Keypoints
    descriptors: Tensor | None
    covariances: Tensor | None

    def resized(self, count: int) -> "Found":
        """With ``count`` places."""
        return Found(
            resized(self.keypoints, count),
            *(None if values is None else _places(values, count) for values in self[1:]),
        )

    def named(self) -> dict[str, Tensor]:
        """By name, float32; zero where there is no keypoint."""
        keypoints, descriptors, covariances = self
        xy = keypoints.xy.float().masked_fill(~keypoints.valid[..., None], 0)
        named = {"keypoints": xy, "keypoint_scores": keypoints.scores.float().sigmoid(), "valid": keypoints.valid}
        each = {}  # of the optional ones
        if descriptors is not None:
            each["descriptors"] = descriptors[:, :, 0]
            if descriptors.shape[2] > 1:
                each["scaled_descriptors"] = descriptors
        if covariances is not None:
            each["keypoint_covariances"] = covariances
        for name, values in each.items():
            empty = ~keypoints.valid.view(*keypoints.valid.shape, *[1] * (values.ndim - 2))
            named[name] = values.float().masked_fill(empty, 0)
        return named


def _places(values: Tensor, count: int) -> Tensor:
    """The first ``count`` of values (1, K, ...), followed by zeros where there are fewer."""
    places = values.new_zeros(1, count, *values.shape[2:])
    places[:, : values.shape[1]] = values[:, :count]
    return places
