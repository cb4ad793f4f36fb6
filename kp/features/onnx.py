"""A detector as an ONNX file, for onnxruntime: images of any size in, score maps out."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

IMAGE, SCORES = "image", "scores"  # what goes in, (batch, 1, height, width) in [0, 1], and what comes out, as large
_AXES = ("batch", None, "height", "width")


def to_onnx(detector: nn.Module, facts: Mapping[str, Any]) -> bytes:
    """The file's content; ``facts`` (JSON) go into its metadata. Batch, height and width are free.

    Raises ValueError, in one line, where this machine lacks a package or its torch cannot.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # what torch exports with
    except ImportError as error:
        raise ValueError(f"exporting needs the package {error.name}: pip install onnx onnxscript") from None
    any_size = {axis: torch.export.Dim.AUTO for axis, name in enumerate(_AXES) if name}
    example = torch.zeros(2, 1, 65, 97)  # sides that are not equal, nor 0 or 1: torch takes those to be fixed
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
    del model.graph.value_info[:]  # sizes in terms of torch's own names of those
    onnx.helper.set_model_props(model, {name: json.dumps(fact) for name, fact in facts.items()})
    return model.SerializeToString()
