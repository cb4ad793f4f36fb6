"""Two views of one plane: what training, evaluation and tests pass around."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kp.geometry import Size, covisible_mask, invert


@dataclass(frozen=True)
class ViewPair:
    """Two views and the homography between them; the views may differ in size (only when B = 1).

    ``image0``, ``image1``: (B, C, H, W) in [0, 1]. ``H_0to1``: (B, 3, 3), pixels of view 0 -> pixels of view 1.
    ``corners0``, ``corners1``: (B, K, 2) true corners, in pixels of each view, or None when nobody knows them;
    ``corner_mask0``, ``corner_mask1``: (B, K) bool, the entries that are corners seen in that view.
    ``valid0``, ``valid1``: (B, 1, H, W) bool, the pixels that show the scene, or None for all of them. ``ignore0``,
    ``ignore1``: (B, 1, H, W) bool, the pixels of which nobody knows whether they are a corner, or None for none.
    """

    image0: Tensor
    image1: Tensor
    H_0to1: Tensor
    corners0: Tensor | None = None
    corners1: Tensor | None = None
    corner_mask0: Tensor | None = None
    corner_mask1: Tensor | None = None
    valid0: Tensor | None = None
    valid1: Tensor | None = None
    ignore0: Tensor | None = None
    ignore1: Tensor | None = None

    @property
    def size0(self) -> Size:
        """(H, W) of view 0."""
        return tuple(self.image0.shape[-2:])

    @property
    def size1(self) -> Size:
        """(H, W) of view 1."""
        return tuple(self.image1.shape[-2:])

    @property
    def H_1to0(self) -> Tensor:
        """(B, 3, 3), pixels of view 1 -> pixels of view 0."""
        return invert(self.H_0to1)

    def swap(self) -> "ViewPair":
        """The same pair seen from the other side: view 1 becomes view 0."""
        return replace(
            self,
            H_0to1=self.H_1to0,
            **{f"{name}0": getattr(self, f"{name}1") for name in _PER_VIEW},
            **{f"{name}1": getattr(self, f"{name}0") for name in _PER_VIEW},
        )

    def to(self, device: torch.device | str) -> "ViewPair":
        """The same pair on another device."""
        return self._each(lambda values: values.to(device))

    def every(self, first: int, step: int) -> "ViewPair":
        """Every ``step``-th pair from the ``first`` on."""
        return self._each(lambda values: values[first::step])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ViewPair":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return ViewPair(**{name: None if v is None else change(v) for name, v in values.items()})

    def shared0(self, border: float = 0.0) -> Tensor:
        """The pixels of view 0 that show the scene and that view 1 sees: (B, 1, H, W) bool.

        Pixels within ``border`` of the edge of either image are left out.
        """
        shared = covisible_mask(self.H_0to1, self.size0, self.size1, border)
        if border > 0:
            identity = torch.eye(3, device=self.H_0to1.device, dtype=self.H_0to1.dtype)[None]
            shared = shared & covisible_mask(identity, self.size0, self.size0, border)
        return shared if self.valid0 is None else shared & self.valid0


_PER_VIEW = ("image", "corners", "corner_mask", "valid", "ignore")
