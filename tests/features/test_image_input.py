"""What is taken for an image: one picture is the same gray in any container and type. What is unclear is an error."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import kp
from kp.cli.main import main
from kp.data.image_files import ImageError
from kp.features import images
from kp.features.images import near_invalid, to_grey_image, to_mask

RGB = np.random.default_rng(0).integers(0, 256, (14, 19, 3), dtype=np.uint8)
GREY = RGB.astype(float) @ [0.299, 0.587, 0.114] / 255
SAME = {
    "array of 8 bits": RGB,
    "array of larger integers": RGB.astype(np.int64),
    "array of 16 bits": RGB.astype(np.uint16) * 257,
    "array in [0, 1]": RGB / 255,
    "array of whole numbers": RGB.astype(np.float32),
    "half precision": torch.from_numpy(RGB / 255).half(),
    "channels first": np.moveaxis(RGB, 2, 0),
    "tensor": torch.from_numpy(RGB / 255).permute(2, 0, 1),
    "tensor of 8 bits": torch.from_numpy(RGB).permute(2, 0, 1),
    "tensor, channels last": torch.from_numpy(RGB / 255),
    "tensor of one image": torch.from_numpy(RGB / 255).permute(2, 0, 1)[None],
    "opaque": np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)]),
    "PIL": Image.fromarray(RGB),
    "gray": GREY,
    "gray with a channel": GREY[..., None],
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_picture_is_the_same_gray(name):
    grey, valid = to_grey_image(SAME[name])
    assert grey.shape == (1, 1, 14, 19)
    assert grey.dtype == torch.float32
    assert valid is None
    np.testing.assert_allclose(grey[0, 0], GREY, atol=1e-3 if name == "half precision" else 1e-5)


@pytest.mark.parametrize("suffix", ["png", "ppm", "bmp", "tif"])
def test_files_are_read_by_path(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    for path in (tmp_path / f"a.{suffix}", str(tmp_path / f"a.{suffix}")):
        np.testing.assert_allclose(to_grey_image(path).grey[0, 0], GREY, atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "F", "I"])
def test_modes_of_pil(mode):
    picture = Image.fromarray((np.indices((9, 12)).sum(0) * 12).astype(np.uint8))
    if mode in ("F", "I"):
        picture = Image.fromarray(np.asarray(picture).astype(np.float32 if mode == "F" else np.int32))
    elif mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    expected = np.asarray(picture.convert("L"), float) / 255 if mode not in ("I;16",) else np.asarray(picture) / 65535
    np.testing.assert_allclose(to_grey_image(picture).grey[0, 0], expected, atol=3 / 255)


def test_overshoot_of_resizing_is_clipped():
    assert to_grey_image(np.array([[-0.02, 1.03], [0.5, 0.25]])).grey.flatten().tolist() == [0, 1, 0.5, 0.25]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GREY * 254.7, "divide by 255"),
        (torch.from_numpy(GREY * 254.7), "divide by 255"),
        ((GREY - 0.45) / 0.22, "before a mean was subtracted"),
        (GREY * 3000 + 0.5, "divide by the value of white"),
        (np.zeros((0, 5), np.uint8), "empty"),
        (torch.zeros(3, 0, 7), "empty"),
        (np.zeros(5), "shape"),
        (np.zeros((5, 6, 7, 3)), "shape"),
        (torch.zeros(2, 3, 8, 8), "2 images in one tensor"),
        (torch.zeros(7, 9, 11), "shape"),
        (np.array([["a", "b"]]), "no image"),
        ("there is no such file.png", "cannot be read"),
        (3.5, "a float is no image"),
        (None, "a NoneType is no image"),
    ],
)
def test_what_is_ambiguous_or_no_image_is_refused_in_one_line(image, message):
    with pytest.raises(ImageError, match=message) as caught:
        to_grey_image(image)
    assert "\n" not in str(caught.value)


def test_pixels_without_a_value_take_that_of_the_nearest():
    image = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (15, 1))
    holed = image.copy()
    holed[4:7, 10] = np.nan
    grey, valid = to_grey_image(holed)
    assert (~valid[0, 0].numpy() == np.isnan(holed)).all()
    assert grey.isfinite().all()
    assert np.abs(grey[0, 0].numpy() - image).max() <= 1 / 19 + 1e-6
    assert (grey[0, 0].numpy() == image)[~np.isnan(holed)].all()


def test_transparent_pixels_do_not_show():
    rgba = np.dstack([np.zeros((12, 16, 3), np.uint8), np.full((12, 16), 255, np.uint8)])
    rgba[:, 8:] = [255, 255, 255, 0]
    for image in (rgba, rgba / 255, torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba)):
        grey, valid = to_grey_image(image)
        assert (grey == 0).all()
        assert valid[0, 0].sum(1).tolist() == [8] * 12


def test_what_was_read_is_an_image(tmp_path):
    """So a file is decoded once, whoever looks at it."""
    holed = np.random.default_rng(0).random((60, 80)).astype(np.float32)
    holed[:, :30] = np.nan
    found = to_grey_image(holed)
    assert to_grey_image(found) is found
    extractor = kp.Extractor("described", detection_threshold=0)
    wanted = extractor.extract(holed)
    assert wanted["keypoints"][..., 0].min() > 30, "there is nothing on the left"
    for name, values in extractor.extract(found).items():
        assert torch.equal(values, wanted[name]), name
    assert torch.equal(
        extractor.describe(found, wanted)["descriptors"], extractor.describe(holed, wanted)["descriptors"]
    )


def test_a_pair_of_files_is_read_once(tmp_path, monkeypatch):
    read, read_pixels = [], images.read_pixels
    monkeypatch.setattr(images, "read_pixels", lambda path, **more: read.append(path.name) or read_pixels(path, **more))
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        cv2.imwrite(name, data.camera()[:200, :240])
    for descriptor in (None, "rootsift"):
        assert kp.match_pair("a.png", "b.png", descriptor=descriptor)["verified_H"]
        assert read == ["a.png", "b.png"]
        read.clear()
    for pairs in ("a.png b.png", "a.png b.png\nb.png a.png"):
        Path("pairs.txt").write_text(pairs)
        assert main(["match", "--pairs", "pairs.txt"]) == 0
        assert read == ["a.png", "b.png"]
        read.clear()


def test_nothing_has_a_value():
    grey, valid = to_grey_image(np.full((5, 6), np.nan))
    assert (grey == 0).all()
    assert not valid.any()


@pytest.mark.parametrize("kind", ["bool", "2", "128", "254", "255", "float", "float 255", "HWC", "CHW", "1HW", "file"])
def test_masks_of_every_kind(tmp_path, kind):
    wanted = np.indices((14, 19)).sum(0) % 3 == 0
    mask = {
        "bool": wanted,
        "float": wanted.astype(np.float32),
        "float 255": wanted * 255.0,
        "HWC": np.repeat(wanted[..., None] * np.uint8(255), 3, 2),
        "CHW": torch.from_numpy(wanted)[None].repeat(3, 1, 1),
        "1HW": torch.from_numpy(wanted)[None],
    }.get(kind)
    if kind.isdigit():
        mask = wanted.astype(np.uint8) * int(kind)
    if kind == "file":
        Image.fromarray(wanted.astype(np.uint8)).save(tmp_path / "mask.png")
        mask = tmp_path / "mask.png"
    assert (to_mask(mask, (14, 19))[0, 0].numpy() == wanted).all()


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ImageError, match=r"the mask has 9 x 8 pixels \(H x W\), its image 8 x 9"):
        to_mask(np.ones((9, 8)), (8, 9))
    with pytest.raises(ImageError, match="NaN"):
        to_mask(np.full((8, 9), np.nan), (8, 9))


def test_pixels_near_an_invalid_one():
    valid = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    valid[..., 4, 4] = False
    assert near_invalid(valid, 2)[0, 0].nonzero().aminmax(dim=0).min.tolist() == [2, 2]
    assert near_invalid(valid, 2).sum() == 25
