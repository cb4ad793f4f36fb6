"""The diagram of a detector: its boxes hold every parameter once, and the shapes that tensors have."""

import pytest

from kp.__main__ import main
from kp.architecture import draw, layout, shapes
from kp.config import ENCODERS
from kp.detector import Detector


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("stride", "prior", "shuffled"), [(8, "corner", False), (16, "none", True)])
def test_the_boxes_hold_every_parameter(encoder, stride, prior, shuffled):
    detector = Detector(encoder, stride, prior, shuffled=shuffled).eval()
    boxes, arrows = layout(detector, shapes(detector, (100, 140)))
    assert sum(box.parameters for box in boxes.values()) == sum(p.numel() for p in detector.parameters())
    assert {name for arrow in arrows for name in arrow[:2]} == set(boxes)
    assert len({(box.column, box.row) for box in boxes.values()}) == len(boxes), "a box hides another"


def test_shapes_are_those_of_an_image_on_its_way():
    boxes, _ = layout(detector := Detector(), shapes(detector, (97, 129)))  # multiples of the stride and one
    assert {name: box.shape for name, box in boxes.items()} == {
        "image": (1, 97, 129),
        "contrast": (1, 97, 129),
        "response": (3, 97, 129),
        "dark": (1, 97, 129),
        "stem": (12, 97, 129),
        "encoder.stages.0": (16, 49, 65),
        "encoder.stages.1": (16, 25, 33),
        "encoder.stages.2": (24, 13, 17),
        "smooth.1": (32, 13, 17),
        "smooth.0": (32, 25, 33),
        "mix": (1 + 3 + 1 + 12, 25, 33),
        "sum": (1, 97, 129),
        "prominence": (1, 97, 129),
        "scores": (1, 97, 129),
    }


def test_it_is_drawn(tmp_path):
    assert main(["architecture", str(tmp_path / "a.png")]) == 0
    written = {text.get_text().splitlines()[0] for text in draw(Detector()).axes[0].texts}
    assert {"image", "score map", "stem", "encoder, stride 8", "log corner response"} <= written
