"""Reading the official layout, and every way in which it can be damaged."""

import codecs
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

from kp.data.hpatches import HPatchesError, read, read_homography, read_image

H_TEXT = "1.5  0.25 -12 \n-0.125 2  7.5  \n 1e-4 0   1 \n"  # double and trailing spaces, as in the release


def picture(size=(33, 47), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)


def write_sequence(folder, count=3, suffix=".ppm", text=H_TEXT, size=(33, 47)):
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        image = picture(size, seed=number)
        assert cv2.imwrite(str(folder / f"{number}{suffix}"), image[..., 0] if suffix == ".pgm" else image)
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


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg", ".jpeg", ".PNG", ".bmp", ".tif", ".tiff", ".webp"])
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


# --- other names and forms than the release's ---


def write_numbered(folder, images, homographies, text=H_TEXT):
    """Constant pictures of 5 x 6 pixels, the first with the value 10, the next 20, ..., and texts of these names."""
    folder.mkdir(parents=True)
    for i, name in enumerate(images, start=1):
        image = np.full((5, 6, 3), 10 * i, np.uint8)
        assert cv2.imwrite(str(folder / name), image[..., 0] if name.endswith(".pgm") else image)
    for name in homographies:
        (folder / name).write_text(text)
    return folder


def values(sequence):
    """The pixel value of each image of :func:`write_numbered`."""
    return [round(image()[0, 0, 2, 3].item() * 255) for image in sequence.images]


@pytest.mark.parametrize("suffix", ["", ".txt", ".TXT", ".csv"])
@pytest.mark.parametrize("name", ["H_1_{}", "H_01_0{}", "H1to{}p", "H1to{}", "h1to{}P"])
def test_names_of_homographies(tmp_path, name, suffix):
    files = [name.format(k) + suffix for k in (2, 3)]
    folder = write_numbered(tmp_path / "v_a", ["1.png", "2.png", "3.png"], files)
    (folder / files[1]).write_text("1 0 5  0 1 -6  0 0 1")
    (sequence,) = read(tmp_path)
    assert [f.name for f in sequence.files] == files
    assert sequence.homographies[0].tolist() == [[1.5, 0.25, -12], [-0.125, 2, 7.5], [1e-4, 0, 1]]
    assert sequence.homographies[1].tolist() == [[1, 0, 5], [0, 1, -6], [0, 0, 1]]


def test_a_homography_that_is_there_twice_is_read_from_the_name_of_the_release(tmp_path):
    folder = write_numbered(tmp_path / "v_a", ["1.png", "2.png"], ["H1to2p", "H_1_2.txt", "H1to2", "H_2_1", "H_1_1"])
    (folder / "H_1_2").write_text("1 0 5  0 1 -6  0 0 1")
    assert read(tmp_path)[0].homographies[0].tolist() == [[1, 0, 5], [0, 1, -6], [0, 0, 1]]
    (folder / "H_1_2").unlink()
    assert [f.name for f in read(tmp_path)[0].files] == ["H_1_2.txt"]


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg", ".jpeg", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".TIF"])
@pytest.mark.parametrize("name", ["{}", "0{}", "00{}", "img{}", "IMG_000{}", "image-{}"])
def test_names_of_images(tmp_path, name, suffix):
    write_numbered(tmp_path / "v_a", [name.format(k) + suffix for k in (1, 2)], ["H_1_2"])
    assert values(read(tmp_path)[0]) == [10, 20]


@pytest.mark.parametrize("first", [0, 1])
def test_images_are_in_the_order_of_their_numbers_not_of_their_names(tmp_path, first):
    """Eleven images of mixed names. The homography to the one with index k moves by k pixels."""
    names = [f"img{first + k}.png" if k % 2 else f"{first + k:02}.pgm" for k in range(11)]
    folder = write_numbered(tmp_path / "v_a", names, [])
    for k in range(1, 11):
        (folder / f"H_{first}_{first + k}").write_text(f"1 0 {k} 0 1 0 0 0 1")
    (sequence,) = read(tmp_path)
    assert values(sequence) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]
    assert [H[0, 2].item() for H in sequence.homographies] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert sequence.homography(4, (5, 6)).tolist() == [[[1, 0, 3], [0, 1, 0], [0, 0, 1]]]


FORMS = {
    "commas": "1.5, 0.25, -12\n-0.125, 2, 7.5\n1e-4, 0, 1\n",
    "commas without blanks": "1.5,0.25,-12\n-0.125,2,7.5\n1e-4,0,1",
    "commas at the ends": "1.5, 0.25, -12,\n-0.125, 2, 7.5,\n1e-4, 0, 1,\n",
    "semicolons": "1.5;0.25;-12;-0.125;2;7.5;1e-4;0;1",
    "decimal commas": "1,5 0,25 -12\n-0,125 2 7,5\n1e-4 0 1",
    "one line": "1.5 0.25 -12 -0.125 2 7.5 1e-4 0 1",
    "one column": "1.5\n0.25\n-12\n-0.125\n2\n7.5\n1e-4\n0\n1",
    "tabs": "1.5\t0.25\t-12\n-0.125\t2\t7.5\n1e-4\t0\t1",
    "MATLAB": "H = [1.5 0.25 -12; -0.125 2 7.5; 1e-4 0 1];",
    "MATLAB with commas": "% made by hand\n[1.5, 0.25, -12; -0.125, 2, 7.5; 1e-4, 0, 1]",
    "numpy": "[[ 1.5e+00  2.5e-01 -1.2e+01]\n [-1.25e-01  2.e+00  7.5e+00]\n [ 1.e-04  0.e+00  1.e+00]]",
    "repr of numpy": "array([[1.5, 0.25, -12.],\n       [-0.125, 2., 7.5],\n       [1e-4, 0., 1.]])",
    "numpy.savetxt": "# header 3 3\n1.5e+00 2.5e-01 -1.2e+01\n-1.25e-01 2e+00 7.5e+00\n1e-04 0e+00 1e+00\n",
    "JSON": "[[1.5,0.25,-12],[-0.125,2,7.5],[1e-4,0,1]]",
}
ENCODINGS = {  # the byte order mark, and the encoding after it
    "UTF-8": (b"", "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16 LE": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16 BE": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-32 LE": (codecs.BOM_UTF32_LE, "utf-32-le"),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_homographies(tmp_path, form, encoding, line_end):
    mark, codec = ENCODINGS[encoding]
    (tmp_path / "H_1_2").write_bytes(mark + FORMS[form].replace("\n", line_end).encode(codec))
    assert read_homography(tmp_path / "H_1_2").tolist() == [[1.5, 0.25, -12], [-0.125, 2, 7.5], [1e-4, 0, 1]]


@pytest.mark.parametrize(
    "text", ["1 0 0 0 1 0 0 0 1", "1\r\n0 0 0\t1 0 0 0e5 +1.0\n", "[1 0 0; 0 1 0; 0 0 1]", "\ufeff1 0 0 0 1 0 0 0 1"]
)
def test_only_files_of_plain_numbers_are_kept_for_the_export(tmp_path, text):
    folder = write_numbered(tmp_path / "v_a", ["1.png", "2.png", "3.png"], ["H_1_2", "H_1_3"])
    (folder / "H_1_3").write_text(text, encoding="utf-8")
    (sequence,) = read(tmp_path)
    assert sequence.homographies[1].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert [f.name for f in sequence.files] == ([] if text[0] in "[\ufeff" else ["H_1_2", "H_1_3"])


def test_many_letters_and_blanks_are_refused_and_do_not_hang(tmp_path):
    (tmp_path / "H_1_2").write_text("x" * 99_999 + " " * 99_999 + "y")
    with pytest.raises(HPatchesError, match="cannot be read as 3x3 numbers"):
        read_homography(tmp_path / "H_1_2")


# --- folders of other names ---


@pytest.mark.parametrize(
    ("name", "texts", "split"),
    [
        ("graf", ["1 0 0 0 1 0 0 0 1"], "i"),
        ("graf", ["1 0 0.9 0 1 0 0 0 1"], "i"),  # all corners move by 0.9 px
        ("graf", ["1 0 0.9 0 1 0.9 0 0 1"], "v"),  # by 1.27 px
        ("graf", ["-3 0 0 0 -3 0 0 0 -3"], "i"),  # identity, times -3
        ("graf", ["1.0005 0 0 0 1.0005 0 0 0 1"], "i"),  # the corner (999, 999) moves by 0.71 px
        ("graf", ["1.0008 0 0 0 1.0008 0 0 0 1"], "v"),  # by 1.13 px
        ("graf", ["1 0 0 0 1 0 5e-7 0 1"], "i"),  # by 0.71 px
        ("graf", ["1 0 0 0 1 0 1e-6 0 1"], "v"),  # by 1.41 px
        ("graf", ["1 0 0 0 1 0 -0.0011 0 1"], "v"),  # w < 0 at x = 999
        ("graf", ["1 0 0 0 1 0 1 0 -499.5"], "v"),  # w = 0 in the middle
        ("graf", ["1 0 0 0 1 0 0 0 1", "1 0 2 0 1 0 0 0 1"], "v"),  # one of two
        ("i_graf", ["1 0 9 0 1 0 0 0 1"], "i"),
        ("v_graf", ["1 0 0 0 1 0 0 0 1"], "v"),
        ("i_", ["1 0 9 0 1 0 0 0 1"], "v"),
        ("video", ["1 0 0 0 1 0 0 0 1"], "i"),
    ],
)
def test_the_split_is_told_by_the_name_or_by_the_homographies(tmp_path, name, texts, split):
    folder = write_numbered(tmp_path / "root" / name, [f"img{k}.png" for k in range(1, len(texts) + 2)], [])
    for k, text in enumerate(texts, start=2):
        (folder / f"H1to{k}p").write_text(text)
    for root in (tmp_path / "root", folder):
        assert [(s.name, s.split) for s in read(root)] == [(name, split)]
        assert [s.name for s in read(root, split)] == [name]
        assert f"has no {'v' if split == 'i' else 'i'}_* sequence" in error(root, "v" if split == "i" else "i")


def test_the_folder_where_one_stands_has_a_name(tmp_path, monkeypatch):
    folder = write_numbered(tmp_path / "graf", ["1.png", "2.png"], ["H_1_2"])
    (folder / "sub").mkdir()
    for where, path in ((folder, "."), (folder / "sub", "..")):
        monkeypatch.chdir(where)
        assert [s.name for s in read(path)] == ["graf"]


def test_folders_that_are_no_sequences_are_ignored(root):
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "1.png").write_bytes(b"")
    (root / "notes").mkdir()
    (root / "notes" / "1.txt").write_text("first")
    (root / "notes" / "plan.png").write_bytes(b"")
    (root / "notes" / "20240131120000.jpg").write_bytes(b"")  # a time, not a number of an image
    (root / "1.png").write_bytes(b"")  # beside the sequences
    assert [s.name for s in read(root)] == ["i_lamp", "v_wall"]


def test_a_release_beside_a_folder_of_pictures_is_found(tmp_path):
    write_sequence(tmp_path / "hpatches-sequences-release" / "v_a")
    write_numbered(tmp_path / "album", ["1.png", "2.png"], [])
    assert [s.name for s in read(tmp_path)] == ["v_a"]


# --- what is missing or damaged ---


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


@pytest.mark.parametrize(
    ("images", "homographies", "complaint"),
    [
        ("1.png 2.png 3.png", "", "a has images 1, 2, 3 but no homography H_1_k: add a text of 9 numbers"),
        ("0.png 1.png", "", "a has images 0, 1 but no homography H_0_k: add a text of 9 numbers"),
        ("1.png 2.png", "H_2_1", "a has images 1, 2 but no homography H_1_k, only H_2_1: add"),
        ("0.png 1.png 2.png", "H_1_2 H1to3p", "a has images 0, 1, 2 but no homography H_0_k, only H_1_2, H1to3p: add"),
        ("1.png 2.png 3.png", "H_1_2 H_1_4", "lacks image 4, H_1_3: it has images 1, 2, 3 and H_1_k for k = 2, 4; "),
        ("1.png 2.png 3.png", "H_0_1 H_0_2", "lacks image 0, H_0_3: it has images 1, 2, 3 and H_0_k for k = 1, 2; "),
        ("1.png 2.png 4.png", "H_1_2 H_1_4", "lacks image 3, H_1_3: it has images 1, 2, 4 and H_1_k for k = 2, 4; "),
        ("", "H_1_2", "a lacks image 1, image 2: it has no images 1.ppm, 2.ppm, ... and H_1_k for k = 2; "),
        ("1.png 2.png 900000000.png", "H_1_2", "a lacks image 3, H_1_3, H_1_900000000: "),
        ("1.png 2.png 3.heic", "H_1_2 H_1_3", "a/3.heic is an unsupported image type .heic: convert it to .png"),
        ("1.png 2.png 3.GIF", "H_1_2 H_1_3", "a/3.GIF is an unsupported image type .GIF: convert it to .png"),
    ],
)
@pytest.mark.parametrize("name", ["v_a", "a"])
def test_a_message_names_the_cause(tmp_path, name, images, homographies, complaint):
    folder = write_numbered(tmp_path / name, [], homographies.split())
    for image in images.split():
        (folder / image).write_bytes(b"")
    assert complaint in error(tmp_path)
    assert complaint in error(folder)


def test_a_long_list_is_cut(tmp_path):
    write_numbered(tmp_path / "a", [f"{k}.png" for k in range(1, 21)], [])
    assert "has images 1, 2, 3, 4, 5, 6, 7, 8, ... but no" in error(tmp_path)


def test_a_type_that_cannot_be_read_does_not_matter_if_another_is_there(tmp_path):
    folder = write_numbered(tmp_path / "v_a", ["1.png", "2.webp"], ["H_1_2"])
    (folder / "2.heic").write_bytes(b"")
    assert values(read(tmp_path)[0]) == [10, 20]


def test_one_image_only(tmp_path):
    write_sequence(tmp_path / "v_a", count=1)
    assert "v_a has only one image" in error(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 0 0 0 1 0 0 0", "has 8 numbers, not 3x3: 9 are needed"),
        ("[1 0 0; 0 1 0; 0 0]", "has 8 numbers, not 3x3: 9 are needed"),
        ("1,5 0,5 3  0,5 1,5 2  0 0", "has 12 numbers, not 3x3"),  # decimal commas, and a number is missing
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


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg", ".pgm", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.97])
def test_a_truncated_image(tmp_path, suffix, share):
    folder = write_sequence(tmp_path / "v_a", suffix=suffix)
    data = (folder / f"2{suffix}").read_bytes()
    (folder / f"2{suffix}").write_bytes(data[: int(len(data) * share)])
    assert f"v_a/2{suffix} is truncated or no image" in error(tmp_path, load=True)


def tiff(order, big):
    """A TIFF of 4 x 3 gray pixels 0, 20, ..., 220 in strips of two rows and one: header, directory, offsets, pixels.

    The offsets of two strips have their own place in a TIFF. In a BigTIFF they fit into the directory.
    """
    offset, count, width, magic = ("Q", "Q", 8, (43, 8, 0)) if big else ("I", "H", 4, (42,))
    start = 16 if big else 8  # of the directory
    end = start + struct.calcsize("=" + count) + 10 * (4 + 2 * width) + width
    first_strip = end if big else end + 8
    fields = {256: (4,), 257: (3,), 258: (8,), 259: (1,), 262: (1,), 273: (first_strip, first_strip + 8)}
    fields |= {277: (1,), 278: (2,), 279: (8, 4), 284: (1,)}
    data = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}{len(magic)}H{offset}", *magic, start)
    data += struct.pack(order + count, len(fields))
    for tag, values in fields.items():
        packed = struct.pack(f"{order}{len(values)}{'I' if tag == 273 else 'H'}", *values)
        packed = packed.ljust(width, b"\0") if len(packed) <= width else struct.pack(order + offset, end)
        data += struct.pack(f"{order}HH{offset}", tag, 4 if tag == 273 else 3, len(values)) + packed
    data += struct.pack(order + offset, 0)  # there is no second image
    data += b"" if big else struct.pack(order + "II", *fields[273])
    return data + bytes(range(0, 240, 20))


TIFFS = {"little-endian": ("<", False), "big-endian": (">", False), "BigTIFF": ("<", True), "big BigTIFF": (">", True)}


@pytest.mark.parametrize("kind", TIFFS)
def test_a_tiff_is_read_whole_or_not_at_all(tmp_path, kind):
    path, data = tmp_path / "2.tif", tiff(*TIFFS[kind])
    path.write_bytes(data)
    pixels = (read_image(path)[0, 0] * 255).round().int().tolist()
    assert pixels == [[0, 20, 40, 60], [80, 100, 120, 140], [160, 180, 200, 220]]
    check_every_cut_is_refused(path, data)


def check_every_cut_is_refused(path, data):
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(HPatchesError, match=r"2\.\w+ is (truncated or no image|a TIFF that is damaged)"):
            read_image(path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".bmp", []),
        (".tif", []),
        (".tif", [cv2.IMWRITE_TIFF_COMPRESSION, 1]),  # none
        (".tif", [cv2.IMWRITE_TIFF_COMPRESSION, 8]),  # deflate
        (".webp", []),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 70]),
        (".pgm", []),
    ],
    ids=["bmp", "tif", "tif, raw", "tif, deflate", "webp", "webp, lossy", "pgm"],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_no_cut_of_an_image_gives_a_picture(tmp_path, suffix, options, channels):
    if suffix == ".pgm" and channels > 1:
        pytest.skip("a PGM is gray")
    image = picture((9, 11), channels)
    assert cv2.imwrite(str(tmp_path / f"2{suffix}"), image, options)
    assert read_image(tmp_path / f"2{suffix}").shape == (1, 1, 9, 11)
    check_every_cut_is_refused(tmp_path / f"2{suffix}", (tmp_path / f"2{suffix}").read_bytes())


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_pgm_of_text_has_all_its_numbers(tmp_path, end):
    text = "P2 # a comment\n3 2\n255\n0 51 102\n# 7\n153 204"
    (tmp_path / "2.pgm").write_text(f"{text} 255{end}")
    assert (read_image(tmp_path / "2.pgm")[0, 0] * 5).round().tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "2.pgm").write_text(f"{text}{end}")
    with pytest.raises(HPatchesError, match=r"2\.pgm is truncated or no image"):
        read_image(tmp_path / "2.pgm")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_become_8(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"2{suffix}"), np.array([[0, 257, 25700, 65535]], np.uint16))
    assert (read_image(tmp_path / f"2{suffix}")[0, 0] * 255).round().int().tolist() == [[0, 1, 100, 255]]


def test_a_photograph_of_a_phone_with_a_false_suffix(tmp_path):
    (tmp_path / "2.jpg").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(99))
    with pytest.raises(HPatchesError, match=r"2\.jpg is an unsupported image type, heic: convert it to \.png"):
        read_image(tmp_path / "2.jpg")


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
