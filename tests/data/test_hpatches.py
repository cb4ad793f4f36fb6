"""Reading the official layout and every way it can be broken; the exported files, read back in plain numpy."""

import errno
import os
import re

import cv2
import numpy as np
import pytest
import torch

from kp.data.hpatches import HPatchesError, ImageSequence, detection_map, export_sequence, read
from kp.models.keypoints import Keypoints
from kp.support import files
from kp.support.files import FileError

H_TEXT = "1.5  0.25 -12 \n-0.125 2  7.5  \n 1e-4 0   1 \n"  # double and trailing spaces, as in the release


def picture(size=(33, 47), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)


def write_sequence(folder, count=3, suffix=".ppm", text=H_TEXT, size=(33, 47)):
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        assert cv2.imwrite(str(folder / f"{number}{suffix}"), picture(size, seed=number))
        if number > 1:
            (folder / f"H_1_{number}").write_text(text)
    return folder


@pytest.fixture
def root(tmp_path):
    """A good root with one sequence of each split."""
    write_sequence(tmp_path / "sequences" / "i_lamp")
    write_sequence(tmp_path / "sequences" / "v_wall", count=6)
    return tmp_path / "sequences"


def error(path, split="all", load=False):
    """The message of the error that reading (and loading each image) raises."""
    with pytest.raises(HPatchesError) as caught:
        _ = [image() for sequence in read(path, split) if load for image in sequence.images]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_official_layout(root):
    (root / "extra").mkdir()
    (root / "i_notes").mkdir()
    (root / "README.txt").write_text("hello")
    lamp, wall = read(root)
    assert (lamp.name, lamp.split, len(lamp.images)) == ("i_lamp", "i", 3)
    assert (wall.name, wall.split, len(wall.images), len(wall.homographies)) == ("v_wall", "v", 6, 5)
    assert wall.homographies[0].dtype == torch.float64
    assert wall.homographies[4].tolist() == [[1.5, 0.25, -12], [-0.125, 2, 7.5], [1e-4, 0, 1]]
    assert [s.name for s in read(root, "v")] == ["v_wall"]


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg", ".jpeg", ".PNG"])
def test_images_are_gray_in_0_to_1_at_their_own_size(tmp_path, suffix):
    write_sequence(tmp_path / "v_a", suffix=suffix, size=(31, 46))
    image = read(tmp_path)[0].images[1]()
    assert (image.shape, image.dtype) == ((1, 1, 31, 46), torch.float32)
    blue, green, red = picture((31, 46), seed=2).astype(float).transpose(2, 0, 1)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    off = np.abs(image[0, 0].numpy() * 255 - gray)
    assert off.max() < 1.5 or (suffix.startswith(".j") and off.mean() < 20)  # JPEG does not keep noise well


def test_an_image_that_is_there_twice_is_read_from_the_ppm(tmp_path):
    folder = write_sequence(tmp_path / "v_a")
    assert cv2.imwrite(str(folder / "2.jpg"), picture((12, 12), seed=2))
    assert cv2.imwrite(str(folder / "2.png"), picture((11, 11), seed=2))
    assert read(tmp_path)[0].images[1]().shape == (1, 1, 33, 47)


def test_a_binary_pgm_is_read_as_it_is_whatever_its_suffix(tmp_path):
    write_sequence(tmp_path / "v_a")
    values = np.arange(12 * 9, dtype=np.uint8).reshape(9, 12)
    (tmp_path / "v_a" / "1.ppm").write_bytes(b"P5 # a comment\n12 9\n255\n" + values.tobytes())
    assert (read(tmp_path)[0].images[0]()[0, 0] * 255).round().int().tolist() == values.tolist()


@pytest.mark.parametrize("scale", [1, -1, 1e-9, -250.0])
def test_the_centre_of_image_1_is_in_front(tmp_path, scale):
    values = np.array([[1.5, 0.25, -12], [-0.125, 2, 7.5], [1e-3, 0, 1]])
    text = "\n".join(" ".join(map(repr, row)) for row in (values * scale).tolist())
    write_sequence(tmp_path / "v_a", text=text)
    H = read(tmp_path)[0].homography(2, (33, 47))
    w = values[2] @ [23, 16, 1]
    assert H.shape == (1, 3, 3)
    np.testing.assert_allclose(H[0], values / w, rtol=1e-12)


def test_a_homography_that_sends_the_centre_to_infinity(tmp_path):
    write_sequence(tmp_path / "v_a", text="1 0 0  0 1 0  1 0 -23")
    with pytest.raises(HPatchesError, match=r"v_a/H_1_2 .* infinity"):
        read(tmp_path)[0].homography(2, (33, 47))


def test_the_folder_above_and_a_single_sequence_will_do(tmp_path):
    write_sequence(tmp_path / "hpatches-sequences-release" / "v_a")
    write_sequence(tmp_path / "hpatches-sequences-release" / "i_b")
    assert [s.name for s in read(tmp_path)] == ["i_b", "v_a"]
    assert [s.name for s in read(tmp_path / "hpatches-sequences-release" / "v_a")] == ["v_a"]


def test_no_root(tmp_path):
    message = error(tmp_path / "nowhere")
    assert "does not exist: add --download, or get hpatches-sequences-release.zip" in message
    assert "https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/hpatches-sequences-release.zip" in message


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "hpatches-sequences-release.zip").write_bytes(b"PK")
    assert "is not a folder: unpack" in error(tmp_path / "hpatches-sequences-release.zip")


def test_a_root_without_sequences(tmp_path):
    (tmp_path / "i_empty").mkdir()
    assert "has no folder i_* or v_*" in error(tmp_path)


def test_a_split_without_sequences(tmp_path):
    write_sequence(tmp_path / "i_a")
    assert "has no v_* sequence" in error(tmp_path, "v")


@pytest.mark.parametrize("inside", [False, True])
def test_the_patches_archive_is_recognised(tmp_path, inside):
    folder = tmp_path / "hpatches-release" / "v_wall"
    folder.mkdir(parents=True)
    for name in ("ref", "e1", "h1", "t1"):
        cv2.imwrite(str(folder / f"{name}.png"), picture((65, 65), 1))
    message = error(folder if inside else folder.parent)
    assert "is the patches release, not the sequences: add --download, or get hpatches-sequences-release.zip" in message


def test_a_missing_image(root):
    (root / "v_wall" / "4.ppm").unlink()
    assert "v_wall lacks image 4" in error(root)


def test_a_missing_homography(root):
    (root / "v_wall" / "H_1_5").unlink()
    assert "v_wall lacks H_1_5" in error(root)


def test_one_image_only(tmp_path):
    write_sequence(tmp_path / "v_a", count=1)
    assert "v_a has only one image" in error(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 0 0 0 1 0 0 0", "has 8 numbers, not 3x3"),
        ("", "has 0 numbers"),
        ("1 0 0 0 1 0 0 0 1 5", "has 10 numbers"),
        ("1 0 0 0 1 zero 0 0 1", "cannot be read as 3x3 numbers"),
        ("1 0 0 0 1 nan 0 0 1", "not finite"),
        ("1 0 0 0 1 inf 0 0 1", "not finite"),
        ("1 2 3 2 4 6 0 0 1", "singular"),
        ("0 0 0 0 0 0 0 0 0", "singular"),
    ],
)
def test_a_malformed_homography(root, text, complaint):
    (root / "i_lamp" / "H_1_3").write_text(text)
    message = error(root)
    assert "i_lamp/H_1_3" in message
    assert complaint in message


def test_a_homography_that_is_no_text(root):
    (root / "i_lamp" / "H_1_3").write_bytes(bytes(range(128, 256)))
    assert "i_lamp/H_1_3 cannot be read as 3x3 numbers" in error(root)


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.97])
def test_a_truncated_image(tmp_path, suffix, share):
    folder = write_sequence(tmp_path / "v_a", suffix=suffix)
    data = (folder / f"2{suffix}").read_bytes()
    (folder / f"2{suffix}").write_bytes(data[: int(len(data) * share)])
    assert f"v_a/2{suffix} is truncated or no image" in error(tmp_path, load=True)


def test_an_image_that_is_none(root):
    (root / "i_lamp" / "2.ppm").write_text("<html>404 Not Found</html>")
    assert "i_lamp/2.ppm is truncated or no image" in error(root, load=True)


def test_an_image_that_is_a_folder(root):
    (root / "i_lamp" / "2.ppm").unlink()
    (root / "i_lamp" / "2.ppm").mkdir()
    assert "i_lamp/2.ppm cannot be read" in error(root, load=True)


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


def test_export_of_a_sequence_on_disk(root, tmp_path):
    sequence = read(root)[1]
    sizes = [(33, 47)] * 6
    export_sequence(tmp_path / "out", sequence, [keypoints([(i, 3)], [1.0]) for i in range(6)], sizes)
    folder = tmp_path / "out" / "v_wall"
    assert set(os.listdir(folder)) == {f"{i}_det.npy" for i in range(1, 7)} | {f"H_1_{k}" for k in range(2, 7)}
    assert (folder / "H_1_4").read_bytes() == (root / "v_wall" / "H_1_4").read_bytes()
    for i in range(6):
        written = np.load(folder / f"{i + 1}_det.npy")
        assert (written.shape, written.dtype) == ((33, 47), np.float32)
        assert np.argwhere(written > 0).tolist() == [[3, i]]


def test_export_of_a_sequence_in_memory(tmp_path):
    H = torch.eye(3, dtype=torch.float64) + torch.rand(3, 3, dtype=torch.float64) / 3
    image = torch.zeros(1, 1, 8, 9)
    export_sequence(
        tmp_path, ImageSequence("v_m", "v", (lambda: image,) * 2, (H,)), [keypoints([], [])] * 2, [(8, 9)] * 2
    )
    assert np.loadtxt(tmp_path / "v_m" / "H_1_2").tolist() == H.tolist()


def test_a_full_disk_is_one_line_and_leaves_no_half_file(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(FileError, match=re.compile(r"1_det\.npy cannot be written: no space left", re.I)):
        export_sequence(tmp_path / "out", read(root)[0], [keypoints([], [])] * 3, [(33, 47)] * 3)
    assert list((tmp_path / "out" / "i_lamp").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(root, tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(FileError, match="cannot be written"):
        export_sequence(tmp_path / "out", read(root)[0], [keypoints([], [])] * 3, [(33, 47)] * 3)
