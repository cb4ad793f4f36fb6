"""Image files of other kinds than 8-bit gray: colour, bit depths, heights, opacity, orientation."""

import threading

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from kp.data.image_files import ImageError, read_image, read_pixels, scaled


def colours(seed=0, size=(12, 17)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_gray_is_the_weighted_sum_of_red_green_and_blue(tmp_path):
    rgb = colours()
    Image.fromarray(rgb).save(tmp_path / "a.png")
    expected = rgb.astype(float) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("suffix", [".ppm", ".bmp", ".tif", ".webp"])
def test_the_container_does_not_change_the_pixels(tmp_path, suffix):
    rgb = colours()
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(rgb).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    assert (read_image(tmp_path / "a.png") == read_image(tmp_path / f"a{suffix}")).all()


def test_a_jpeg_gives_the_pixels_that_pillow_decodes(tmp_path):
    smooth = cv2.GaussianBlur(colours(size=(48, 64)), (0, 0), 4)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    expected = np.asarray(Image.open(tmp_path / "a.jpg"), dtype=float) / 255
    assert np.abs(read_pixels(tmp_path / "a.jpg").values - expected).max() < 3 / 255  # decoders may round differently


def test_sixteen_bits_of_a_photograph_are_those_of_eight(tmp_path):
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "8.png"), gray)
    cv2.imwrite(str(tmp_path / "16.png"), gray.astype(np.uint16) * 257)
    np.testing.assert_allclose(read_image(tmp_path / "16.png"), read_image(tmp_path / "8.png"), atol=1e-6)


def test_twelve_bits_are_not_dark(tmp_path):
    values = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    with pytest.warns(UserWarning, match=r"a\.png has values up to 4095: 4095 is white"):
        np.testing.assert_allclose(read_image(tmp_path / "a.png")[0, 0], values / 4095, atol=1e-6)


def test_a_thermal_image_is_stretched(tmp_path):
    values = np.linspace(29000, 31000, 10000).round().astype(np.uint16).reshape(100, 100)
    values[0, 0] = 0  # a dead pixel
    cv2.imwrite(str(tmp_path / "a.png"), values)
    with pytest.warns(UserWarning, match="is black and .* white"):
        gray = read_image(tmp_path / "a.png")[0, 0]
    assert gray[0, 0] == 0
    np.testing.assert_allclose(gray[1:], (values[1:] - 29000.0) / 2000, atol=2e-3)


def test_a_map_of_heights_is_stretched_and_has_no_value_where_there_is_none(tmp_path):
    heights = np.linspace(300, 900, 2500, dtype=np.float32).reshape(50, 50)
    heights[3, 4], heights[5, 6] = np.nan, -9999
    cv2.imwrite(str(tmp_path / "a.tif"), heights)
    with pytest.warns(UserWarning, match="values from 300 to 900"):
        pixels = read_pixels(tmp_path / "a.tif")
    assert np.isfinite(pixels.values).all()
    assert {tuple(place) for place in np.argwhere(~pixels.valid).tolist()} == {(3, 4), (5, 6)}
    assert pixels.values[40, 0, 0] == pytest.approx((heights[40, 0] - 300) / 600, abs=2e-3)


def test_floating_point_values_of_gray_are_left_as_they_are(tmp_path, recwarn):
    gray = np.linspace(0, 0.5, 30, dtype=np.float32).reshape(5, 6)
    cv2.imwrite(str(tmp_path / "a.tif"), gray)
    assert (read_image(tmp_path / "a.tif")[0, 0].numpy() == gray).all()
    assert not recwarn.list


def test_transparent_pixels_are_not_valid(tmp_path):
    rgba = np.dstack([colours(), np.full((12, 17), 255, np.uint8)])
    rgba[:, :5, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = read_pixels(tmp_path / "a.png")
    assert (pixels.valid == (rgba[..., 3] > 0)).all()
    np.testing.assert_allclose(pixels.values, rgba[..., :3] / 255, atol=1e-6)
    assert read_pixels(tmp_path / "a.png").values.shape == (12, 17, 3)


def test_gray_with_opacity():
    image = np.dstack([np.full((4, 5), 51, np.uint8), np.eye(4, 5, dtype=np.uint8)])
    pixels = scaled(image, "image")
    assert pixels.values.shape == (4, 5, 1)
    assert (pixels.valid == np.eye(4, 5, dtype=bool)).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_told_and_applied_if_asked_for(tmp_path, orientation, suffix, recwarn):
    image = Image.fromarray(colours())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, lossless = tmp_path / f"a.{suffix}", {"lossless": True} if suffix == "webp" else {}
    image.save(path, exif=exif, **lossless)
    stored = read_pixels(path).values
    np.testing.assert_allclose(stored, np.asarray(image) / 255, atol=1e-6)
    turned = read_pixels(path, upright=True).values
    np.testing.assert_allclose(turned, np.asarray(ImageOps.exif_transpose(Image.open(path))) / 255, atol=1e-6)
    assert len(recwarn) == (0 if orientation == 1 else 2)


def test_an_image_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png is truncated or no image$"):
        read_pixels(tmp_path / "a.png")


def test_log_level_of_opencv_is_as_before_after_threads(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    log = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    before = log.getLogLevel()

    def read_often():
        for _ in range(50):
            with pytest.raises(ImageError):
                read_pixels(tmp_path / "a.png")

    threads = [threading.Thread(target=read_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.getLogLevel() == before != 0
