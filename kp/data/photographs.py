"""The built-in check: HPatches-like sequences made in memory from photographs that scikit-image ships in its wheel.

Each photograph gives a sequence ``i_<name>``, where the light changes, and one ``v_<name>``, where the view does, more
so from image 2 to image 6. Every view is a window on the photograph, so none has a border. Nothing is downloaded.
"""

from collections.abc import Sequence
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
    kinds = ("i", "v") if split == "all" else (split,)
    data = folder()
    return [make_sequence(data / file, kind, seed) for kind in kinds for file in FILES]


def make_sequence(photograph: Path, kind: str, seed: int, view: Size = VIEW) -> ImageSequence:
    """A sequence of 6 images of size ``view`` from a photograph of any size, which is mirrored where it is too small.

    Kind ``i``: the light changes, more from image to image. Kind ``v``: the viewpoint does. In both, image 1 is a
    window of the photograph itself. Kind ``hard``: every image is warped, image 1 too, and each has its own light, as
    strong as in training. No image is then sharper than the others because it was not warped.
    """
    name = f"{kind}_{photograph.stem}"
    generator = seeded(name, seed)
    canvas, H_canvas_to_plain = canvas_and_window(load_canvas(photograph), view)
    views = []
    for step in range(CHANGED + 1):
        share = step / CHANGED
        if kind == "hard":
            strength = _HARD_VIEW * share if step else _HARD_REFERENCE
            views.append(hard_view(canvas, H_canvas_to_plain, view, strength, generator))
        elif step == 0:
            views.append((window(canvas, H_canvas_to_plain, view), torch.eye(3, dtype=torch.float64)))
        else:
            views.append(_changed_view(canvas, H_canvas_to_plain, view, kind, share, generator))
    return as_sequence(name, kind, views)


def as_sequence(name: str, kind: str, views: Sequence[tuple[Tensor, Tensor]]) -> ImageSequence:
    """A sequence of views: images (1, 1, H, W), stored in 8 bits, and H_plain_to_view (3, 3) of each."""
    H_plain_to_0 = views[0][1]
    homographies = tuple(H_plain_to_k @ invert(H_plain_to_0) for _, H_plain_to_k in views[1:])
    images = tuple(partial(as_8bit, image) for image, _ in views)
    return ImageSequence(name, "i" if kind == "i" else "v", images, homographies, kind=kind)


def _changed_view(
    canvas: Tensor, H_canvas_to_plain: Tensor, view: Size, kind: str, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A view of kind ``i`` or ``v`` and H_plain_to_view; ``share``, in [0, 1], is how much of the range changes."""
    H_plain_to_view = torch.eye(3, dtype=torch.float64)
    if kind == "v":
        H_plain_to_view = _draw_window(tuple(canvas.shape[-2:]), view, H_canvas_to_plain, share, generator)
    image = warp_image(canvas, (H_plain_to_view @ H_canvas_to_plain)[None].float(), view, antialias=True)
    return change_photometry(image, generator, 1.2 * share if kind == "i" else 0.25), H_plain_to_view


def hard_view(
    canvas: Tensor, H_canvas_to_plain: Tensor, view: Size, strength: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A view (1, 1, *view) of a canvas (1, 1, H, W) in a light as changed as in training, and H_plain_to_view (3, 3).

    ``strength`` is the most that the view changes; pixels of a plain view and of this one.
    """
    H_plain_to_view = _draw_window(tuple(canvas.shape[-2:]), view, H_canvas_to_plain, strength, generator)
    image = warp_image(canvas, (H_plain_to_view @ H_canvas_to_plain)[None].float(), view, antialias=True)
    return change_photometry(image, generator, 1.0), H_plain_to_view


def canvas_and_window(image: Tensor, view: Size) -> tuple[Tensor, Tensor]:
    """An image (1, 1, H, W), mirrored where it is small, and H_canvas_to_plain (3, 3) of its central window."""
    canvas = mirrored(image, view)
    left, top = ((whole - part) // 2 for whole, part in zip(canvas.shape[:-3:-1], view[::-1], strict=True))
    return canvas, translation(-left, -top)


def window(canvas: Tensor, H_canvas_to_plain: Tensor, view: Size) -> Tensor:
    """The pixels (1, 1, *view) of a window of a canvas, without sampling."""
    left, top = (-H_canvas_to_plain[:2, 2]).long().tolist()
    return canvas[..., top : top + view[0], left : left + view[1]]


def seeded(name: str, seed: int) -> torch.Generator:
    """A generator for one sequence: its images do not depend on which others are made."""
    return torch.Generator().manual_seed(crc32(name.encode()) + seed)


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


def _draw_window(
    canvas: Size, view: Size, H_canvas_to_0: Tensor, strength: float, generator: torch.Generator
) -> Tensor:
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
