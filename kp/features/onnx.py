"""Export of a detector to ONNX, for onnxruntime: images of any size in, score maps out."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

IMAGE, SCORES = "image", "scores"  # input (batch, 1, height, width) in [0, 1]; output of the same shape
_AXES = ("batch", None, "height", "width")


def to_onnx(detector: nn.Module, facts: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file of a detector. Batch, height and width of the images are free.

    Args:
        facts: values for JSON, written into the metadata of the file.

    Raises:
        ValueError: onnx or onnxscript is not installed, or torch cannot export the detector. The message is one line.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch exports with it
    except ImportError as error:
        raise ValueError(f"exporting needs the package {error.name}: pip install onnx onnxscript") from None
    any_size = {axis: torch.export.Dim.AUTO for axis, name in enumerate(_AXES) if name}
    example = torch.zeros(2, 1, 65, 97)  # torch would fix equal sides and a batch of 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                detector.eval().cpu(),
                (example,),
                dynamo=True,
                verbose=False,
                dynamic_shapes=(any_size,),
                input_names=[IMAGE],
                output_names=[SCORES],
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"torch {torch.__version__} cannot export this: {reason}") from error
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=True):
            if name:
                dimension.dim_param = name
    del model.graph.value_info[:]  # they use torch's own names of the sizes
    onnx.helper.set_model_props(model, {name: json.dumps(fact) for name, fact in facts.items()})
    return model.SerializeToString()
