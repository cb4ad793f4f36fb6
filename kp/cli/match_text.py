"""What ``kp match`` prints of a pair of images."""

import math
from typing import Any

from kp.geometry.coords import jacobian
from kp.geometry.homography import rotation, scale, tilt

_SAID_TURN = 3.0  # degrees: smaller turns are not told
_SAID_TIMES = 1.1  # nor are smaller changes of size


def told(result: dict[str, Any], error: float, estimator: str, matrix: bool) -> str:
    """The lines of a result of :func:`kp.match_pair`, with the ``names`` and ``counts`` of both images' keypoints.

    Args:
        error: pixels: largest error of a match that fits.
        estimator: that was used.
        matrix: show the homography, too, if it is evidence.
    """
    (name0, name1), (count0, count1) = result["names"], result["counts"]
    kinds = f"{int(result['inliers'].sum())} of a homography, {int(result['inliers_F'].sum())} of a fundamental matrix"
    fits = f"{len(result['matches'])} matches; error below {error:g} px ({estimator}): {kinds}"
    line = f"{name0} ({count0} keypoints), {name1} ({count1}): {fits}"
    if not result["verified"]:
        return line + "; too few to tell from chance: the images may have nothing in common"
    if not result["verified_H"]:
        return line + "; too few of the homography to tell from chance"
    if changes := _changes(result):
        line += f"; things in {name1} are {', '.join(changes)}"
    if not matrix:
        return line
    rows = ["  " + " ".join(f"{value:14.6g}" for value in row) for row in result["H_0to1"].tolist()]
    return "\n".join([line, f"homography, pixels of {name0} to pixels of {name1}:", *rows])


def _changes(result: dict[str, Any]) -> list[str]:
    """How things are turned, and how large they are, in image 1: by the homography, amid the matches that it fits."""
    amid = result["keypoints0"][result["inliers"]].double().median(0).values
    J = jacobian(result["H_0to1"][None], amid[None, None])[0]
    turn, times, shape = (float(of(J)) for of in (rotation, scale, tilt))
    said = []
    if abs(turn) >= _SAID_TURN:
        way = "" if round(abs(turn)) == 180 else " clockwise" if turn > 0 else " anticlockwise"
        said.append(f"turned by about {abs(turn):.0f} degrees{way}")
    if shape >= _SAID_TIMES:
        along, across = times * math.sqrt(shape), times / math.sqrt(shape)
        said.append(f"about {along:.2g} times as large along one direction and {across:.2g} across it")
    elif max(times, 1 / times) >= _SAID_TIMES:
        said.append(f"about {times:.2g} times as large")
    return said
