"""Statistics of synthetic images beside those of photographs: how similar the two are.

Images are grey numpy arrays (H, W) in [0, 1]. Synthetic images have SIZE. Photographs are used whole. They are shrunk
with a filter until their short side is that of SIZE; smaller photographs keep their size. No light changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kp.data import hpatches, photographs
from kp.data.synthetic.render import FAMILIES, render
from kp.geometry.coords import Size, resize

SIZE: Size = (240, 320)  # pixels
BAND = (0.02, 0.25)  # cycles/pixel of the fit: from 5 periods in 240 pixels to the cut-off of the resizing filter
MIN_RESPONSE = 1e-5  # of a Harris corner, see corner_density
_BORDER = 4  # pixels at the edge of an image without corners: OpenCV mirrors the image there, which makes some
_RING_BORDERS = np.geomspace(0.01, 0.5, 25)  # cycles/pixel: borders of the rings of the radial average
RINGS = np.sqrt(_RING_BORDERS[1:] * _RING_BORDERS[:-1])  # cycles/pixel: their middles
_MIN_DEVIATION = 1e-6  # of grey: an image with less has only rounding errors
_MIXTURE = "mixture"  # name of the group of images that training sees
_FAMILY_COLOUR = "0.45"  # grey
_PHOTOGRAPH_COLOURS = ("tab:orange", "tab:red")

Images = Sequence[Callable[[], np.ndarray]]  # functions that load or render an image


def radial_spectrum(image: np.ndarray) -> np.ndarray:
    """Mean power (R,) of an image (H, W) at the frequencies RINGS, in squared grey per (cycle/pixel)^2.

    NaN where a ring has no frequency of the image. The mean is subtracted and a Hann window is applied. White noise of
    deviation s has s^2 at every frequency.
    """
    if image.std() < _MIN_DEVIATION:
        return np.full(len(RINGS), np.nan)
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in image.shape))
    spectrum = np.fft.fft2(window * (image - np.average(image, weights=window)))
    power = np.abs(spectrum) ** 2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1]))
    ring = np.digitize(frequency.ravel(), _RING_BORDERS)  # 0 and len(_RING_BORDERS) are outside
    count, total = (np.bincount(ring, w, len(_RING_BORDERS) + 1)[1:-1] for w in (None, power.ravel()))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def spectral_slope(image: np.ndarray) -> float:
    """The exponent a of power ~ 1/f^a of an image (H, W): least squares on the logs of its rings in BAND.

    NaN for a flat image. Photographs have about 2 (Field, JOSA A 1987; Ruderman, Network 1994), white noise 0.
    """
    spectrum = radial_spectrum(image)
    used = (np.clip(RINGS, *BAND) == RINGS) & (spectrum > 0)
    return -float(np.polyfit(np.log(RINGS[used]), np.log(spectrum[used]), 1)[0]) if used.sum() > 1 else np.nan


def gradient_kurtosis(image: np.ndarray) -> float:
    """Kurtosis of the differences between horizontal and vertical neighbours of an image (H, W); NaN if it is flat.

    Gaussian noise has 3. Photographs are smooth with few edges and have far more.
    """
    steps = np.concatenate([np.diff(image, axis=axis).ravel() for axis in (0, 1)]).astype(np.float64)
    squares = (steps - steps.mean()) ** 2
    return float((squares**2).mean() / squares.mean() ** 2) if squares.mean() > _MIN_DEVIATION**2 else np.nan


def corner_density(image: np.ndarray) -> float:
    """Harris corners per megapixel of an image (H, W): peaks within 9x9 pixels above MIN_RESPONSE, without the border.

    ``cv2.cornerHarris`` of [0, 1], as in :func:`kp.evaluation.baselines.harris`. A right angle has 0.0865 times the
    fourth power of its contrast. So it counts from a contrast of 0.10, or of 0.17 after a blur of 1 px. Gaussian noise
    of deviation 0.03 (8 levels of 255) has none in a megapixel. Adjacent pixels of equal response are one peak.
    """
    response = cv2.cornerHarris(np.ascontiguousarray(image, dtype=np.float32), 4, 3, 0.04)
    peaks = (response > MIN_RESPONSE) & (response == cv2.dilate(response, np.ones((9, 9), np.uint8)))
    inner = np.ascontiguousarray(peaks[_BORDER:-_BORDER, _BORDER:-_BORDER], dtype=np.uint8)
    return (cv2.connectedComponents(inner)[0] - 1) / inner.size * 1e6


def contrast(image: np.ndarray) -> float:
    """Standard deviation of an image (H, W), as a share of the grey range."""
    return float(image.std())


# name -> function, unit, scale of its axis
STATISTICS: dict[str, tuple[Callable[[np.ndarray], float], str, str]] = {
    "spectral slope": (spectral_slope, "exponent a of power ~ 1/f$^a$", "linear"),
    "gradient kurtosis": (gradient_kurtosis, "no unit; Gaussian: 3", "log"),
    "Harris corners": (corner_density, "per megapixel", "symlog"),
    "contrast": (contrast, "std, share of grey range", "linear"),
}


@dataclass(frozen=True)
class Group:
    """Measurements of N images: values (N, 4), in the order of STATISTICS, and radial spectra (N, R)."""

    values: np.ndarray
    spectra: np.ndarray


def synthetic(count: int, seed: int) -> dict[str, Images]:
    """Functions that render ``count`` images of each family and, last, of the mixture.

    The same seed gives the same images. Each call renders the next image of its group.
    """
    choices = {name: (name,) for name in FAMILIES} | {_MIXTURE: None}
    generators = {name: torch.Generator().manual_seed(seed) for name in choices}
    return {name: [partial(_rendered, generators[name], choices[name])] * count for name in choices}


def natural(root: Path | None) -> dict[str, Images]:
    """Functions that load the photographs of scikit-image and, with ``root``, image 1 of each sequence in that folder.

    Raises:
        HPatchesError: the folder is not HPatches.
    """
    folder = photographs.folder()
    found = {"scikit-image": [partial(hpatches.read_image, folder / file) for file in photographs.FILES]}
    if root is not None:
        found["HPatches"] = [sequence.images[0] for sequence in hpatches.read(root)]
    return {name: [partial(_shrunk, load) for load in loads] for name, loads in found.items()}


def measure(images: Images, tick: Callable[[], object]) -> Group:
    """All statistics of images. ``tick`` is called after each image."""
    values, spectra = [], []
    for load in images:
        image = load()
        values.append([function(image) for function, *_ in STATISTICS.values()])
        spectra.append(radial_spectrum(image))
        tick()
    return Group(np.array(values), np.array(spectra))


def quantiles(values: np.ndarray) -> np.ndarray:
    """10 % quantile, median and 90 % quantile (3,) of values (N,) without NaN. NaN if all values are NaN."""
    known = values[np.isfinite(values)]
    return np.quantile(known, (0.1, 0.5, 0.9)) if len(known) else np.full(3, np.nan)


def bracketed(mixture: np.ndarray, photos: np.ndarray) -> tuple[bool, float]:
    """Whether the 10-90 % range of ``mixture`` (N,) contains the median of ``photos`` (M,); their share in it.

    Two equal populations give True and about 0.8.
    """
    low, _, high = quantiles(mixture)
    return bool(low <= quantiles(photos)[1] <= high), float(((low <= photos) & (photos <= high)).mean())


def draw(world: dict[str, Group], photos: dict[str, Group]) -> Figure:
    """A figure: radial spectra on the left, then the ranges of each statistic. The photographs' ranges are shaded."""
    groups = world | photos
    colours = (
        dict.fromkeys(world, _FAMILY_COLOUR)
        | {_MIXTURE: "tab:blue"}
        | dict(zip(photos, _PHOTOGRAPH_COLOURS, strict=False))
    )
    figure = Figure(figsize=(16, 2.4 + 0.24 * len(groups)), layout="constrained")
    figure.suptitle(
        "Synthetic images and photographs. Dot: median; bar: 10-90 % of the images; shaded: photographs' bars"
    )
    left, *panels = figure.subplots(1, 1 + len(STATISTICS), width_ratios=[2.2] + [1] * len(STATISTICS))
    _draw_spectra(left, groups, colours)
    for column, (axis, (name, (_, unit, scale))) in enumerate(zip(panels, STATISTICS.items(), strict=True)):
        for row, (who, group) in enumerate(groups.items()):
            low, median, high = quantiles(group.values[:, column])
            axis.plot([low, high], [row, row], color=colours[who], lw=4, alpha=0.6, solid_capstyle="butt")
            axis.plot(median, row, "o", color=colours[who])
            if who in photos:
                axis.axvspan(low, high, color=colours[who], alpha=0.12, lw=0)
        axis.set_xscale(scale, **({"linthresh": 100} if scale == "symlog" else {}))
        labels = [f"{who} ({len(group.values)})" if column == 0 else "" for who, group in groups.items()]
        axis.set(title=name, xlabel=unit, ylim=(len(groups) - 0.4, -0.6))
        axis.set_yticks(range(len(groups)), labels)
        axis.grid(axis="x", alpha=0.3)
    return figure


def _draw_spectra(axis: Axes, groups: dict[str, Group], colours: dict[str, str]) -> None:
    for who, group in groups.items():
        known = np.isfinite(group.spectra) & (group.spectra > 0)
        logs = np.log(np.where(known, group.spectra, 1)).sum(0) / np.maximum(known.sum(0), 1)
        label, width = (None, 0.7) if colours[who] == _FAMILY_COLOUR else (who, 2.5)
        axis.loglog(RINGS, np.where(known.any(0), np.exp(logs), np.nan), color=colours[who], lw=width, label=label)
    axis.plot([], [], color=_FAMILY_COLOUR, lw=0.7, label="a family")
    axis.axvspan(*BAND, color="0.94", zorder=0, label="band of the fit")
    axis.set(title="radial power spectrum, mean of logs", xlabel="frequency (cycles / pixel)")
    axis.set_ylabel("power (squared grey per (cycle / pixel)$^2$)")
    axis.set_xticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"])
    axis.legend()


def _rendered(generator: torch.Generator, families: tuple[str, ...] | None) -> np.ndarray:
    return render(1, SIZE, generator, families=families).image[0, 0].numpy()


def _shrunk(load: Callable[[], Tensor]) -> np.ndarray:
    image = load()
    factor = min(1.0, min(SIZE) / min(image.shape[-2:]))
    return resize(image, tuple(round(side * factor) for side in image.shape[-2:])).clamp(0, 1)[0, 0].numpy()
