"""Scenes out of a folder of photographs: which files, which pixels, and the same ones for the same seed."""

import cv2
import numpy as np
import pytest
import torch

from kp.data import photograph_scenes
from kp.data.photograph_scenes import PhotographScenes

VIEW = (64, 96)
CANVAS = (96, 144)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def write(path, size, value=None, seed=0):
    """An image of noise, or of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    assert cv2.imwrite(str(path), noise if value is None else np.full(size, value, np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Three photographs of different types and sizes, one value each, and files that are none."""
    folder = tmp_path / "photographs"
    write(folder / "a.png", (300, 400), 51)
    write(folder / "deep" / "er" / "b.JPG", (150, 200), 102)
    write(folder / "c.tif", (70, 80), 204)
    write(folder / "small.png", (63, 400), 255)
    write(folder / ".hidden" / "d.png", (300, 400), 255)
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not meant to be one")
    return folder


def test_every_image_that_can_be_read_is_drawn_and_the_others_are_told_in_one_line(folder):
    scenes = PhotographScenes(folder, VIEW)
    assert [path.name for path in scenes.files] == ["a.png", "c.tif", "b.JPG"]
    text = scenes.summary()
    assert text.startswith(f"3 photographs in {folder}; 2 files cannot be used: broken.jpg (")
    assert "small.png (a side is shorter than 64 pixels)" in text
    assert "\n" not in text
    drawn = scenes.render(64, CANVAS, seeded())
    assert drawn.image.shape == (64, 1, *CANVAS)
    values = (drawn.image.amax((1, 2, 3)) * 255).round().int()
    assert set(values.tolist()) == {51, 102, 204}
    assert ((drawn.image.amax((1, 2, 3)) - drawn.image.amin((1, 2, 3))) < 0.01).all(), "nothing but the photograph"
    assert not drawn.corner_mask.any()
    assert drawn.ignore.all(), "a corner of a photograph is unknown"


def test_windows_are_pixels_of_the_photograph_itself(tmp_path):
    """Of a photograph as large as a scene all of it is shown; of a larger one, windows between its pixels and all."""
    write(tmp_path / "a.png", CANVAS)
    whole = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    shown = PhotographScenes(tmp_path, VIEW).render(1, CANVAS, seeded()).image[0, 0]
    assert np.array_equal((shown * 255).round().byte().numpy(), whole)
    y, x = np.mgrid[0:200, 0:250]
    cv2.imwrite(str(tmp_path / "a.png"), x.astype(np.uint8))
    steps = PhotographScenes(tmp_path, VIEW).render(64, CANVAS, seeded()).image[:, 0].diff(dim=2) * 255
    slopes = steps[:, 10:-10, 10:-10].mean((1, 2))  # pixels of the photograph for one of the scene
    assert slopes.min() > 0.95
    assert slopes.max() < 250 / 144 + 0.05
    assert slopes.max() - slopes.min() > 0.4
    assert y.shape == x.shape


def test_a_small_photograph_is_continued_by_its_mirror_image(tmp_path):
    write(tmp_path / "a.png", (80, 100))
    whole = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    shown = PhotographScenes(tmp_path, VIEW).render(1, CANVAS, seeded()).image[0, 0]
    expected = np.pad(whole, ((0, 16), (0, 44)), mode="symmetric")
    assert np.array_equal((shown * 255).round().byte().numpy(), expected)


def test_the_same_seed_draws_the_same_windows_whatever_is_in_memory(folder, monkeypatch):
    write(folder / "large.png", (700, 900))
    read = []
    real = photograph_scenes.read_image
    monkeypatch.setattr(photograph_scenes, "read_image", lambda path: read.append(path) or real(path))
    all_kept, none_kept = (PhotographScenes(folder, VIEW, cache_bytes) for cache_bytes in (2**30, 0))
    read.clear()
    first = all_kept.render(16, CANVAS, seeded(3)).image
    assert not read, "what is in memory is not read again"
    assert torch.equal(first, none_kept.render(16, CANVAS, seeded(3)).image)
    assert len(read) == 16
    assert not torch.equal(first, all_kept.render(16, CANVAS, seeded(4)).image)


def test_memory_keeps_within_its_budget(folder):
    scenes = PhotographScenes(folder, VIEW, cache_bytes=40_000)
    assert sum(image.numel() for image in scenes._cache.values()) == 150 * 200 + 70 * 80


def test_the_record_is_of_names_and_sizes_not_of_the_place(folder, tmp_path):
    record = PhotographScenes(folder, VIEW).record()
    assert (record["name"], record["files"]) == ("photographs", 3)
    folder.rename(tmp_path / "moved")
    moved = PhotographScenes(tmp_path / "moved", VIEW).record()
    assert moved["sha256"] == record["sha256"]
    write(tmp_path / "moved" / "e.png", (100, 100))
    assert PhotographScenes(tmp_path / "moved", VIEW).record()["sha256"] != record["sha256"]
    assert str(tmp_path) not in str(record)


def test_a_folder_without_photographs_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        PhotographScenes(tmp_path / "nowhere", VIEW)
    with pytest.raises(ValueError, match="no photograph that can be read"):
        PhotographScenes(tmp_path, VIEW)
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"no photograph that can be read: a\.png"):
        PhotographScenes(tmp_path, VIEW)
