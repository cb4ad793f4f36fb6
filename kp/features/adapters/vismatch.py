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
        self.descriptor = descriptor

    def _forward(self, img0, img1):
        features = [self.extractor.extract(image) for image in (img0, img1)]
        if self.descriptor != "own":
            for each, image in zip(features, (img0, img1), strict=True):
                each["descriptors"] = kp.describe(image, each, self.descriptor)
        found = kp.match(*features)
        at0, at1 = found["matches"].unbind(1)
        xy0, xy1 = (each["keypoints"][0] for each in features)
        return xy0[at0], xy1[at1], xy0, xy1, *(each["descriptors"][0] for each in features), found["scores"]
