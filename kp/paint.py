"""Anti-aliased painting in batched torch: convex polygons, ellipses and boards of cells.

The same signed distance, in pixels, that paints a layer over the width of one pixel also tells which points it hides.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry import Size, invert, pixel_grid

_HIDDEN_WITHIN = 1.5  # pixels: a corner so close to the edge of a later layer does not look like itself
_EVERYWHERE = -1e4  # offset of a half-plane that contains every image


def half_planes(vertices: Tensor, count: Tensor | None = None) -> Tensor:
    """Convex polygons (B, L, V, 2), in the order of rising angle, as half-planes (B, L, V, 3): n . x + c <= 0 inside.

    Of each polygon only the first ``count`` (B, L) vertices are meant (None: all); the other half-planes hold all.
    """
    places = torch.arange(vertices.shape[2], device=vertices.device)
    count = torch.full(vertices.shape[:2], vertices.shape[2], device=vertices.device) if count is None else count
    following = torch.where(places + 1 < count[..., None], places + 1, 0)  # (B, L, V)
    edge = vertices.gather(2, following[..., None].expand_as(vertices)) - vertices
    normal = F.normalize(torch.stack([edge[..., 1], -edge[..., 0]], dim=-1), dim=-1)
    planes = torch.cat([normal, -(normal * vertices).sum(-1, keepdim=True)], dim=-1)
    everywhere = torch.tensor([0.0, 0.0, _EVERYWHERE], device=vertices.device)
    return torch.where((places < count[..., None])[..., None], planes, everywhere)


def polygon_distance(planes: Tensor, points: Tensor) -> Tensor:
    """Signed distance (B, L, N) in pixels of points (B or 1, N, 2) to convex polygons (B, L, V, 3), negative inside.

    Beyond a vertex it is the distance to the farther edge's line, which is what coverage needs.
    """
    distance = None
    for plane in planes.unbind(2):  # one edge at a time: (B, L, V, N) would not fit
        to_edge = plane[..., :2] @ points.transpose(1, 2) + plane[..., 2:]
        distance = to_edge if distance is None else torch.maximum(distance, to_edge)
    return distance


def coverage(distance: Tensor) -> Tensor:
    """The share of a pixel that lies inside, from the signed distance of its centre in pixels."""
    return (0.5 - distance).clamp(0, 1)


def paint_polygons(
    image: Tensor, planes: Tensor, tones: Tensor, texture: Tensor | None = None, share: Tensor | None = None
) -> Tensor:
    """Paint L convex polygons (B, L, V, 3) of grey values (B, L) on images (B, 1, H, W), later ones over earlier ones.

    Each wears as much of ``texture`` (B, 1, H, W) as ``share`` (B, L) says; None is no texture.
    """
    grid = pixel_grid(tuple(image.shape[-2:]), image)
    for i, layer in enumerate(planes.split(1, dim=1)):
        alpha = coverage(polygon_distance(layer, grid)).view_as(image)
        fill = tones[:, i, None, None, None]
        if texture is not None:
            fill = fill + share[:, i, None, None, None] * texture
        image = torch.lerp(image, fill.expand_as(image), alpha)
    return image


def hidden_by_later(points: Tensor, owner: Tensor, planes: Tensor) -> Tensor:
    """True (B, N) where a point (B, N, 2) of layer ``owner`` (B, N) lies under, or at the edge of, a later polygon."""
    covered = polygon_distance(planes, points) < _HIDDEN_WITHIN  # (B, L, N)
    later = torch.arange(planes.shape[1], device=points.device)[:, None] > owner[:, None]
    return (covered & later).any(1)


def ellipse_distance(centre: Tensor, axes: Tensor, turn: Tensor, points: Tensor) -> Tensor:
    """Signed distance (B, N) in pixels, to first order, of points (B or 1, N, 2) to ellipses, negative inside.

    ``centre`` (B, 1, 2) and half ``axes`` (B, 1, 2) in pixels, ``turn`` (B, 1) in radians.
    """
    x, y = (points - centre).unbind(-1)
    u = torch.stack([turn.cos() * x + turn.sin() * y, turn.cos() * y - turn.sin() * x], dim=-1) / axes
    radius = u.norm(dim=-1)
    gradient = (u / axes).norm(dim=-1) / radius.clamp(min=1e-6)  # of the radius, per pixel
    return (radius - 1) / gradient.clamp(min=1e-6)


def board_tones(H_board_to_image: Tensor, tones: Tensor, size: Size) -> Tensor:
    """The tone (B, H * W) that each pixel sees of a board of cells (B, rows, columns)."""
    inverse = invert(H_board_to_image)
    grid = pixel_grid(size, tones)
    homogeneous = F.pad(grid, (0, 1), value=1.0) @ inverse.transpose(1, 2)  # (B, N, 3)
    w = homogeneous[..., 2].clamp(min=1e-4)  # pixels beyond the horizon lie off the board: its outline hides them
    near, share = [], []
    for axis, cells in ((0, tones.shape[2]), (1, tones.shape[1])):
        u = homogeneous[..., axis] / w
        line = u.round()
        slope = (inverse[:, None, axis, :2] - u[..., None] * inverse[:, None, 2, :2]).norm(dim=-1) / w  # units a pixel
        share.append(((u - line) / slope.clamp(min=1e-6) + 0.5).clamp(0, 1))  # of the cell behind the line
        near.append([(line.long() + step).clamp(0, cells - 1) for step in (-1, 0)])
    flat = tones.flatten(1)
    tone = [[flat.gather(1, y * tones.shape[2] + x) for x in near[0]] for y in near[1]]
    upper, lower = (torch.lerp(left, right, share[0]) for left, right in tone)
    return torch.lerp(upper, lower, share[1])
