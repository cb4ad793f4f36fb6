"""The coordinate convention, and every function that samples, warps or resizes an image.

Points are (x, y) in pixels, x right, y down, (0, 0) at the CENTRE of the top-left pixel; sizes are (H, W). An image
covers [-0.5, W - 0.5] x [-0.5, H - 0.5]. A homography is named by its frames: ``H_0to2 = H_1to2 @ H_0to1``. A point
whose third homogeneous coordinate w is not positive is behind the camera. It has no place in the view, and every mask
here is False for it.
"""

import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.conversions import convert_points_to_homogeneous
from kornia.geometry.grid import create_meshgrid
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # (H, W) in pixels

_W_MIN = 1e-6  # a point with w at or below this is behind the camera or at infinity
_FAR_AWAY = -1e4  # half image sides: a pixel behind the camera reads the image there, which is outside every image


def warp_points(points: Tensor, H_0to1: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, N, 2) of view 0 in view 1 by H_0to1 (B, 3, 3): their pixels (B, N, 2) and ``in_front`` (B, N) bool.

    Where ``in_front`` is False the pixels are finite but have no meaning. Differentiable in both arguments.
    """
    homogeneous = convert_points_to_homogeneous(points) @ H_0to1.to(points.dtype).transpose(1, 2)
    w = homogeneous[..., 2:]
    in_front = w > _W_MIN
    return homogeneous[..., :2] / torch.where(in_front, w, torch.ones_like(w)), in_front[..., 0]


def inside(points: Tensor, size: Size, border: float = 0.0) -> Tensor:
    """True (B, N) where points (B, N, 2) lie in an image of this size, ``border`` pixels or more from its edge."""
    return _within(*points.unbind(-1), size, border)


def _within(x: Tensor, y: Tensor, size: Size, border: float) -> Tensor:
    low = border - 0.5
    return (x >= low) & (y >= low) & (x <= size[1] - 1 - low) & (y <= size[0] - 1 - low)


def covisible(points0: Tensor, H_0to1: Tensor, size1: Size, border: float = 0.0) -> Tensor:
    """True (B, N) where view 1 sees points (B, N, 2) of view 0: in front of its camera, inside its image."""
    points1, in_front = warp_points(points0, H_0to1)
    return in_front & inside(points1, size1, border)


def pixel_grid(size: Size, like: Tensor) -> Tensor:
    """The pixel centres of an image as points (1, H * W, 2) in raster order, on the device, in the dtype of ``like``.

    For a half-precision ``like`` the result is float32, because half precision has exact integers only up to 2048.
    """
    dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
    grid = create_meshgrid(*size, normalized_coordinates=False, device=like.device, dtype=dtype)
    return grid.reshape(1, -1, 2)


def covisible_mask(H_0to1: Tensor, size0: Size, size1: Size, border: float = 0.0) -> Tensor:
    """The pixels of view 0 that view 1 sees: (B, 1, H, W) bool, in the frame of view 0."""
    x, y, w = transform_pixels(H_0to1, size0)
    depth = w.clamp(min=_W_MIN)
    return ((w > _W_MIN) & _within(x / depth, y / depth, size1, border))[:, None]


def transform_pixels(H_0to1: Tensor, size0: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Homogeneous x, y, w, each (B, H, W), of every pixel of view 0 times H_0to1 (B, 3, 3), float32 or float64.

    Each is the sum of a row and a column. This takes a fifth of the time of a matrix product for every pixel.
    """
    H_0to1 = H_0to1 if H_0to1.dtype == torch.float64 else H_0to1.float()
    y, x = (torch.arange(n, device=H_0to1.device, dtype=H_0to1.dtype) for n in size0)
    return tuple((row[:, :1] * x + row[:, 2:])[:, None] + (row[:, 1:2] * y)[..., None] for row in H_0to1.unbind(1))


def jacobian(H_0to1: Tensor, points0: Tensor) -> Tensor:
    """The derivative (B, N, 2, 2) of H_0to1 (B, 3, 3) at points (B, N, 2) of view 0, in pixels of view 1 per pixel."""
    xy, w = (convert_points_to_homogeneous(points0) @ H_0to1.transpose(1, 2)).split([2, 1], dim=-1)
    points1 = xy / w
    return (H_0to1[:, None, :2, :2] - points1[..., None] * H_0to1[:, None, 2:, :2]) / w[..., None]


def warp_image(
    image0: Tensor,
    H_0to1: Tensor,
    size1: Size,
    mode: str = "bilinear",
    padding: str = "zeros",
    antialias: bool = False,
) -> Tensor:
    """Image 0 (B, C, H, W) as view 1 of ``size1`` sees it: (B, C, H1, W1). Pixel H_0to1(x) reads image 0 at x.

    Differentiable in both arguments.

    Args:
        mode: ``bilinear`` or ``nearest``.
        padding: what lies outside image 0: ``zeros``, ``border`` or ``reflection``.
        antialias: blur image 0 first if it shrinks at the centre of view 1. The blur is made for a scale of a half at
            most; an image that shrinks more still aliases.
    """
    if antialias:
        image0 = _blur_for_shrinking(image0, H_0to1, size1)
    height, width = (max(n - 1, 1) / 2 for n in image0.shape[-2:])
    normalise = H_0to1.new_tensor([[1 / width, 0, -1], [0, 1 / height, -1], [0, 0, 1]])
    x, y, w = transform_pixels(normalise @ invert(H_0to1), size1)
    places0 = torch.stack([x, y], dim=-1) / w.clamp(min=_W_MIN)[..., None]
    places0 = places0.masked_fill((w <= _W_MIN)[..., None], _FAR_AWAY).to(image0.dtype).expand(len(image0), -1, -1, -1)
    return F.grid_sample(image0, places0, mode=mode, padding_mode=padding, align_corners=True)


def _blur_for_shrinking(image0: Tensor, H_0to1: Tensor, size1: Size) -> Tensor:
    """Image 0 (B, C, H, W), blurred as much as it shrinks at the centre of view 1."""
    centre1 = H_0to1.new_tensor([(size1[1] - 1) / 2, (size1[0] - 1) / 2]).expand(len(H_0to1), 1, 2)
    areas = torch.linalg.det(jacobian(invert(H_0to1), centre1)).abs()  # (B, 1), pixels of view 0 in one pixel of view 1
    shrinks = areas.sqrt().clamp(1, 2)
    sigma = (0.5 * (shrinks**2 - 1).sqrt()).clamp(min=0.1).expand(-1, 2).to(image0)  # to a blur of 0.5 px in view 1
    return gaussian_blur2d(image0, 5, sigma, border_type="replicate")


def sample_at(image: Tensor, points: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """The values (B, C, N) of an image (B, C, H, W) at points (B, N, 2) in pixels.

    Differentiable in both arguments. ``mode`` and ``padding`` as for :func:`warp_image`.
    """
    height, width = image.shape[-2:]
    if torch.compiler.is_compiling():  # a tensor made of the sizes would hold those of the example, for all images
        factors = [2 / torch.sym_max(side - 1, 1) for side in (width, height)]
        grid = torch.stack([points[..., i] * factor for i, factor in enumerate(factors)], dim=-1)[:, :, None] - 1
    else:
        grid = points[:, :, None] * (2 / points.new_tensor([width - 1, height - 1]).clamp(min=1e-8)) - 1
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)[..., 0]


def sample_windows(image: Tensor, centres: Tensor, changes: Tensor, offsets: Tensor, padding: str = "zeros") -> Tensor:
    """The values (P, M) of an image (1, 1, H, W) in M windows of P places each, in pixels, bilinear.

    Place p of window m is ``centres[m] + changes[m] @ offsets[p]``. To make these places and sample them by
    :func:`sample_at` takes several times as long.

    Args:
        centres: (M, 2), in pixels.
        changes: (M, 2, 2).
        offsets: (P, 2).
        padding: as for :func:`warp_image`.
    """
    height, width = image.shape[-2:]
    factors = 2 / centres.new_tensor([width - 1, height - 1]).clamp(min=1e-8)
    changes = (changes * factors[:, None]).permute(2, 0, 1).flatten(1)  # (2, 2 M)
    grid = offsets @ changes + (centres * factors - 1).flatten()  # (P, 2 M)
    grid = grid.view(1, len(offsets), len(centres), 2)
    return F.grid_sample(image, grid, padding_mode=padding, align_corners=True)[0, 0]


def upsample(features: Tensor, stride: int) -> Tensor:
    """Features (B, C, h, w) on the pixel grid: (B, C, stride * (h - 1) + 1, stride * (w - 1) + 1).

    Feature i is centred on pixel stride * i, so pixel x reads feature x / stride. Bilinear.
    """
    h, w = features.shape[-2:]
    size = (stride * (h - 1) + 1, stride * (w - 1) + 1)
    return F.interpolate(features, size, mode="bilinear", align_corners=True)


def resize(image: Tensor, size: Size) -> Tensor:
    """An image (B, C, H, W) at another ``size``, by :func:`resize_matrix`: bicubic, filtered where it shrinks."""
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)


def stretch(lattice: Tensor, size: Size) -> Tensor:
    """A smooth map (B, C, H, W) through values on a coarse lattice (B, C, h, w). The corners of both coincide.

    Bicubic, one axis after the other. Two matrix products take a thirtieth of the time of ``F.interpolate``.
    """
    rows, columns = (_bicubic(n, side, lattice) for n, side in zip(lattice.shape[-2:], size, strict=True))
    return rows @ lattice @ columns.mT


def _bicubic(count: int, side: int, like: Tensor) -> Tensor:
    """The weight (side, count) of each of ``count`` lattice values at each of ``side`` pixels of a line."""
    each = torch.eye(count, device=like.device, dtype=like.dtype)[None, None]
    return F.interpolate(each, (side, count), mode="bicubic", align_corners=True)[0, 0]


def invert(H_0to1: Tensor) -> Tensor:
    """H_1to0 (..., 3, 3), the inverse of H_0to1. Raises ValueError if a matrix has no inverse.

    On CUDA singular matrices are not detected, because reading ``info`` would make the host wait for the device.
    """
    H_1to0, info = torch.linalg.inv_ex(H_0to1)
    if not H_0to1.is_cuda and info.any():
        raise ValueError("singular homography")
    return H_1to0


def resize_matrix(size0: Size, size1: Size) -> Tensor:
    """The homography (3, 3), float64, of resizing an image from size0 to size1. Pixel edges align, so centres shift."""
    sy, sx = size1[0] / size0[0], size1[1] / size0[1]
    return torch.tensor([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]], dtype=torch.float64)


def translation(dx: float, dy: float) -> Tensor:
    """The homography (3, 3), float64, that moves points by (dx, dy) pixels. A crop at (x, y) moves them by (-x, -y)."""
    return torch.tensor([[1, 0, dx], [0, 1, dy], [0, 0, 1]], dtype=torch.float64)
