"""Photometry: every effect, alone, does what its unit says, and none moves an image."""

import cv2
import numpy as np
import pytest
import torch

from kp.data.photometric import change_photometry, jpeg_blocks

OFF = {
    "exposure": 0,
    "gamma": 1,
    "contrast": 1,
    "colour_cast": 1,
    "illumination": 0,
    "shadow": 0,
    "specular": 0,
    "noise": 0,
    "jpeg": 100,
    "defocus": 0,
    "motion": 0,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def alone(images, strength=1.0, **ranges):
    """The change of these ranges, all others off."""
    return change_photometry(images, generator(), strength, **{**OFF, **ranges})


def flat(grey, batch=200, channels=1, size=(16, 16)):
    return torch.full((batch, channels, *size), grey)


def light(grey):
    """Of grey encoded with a power of 2.2."""
    return grey.double() ** 2.2


def share_changed(before, after):
    return ((before - after).abs().amax((1, 2, 3)) > 1e-6).float().mean().item()


def picture(size):
    """Something like a photograph, 8 bits: smooth light, edges and a grain."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.uniform(60, 200, (4, 5)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = tuple(int(rng.integers(0, n)) for n in size[::-1])
        cv2.circle(image, centre, int(rng.integers(3, 20)), float(rng.uniform(0, 255)), -1, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 4, size), 0, 255).round().astype(np.uint8)


def opencv_jpeg(image, quality):
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def as_tensor(image):
    return torch.from_numpy(image.astype(np.float32) / 255)[None, None]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_the_range_and_the_shape_stay(channels, strength):
    changed = change_photometry(torch.rand(40, channels, 41, 37), generator(), strength)
    assert changed.shape == (40, channels, 41, 37)
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_dtype_follows_the_images(dtype):
    images = torch.rand(6, 1, 24, 24, dtype=dtype)
    changed = change_photometry(images, generator())
    assert changed.dtype == dtype
    assert (changed.float() - change_photometry(images.float(), generator())).abs().max() < 1e-3


def test_no_strength_and_no_range_change_nothing():
    images = torch.rand(8, 3, 32, 32)
    assert torch.equal(change_photometry(images, generator(), 0.0), images)
    assert torch.allclose(alone(images), images, atol=1e-6)


def test_the_same_seed_gives_the_same_and_the_images_stay_as_they_were():
    images = torch.rand(8, 1, 32, 32)
    before = images.clone()
    changed = change_photometry(images, generator())
    assert torch.equal(images, before)
    assert torch.equal(changed, change_photometry(images, generator()))
    assert not torch.allclose(changed, change_photometry(images, generator(1)), atol=1e-2)


def test_each_image_changes_on_its_own():
    changed = change_photometry(torch.rand(1, 1, 32, 32).expand(8, 1, 32, 32), generator())
    distance = (changed[:, None] - changed).abs().mean((2, 3, 4)) + torch.eye(8)
    assert distance.min() > 1e-3


def test_a_strength_for_each_image():
    images = torch.rand(12, 1, 40, 40) * 1.2 - 0.1  # some of it out of range, which nothing must clip at strength 0
    strength = torch.ones(12)
    full = change_photometry(images, generator(), strength)
    assert torch.allclose(full, change_photometry(images, generator(), 1.0), atol=0.02)  # the blur's kernel is larger
    strength[::2] = 0
    changed = change_photometry(images, generator(), strength)
    assert torch.equal(changed[::2], images[::2])
    assert share_changed(images[1::2], changed[1::2]) == 1
    assert torch.equal(*(change_photometry(images, generator(), torch.full((12,), s)) for s in (2.0, 5.0)))


@pytest.mark.parametrize("as_tensor_of", [None, 200])
def test_strength_scales_a_range(as_tensor_of):
    strength = 0.5 if as_tensor_of is None else torch.full((as_tensor_of,), 0.5)
    stops = torch.log2(light(alone(flat(0.3), strength, exposure=1.0)) / light(flat(0.3)))
    assert 0.4 < stops.abs().max() < 0.5 + 1e-4
    bends = alone(flat(0.5), strength, gamma=1.44).log() / np.log(0.5)
    assert 1.15 < bends.max() < 1.2 + 1e-4


def test_exposure_is_stops_of_light_and_clips():
    grey = flat(0.3)
    changed = alone(grey, exposure=1.0)
    stops = torch.log2(light(changed) / light(grey))
    assert stops.min() > -1 - 1e-4
    assert stops.max() < 1 + 1e-4
    assert stops.min() < -0.9
    assert stops.max() > 0.9
    assert stops.amax((1, 2, 3)).sub(stops.amin((1, 2, 3))).max() < 1e-4, "one exposure for all of an image"
    bright = alone(flat(0.9), exposure=1.0)
    assert 0.3 < (bright == 1).float().mean() < 0.5, "a third of a stop saturates"


def test_gamma_is_a_power_and_keeps_black_and_white():
    power = alone(flat(0.5), gamma=1.6).log() / np.log(0.5)
    assert 1.5 < power.max() < 1.6 + 1e-4
    assert 1 / 1.6 - 1e-4 < power.min() < 1 / 1.5
    assert 0.4 < (power[:, 0, 0, 0] > 1).float().mean() < 0.6, "as often up as down"
    ends = torch.tensor([0.0, 1.0]).expand(20, 1, 8, 2)
    assert torch.equal(alone(ends, gamma=3), ends)


def test_contrast_is_a_factor_about_the_mean():
    image = 0.4 + 0.2 * torch.rand(1, 1, 16, 16)
    changed = alone(image.expand(200, -1, -1, -1), contrast=1.6)
    assert torch.allclose(changed.mean((1, 2, 3)), image.mean(), atol=1e-5)
    factor = changed.flatten(1).std(1) / image.std()
    assert 1.5 < factor.max() < 1.6 + 1e-4
    assert 1 / 1.6 - 1e-4 < factor.min() < 1 / 1.5
    assert torch.allclose(changed - image.mean(), (image - image.mean()) * factor.view(-1, 1, 1, 1), atol=1e-5)


def test_the_sensor_clips_before_the_camera_responds():
    image = torch.tensor([0.1, 0.3, 0.7, 1.0]).expand(200, 1, 2, 4)
    exposed = alone(image, exposure=2.0)  # the draws of one effect do not depend on the range of another
    factor = alone(image, contrast=1.6)[:, 0, 0, 1:3].diff() / 0.4
    mild = alone(image, contrast=1.6).amax((1, 2, 3)) < 1  # else it clips, too
    mean = exposed.mean((1, 2, 3), keepdim=True)
    expected = (mean + (exposed - mean) * factor[..., None, None]).clamp(0, 1)
    assert 50 < mild.sum() < 150
    assert torch.allclose(alone(image, exposure=2.0, contrast=1.6)[mild], expected[mild], atol=1e-5)


def test_a_colour_cast_is_a_factor_of_light_for_each_channel():
    factor = (light(alone(flat(0.3, channels=3), colour_cast=1.5)) / light(flat(0.3, channels=3)))[..., 0, 0]
    assert 1.4 < factor.max() < 1.5 + 1e-4
    assert 1 / 1.5 - 1e-4 < factor.min() < 1 / 1.4
    assert factor.log().std(1).min() > 1e-3, "the channels of an image differ"
    assert torch.equal(alone(flat(0.3), colour_cast=1.5), flat(0.3)), "grey has no colour"


def test_illumination_falls_off_smoothly():
    before = flat(0.3, size=(48, 64))
    stops = torch.log2(light(alone(before, illumination=1.5)) / light(before))
    assert 1.2 < stops.abs().max() < 1.5 + 1e-4
    assert (stops.amax((1, 2, 3)) - stops.amin((1, 2, 3))).median() > 0.3, "uneven within an image"
    assert max(stops.diff(dim=2).abs().max(), stops.diff(dim=3).abs().max()) < 0.25


def test_a_shadow_takes_at_most_its_share_of_light():
    before = flat(0.5, size=(48, 64))
    changed = alone(before, shadow=0.8)
    left = light(changed) / light(before)
    assert left.max() < 1 + 1e-5
    assert 0.2 - 1e-5 < left.min() < 0.3
    assert 0.35 < share_changed(before, changed) < 0.65
    depth = 1 - left.amin((1, 2, 3))
    steepest = (left.diff(dim=3).abs().amax((1, 2, 3)) / depth)[depth > 0.1]
    assert steepest.max() > 0.4, "some edges are sharp"
    assert steepest.min() < 0.1, "some are soft"


def test_glare_only_adds_and_at_most_so_much():
    before = flat(0.1, size=(48, 64))
    added = alone(before, specular=0.6) - before
    assert added.min() > -1e-6
    assert 0.45 < added.max() < 0.6 + 1e-5
    assert 0.2 < share_changed(before, before + added) < 0.47
    covered = (added > 0.1).float().mean((1, 2, 3))[added.amax((1, 2, 3)) > 0.2]
    assert covered.max() > 0.1, "some spots are large"
    assert covered.min() < 0.03, "some are small"
    assert (alone(flat(0.9, size=(48, 64)), specular=0.6) == 1).any(), "it clips"


def test_noise_is_at_most_its_deviation_and_less_where_it_is_bright():
    before = torch.cat([flat(0.25, size=(64, 64)), flat(0.75, size=(64, 64))], dim=3)
    changed = alone(before, noise=0.04)
    noise = (changed - before).view(-1, 64, 2, 64).transpose(1, 2).flatten(2)  # (B, dark or bright, pixels)
    dark, bright = noise.std(2).unbind(1)
    assert 0.35 < share_changed(before, changed) < 0.65
    assert 0.03 < dark.max() < 0.04 * 1.05
    seen = dark > 0.002
    ratio = bright[seen] / dark[seen]  # linear from 1 in black to a half in white
    assert (ratio - 0.625 / 0.875).abs().max() < 0.06
    assert (noise.mean(2).abs() < 5 * noise.std(2) / 64 + 1e-6).all(), "no image gets brighter"
    neighbours = (noise[..., :-1] * noise[..., 1:]).mean(2) / noise.var(2).clamp(min=1e-12)
    assert neighbours.abs().max() < 0.1, "every pixel has its own"


def test_defocus_spreads_a_step_as_far_as_its_deviation():
    step = torch.zeros(200, 1, 32, 32)
    step[..., 16:] = 1
    slope = alone(step, defocus=1.5).diff(dim=3).amax((1, 2, 3))
    steepest = 1 / (1.5 * np.sqrt(2 * np.pi))  # of the integral of a Gaussian
    assert steepest - 0.01 < slope.min() < steepest + 0.05
    assert 0.3 < (slope < 0.999).float().mean() < 0.65
    assert torch.allclose(alone(step, defocus=1.5), alone(step.mT, defocus=1.5).mT, atol=1e-5), "alike in x and y"


def point(batch=400, size=41):
    image = torch.zeros(batch, 1, size, size)
    image[:, :, size // 2, size // 2] = 1
    return image


def moments(images):
    """Mean (B, 2) and covariance (B, 2, 2), in pixels, of the light in images (B, 1, H, W), from the middle pixel."""
    h, w = images.shape[-2:]
    y, x = np.mgrid[:h, :w].reshape(2, -1).astype(np.float64)
    xy = np.stack([x - w // 2, y - h // 2], axis=1)
    weight = images.flatten(1).numpy().astype(np.float64)
    weight /= weight.sum(1, keepdims=True)
    mean = weight @ xy
    return mean, np.einsum("bn,ni,nj->bij", weight, xy, xy) - mean[:, :, None] * mean[:, None]


def test_motion_spreads_a_point_over_a_straight_path():
    before = point()
    changed = alone(before, motion=9.0)
    assert 0.15 < share_changed(before, changed) < 0.35
    assert torch.allclose(changed.sum((1, 2, 3)), torch.ones(400), atol=1e-5)
    short, long = np.linalg.eigvalsh(moments(changed)[1]).T  # variances; that of a path is its square over 12
    assert 0.8 * 81 / 12 < long.max() < 81 / 12 + 0.5, "a pixel's width adds to it"
    assert short.max() < 0.5
    x, y = moments(changed)[1][:, 0, 0], moments(changed)[1][:, 1, 1]
    assert (x > 2 * y).sum() > 10
    assert (y > 2 * x).sum() > 10


@pytest.mark.parametrize("strength", [0.4, 1.0, 2.0])
def test_blur_moves_no_image(strength):
    """The centre of mass of a bright point stays where it is, in every single image."""
    blurred = alone(point(), strength, defocus=1.5, motion=7.0)
    assert (blurred.amax((1, 2, 3)) < 0.8).float().mean() > 0.2, "hardly anything was blurred"
    assert np.abs(moments(blurred)[0]).max() < 0.01


def test_blur_carries_nothing_in_from_outside():
    assert torch.allclose(alone(flat(0.5), defocus=1.5, motion=7.0), flat(0.5), atol=1e-5)


@pytest.mark.parametrize("size", [(64, 80), (61, 83)])
@pytest.mark.parametrize("quality", [5, 20, 49, 50, 75, 95])
def test_jpeg_is_what_opencv_writes(quality, size):
    image = picture(size)
    ours = jpeg_blocks(as_tensor(image), torch.tensor([float(quality)]))
    theirs = as_tensor(opencv_jpeg(image, quality))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.002
    assert (ours - as_tensor(image)).abs().mean() > 2 * (ours - theirs).abs().mean(), "it has lost something"


def test_jpeg_has_a_quality_for_each_image_and_channels_apart():
    image = as_tensor(picture((32, 32))).expand(2, 3, 32, 32).clone()
    image[:, 1] = 0.5
    both = jpeg_blocks(image, torch.tensor([10.0, 90.0]))
    for i, quality in enumerate([10.0, 90.0]):
        one = jpeg_blocks(image[i : i + 1, :1], torch.tensor([quality]))
        assert torch.allclose(both[i, [0, 2]], one[0].expand(2, 32, 32), atol=1e-6)
    assert torch.allclose(both[:, 1], torch.tensor(128 / 255), atol=2 / 255), "flat grey stays flat"


@pytest.mark.parametrize(("strength", "lowest"), [(1.0, 30), (0.5, 65), (2.0, 1)])
def test_jpeg_goes_down_to_its_quality(strength, lowest):
    image = picture((64, 64))
    before = as_tensor(image).expand(200, -1, -1, -1)
    changed = alone(before, strength, jpeg=30)
    loss = (changed - before).abs().mean((1, 2, 3))
    worst = (as_tensor(opencv_jpeg(image, lowest)) - as_tensor(image)).abs().mean()
    assert 0.2 < share_changed(before, changed) < 0.47
    assert 0.8 * worst < loss.max() < 1.05 * worst


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exposure", -0.1),
        ("gamma", 0.9),
        ("contrast", 0.5),
        ("colour_cast", 0.0),
        ("illumination", -1),
        ("shadow", 1.1),
        ("specular", -0.2),
        ("noise", 1.5),
        ("jpeg", 0),
        ("jpeg", 101),
        ("defocus", -1.0),
        ("motion", float("nan")),
        ("strength", -1.0),
        ("strength", float("inf")),
        ("strength", torch.ones(3)),
        ("strength", -torch.ones(2)),
    ],
)
def test_what_is_out_of_bounds_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        change_photometry(torch.rand(2, 1, 8, 8), generator(), **{name: value})
