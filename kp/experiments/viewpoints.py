"""How far apart the two views of a pair are: in training by default and, with HPatches, for real cameras.

overlap     share of the pixels of view 0 that view 1 sees
scale       pixels of view 1 per pixel of view 0: the square root of the factor of areas
tilt        length over width of the image of a circle: 1 is no tilt, 2 is a plane turned by 60 degrees
rotation    in the plane of the image, in degrees: that of the nearest rotation

Scale, tilt and rotation are measured on a small patch at the centre of view 0. Together they describe its change except
for the direction of the tilt (the transition tilt of Morel and Yu, "ASIFT", SIAM J. Imaging Sciences 2009).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.data.pairs import canvas_size, shares
from kp.geometry.coords import Size
from kp.geometry.homography import compose, quantities, random_homographies

_CHUNK = 64  # pairs that are measured together
_COLOURS = ("tab:blue", "tab:orange", "tab:green")

# name -> unit, scale of its axis
QUANTITIES: dict[str, tuple[str, str]] = {
    "overlap": ("share of the pixels of view 0 that view 1 sees", "linear"),
    "scale": ("pixels of view 1 per pixel of view 0", "log"),
    "tilt": ("long over short axis of a circle's image", "linear"),
    "rotation": ("degrees, positive from x to y", "linear"),
}


def sample(
    pairs: int,
    size: Size,
    generator: torch.Generator,
    illumination_only: float = 0.0,
    **ranges: float,
) -> Tensor:
    """Random H_0to1 (B, 3, 3) between two views of one ``size``: those of :func:`kp.data.pairs.view_pairs`.

    Args:
        pairs: the number B of homographies.
        illumination_only: share of pairs that draw almost no change except translation.
        **ranges: limits of :func:`kp.geometry.homography.random_homographies`.
    """
    strength, _ = shares(pairs, generator, illumination_only)
    ranges |= {"strength": strength, "generator": generator}
    H_to0, H_to1 = (random_homographies(pairs, canvas_size(size), size, **ranges) for _ in range(2))
    return compose(H_to1, H_to0)


def drawn(H_0to1: Tensor, size: Size, tick: Callable[[], object]) -> Tensor:
    """The quantities (B, 4) of H_0to1 (B, 3, 3) between views of one size. ``tick`` is called after each pair."""
    rows = []
    for chunk in H_0to1.split(_CHUNK):
        rows.append(quantities(chunk, size, size))
        for _ in chunk:
            tick()
    return torch.cat(rows)


def real(sequences: Sequence[ImageSequence], tick: Callable[[], object]) -> Tensor:
    """The quantities (B, 4) of every pair (1, k) of HPatches-like sequences. ``tick`` is called after each pair."""
    rows = []
    for sequence in sequences:
        size0 = tuple(sequence.images[0]().shape[-2:])
        for number, load in enumerate(sequence.images[1:], start=2):
            rows.append(quantities(sequence.homography(number, size0), size0, tuple(load().shape[-2:])))
            tick()
    return torch.cat(rows)


def quantiles(values: Tensor) -> tuple[float, float, float]:
    """5 % quantile, median and 95 % quantile of values (B,)."""
    return tuple(torch.quantile(values, values.new_tensor([0.05, 0.5, 0.95])).tolist())


def draw(measured: dict[str, Tensor]) -> Figure:
    """Histograms of the quantities (B, 4) of each entry of ``measured``.

    The first entry is drawn filled. The others are outlines, with a tick for each pair.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    for column, axis in enumerate(figure.subplots(2, 2).flat):
        _draw_panel(axis, tuple(QUANTITIES)[column], {who: values[:, column] for who, values in measured.items()})
    figure.axes[0].legend()
    return figure


def _draw_panel(axis: Axes, name: str, measured: dict[str, Tensor]) -> None:
    unit, kind = QUANTITIES[name]
    edges, title = _edges(name, torch.cat([*measured.values()]).numpy()), [name]
    for (who, values), colour in zip(measured.items(), _COLOURS, strict=False):
        look = {"alpha": 0.5} if colour == _COLOURS[0] else {"histtype": "step", "lw": 2}
        share = np.full(len(values), 100 / len(values))
        axis.hist(values.numpy(), edges, weights=share, color=colour, label=f"{who}, {len(values)} pairs", **look)
        if colour != _COLOURS[0]:
            axis.vlines(values.numpy(), 0, 0.05, color=colour, lw=1, transform=axis.get_xaxis_transform())
        digits = 0 if name == "rotation" else 2
        low, median, high = (round(value, digits) + 0.0 for value in quantiles(values))  # + 0.0: makes -0 a 0
        title.append(f"{who}: median {median:.{digits}f}, 5-95 % {low:.{digits}f} to {high:.{digits}f}")
    axis.set_xscale(kind, **({"base": 2} if kind == "log" else {}))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()
    if name == "rotation":
        axis.xaxis.set_major_locator(MultipleLocator(45))
    axis.set(xlabel=unit, ylabel="pairs (%)")
    axis.set_title("\n".join(title), fontsize="medium")
    axis.grid(alpha=0.3)


def _edges(name: str, values: np.ndarray) -> np.ndarray:
    """Borders of the bins that hold all ``values``, even on the axis of the quantity."""
    if name == "overlap":
        return np.linspace(0, 1, 26)
    if name == "scale":  # symmetric about 1
        return np.exp(np.linspace(-1, 1, 26) * max(np.abs(np.log(values)).max(), 0.1))
    if name == "tilt":
        return np.linspace(1, max(values.max(), 1.1), 26)
    return np.linspace(-1, 1, 26) * 15 * np.ceil(max(np.abs(values).max(), 1) / 15)
