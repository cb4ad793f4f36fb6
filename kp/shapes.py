"""Synthetic images and their exact corners, rendered in batched torch on the device of the generator.

A scene is an uneven background with layers painted on it in order; the corners that a later layer hides are no corners.
The families are after the synthetic shapes of DeTone et al., "SuperPoint", CVPRW 2018, section 4.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.chance import Draw
from kp.geometry import Size, inside, pixel_grid, sample_at, warp_points
from kp.homography import random_homographies
from kp.paint import (
    board_tones,
    coverage,
    ellipse_distance,
    half_planes,
    hidden_by_later,
    paint_polygons,
    polygon_distance,
)

_RING = 2.5  # pixels around a corner where its contrast is looked for
_MIN_CONTRAST = 0.08  # of the grey range: a fainter corner drowns in the noise


@dataclass(frozen=True)
class Scene:
    """Grey images (B, 1, H, W) in [0, 1]; ``corners`` (B, K, 2) in pixels and ``corner_mask`` (B, K), the real."""

    image: Tensor
    corners: Tensor
    corner_mask: Tensor


def render(batch: int, size: Size, generator: torch.Generator, families: tuple[str, ...] | None = None) -> Scene:
    """Render a batch of scenes of this size (H, W), each of a random one of ``families`` (None: all of FAMILIES).

    A corner is visible: inside the image, not hidden by a later layer, and with contrast enough to be seen. Every draw
    comes from ``generator``. Raises ValueError on a family that does not exist.
    """
    names = tuple(FAMILIES) if families is None else families
    if unknown := sorted(set(names) - set(FAMILIES)):
        raise ValueError(f"unknown families {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    counts = torch.randint(len(names), (batch,), generator=generator, device=generator.device).bincount(
        minlength=len(names)
    )
    parts = [FAMILIES[name](n, size, Draw(n, generator)) for name, n in zip(names, counts.tolist(), strict=True) if n]
    places = max(part.corners.shape[1] for part in parts)
    padded = [
        (
            F.pad(part.corners, (0, 0, 0, places - part.corners.shape[1])),
            F.pad(part.corner_mask, (0, places - part.corners.shape[1])),
        )
        for part in parts
    ]
    order = torch.randperm(batch, generator=generator, device=generator.device)
    corners, mask = (torch.cat(column)[order] for column in zip(*padded, strict=True))
    image = torch.cat([part.image for part in parts])[order] + _clouds(size, Draw(batch, generator), 0.06)
    return Scene(image.clamp(0, 1), corners, mask)


def _tones(draw: Draw, base: Tensor, *shape: int) -> Tensor:
    """Grey values (B, *shape), at least 0.2 from ``base`` (B,) and in [0, 1]."""
    base = base.view(-1, *[1] * len(shape))
    room = torch.stack([base - 0.2, 0.8 - base]).clamp(min=0)  # below and above the base
    at = draw.uniform(0, 1, *shape) * room.sum(0)
    return torch.where(at < room[0], at, at - room[0] + base + 0.2)


def _background(size: Size, draw: Draw) -> tuple[Tensor, Tensor]:
    """Uneven ground (B, 1, H, W) and its mean tone (B,)."""
    base = draw.uniform(0.15, 0.85)
    return (base.view(-1, 1, 1, 1) + _clouds(size, draw, 0.12)).clamp(0, 1), base


def _clouds(size: Size, draw: Draw, largest: float) -> Tensor:
    """Fractal noise (B, 1, H, W) of random amplitude up to ``largest``, from broad to fine."""
    amplitude, roughness = draw.uniform(0, largest, 1, 1, 1), draw.uniform(0.3, 0.9, 1, 1, 1)
    clouds = torch.zeros(draw.batch, 1, *size, device=draw.device)
    for octave in range(6):
        cells = tuple(3 * 2**octave * side // min(size) + 1 for side in size)
        if max(cells) >= min(size):
            break
        clouds += amplitude * roughness**octave * draw.field(size, cells)
    return clouds


def _finish(image: Tensor, corners: Tensor, mask: Tensor) -> Scene:
    """Keep the corners that can be seen: inside the image and with contrast on a ring around them."""
    size = tuple(image.shape[-2:])
    angles = torch.arange(12, device=image.device) * (torch.pi / 6)
    ring = _RING * torch.stack([angles.cos(), angles.sin()], dim=-1)
    around = (corners[:, :, None] + ring).flatten(1, 2).clamp(min=0)  # (B, K * 12, 2)
    around = torch.minimum(around, torch.tensor([size[1] - 1.0, size[0] - 1.0], device=image.device))
    grey = sample_at(image, around).view(*mask.shape, -1)
    contrast = grey.amax(-1) - grey.amin(-1)
    return Scene(image, corners, mask & inside(corners, size) & (contrast > _MIN_CONTRAST))


def _place(size: Size, draw: Draw, *shape: int) -> Tensor:
    """Random points (B, *shape, 2) of the image."""
    xy = draw.uniform(0, 1, *shape, 2)
    return xy * torch.tensor([size[1] - 1.0, size[0] - 1.0], device=draw.device)


def _convex_polygons(size: Size, draw: Draw, layers: int, smallest: float, largest: float) -> tuple[Tensor, Tensor]:
    """Vertices (B, L, 6, 2), of which the first ``count`` (B, L), 3 to 6, are meant; radii in short sides.

    The vertices lie on an ellipse in the order of their angle, so the polygon is convex.
    """
    count = draw.uniform(3, 7, layers).long().clamp(max=6)
    places = torch.arange(6, device=draw.device)
    angle = (places + draw.uniform(-0.3, 0.3, layers, 6)) / count[..., None] + draw.uniform(0, 1, layers, 1)
    circle = torch.stack([torch.cos(2 * torch.pi * angle), torch.sin(2 * torch.pi * angle)], dim=-1)
    radius = min(size) * smallest * (largest / smallest) ** draw.uniform(0, 1, layers, 1, 1)
    squeeze = torch.cat([torch.ones_like(radius), draw.uniform(0.4, 1, layers, 1, 1)], dim=-1)
    turn = draw.uniform(0, torch.pi, layers, 1)
    x, y = (circle * radius * squeeze).unbind(-1)
    turned = torch.stack([turn.cos() * x - turn.sin() * y, turn.sin() * x + turn.cos() * y], dim=-1)
    return turned + _place(size, draw, layers, 1), count


def polygon(batch: int, size: Size, draw: Draw) -> Scene:
    """One convex polygon of 3 to 6 vertices."""
    return _polygons(size, draw, 1, 0.15, 0.45, textured=False)


def polygons(batch: int, size: Size, draw: Draw) -> Scene:
    """Many overlapping polygons; a vertex under a later one is no corner, nor is where two outlines cross.

    Many small and few large ones, each with some texture: the dead leaves model, which has the statistics of
    photographs (Lee, Mumford and Huang, IJCV 2001).
    """
    return _polygons(size, draw, 40, 0.03, 0.4, textured=True)


def _polygons(size: Size, draw: Draw, layers: int, smallest: float, largest: float, textured: bool) -> Scene:
    image, base = _background(size, draw)
    vertices, count = _convex_polygons(size, draw, layers, smallest, largest)
    planes = half_planes(vertices, count)
    texture = _clouds(size, draw, 1.0) if textured else None
    share = draw.uniform(-0.3, 0.3, layers)
    image = paint_polygons(image, planes, _tones(draw, base, layers), texture, share).clamp(0, 1)
    meant = torch.arange(6, device=draw.device) < count[..., None]
    owner = torch.arange(layers, device=draw.device).repeat_interleave(6).expand(draw.batch, -1)
    corners = vertices.flatten(1, 2)
    return _finish(image, corners, meant.flatten(1) & ~hidden_by_later(corners, owner, planes))


def _strokes(size: Size, draw: Draw, start: Tensor, end: Tensor, crossings: bool) -> Scene:
    """Straight strokes from start to end (B, L, 2), 2 to 5 pixels wide; corners are their ends and crossings.

    As in the classic catalogue a corner is a point of the axes: the middle of an end, the middle of a crossing.
    """
    image, base = _background(size, draw)
    layers = start.shape[1]
    along = F.normalize(end - start, dim=-1)
    across = torch.stack([-along[..., 1], along[..., 0]], dim=-1) * draw.uniform(1, 2.5, layers, 1)
    planes = half_planes(torch.stack([start - across, end - across, end + across, start + across], dim=2))
    image = paint_polygons(image, planes, _tones(draw, base, layers))
    index = torch.arange(layers, device=draw.device)
    corners, owner = torch.cat([start, end], dim=1), torch.cat([index, index])
    mask = torch.ones_like(corners[..., 0], dtype=torch.bool)
    if crossings:
        first, second = torch.triu_indices(layers, layers, 1, device=draw.device)
        crossing, crosses = _crossings(start[:, first], end[:, first], start[:, second], end[:, second])
        corners, owner = torch.cat([corners, crossing], dim=1), torch.cat([owner, second])
        mask = torch.cat([mask, crosses], dim=1)
    return _finish(image, corners, mask & ~hidden_by_later(corners, owner.expand(draw.batch, -1), planes))


def _crossings(a0: Tensor, a1: Tensor, b0: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """Where segments a and b, ends (B, N, 2), cross: (B, N, 2), and whether they do, and steeply: (B, N)."""
    a, b, between = a1 - a0, b1 - b0, b0 - a0

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    det = cross(a, b)
    steep = det.abs() > 0.3 * a.norm(dim=-1) * b.norm(dim=-1)
    det = torch.where(steep, det, torch.ones_like(det))
    s, t = cross(between, b) / det, cross(between, a) / det
    return a0 + s[..., None] * a, steep & (s > 0) & (s < 1) & (t > 0) & (t < 1)


def lines(batch: int, size: Size, draw: Draw) -> Scene:
    """Straight strokes; corners are their ends and the places where two cross."""
    return _strokes(size, draw, _place(size, draw, 8), _place(size, draw, 8), crossings=True)


def star(batch: int, size: Size, draw: Draw) -> Scene:
    """Strokes that leave one point; corners are that point and the far ends."""
    rays = 6
    centre = _place(size, draw, 1) * 0.6 + 0.2 * torch.tensor([size[1], size[0]], device=draw.device)
    angle = (torch.arange(rays, device=draw.device) + draw.uniform(-0.25, 0.25, rays)) * (2 * torch.pi / rays)
    angle = (angle + draw.uniform(0, 2 * torch.pi, 1))[..., None]
    length = min(size) * draw.uniform(0.15, 0.5, rays, 1)
    end = centre + length * torch.cat([angle.cos(), angle.sin()], dim=-1)
    scene = _strokes(size, draw, centre.expand_as(end), end, crossings=False)
    # Every ray starts at the centre and is painted over by the next: the centre is one corner, not hidden rays.
    corners = torch.cat([centre, scene.corners[:, rays:]], dim=1)
    seen = _finish(scene.image, centre, torch.ones_like(centre[..., 0], dtype=torch.bool)).corner_mask
    return Scene(scene.image, corners, torch.cat([seen, scene.corner_mask[:, rays:]], dim=1))


def cube(batch: int, size: Size, draw: Draw) -> Scene:
    """A box in a random pose under orthographic projection; corners are its seven visible vertices."""
    image, base = _background(size, draw)
    axes = torch.linalg.qr(draw.normal(3, 3)).Q
    axes = axes * torch.where(axes[:, 2:] < 0, -1, 1)  # columns: towards the viewer, so the three faces there are seen
    axes = axes * min(size) * draw.uniform(0.12, 0.35, 1, 3)
    x, y, z = axes[:, :2].unbind(-1)  # (B, 2): the box's edges in the image
    near = _place(size, draw) * 0.5 + 0.25 * torch.tensor([size[1], size[0]], device=draw.device)
    faces = torch.stack(
        [torch.stack([near, near - u, near - u - v, near - v], dim=1) for u, v in ((x, y), (y, z), (z, x))], 1
    )
    area = torch.linalg.det(torch.stack([faces[:, :, 1] - faces[:, :, 0], faces[:, :, 3] - faces[:, :, 0]], dim=-1))
    faces = torch.where((area < 0)[..., None, None], faces.flip(2), faces)  # rising angle, as half_planes wants it
    tones = _tones(draw, base, 1) + torch.tensor([-0.25, 0.0, 0.25], device=draw.device) * draw.uniform(0.5, 1, 1)
    grid = pixel_grid(size, image)
    covers = coverage(polygon_distance(half_planes(faces), grid))  # (B, 3, H * W): a mosaic, no face over another
    total = covers.sum(1)
    mosaic = (covers * tones.clamp(0, 1)[..., None]).sum(1) / total.clamp(min=1e-6)
    image = torch.lerp(image, mosaic.view_as(image), total.clamp(max=1).view_as(image))
    corners = torch.stack([near, near - x, near - y, near - z, near - x - y, near - y - z, near - z - x], dim=1)
    visible = area.abs().amin(1, keepdim=True) > 60  # square pixels: a face seen edge-on has no corners of its own
    return _finish(image, corners, visible.expand(-1, 7))


def _board(image: Tensor, draw: Draw, tones: Tensor, aspect: float) -> Scene:
    """Paint a board of cells of tone (B, rows, columns) in a random view; corners are all crossings of its lines.

    ``aspect`` is the board's height over its width. In board coordinates a cell is one unit wide and one unit high.
    """
    size, (rows, columns) = tuple(image.shape[-2:]), tones.shape[1:]
    longest = 0.75 * min(size)
    board = (round(longest * min(aspect, 1)), round(longest / max(aspect, 1)))  # (H, W) of the flat board in pixels
    ranges = {
        "max_translation": 0.15,
        "max_scale": 1.4,
        "max_rotation": 180.0,
        "max_shear": 25.0,
        "max_perspective": 0.4,
    }
    H = random_homographies(draw.batch, board, size, generator=draw.generator, **ranges)
    unit = torch.tensor([[board[1] / columns, 0, -0.5], [0, board[0] / rows, -0.5], [0, 0, 1]], device=draw.device)
    H = H @ unit  # board units -> pixels
    lattice = torch.cartesian_prod(torch.arange(columns + 1.0), torch.arange(rows + 1.0)).to(draw.device)
    crossings, _ = warp_points(lattice.expand(draw.batch, -1, -1), H)
    outline, _ = warp_points(
        lattice.new_tensor([[0, 0], [columns, 0], [columns, rows], [0, rows]])[None].expand(draw.batch, -1, -1), H
    )
    alpha = coverage(polygon_distance(half_planes(outline[:, None]), pixel_grid(size, image))).view_as(image)
    image = torch.lerp(image, board_tones(H, tones, size).view_as(image), alpha)
    return _finish(image, crossings, torch.ones_like(crossings[..., 0], dtype=torch.bool))


def checkerboard(batch: int, size: Size, draw: Draw) -> Scene:
    """A chessboard in perspective, its tones not quite even; corners are all crossings, those of the outline too."""
    columns, rows = draw.integer(4, 9), draw.integer(4, 9)
    image, _ = _background(size, draw)
    parity = (torch.arange(rows, device=draw.device)[:, None] + torch.arange(columns, device=draw.device)) % 2
    dark, light = draw.uniform(0, 0.35, 1, 1), draw.uniform(0.65, 1, 1, 1)
    tones = torch.where(parity == 1, light, dark) + draw.uniform(-0.1, 0.1, rows, columns)
    return _board(image, draw, tones.clamp(0, 1), rows / columns)


def stripes(batch: int, size: Size, draw: Draw) -> Scene:
    """Parallel stripes in perspective; corners are where their borders end."""
    columns = draw.integer(4, 9)
    image, _ = _background(size, draw)
    light = torch.arange(columns, device=draw.device) % 2 == 1
    tones = torch.where(light, draw.uniform(0.6, 1, 1, columns), draw.uniform(0, 0.4, 1, columns))
    return _board(image, draw, tones, float(draw.uniform(0.3, 1.5)[0]))


def ellipses(batch: int, size: Size, draw: Draw) -> Scene:
    """Ellipses that overlap: edges everywhere and not one corner."""
    image, base = _background(size, draw)
    grid = pixel_grid(size, image)
    for tone in _tones(draw, base, 8).unbind(1):
        axes = min(size) * draw.uniform(0.05, 0.3, 1, 2)
        distance = ellipse_distance(_place(size, draw, 1), axes, draw.uniform(0, torch.pi, 1), grid)
        alpha = coverage(distance).view_as(image)
        image = torch.lerp(image, tone.view(-1, 1, 1, 1), alpha)
    return _no_corners(image)


def noise(batch: int, size: Size, draw: Draw) -> Scene:
    """Noise of any grain on an uneven ground: nothing here is a corner."""
    image, _ = _background(size, draw)
    grain = draw.normal(*image.shape[1:])
    return _no_corners((image + draw.uniform(0.02, 0.3, 1, 1, 1) * grain).clamp(0, 1))


def _no_corners(image: Tensor) -> Scene:
    return Scene(image, image.new_zeros(len(image), 0, 2), image.new_zeros(len(image), 0, dtype=torch.bool))


FAMILIES: dict[str, Callable[[int, Size, Draw], Scene]] = {
    f.__name__: f for f in (checkerboard, cube, star, lines, stripes, polygon, polygons, ellipses, noise)
}
