"""The command kp export: a detector with its keypoints as an ONNX file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from kp.config import DESCRIBED, WEIGHTS
from kp.features import onnx
from kp.features.graph import KeypointGraph, KeypointNumbers, check
from kp.models.checkpoint import SHIPPED, find_weights, load_detector, read_metadata
from kp.support.files import check_writable, write_file

_FLAGS = KeypointNumbers("--keypoints", "--nms-radius", "--border", "--threshold", "--no-subpixel")
_ABOUT = """
The file is in float32 alone, because float16 does not pay. On 11 photographs that scikit-image ships, the default
weights computed by torch in float16 keep 45 % of the keypoints within half a pixel and 10 % within 0.1 pixels: the
corner response has fourth powers of small differences of grey. On a CPU onnxruntime computes a float16 file in float32;
such a file kept 99.5 % of the keypoints, but was larger than this one and no faster. The default weights are 2 kB.
8-bit integers were not tried: they have fewer steps than float16.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of kp export."""
    parser.description = onnx.__doc__ + _ABOUT
    default = KeypointNumbers()
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    text = f"shipped ones ({', '.join(SHIPPED)}) or a file (default: {WEIGHTS})"
    text += f"; {DESCRIBED}: with descriptors"
    parser.add_argument("--weights", default=WEIGHTS, metavar="NAME|FILE", help=text)
    text = f"places for keypoints in each image, best first (default: {default.num_keypoints})"
    parser.add_argument("--keypoints", type=int, default=default.num_keypoints, metavar="N", help=text)
    text = f"pixels in x and in y within which a keypoint is the best (default: {default.nms_radius})"
    parser.add_argument("--nms-radius", type=int, default=default.nms_radius, metavar="R", help=text)
    text = f"pixels from the edge without keypoints (default: {default.remove_borders})"
    parser.add_argument("--border", type=int, default=default.remove_borders, metavar="PX", help=text)
    text = f"in [0, 1): keypoints have a greater score; 0: any score (default: {default.detection_threshold})"
    parser.add_argument("--threshold", type=float, default=default.detection_threshold, metavar="T", help=text)
    parser.add_argument("--no-subpixel", action="store_true", help="keypoints at whole pixels")


def run(args: Namespace) -> None:
    """Write the ONNX file. Raises ValueError, naming the flag, before any work."""
    numbers = KeypointNumbers(args.keypoints, args.nms_radius, args.border, args.threshold, not args.no_subpixel)
    check(numbers, _FLAGS)
    check_writable(args.out)
    graph = KeypointGraph(load_detector(args.weights), *numbers)
    print(f"exporting {args.weights}: up to two minutes", flush=True)
    write_file(args.out, onnx.to_onnx(graph, read_metadata(find_weights(args.weights))))
    described = [onnx.DESCRIPTORS] if graph.describes else []
    outputs = ", ".join((onnx.KEYPOINTS, onnx.KEYPOINT_SCORES, onnx.VALID, *described, onnx.SCORES))
    print(f"wrote {args.out}: {onnx.IMAGE} (batch, 1, height, width) in [0, 1] -> {outputs}")


COMMANDS = {"export": (add_arguments, run)}
