"""Pictures of score maps and keypoints, as RGB arrays (H, W, 3) of uint8."""

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.models.keypoints import Keypoints

GREEN, RED, GREY = (60, 220, 60), (240, 60, 60), (150, 150, 150)


def grey_picture(image: Tensor) -> np.ndarray:
    """An image (1 or 3, H, W) in [0, 1] as a picture."""
    picture = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(picture.expand(3, -1, -1).permute(1, 2, 0).numpy())


def score_picture(scores: Tensor) -> np.ndarray:
    """Scores (1, H, W) in false colour, from the 1st to the last but 0.1 per cent of their values: dark is low."""
    values = scores.detach().float().flatten().cpu().numpy()
    low, high = np.quantile(values, [0.01, 0.999])
    scaled = ((scores[0].detach().float().cpu().numpy() - low) / max(high - low, 1e-6)).clip(0, 1)
    coloured = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def draw_points(picture: np.ndarray, xy: Tensor, colour: tuple[int, int, int], radius: int = 3) -> np.ndarray:
    """The picture with a circle of ``radius`` pixels at each point (N, 2)."""
    picture = picture.copy()
    shift = 4  # cv2 takes fixed-point coordinates with so many binary digits
    for x, y in (xy.detach().cpu().double() * 2**shift).round().long().tolist():
        cv2.circle(picture, (x, y), radius << shift, colour, 1, cv2.LINE_AA, shift)
    return picture


def tint(picture: np.ndarray, mask: Tensor) -> np.ndarray:
    """The picture with the pixels of a mask (1, H, W) in blue."""
    blue = (0.75 * picture + np.array([0, 0, 64])).astype(np.uint8)
    return np.where(mask[0].cpu().numpy()[..., None], blue, picture)


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text on a white bar in its corner."""
    picture = picture.copy()
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    cv2.rectangle(picture, (0, 0), (width + 8, height + base + 6), (255, 255, 255), cv2.FILLED)
    cv2.putText(picture, text, (4, height + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def keypoint_picture(image: Tensor, keypoints: Keypoints, repeated: Tensor | None = None) -> np.ndarray:
    """An image (1 or 3, H, W) with its keypoints (B = 1): green, or where ``repeated`` (1, K) is False, red."""
    picture = grey_picture(image)
    repeated = keypoints.valid if repeated is None else repeated
    picture = draw_points(picture, keypoints.xy[keypoints.valid & ~repeated], RED)
    return draw_points(picture, keypoints.xy[keypoints.valid & repeated], GREEN)


def sheet(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of one size in rows and columns, ``gap`` white pixels apart."""
    framed = [[np.pad(p, ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in framed], axis=0)
