"""The losses, the training loop, validation, logs, and several processes under torchrun.

It imports ``reporting`` (pictures of keypoints) and what lies below.
"""
