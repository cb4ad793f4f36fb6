"""Small folders in HPatches layout, for tests."""

import cv2
import numpy as np


def write_ppm(path, gray):
    """A gray picture (H, W) as a colour PPM."""
    assert cv2.imwrite(str(path), cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))


def write_root(root, sequences=("i_lamp", "v_wall"), count=3, size=(101, 143)):
    """HPatches-like folders of blurred noise, whose views are shifted by whole pixels."""
    rng = np.random.default_rng(0)
    for name in sequences:
        folder = root / name
        folder.mkdir(parents=True)
        canvas = cv2.GaussianBlur(rng.random((size[0] + 40, size[1] + 40)), (0, 0), 1.5)
        canvas = cv2.normalize(canvas, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        for k in range(1, count + 1):
            shift = 5 * (k - 1) if name.startswith("v") else 0
            view = canvas[shift : shift + size[0], 2 * shift : 2 * shift + size[1]]
            write_ppm(folder / f"{k}.ppm", (view * (1 - 0.1 * k)).astype(np.uint8))
            if k > 1:
                (folder / f"H_1_{k}").write_text(f"1  0  {-2 * shift} \n0 1 {-shift}\n0 0 1\n")
    return root
