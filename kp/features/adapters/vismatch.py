"""kp in vismatch: copy this file to ``vismatch/im_models/kp.py``, or use the matcher alone.

>>> matcher = KPMatcher(device="cpu", max_num_keypoints=2048)
>>> result = matcher("a.jpg", "b.jpg")
"""

from vismatch.base_matcher import BaseMatcher

import kp


class KPMatcher(BaseMatcher):
    def __init__(self, device="cpu", max_num_keypoints=2048, weights="described", descriptor="own", **kwargs):
        super().__init__(device, **kwargs)
        own = descriptor == "own"  # the weights' descriptors
        self.extractor = kp.Extractor(weights, max_num_keypoints=max_num_keypoints, descriptors=own, device=device)
        self.descriptor = None if own else descriptor

    def _forward(self, img0, img1):
        found = kp.match_pair(img0, img1, self.extractor, self.descriptor)
        features = found["features0"], found["features1"]
        matched = found["keypoints0"], found["keypoints1"]  # those of img1 are refined: between its keypoints
        return *matched, *(each[key][0] for key in ("keypoints", "descriptors") for each in features), found["scores"]
