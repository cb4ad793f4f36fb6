"""Export of a detector to ONNX, for onnxruntime: images of any size in, keypoints and score maps out.

The file gives a fixed number of places for keypoints in each image, best first, and their descriptors where the weights
have a describer.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kp.features.graph import KeypointGraph
from kp.support.errors import one_line

IMAGE = "image"  # input (batch, 1, height, width) in [0, 1]
KEYPOINTS, KEYPOINT_SCORES, VALID, SCORES = "keypoints", "keypoint_scores", "valid", "scores"  # outputs
DESCRIPTORS = "descriptors"  # another, between the last two, where the weights have a describer
_MAP = ("batch", None, "height", "width")  # names of the free axes of the image and of the score map
_PLACES = ("batch", None, None)  # and of the other outputs


def to_onnx(graph: KeypointGraph, facts: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file of a detector with its keypoints. Batch, height and width of the images are free.

    The outputs are those of the graph, keypoints (batch, K, 2), keypoint_scores (batch, K) and valid (batch, K), and
    the score map, scores (batch, 1, height, width). With a describer also descriptors (batch, K, D).

    Args:
        facts: values for JSON, written into the metadata of the file beside the numbers of the graph.

    Raises:
        ValueError: onnx or onnxscript is not installed, or torch cannot export the detector. The message is one line.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch exports with it
    except ImportError as error:
        raise ValueError(f"exporting needs the package {error.name}: pip install onnx onnxscript") from None
    model = _exported(_WithScores(graph).eval().cpu())
    for value in (*model.graph.input, *model.graph.output):
        names = _MAP if value.name in (IMAGE, SCORES) else _PLACES
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if name:
                dimension.dim_param = name
    del model.graph.value_info[:]  # they use torch's own names of the sizes
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]  # of the files of this machine
    facts = {**facts, **graph.numbers._asdict()}
    onnx.helper.set_model_props(model, {name: json.dumps(fact) for name, fact in facts.items()})
    return model.SerializeToString()


class _WithScores(nn.Module):
    """The outputs of the file, in order."""

    def __init__(self, graph: KeypointGraph) -> None:
        super().__init__()
        self.finder = graph  # a module called graph would hide the graph of the exported program

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        scores = self.finder.detector.score_map(image)
        return *self.finder.described(image, *self.finder.keypoints(image, scores)), scores


def _exported(module: nn.Module) -> Any:
    """The ONNX model of a module, as protobuf. Raises ValueError where torch cannot export it."""
    any_size = {axis: torch.export.Dim.AUTO for axis, name in enumerate(_MAP) if name}
    described = [DESCRIPTORS] if module.finder.describes else []
    example = torch.zeros(2, 1, 65, 97)  # torch would fix equal sides and a batch of 1
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                dynamic_shapes=(any_size,),
                input_names=[IMAGE],
                output_names=[KEYPOINTS, KEYPOINT_SCORES, VALID, *described, SCORES],
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )
    except torch.onnx.OnnxExporterError as error:
        reason = one_line(error.__cause__ or error)
        raise ValueError(f"torch {torch.__version__} cannot export this: {reason}") from error
    return program.model_proto


def _stable_sort(values: Any, *, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """torch's stable sort in ONNX, which torch cannot export: TopK takes the first of equal values first."""
    from onnxscript import opset18

    count = opset18.Gather(opset18.Shape(values), opset18.Constant(value_ints=[dim]))
    return opset18.TopK(values, count, axis=dim, largest=descending)
