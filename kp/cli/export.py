"""The command kp export: a detector with its keypoints as an ONNX file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from kp.config import WEIGHTS
from kp.features import onnx
from kp.features.graph import KeypointGraph, KeypointNumbers, check
from kp.models.checkpoint import SHIPPED, find_weights, load_detector, read_metadata
from kp.support.files import check_writable, write_file

_FLAGS = KeypointNumbers("--keypoints", "--nms-radius", "--border", "--threshold", "--no-subpixel")
_ABOUT = """
The file is in float32 alone. In half precision, 45 % of the keypoints on the photographs that scikit-image ships stay
within half a pixel and 10 % within 0.1 pixels, because the corner response has fourth powers of small differences of
grey. There is little to gain: the default weights are 2 kB, and onnxruntime computes half precision in float32 on a
CPU. For the same reasons there are no 8-bit integers, which are coarser still.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of kp export."""
    parser.description = onnx.__doc__ + _ABOUT
    default = KeypointNumbers()
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    text = f"shipped ones ({', '.join(SHIPPED)}) or a file (default: {WEIGHTS}); without a ranker"
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
    write_file(args.out, onnx.to_onnx(graph, read_metadata(find_weights(args.weights))))
    outputs = ", ".join((onnx.KEYPOINTS, onnx.KEYPOINT_SCORES, onnx.VALID, onnx.SCORES))
    print(f"wrote {args.out}: {onnx.IMAGE} (batch, 1, height, width) in [0, 1] -> {outputs}")


COMMANDS = {"export": (add_arguments, run)}
