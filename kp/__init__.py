"""kp: train and measure an interest-point detector whose whole world is geometry."""

__version__ = "0.1.0"


def load_detector(weights="mobilenet_v3_small", device="cpu"):
    """A trained detector, ready for use: images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W).

    ``weights`` is a name of those that come with kp (``python -m kp models``) or the path of a file from training;
    :func:`kp.keypoints.extract_keypoints` makes keypoints of the scores. Raises kp.checkpoint.CheckpointError, a
    ValueError, where there are none such.
    """
    from kp.checkpoint import load_detector  # only now: ``import kp`` alone is quick

    return load_detector(weights, device)
