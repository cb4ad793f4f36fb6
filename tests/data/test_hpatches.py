"""Reading the official layout, and every way in which it can be damaged."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

from kp.data.hpatches import HPatchesError, read, read_image

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


def huge_png():
    """A small file with correct checksums. Its header says 10,000 megapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(99))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P6",
        b"P6\n53 4",
        b"P6\n53 41\n255",
        b"P6\n53 41\n255\n",
        b"P6\n53 41\n255\n" + bytes(53 * 41 * 3 - 1),
        b"P6\n0 0\n255\n",
        b"P6\n-5 -5\n255\n" + bytes(75),
        b"this is a note, not an image\n",
        b"P6\n100000 100000\n255\n" + bytes(99),
        b"P3\n100000 100000\n255\n1 2 3",
        b"P4\n100000 100000\n" + bytes(99),
        b"P6\n" + b"9" * 5000 + b" 41\n255\n",
        huge_png(),
    ],
    ids=[
        "empty",
        "magic number only",
        "header cut in a number",
        "header cut at its end",
        "header only",
        "a byte short",
        "no pixels",
        "negative size",
        "text",
        "huge",
        "huge, as text",
        "huge, of bits",
        "5000 digits",
        "huge PNG",
    ],
)
def test_data_that_are_no_image(tmp_path, data):
    (tmp_path / "2.ppm").write_bytes(data)
    with pytest.raises(HPatchesError, match=r"2\.ppm is truncated or no image"):
        read_image(tmp_path / "2.ppm")


def test_an_image_that_is_a_folder(root):
    (root / "i_lamp" / "2.ppm").unlink()
    (root / "i_lamp" / "2.ppm").mkdir()
    assert "i_lamp/2.ppm cannot be read" in error(root, load=True)


def test_a_header_of_blanks_is_refused_and_does_not_hang(tmp_path):
    """A regular expression that tries all ways to split 60 blanks does not end; with 25 blanks it takes a second."""
    (tmp_path / "3.ppm").write_bytes(b"P6" + b" " * 60 + b"x")
    with pytest.raises(HPatchesError, match=r"3\.ppm is truncated or no image"):
        read_image(tmp_path / "3.ppm")
