"""The detector as a diagram: every box has the shape that the code gives it, and the parameters it holds."""

from copy import deepcopy
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from kp.detector import Detector
from kp.geometry import Size
from kp.models import SIZE

_LEARNT, _FIXED, _DATA = "#cfe3f5", "#eeeeee", "#fdf0c4"
_ACROSS, _DOWN = 2.55, 1.35  # between the middles of boxes
_WIDTH, _HEIGHT = 2.05, 0.86  # of a box


class Box(NamedTuple):
    """A step in a column and a row, the shape (C, H, W) that it gives and the parameters that it holds."""

    column: int
    row: int
    title: str
    shape: tuple[int, ...]
    parameters: int = 0
    colour: str = _FIXED


def shapes(detector: Detector, size: Size = SIZE) -> dict[str, tuple[int, ...]]:
    """(C, H, W) of what each module gives for one image of ``size``, by its name, ``image`` and ``scores`` too."""
    found = {"image": (1, *size)}

    def record(name: str, _module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            found[name or "scores"] = tuple(output.shape[1:])

    hooked = deepcopy(detector).eval()
    hooked.scales = 1  # the image as it is
    for name, module in hooked.named_modules():
        module.register_forward_hook(partial(record, name))
    with torch.inference_mode():
        hooked(torch.zeros(1, 1, *size))
    return found


def draw(detector: Detector, size: Size = SIZE) -> Figure:
    """The diagram for images of ``size``."""
    boxes, arrows = layout(detector, shapes(detector, size))
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    for box in boxes.values():
        _draw_box(axes, box)
    for start, end, label in arrows:
        _draw_arrow(axes, boxes[start], boxes[end], label)
    columns, rows = ([box[axis] for box in boxes.values()] for axis in (0, 1))
    axes.set_xlim(-0.5 * _ACROSS, (max(columns) + 0.5) * _ACROSS)
    axes.set_ylim(-(max(rows) + 0.75) * _DOWN, 0.4 * _DOWN)
    return figure


def layout(detector: Detector, given: dict[str, tuple[int, ...]]) -> tuple[dict[str, Box], list[tuple[str, str, str]]]:
    """Boxes by name, and arrows with their labels between them: the network above, full-resolution maps below."""

    def learnt(column: int, row: int, title: str, name: str, *more: str) -> Box:
        held = sum(prod(p.shape) for part in (name, *more) for p in detector.get_submodule(part).parameters())
        return Box(column, row, title, given[name], held, _LEARNT)

    full = given["stem"][1:]
    boxes = {
        "image": Box(0, 0, "image", given["image"], colour=_DATA),
        "contrast": Box(1, 0, "in units of contrast" if detector.normalised else "grey", (1, *full)),
        "mix": learnt(2, 1, f"weights, blur {detector.mix_blur:g} px", "mix"),
        "stem": learnt(2, 2, "stem", "stem"),
        "sum": Box(3, 2, "weighted sum", (1, *full)),
        "prominence": Box(4, 2, "prominence, thinned" if detector.thinned else "prominence", (1, *full)),
        "scores": Box(5, 2, "score map", given["scores"], colour=_DATA),
    }
    arrows = [("image", "contrast", ""), ("contrast", "stem", ""), ("stem", "sum", ""), ("mix", "sum", "\u00d74")]
    sizes = f"{detector.scales} sizes" if detector.scales > 1 else ""
    arrows += [("sum", "prominence", ""), ("prominence", "scores", sizes)]
    if detector.prior == "corner":
        responses = detector.mix.out_channels - 1 - detector.dark - given["stem"][0]
        boxes["response"] = Box(0, 2, "log corner response", (responses, *full))
        arrows += [("image", "response", ""), ("response", "stem", ""), ("response", "sum", "")]
    if detector.dark:
        boxes["dark"] = Box(1, 3, "dark spots", (1, *full))
        arrows += [("contrast", "dark", ""), ("dark", "sum", "")]
    before = "contrast"
    for i in range(len(detector.encoder.stages)):
        name, stride = f"encoder.stages.{i}", 2 ** (i + 1)
        boxes[name] = learnt(2 + i, 0, f"encoder, stride {stride}", name)
        arrows.append((before, name, ""))
        before = name
    unused = len(detector.encoder.stages) - len(detector.smooth)
    above = None
    for i in reversed(range(len(detector.smooth))):
        name = f"smooth.{i}"
        boxes[name] = learnt(2 + unused + i, 1, f"pyramid, stride {2 ** (unused + i + 1)}", name, f"lateral.{i}")
        arrows.append((f"encoder.stages.{unused + i}", name, ""))
        if above:
            arrows.append((above, name, "\u00d72"))
        above = name
        if len(detector.shuffled):
            boxes[f"shuffled.{i}"] = learnt(3 + i, 3, f"pixel shuffle, stride {2 ** (unused + i + 1)}", f"shuffled.{i}")
            arrows += [(name, f"shuffled.{i}", ""), (f"shuffled.{i}", "sum", "")]
    return boxes, [*arrows, (above, "mix", "")]


def _draw_box(axes: Axes, box: Box) -> None:
    x, y = box.column * _ACROSS, -box.row * _DOWN
    corner = (x - _WIDTH / 2, y - _HEIGHT / 2)
    style = "round,pad=0,rounding_size=0.1"
    axes.add_patch(FancyBboxPatch(corner, _WIDTH, _HEIGHT, boxstyle=style, facecolor=box.colour, edgecolor="#444444"))
    lines = [box.title, "\u00d7".join(map(str, box.shape))]
    if box.parameters:
        lines.append(f"{box.parameters:,} parameters")
    axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=7.5, linespacing=1.35)


def _draw_arrow(axes: Axes, start: Box, end: Box, label: str) -> None:
    """From the side of one box to that of the other that faces it."""
    (x0, y0), (x1, y1) = ((box.column * _ACROSS, -box.row * _DOWN) for box in (start, end))
    bend = "arc3"
    if start.row == end.row and abs(x1 - x0) > _ACROSS * 2.5:  # below what lies between
        ends, bend = ((x0, y0 - _HEIGHT / 2), (x1, y1 - _HEIGHT / 2)), "arc3,rad=0.12"
    elif start.row == end.row:
        side = _WIDTH / 2 if x1 > x0 else -_WIDTH / 2
        ends = (x0 + side, y0), (x1 - side, y1)
    else:
        half = _HEIGHT / 2 if end.row > start.row else -_HEIGHT / 2  # from the lower edge to the upper one, or back up
        ends = (x0, y0 - half), (x1 if start.column == end.column else x1 - 0.3 * _WIDTH, y1 + half)
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "#444444", "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(*ends, connectionstyle=bend, **style))
    if label:
        (xa, ya), (xb, yb) = ends
        axes.text((xa + xb) / 2, (ya + yb) / 2 + 0.06, label, ha="center", va="bottom", fontsize=7)
