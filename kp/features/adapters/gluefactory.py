"""kp in glue-factory: ``extractor: {name: kp.features.adapters.gluefactory, max_num_keypoints: 1024}``.

The same number of keypoints for each image; where there are fewer, the places that are left have score 0, and the mask
``keypoint_valid`` is False.
"""

import torch
from gluefactory.models.base_model import BaseModel

import kp


class KP(BaseModel):
    default_conf = {"weights": "described", "max_num_keypoints": 1024, "detection_threshold": 0.0, "nms_radius": 4}  # noqa: RUF012
    required_data_keys = ["image"]  # noqa: RUF012

    def _init(self, conf):
        names = ("max_num_keypoints", "detection_threshold", "nms_radius")
        self.extractor = kp.Extractor(conf["weights"], descriptor_scales=1, **{name: conf[name] for name in names})
        self.are_weights_initialized = True

    def _forward(self, data):
        found = self.extractor({"image": data["image"]})
        if "descriptors" not in found:  # of weights without descriptors
            each = zip(data["image"], found["keypoints"], strict=True)
            found["descriptors"] = torch.cat([kp.describe(image, {"keypoints": xy[None]}) for image, xy in each])
        names = {name: name for name in ("keypoints", "keypoint_scores", "descriptors")} | {"keypoint_valid": "valid"}
        return {name: found[ours] for name, ours in names.items()}

    def loss(self, pred, data):
        raise NotImplementedError("kp is trained by train_homographic.py")
