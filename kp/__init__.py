"""kp: a detector of interest points, learnt from synthetic geometry alone, and how well it works."""

__version__ = "0.1.0"


def load_detector(weights=None, device="cpu", scales=1):
    """A trained detector: images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W).

    :func:`kp.models.keypoints.extract_keypoints` makes keypoints of the scores.

    Args:
        weights: a name of ``kp models``, or the path of a file that training wrote. None: the default weights.
        device: of the detector and of the images that it is given.
        scales: sizes in which the detector looks at an image, from 1.41 times its own size down, each 0.71 of the one
            before. Four find more again, and place them better, in large images that are blurred or zoomed, in four
            times the time.

    Raises:
        kp.models.checkpoint.CheckpointError: (a ValueError) there are no such weights.
        ValueError: ``scales`` is below 1.
    """
    from kp.config import WEIGHTS  # imported here, so that ``import kp`` alone is quick
    from kp.models import checkpoint

    return checkpoint.load_detector(weights or WEIGHTS, device, scales)
