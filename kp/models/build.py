"""The detector that settings describe."""

from kp.config import DetectorSettings
from kp.models.corner import CornerDetector
from kp.models.detector import Detector


def make_detector(
    settings: DetectorSettings = DetectorSettings(), *, num_scales: int = 1, **changes: object
) -> Detector:
    """A detector before training; arguments and errors as of :class:`kp.models.detector.Detector`.

    Raises:
        PretrainedError: the pretrained weights of the encoder cannot be had.
    """
    name = changes.get("encoder", settings.encoder)
    if name == "none":
        return CornerDetector(settings, num_scales=num_scales, **changes)
    from kp.models.mobile import MobileDetector  # torchvision and timm take seconds to import

    return MobileDetector(settings, num_scales=num_scales, **changes)
