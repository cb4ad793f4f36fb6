"""The extractor: one result for one picture, whatever it comes in; no keypoint where there is none."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import kp
from kp.config import DETECTION_THRESHOLD, MODELS
from kp.geometry.coords import resize
from kp.models.checkpoint import load_detector

CAMERA = data.camera()[100:340, 80:400].copy()


@pytest.fixture(scope="module")
def extractor():
    return kp.Extractor(max_num_keypoints=200)


def same(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


def near(one, two, share=0.99, pixels=0.1):
    """Whether so many of the keypoints are at the same places."""
    away = torch.cdist(one["keypoints"][0].double(), two["keypoints"][0].double()).amin(1)
    return (away < pixels).float().mean() >= share


def test_names_shapes_and_order(extractor):
    found = extractor.extract(CAMERA)
    assert found["keypoints"].shape == (1, 200, 2)
    assert found["keypoint_scores"].shape == (1, 200)
    assert found["image_size"].tolist() == [[320, 240]]
    scores = found["keypoint_scores"][0]
    assert ((scores > DETECTION_THRESHOLD) & (scores < 1)).all()
    assert (scores.diff() <= 0).all()
    assert all(value.dtype == torch.float32 for value in found.values())


def test_it_finds_what_the_detector_finds(extractor):
    image = torch.from_numpy(CAMERA)[None, None] / 255
    with torch.no_grad():
        expected = load_detector().keypoints(image, 200, subpixel=True)
    assert torch.equal(extractor.extract(image)["keypoints"], expected.xy)


@pytest.mark.parametrize("name", MODELS)
def test_all_weights_extract(name):
    found = kp.Extractor(name, max_num_keypoints=50).extract(CAMERA)
    assert 20 < found["keypoints"].shape[1] <= 50


def test_corners_of_a_square_are_found_where_they_are(extractor):
    image = np.full((100, 120), 0.2, np.float32)
    image[30:70, 40:90] = 0.8
    corners = torch.tensor([[39.5, 29.5], [89.5, 29.5], [39.5, 69.5], [89.5, 69.5]])
    found = extractor.extract(image)["keypoints"][0, :4]
    assert torch.cdist(corners, found).amin(1).max() < 2  # the coarse scales lie inside


def test_a_list_of_images_of_different_sizes(extractor):
    images = [CAMERA, CAMERA[:150], np.dstack([CAMERA] * 3)]
    for image, found in zip(images, extractor.extract(images), strict=True):
        assert same(found, extractor.extract(image))


@pytest.mark.parametrize("sigma", [0.0, 0.001, 0.003, 0.005, 0.0075])
def test_noise_and_darkness_have_no_keypoint(extractor, sigma):
    noise = np.random.default_rng(0).normal(0.5, sigma, (480, 640)).astype(np.float32)
    assert extractor.extract(noise)["keypoints"].shape[1] == 0
    assert extractor.extract((noise * 255).round().astype(np.uint8))["keypoints"].shape[1] == 0
    assert extractor.extract(np.zeros((480, 640), np.uint8))["keypoints"].shape[1] == 0
    ranked = kp.Extractor("ranked").extract(noise)
    assert ranked["keypoints"].shape[1] == 0


def test_the_threshold_leaves_the_best_300_of_photographs():
    for image in (data.camera(), data.coins(), data.astronaut(), data.brick()):
        with_it, without = (
            kp.Extractor(max_num_keypoints=300, detection_threshold=t) for t in (DETECTION_THRESHOLD, 0)
        )
        assert same(with_it.extract(image), without.extract(image))


def test_a_mask_allows_keypoints(extractor):
    mask = np.zeros(CAMERA.shape, bool)
    mask[:, 200:] = True
    found = extractor.extract(CAMERA, mask)["keypoints"][0]
    assert len(found) > 50
    assert (found[:, 0] > 199).all()
    assert same(extractor.extract(CAMERA, mask), extractor.extract(CAMERA, mask * np.uint8(2)))
    assert extractor.extract(CAMERA, np.zeros_like(mask))["keypoints"].shape == (1, 0, 2)


def test_a_pixel_without_a_value_changes_nothing_elsewhere(extractor):
    holed = CAMERA / np.float32(255)
    holed[100:103, 150:152] = np.nan
    found, whole = extractor.extract(holed)["keypoints"][0], extractor.extract(CAMERA)["keypoints"][0]
    hole = torch.tensor([150.5, 101.0])
    assert ((found - hole).abs().amax(1) > 4).all()
    far = whole[(whole - hole).norm(dim=1) > 40]
    assert (
        torch.cdist(far.double(), found.double()).amin(1) < 1e-3
    ).float().mean() > 0.95  # others come in for those that are lost


def test_transparent_pixels_have_no_keypoint(extractor):
    image = np.dstack([CAMERA] * 3 + [np.full_like(CAMERA, 255)])
    image[:, :160, 3] = 0
    found = extractor.extract(image)["keypoints"][0]
    assert len(found) > 100
    assert (found[:, 0] > 163).all()


def test_resizing_gives_places_in_the_image_as_it_is():
    doubled = np.kron(CAMERA, np.ones((2, 2), np.uint8))
    small, large = kp.Extractor(max_num_keypoints=100), kp.Extractor(max_num_keypoints=100, resize=320)
    one, two = small.extract(CAMERA), large.extract(doubled)
    assert two["image_size"].tolist() == [[640, 480]]
    two["keypoints"] = (two["keypoints"] + 0.5) / 2 - 0.5
    assert near(one, two, 0.9, 0.5)


def test_exif_is_ignored_or_applied(tmp_path, extractor):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a viewer
    Image.fromarray(CAMERA).save(tmp_path / "a.png", exif=exif)
    with pytest.warns(UserWarning, match="not turned"):
        assert same(extractor.extract(tmp_path / "a.png"), extractor.extract(CAMERA))
    turned = kp.Extractor(max_num_keypoints=200, exif="apply")
    with pytest.warns(UserWarning, match="is turned"):
        assert same(turned.extract(tmp_path / "a.png"), extractor.extract(np.rot90(CAMERA, -1).copy()))
    assert same(turned.extract(Image.open(tmp_path / "a.png")), extractor.extract(np.rot90(CAMERA, -1).copy()))


def test_a_batch_has_a_fixed_number_of_places(extractor):
    batch = torch.stack([torch.from_numpy(CAMERA / 255.0), torch.zeros(CAMERA.shape)])[:, None]
    found = extractor({"image": batch})
    assert found["keypoints"].shape == (2, 200, 2)
    assert found["valid"].sum(1).tolist() == [200, 0]
    assert (found["keypoints"][1] == 0).all()
    assert (found["keypoint_scores"][1] == 0).all()
    assert torch.equal(found["keypoints"][:1], extractor.extract(CAMERA / 255.0)["keypoints"])


def test_padding_with_a_mask_gives_the_keypoints_of_the_image_alone(extractor):
    images, size = [CAMERA, CAMERA[:150, :200], CAMERA[20:, 40:300]], (260, 330)
    for fill in (0.0, 1.0, torch.nan):
        batch, masks = torch.full((3, 1, *size), fill), torch.zeros(3, *size, dtype=torch.bool)
        for index, image in enumerate(images):
            height, width = image.shape
            batch[index, 0, :height, :width] = torch.from_numpy(image / 255.0)
            masks[index, :height, :width] = True
        found = extractor({"image": batch, "mask": masks})
        for index, image in enumerate(images):
            alone = extractor.extract(image / 255.0)
            assert torch.equal(found["keypoints"][index][found["valid"][index]], alone["keypoints"][0])
            assert found["image_size"][index].tolist() == alone["image_size"][0].tolist()


@pytest.mark.parametrize("convert", ["half", "double", "bfloat16"])
def test_models_of_other_types_give_the_same(convert):
    extractor = kp.Extractor("ranked", max_num_keypoints=50)
    expected = extractor.extract(CAMERA)
    assert near(getattr(extractor, convert)().extract(CAMERA), expected, 0.95)
    assert extractor.extract(CAMERA)["keypoints"].dtype == torch.float32


def test_threads_share_an_extractor(extractor):
    images = [CAMERA[start:] for start in range(0, 40, 2)]
    expected = [extractor.extract(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(extractor.extract, images))
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def test_state_dict_round_trip():
    one, two = kp.Extractor("ranked", max_num_keypoints=50), kp.Extractor("ranked", max_num_keypoints=50)
    for parameter in two.parameters():
        torch.nn.init.zeros_(parameter)
    assert not same(one.extract(CAMERA), two.extract(CAMERA))
    two.load_state_dict(one.state_dict())
    assert same(one.extract(CAMERA), two.extract(CAMERA))


def test_tiny_images_have_no_keypoint(extractor):
    for shape in ((1, 1), (3, 200), (8, 8)):
        assert extractor.extract(np.random.default_rng(0).random(shape))["keypoints"].shape == (1, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_num_keypoints": 0}, "max_num_keypoints"),
        ({"max_num_keypoints": 2.5}, "max_num_keypoints"),
        ({"max_num_keypoints": 100.0}, "max_num_keypoints"),
        ({"max_num_keypoints": float("inf")}, "max_num_keypoints"),
        ({"nms_radius": None}, "nms_radius"),
        ({"resize": (640, 480)}, "resize"),
        ({"nms_radius": -1}, "nms_radius"),
        ({"remove_borders": True}, "remove_borders"),
        ({"detection_threshold": 1.0}, "detection_threshold"),
        ({"detection_threshold": float("nan")}, "detection_threshold"),
        ({"resize": 5}, "resize"),
        ({"exif": "turn"}, "exif"),
        ({"weights": "no such weights"}, "no weights"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kp.Extractor(**arguments)


def test_unknown_arguments_are_an_error():
    with pytest.raises(TypeError, match="max_keypoints"):
        kp.Extractor(max_keypoints=5)


def test_all_keypoints():
    found = kp.Extractor(max_num_keypoints=None, detection_threshold=0).extract(CAMERA)
    assert found["keypoints"].shape[1] > 500


def test_training_mode_changes_nothing():
    ranked = kp.Extractor("ranked", max_num_keypoints=50)
    expected = ranked.extract(CAMERA)
    assert same(ranked.train().extract(CAMERA), expected)


def test_copies_and_pickles_find_the_same(extractor):
    for copied in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert same(copied.extract(CAMERA), extractor.extract(CAMERA))


def test_a_batch_of_nothing(extractor):
    found = extractor({"image": torch.zeros(0, 1, 40, 50)})
    assert found["keypoints"].shape == (0, 200, 2)
    assert found["image_size"].shape == (0, 2)
    with pytest.raises(ValueError, match='data\\["image"\\]; there is img'):
        extractor({"img": torch.zeros(1, 1, 40, 50)})
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), not \(40, 50\)"):
        extractor({"image": torch.zeros(40, 50)})


def test_more_keypoints_than_there_can_be_take_no_memory():
    many = kp.Extractor(max_num_keypoints=10**12)
    assert same(many.extract(CAMERA), kp.Extractor(max_num_keypoints=None).extract(CAMERA))


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match="no device"):
        kp.Extractor(device=device)


def test_a_list_of_images_with_a_stack_of_masks(extractor):
    masks = np.zeros((2, *CAMERA.shape), bool)
    masks[0, :, :160], masks[1, :, 160:] = True, True
    left, right = extractor.extract([CAMERA, CAMERA], masks)
    assert (left["keypoints"][0, :, 0] < 160).all()
    assert (right["keypoints"][0, :, 0] > 159).all()
    assert min(left["keypoints"].shape[1], right["keypoints"].shape[1]) > 50


def test_a_batch_with_channels_last(extractor):
    colour = torch.from_numpy(np.dstack([CAMERA] * 3))[None]
    last, first = extractor({"image": colour}), extractor({"image": colour.permute(0, 3, 1, 2)})
    assert last["image_size"].tolist() == [[320, 240]]
    assert same(last, first)


def test_the_orientation_of_a_pil_image_is_told(extractor):
    image, exif = Image.fromarray(CAMERA), Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "png", exif=exif)
    with pytest.warns(UserWarning, match="the image is not turned"):
        assert same(extractor.extract(Image.open(buffer)), extractor.extract(CAMERA))


def test_covariances_are_of_the_keypoints_in_square_pixels_of_the_image():
    found = kp.Extractor(max_num_keypoints=50, covariances=True).extract(CAMERA)
    covariances = found["keypoint_covariances"]
    assert covariances.shape == (1, 50, 2, 2)
    assert (torch.linalg.eigvalsh(covariances) > 0).all()
    detector = load_detector("default")
    with torch.no_grad():
        wanted = detector.covariances(torch.from_numpy(CAMERA)[None, None] / 255, found["keypoints"])
    assert torch.equal(covariances, wanted)


def test_covariances_of_an_image_seen_smaller_are_of_its_own_pixels():
    half = kp.Extractor(max_num_keypoints=50, covariances=True, resize=160)
    found = half.extract(CAMERA)
    smaller = resize(torch.from_numpy(CAMERA)[None, None] / 255, (120, 160)).clamp(0, 1)
    with torch.no_grad():
        seen = half.detector.covariances(smaller, (found["keypoints"] + 0.5) / 2 - 0.5)
    assert torch.allclose(found["keypoint_covariances"], 4 * seen)


def test_a_batch_has_covariances_too_and_none_where_there_is_no_keypoint():
    both = kp.Extractor(max_num_keypoints=30, covariances=True)
    batch = both({"image": torch.stack([torch.from_numpy(CAMERA)[None] / 255, torch.zeros(1, 240, 320)])})
    assert batch["keypoint_covariances"].shape == (2, 30, 2, 2)
    assert torch.equal(batch["keypoint_covariances"][:1], both.extract(CAMERA)["keypoint_covariances"])
    assert not batch["keypoint_covariances"][1].any()


def test_weights_with_an_encoder_have_no_covariances():
    with pytest.raises(ValueError, match="covariances"):
        kp.Extractor("mobilenet_v3_small", covariances=True)
