"""What people call an image, as gray (1, 1, H, W) in [0, 1] with a mask: files, PIL, numpy, torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.data.image_containers import ORIENTATION
from kp.data.image_files import ImageError, Pixels, read_mask, read_pixels, scaled, tell_orientation
from kp.models.detector import to_grey

if TYPE_CHECKING:
    from PIL import Image

    Mask: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
    Source: TypeAlias = "Mask | GreyImage"

EXIF = ("ignore", "apply")  # what to do with the orientation that an image file asks a viewer for

_CHANNELS = (1, 2, 3, 4)  # gray, gray and opacity, RGB, RGB and opacity
_OVERSHOOT = 0.05  # beyond [0, 1]: what bicubic resizing gives; clipped


class GreyImage(NamedTuple):
    """An image: ``grey`` (1, 1, H, W), float32 in [0, 1], and ``valid`` (1, 1, H, W) bool, or None if all pixels are.

    Not valid are pixels without a value (NaN) and transparent ones. They hold the value of the nearest valid pixel, so
    that no edge is seen there.
    """

    grey: Tensor
    valid: Tensor | None = None


def to_grey_image(image: "Source", exif: str = "ignore") -> GreyImage:
    """Any image as gray. Colour is RGB; gray is 0.299 red + 0.587 green + 0.114 blue.

    Integers are scaled as :func:`kp.data.image_files.scaled` says: 8 bits by 255. Floating-point values of an array or
    tensor are in [0, 1]; whole numbers up to 255 are taken as 8 bits. Anything else is refused.

    Args:
        image: a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (H, W), (C, H, W) or (1, C, H, W);
            C = 1, 3, or with opacity 2 or 4. Channels first or last are told apart where only one can be meant. What
            this function returned is returned again.
        exif: ``ignore`` the orientation of files and PIL images (pixels as stored, as COLMAP and hloc do), or
            ``apply`` it.

    Raises:
        ImageError: (a ValueError) the image cannot be read or is ambiguous. The message is one line that says what to
            give.
    """
    if exif not in EXIF:
        raise ValueError(f"exif must be {' or '.join(EXIF)}, not {exif!r}")
    if isinstance(image, GreyImage):
        return image
    if isinstance(image, str | Path):
        pixels = read_pixels(Path(image), upright=exif == "apply")
    elif hasattr(image, "getexif"):  # PIL's
        pixels = _of_pil(image, exif)
    elif isinstance(image, Tensor):
        if image.is_floating_point():
            return _of_float_tensor(_channels_first(image.detach()))
        pixels = _of_array(image.detach().cpu().numpy())
    elif isinstance(image, np.ndarray):
        pixels = _of_array(image)
    else:
        raise ImageError(f"a {type(image).__name__} is no image: give a path, PIL image, array or tensor")
    return _filled(_grey(torch.from_numpy(pixels.values).permute(2, 0, 1)), pixels.valid)


def to_mask(mask: "Mask", size: tuple[int, int]) -> Tensor:
    """Where there may be keypoints, as bool (1, 1, H, W): True, not zero, or above one half for values in [0, 1].

    Args:
        mask: a path, a PIL image, an array or a tensor: (H, W), or with channels, any of which counts.
        size: (H, W) of the image. Raises ImageError on another.
    """
    if isinstance(mask, str | Path):
        values = torch.from_numpy(read_mask(Path(mask)))
    elif hasattr(mask, "getexif"):
        values = torch.from_numpy(_of_pil(mask, "ignore").values[..., :3].max(2) > 0)
    else:
        values = torch.as_tensor(mask)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        last = values.shape[:2] == torch.Size(size)
        if not last and values.shape[0] not in _CHANNELS:
            shape = " x ".join(map(str, values.shape))
            raise ImageError(f"the mask has the shape {shape}, its image {size[0]} x {size[1]} pixels")
        if values.shape[2 if last else 0] in (2, 4):  # the last channel is opacity
            values = values[..., :-1] if last else values[:-1]
        values = values.amax(2 if last else 0) if values.numel() else values
    if values.shape != torch.Size(size):
        shape = " x ".join(map(str, values.shape))
        raise ImageError(f"the mask has {shape} pixels (H x W), its image {size[0]} x {size[1]}")
    if values.is_floating_point():
        if values.isnan().any():
            raise ImageError("the mask has NaN: give True where there may be keypoints")
        values = values > (0.5 if values.max() <= 1 else 0)
    return (values != 0)[None, None]


def places_in(grey: Tensor, features: Mapping[str, Tensor]) -> Tensor:
    """The ``keypoints`` (1, N, 2) of an image (1, 1, H, W). Raises ValueError where they cannot be of this image."""
    wanted = "keypoints of one image have the shape (1, N, 2)"
    if not isinstance(features, Mapping) or "keypoints" not in features:
        raise ValueError(f'{wanted}: give them as {{"keypoints": xy}}, or what extract returned')
    try:
        xy = torch.as_tensor(features["keypoints"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted}: of OpenCV's make np.float32([point.pt for point in points])[None]") from error
    if xy.ndim != 3 or len(xy) != 1 or xy.shape[2] != 2:
        raise ValueError(f"{wanted}, not {tuple(xy.shape)}{': give xy[None]' if xy.ndim == 2 else ''}")
    size = [float(side) for side in reversed(grey.shape[-2:])]
    if "image_size" in features and features["image_size"][0].tolist() != size:
        raise ValueError(f"the image has {size[0]:g} x {size[1]:g} pixels, and the features are of another size")
    if not xy.isfinite().all():
        raise ValueError("keypoints have positions that are NaN or infinite")
    return xy


def near_invalid(valid: Tensor, border: int) -> Tensor:
    """Valid pixels (1, 1, H, W) that have an invalid one within ``border`` pixels, and the invalid ones: bool."""
    kernel = np.ones((2 * border + 1, 2 * border + 1), np.uint8)
    invalid = (~valid[0, 0]).cpu().numpy().astype(np.uint8)
    return torch.from_numpy(cv2.dilate(invalid, kernel) > 0)[None, None].to(valid.device)


def _of_pil(image: "Image.Image", exif: str) -> Pixels:
    from PIL import ImageOps

    if (tag := image.getexif().get(ORIENTATION, 1)) != 1:
        tell_orientation("the image", tag, exif == "apply")
    if exif == "apply":
        image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "RGB", "L") and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    elif image.mode in ("1", "La", "PA", "RGBa", "RGBX"):
        image = image.convert({"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}[image.mode])
    values = np.asarray(image)
    return scaled(values.astype(np.uint16) if image.mode.startswith("I;16") else values, "the image")


def _of_array(image: np.ndarray) -> Pixels:
    if image.dtype.kind not in "biuf":
        raise ImageError(f"an array of {image.dtype} is no image: give integers, or floating-point numbers in [0, 1]")
    image = _channels_last(image)
    if not image.size:
        raise ImageError(f"the image is empty: {image.shape[0]} x {image.shape[1]} pixels")
    if image.dtype == bool:
        return scaled(image.astype(np.uint8) * 255, "the image")
    if image.dtype.kind == "f":
        grey, valid = _of_float_tensor(torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1))
        return Pixels(grey[0, 0, ..., None].numpy(), None if valid is None else valid[0, 0].numpy())
    return scaled(image, "the image")


def _of_float_tensor(image: Tensor) -> GreyImage:
    """Floating-point values (C, H, W), checked."""
    image, opaque = image.float(), None
    if not image.numel():
        raise ImageError(f"the image is empty: {image.shape[1]} x {image.shape[2]} pixels")
    if image.shape[0] in (2, 4):
        opaque, image = image[-1] > 0, image[:-1]
    finite = image.isfinite().all(0)
    low, high = image.aminmax() if (whole := bool(finite.all())) else _range(image[:, finite])
    image = _unit_range(image, float(low), float(high))
    valid = finite if opaque is None else finite & opaque
    every = whole and (opaque is None or bool(opaque.all()))
    grey = _grey(image)
    return _filled(grey, None if every else valid.cpu().numpy())


def _range(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.aminmax() if values.numel() else (torch.zeros(()), torch.zeros(()))


def _unit_range(image: Tensor, low: float, high: float) -> Tensor:
    """Values whose range is [low, high], in [0, 1]. Raises ImageError unless it is certain what is meant."""
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return image.clamp(0, 1)
    what = f"the image has values from {low:g} to {high:g}; floating-point numbers must be in [0, 1]: "
    if low < 0:
        raise ImageError(what + "give the image as it was before a mean was subtracted, or scale it")
    seen = image[image.isfinite()]
    if high <= 255 and bool((seen == seen.round()).all()):
        return (image / 255).clamp(0, 1)
    raise ImageError(what + ("divide by 255" if high <= 255.5 else "divide by the value of white"))


def _grey(image: Tensor) -> Tensor:
    """Channels (1 or 3, H, W) as gray (1, 1, H, W)."""
    return to_grey(image[None])


def _filled(grey: Tensor, valid: np.ndarray | None) -> GreyImage:
    """Gray (1, 1, H, W), where it is not ``valid`` (H, W) with the value of the nearest pixel that is."""
    if valid is None:
        return GreyImage(grey)
    mask = torch.from_numpy(np.ascontiguousarray(valid))[None, None].to(grey.device)
    if not valid.any():
        return GreyImage(torch.zeros_like(grey), mask)
    values = grey[0, 0].cpu().numpy()
    zero_where_valid = np.where(valid, 0, 255).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        zero_where_valid, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )  # labels of valid pixels are 1, 2, ... in an order of OpenCV's own
    of_label = np.zeros(nearest.max() + 1, np.float32)
    of_label[nearest[valid]] = values[valid]
    return GreyImage(torch.from_numpy(of_label[nearest])[None, None].to(grey.device), mask)


def _channels_first(image: Tensor) -> Tensor:
    """A tensor (H, W), (C, H, W), (H, W, C) or with a leading 1, as (C, H, W)."""
    if image.ndim == 4:
        if image.shape[0] != 1:
            raise ImageError(f"{image.shape[0]} images in one tensor: give a list, or extractor({{'image': batch}})")
        image = image[0]
    if image.ndim == 2:
        return image[None]
    _check_shape(image.shape)
    last_only = image.shape[0] not in _CHANNELS
    return image.permute(2, 0, 1) if last_only else image


def _channels_last(image: np.ndarray) -> np.ndarray:
    """An array (H, W), (H, W, C), (C, H, W) or with a leading 1, as (H, W, C)."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim == 2:
        return image[..., None]
    _check_shape(image.shape)
    first_only = image.shape[2] not in _CHANNELS
    return np.moveaxis(image, 0, 2) if first_only else image


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or (shape[0] not in _CHANNELS and shape[2] not in _CHANNELS):
        wanted = "(H, W), (H, W, C) or (C, H, W) with C = 1, 3, or 2 or 4 with opacity"
        raise ImageError(f"an image has the shape {wanted}, not {tuple(shape)}")
