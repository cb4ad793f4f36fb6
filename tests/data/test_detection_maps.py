"""The exported files, read back with numpy."""

import errno
import os
import re

import numpy as np
import pytest
import torch

from kp.data.detection_maps import detection_map, export_sequence
from kp.data.hpatches import ImageSequence
from kp.models.keypoints import Keypoints
from kp.support import files
from kp.support.files import FileError


def keypoints(xy, scores):
    xy, scores = torch.tensor(xy, dtype=torch.float32).view(1, -1, 2), torch.tensor(scores, dtype=torch.float32)[None]
    return Keypoints(xy, scores, torch.isfinite(scores))


def test_a_map_has_the_scores_at_the_pixels():
    found = detection_map(keypoints([(2, 1), (4, 0), (0, 0)], [0.75, 0.5, -torch.inf]), (3, 5))
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 0, 0, 0.5], [0, 0, 0.75, 0, 0], [0, 0, 0, 0, 0]]


def test_a_map_of_nothing_is_zero():
    assert not detection_map(keypoints([], []), (7, 9), torch.sigmoid).any()


@pytest.mark.parametrize(
    ("scores", "positive"),
    [
        ([90, 60, 40, 40, 20, 19, -80, -95, -2000], torch.sigmoid),  # saturated in float32, or below its smallest
        ([3, 3, 3, 1, 0, 0, -5], None),
        ([-1, -1, -7], None),
        ([1e-45, 1e-45, 0, 0], None),
        ([3e38, 3e38, 1], None),
        ([5], None),
        ([0], None),
    ],
)
def test_a_map_ranks_as_the_keypoints_do(scores, positive):
    found = detection_map(keypoints([(3 * i, i) for i in range(len(scores))], scores), (20, 40), positive)
    values = [found[i, 3 * i] for i in range(len(scores))]
    assert (found > 0).sum() == len(scores)
    assert np.isfinite(found).all()
    assert (np.diff(values) < 0).all()


def test_fifty_thousand_equal_tiny_scores_stay_apart_and_normal():
    n = 50_000
    xy = torch.stack([torch.arange(n) % 250, torch.arange(n) // 250], dim=1).float()[None]
    found = detection_map(Keypoints(xy, torch.full((1, n), 1e-44), torch.ones(1, n, dtype=torch.bool)), (200, 250))
    assert (np.diff(found.ravel()) < 0).all()
    assert found.min() >= np.finfo(np.float32).tiny


def sequence_of(count, paths=()):
    """A sequence of ``count`` images of 8 x 9 pixels with random homographies."""
    matrices = torch.rand(count - 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ImageSequence("v_m", "v", (lambda: torch.zeros(1, 1, 8, 9),) * count, tuple(matrices), paths)


def test_export_of_a_sequence_on_disk(tmp_path):
    paths = (tmp_path / "H_1_2", tmp_path / "H_1_3")
    for path in paths:
        path.write_text(f"1.50  0 2 \n0 1 0\n0 0 1 \n{path.name}")
    found = [keypoints([(i, 3)], [1.0]) for i in range(3)]
    export_sequence(tmp_path / "out", sequence_of(3, paths), found, [(8, 9)] * 3)
    folder = tmp_path / "out" / "v_m"
    assert set(os.listdir(folder)) == {"1_det.npy", "2_det.npy", "3_det.npy", "H_1_2", "H_1_3"}
    assert [(folder / path.name).read_bytes() for path in paths] == [path.read_bytes() for path in paths]
    for i in range(3):
        written = np.load(folder / f"{i + 1}_det.npy")
        assert (written.shape, written.dtype) == ((8, 9), np.float32)
        assert np.argwhere(written > 0).tolist() == [[3, i]]


def test_export_of_a_sequence_in_memory(tmp_path):
    sequence = sequence_of(2)
    export_sequence(tmp_path, sequence, [keypoints([], [])] * 2, [(8, 9)] * 2)
    assert np.loadtxt(tmp_path / "v_m" / "H_1_2").tolist() == sequence.homographies[0].tolist()


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(FileError, match=re.compile(r"1_det\.npy cannot be written: no space left", re.IGNORECASE)):
        export_sequence(tmp_path, sequence_of(2), [keypoints([], [])] * 2, [(8, 9)] * 2)
    assert os.listdir(tmp_path / "v_m") == []
