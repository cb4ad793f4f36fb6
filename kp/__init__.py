"""kp: train and measure an interest-point detector whose whole world is geometry."""

__version__ = "0.1.0"


def load_detector(weights=None, device="cpu", scales=None):
    """A trained detector, ready for use: images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W).

    ``weights`` is a name of those that come with kp (``python -m kp models``), the default of these if None, or the
    path of a file from training; :func:`kp.models.keypoints.extract_keypoints` makes keypoints of the scores.
    ``scales`` is in how many sizes the detector looks at an image: several begin at 1.41 of it, each 0.71 of the one
    before; None is as the weights say, one for those of kp. Four find more again, and place them better, in large
    images that are blurred or zoomed, in four times the time. Raises kp.checkpoint.CheckpointError, a ValueError, where
    there are no such weights, and ValueError on fewer than one size.
    """
    from kp import config  # only now: ``import kp`` alone is quick
    from kp.models import checkpoint  # only now: ``import kp`` alone is quick

    return checkpoint.load_detector(weights or config.WEIGHTS, device, scales)
