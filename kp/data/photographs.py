"""The built-in check: HPatches-like sequences made in memory from photographs that scikit-image ships in its wheel.

Each photograph gives a sequence ``i_<name>``, where the light changes, and one ``v_<name>``, where the view does, more
so from image 2 to image 6. Every view is a window on the photograph, so none has a border. Nothing is downloaded.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from kp.data.hpatches import HPatchesError, ImageSequence, read_image
from kp.data.photometric import change_photometry
from kp.geometry.coords import Size, inside, invert, resize, translation, warp_image, warp_points
from kp.geometry.homography import random_homographies

FILES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
VIEW: Size = (240, 320)  # pixels
CANVAS = 480  # pixels: the short side of a photograph when views are taken from it; twice a view's
CHANGED = 5  # images beside the reference
_HARD_VIEW, _HARD_REFERENCE = 0.6, 0.2  # most change of view of a hard sequence's images, and of its reference
_CANDIDATES = 64  # homographies drawn before a weaker change of view is tried


def read(seed: int = 0, split: str = "all") -> list[ImageSequence]:
    """The built-in sequences of a split (``i``, ``v``) or ``all``, by name: 240x320 pixels, 6 images, 12 a split.

    The same seed gives the same images, whichever split. Raises HPatchesError where scikit-image is not installed.
    """
    splits = ("i", "v") if split == "all" else (split,)
    data = folder()
    return [make_sequence(data / file, s, seed) for s in splits for file in FILES]


def make_sequence(photograph: Path, split: str, seed: int, view: Size = VIEW) -> ImageSequence:
    """A sequence of ``view``-sized images, of split ``i`` or ``v``, from a photograph of any size.

    Where views are larger than the photograph allows for, it goes on mirrored.
    """
    name = f"{split}_{photograph.stem}"
    generator = torch.Generator().manual_seed(crc32(name.encode()) + seed)
    canvas, corner = _canvas_and_corner(photograph, view)
    size, H_canvas_to_0 = tuple(canvas.shape[-2:]), translation(-corner[0], -corner[1])
    images, homographies = [canvas[..., corner[1] :, corner[0] :][..., : view[0], : view[1]]], []
    for step in range(1, CHANGED + 1):
        strength = step / CHANGED
        H_0tok = torch.eye(3, dtype=torch.float64)
        if split == "v":
            H_0tok = _window(size, view, H_canvas_to_0, strength, generator)
        image = warp_image(canvas, (H_0tok @ H_canvas_to_0)[None].float(), view, antialias=True)
        images.append(change_photometry(image, generator, 1.2 * strength if split == "i" else 0.25))
        homographies.append(H_0tok)
    return ImageSequence(name, split, tuple(partial(as_8bit, image) for image in images), tuple(homographies))


def make_hard_sequence(photograph: Path, seed: int, view: Size = VIEW) -> ImageSequence:
    """A sequence of ``view``-sized images, of split ``v``, from a photograph of any size.

    All images are warped, the reference too, and each is in a light as changed as in training. In a sequence of
    :func:`make_sequence` the reference is the photograph as it is, and what is warped is smoothed a little: no image of
    a real camera is sharper than all others for that reason.
    """
    name = f"hard_{photograph.stem}"
    generator = torch.Generator().manual_seed(crc32(name.encode()) + seed)
    canvas, corner = _canvas_and_corner(photograph, view)
    H_canvas_to_plain = translation(-corner[0], -corner[1])
    images, matrices = [], []
    for step in range(CHANGED + 1):
        strength = _HARD_VIEW * step / CHANGED if step else _HARD_REFERENCE
        image, H_plain_to_k = hard_view(canvas, H_canvas_to_plain, view, strength, generator)
        images.append(image)
        matrices.append(H_plain_to_k)
    homographies = tuple(H_plain_to_k @ invert(matrices[0]) for H_plain_to_k in matrices[1:])
    return ImageSequence(name, "v", tuple(partial(as_8bit, image) for image in images), homographies)


def hard_view(
    canvas: Tensor, H_canvas_to_plain: Tensor, view: Size, strength: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A view (1, 1, *view) of a canvas (1, 1, H, W) in a light as changed as in training, and H_plain_to_view (3, 3).

    ``strength`` is the most that the view changes; pixels of a plain view and of this one.
    """
    H_plain_to_view = _window(tuple(canvas.shape[-2:]), view, H_canvas_to_plain, strength, generator)
    image = warp_image(canvas, (H_plain_to_view @ H_canvas_to_plain)[None].float(), view, antialias=True)
    return change_photometry(image, generator, 1.0), H_plain_to_view


def _canvas_and_corner(photograph: Path, view: Size) -> tuple[Tensor, tuple[int, int]]:
    """A photograph (1, 1, H, W), mirrored where it is small, and the pixel (x, y) of the corner of its central view."""
    canvas = mirrored(load_canvas(photograph), view)
    return canvas, ((canvas.shape[-1] - view[1]) // 2, (canvas.shape[-2] - view[0]) // 2)


def load_canvas(photograph: Path) -> Tensor:
    """A photograph as gray (1, 1, H, W) in [0, 1], its short side CANVAS pixels; filtered where it shrinks."""
    image = read_image(photograph)
    scale = CANVAS / min(image.shape[-2:])
    return resize(image, tuple(round(n * scale) for n in image.shape[-2:])).clamp(0, 1)


def mirrored(image: Tensor, view: Size) -> Tensor:
    """An image (1, 1, H, W), mirrored over and over where a side is less than one and a half times the view's."""
    size = [max(have, round(1.5 * side)) for have, side in zip(image.shape[-2:], view, strict=True)]
    rows, columns = (torch.arange(side) % (2 * have) for side, have in zip(size, image.shape[-2:], strict=True))
    rows, columns = (torch.minimum(i, 2 * n - 1 - i) for i, n in zip((rows, columns), image.shape[-2:], strict=True))
    return image[..., rows[:, None], columns]


def _window(canvas: Size, view: Size, H_canvas_to_0: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Draw H_0tok (3, 3), float64, so that all of view k lies on the canvas; weaker ones until one does."""
    corners = torch.tensor([[-0.5, -0.5], [view[1] - 0.5, -0.5], [-0.5, view[0] - 0.5], [n - 0.5 for n in view[::-1]]])
    while True:
        H_0tok = random_homographies(
            _CANDIDATES,
            view,
            view,
            max_translation=0.2 * strength,
            max_scale=1 + 0.8 * strength,
            max_rotation=45 * strength,
            max_shear=25 * strength,
            max_perspective=0.4 * strength,
            generator=generator,
        ).double()
        H_kto_canvas = invert(H_0tok @ H_canvas_to_0)
        seen, in_front = warp_points(corners.double().expand(_CANDIDATES, -1, -1), H_kto_canvas)
        fits = (in_front & inside(seen, canvas, border=0.5)).all(1).nonzero()
        if len(fits):
            return H_0tok[fits[0, 0]]
        strength *= 0.8


def as_8bit(image: Tensor) -> Tensor:
    """An image (1, 1, H, W) in [0, 1] in steps of 1 / 255: like one from a file, the same for every detector."""
    return (image * 255).round() / 255


def folder() -> Path:
    """Where scikit-image's wheel puts its pictures, without importing it."""
    spec = find_spec("skimage")
    data = Path(spec.submodule_search_locations[0]) / "data" if spec else None
    missing = [file for file in FILES if data is None or not (data / file).is_file()]
    if missing:
        raise HPatchesError(
            f"scikit-image's {missing[0]} is not there: pip install 'scikit-image>=0.23', or --hpatches"
        )
    return data
