"""kp in hloc: copy this file to ``hloc/extractors/kp.py`` and put ``"model": {"name": "kp"}`` into the configuration.

The image is grey (``"preprocessing": {"grayscale": True, "resize_max": 1600}``). Other entries of ``model`` are as in
``default_conf``; ``descriptor`` is ``own`` (that of the weights), ``rootsift`` or another method of ``kp.describe``.
Give ``as_half=False`` to ``extract_features.main``, which else rounds keypoints to whole pixels.
"""

from hloc.utils.base_model import BaseModel

import kp


class KP(BaseModel):
    default_conf = {"weights": "described", "max_keypoints": 2048, "threshold": 0.105, "descriptor": "own"}  # noqa: RUF012
    required_inputs = ["image"]  # noqa: RUF012
    detection_noise = 1.0  # pixels

    def _init(self, conf):
        names = {"max_num_keypoints": conf["max_keypoints"], "detection_threshold": conf["threshold"]}
        self.extractor = kp.Extractor(
            conf["weights"], descriptors=conf["descriptor"] == "own", descriptor_scales=1, **names
        )

    def _forward(self, data):
        features = self.extractor.extract(data["image"])
        if "descriptors" not in features:  # not wanted, or of weights without descriptors
            method = self.conf["descriptor"]
            features["descriptors"] = kp.describe(data["image"], features, "rootsift" if method == "own" else method)
        return {
            "keypoints": [features["keypoints"][0]],
            "scores": [features["keypoint_scores"][0]],
            "descriptors": [features["descriptors"][0].T],  # (D, N)
        }
