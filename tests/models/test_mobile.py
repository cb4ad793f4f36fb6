"""Any size, one or three channels, every encoder; where a feature is drawn; weights that cannot be had."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from kp.config import ENCODERS, DetectorSettings
from kp.data.hpatches import read_image
from kp.data.photographs import folder
from kp.evaluation.metrics import repeatability
from kp.evaluation.scorecard import shift
from kp.geometry.coords import upsample
from kp.models import encoders
from kp.models.checkpoint import load_detector
from kp.models.detector import thin
from kp.models.encoders import Encoder, PretrainedError
from kp.models.keypoints import extract_keypoints
from kp.models.mobile import MobileDetector, normalise
from kp.models.symmetry import Symmetric, settle
from kp.support.device import choose_device

THINNING = DetectorSettings().thinning


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("stride", [8, 16])
def test_full_resolution_logits_for_any_size(encoder, stride):
    torch.manual_seed(0)
    detector = MobileDetector(encoder=encoder, stride=stride).eval()
    for size in ((1, 1), (5, 7), (31, 33), (64, 64), (97, 130)):
        for channels in (1, 3):
            with torch.no_grad():
                scores = detector(torch.rand(2, channels, *size))
            assert scores.shape == (2, 1, *size)
            assert scores.isfinite().all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_unused_stages_are_dropped(encoder):
    shallow, deep = Encoder(encoder, 8), Encoder(encoder, 16)
    assert [m.shape[-1] for m in shallow(torch.rand(2, 1, 65, 65))] == [33, 17, 9]
    assert [m.shape[-1] for m in deep(torch.rand(2, 1, 65, 65))] == [33, 17, 9, 5]
    assert sum(p.numel() for p in shallow.parameters()) < 0.5 * sum(p.numel() for p in deep.parameters())
    for channels, features in zip(deep.channels, deep(torch.rand(2, 1, 64, 64)), strict=True):
        assert features.shape[1] == channels


def test_an_untrained_detector_is_the_prominence_of_the_corner_response():
    """Four times half the log of determinant over trace of scipy's structure tensor, blurred by 1 px less by 4."""
    image = np.random.default_rng(0).random((1, 12, 16)).round().repeat(8, 1).repeat(8, 2)[0]
    smooth = ndimage.gaussian_filter(image, 0.7, mode="nearest", truncate=4)
    dx, dy = (ndimage.sobel(smooth, axis, mode="nearest") / 8 for axis in (1, 0))
    xx, yy, xy = (ndimage.gaussian_filter(p, 1.5, mode="nearest", truncate=3.34) for p in (dx * dx, dy * dy, dx * dy))
    response = np.log(np.maximum((xx * yy - xy**2) / (xx + yy + 1e-5), 0) + 1e-5) / 2
    near, around = (ndimage.gaussian_filter(response, sigma, mode="nearest", truncate=3) for sigma in (1, 4))
    expected = 4 * (near - 0.9 * around)
    with torch.no_grad():
        scores = (
            MobileDetector(darkness=0, thinning=0.0).eval()(torch.from_numpy(image)[None, None].float())[0, 0].numpy()
        )
    inner = np.s_[16:-16, 16:-16]
    assert np.corrcoef(scores[inner].ravel(), expected[inner].ravel())[0, 1] > 0.9999
    assert np.ptp((scores - expected)[inner]) < 0.02 * np.ptp(scores[inner])


def test_darkness_weighs_a_map_of_dark_spots():
    """Twice the darkness adds as much again: the prominence of scipy's hardswish of the blurred image, turned over."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 10, 14).round(), (81, 113))
    with torch.no_grad():
        none, once, twice = (MobileDetector(darkness=weight, thinning=0.0).eval()(image) for weight in (0, 0.3, 0.6))
    steep = -3 * ndimage.gaussian_filter(normalise(image, 8.0)[0, 0].numpy(), 1, mode="nearest", truncate=3)
    spots = steep * np.clip(steep + 3, 0, 6) / 6
    near, around = (ndimage.gaussian_filter(spots, sigma, mode="nearest", truncate=3) for sigma in (1, 4))
    inner = np.s_[16:-16, 16:-16]
    expected = 0.3 * (near - 0.9 * around)[inner]
    assert torch.allclose(twice - once, once - none, atol=1e-4)
    assert np.abs((once - none)[0, 0].numpy()[inner] - expected).max() < 0.02 * np.ptp(expected)


def test_a_dark_dot_is_worth_more_than_a_bright_one():
    y, x = torch.meshgrid(torch.arange(65.0), torch.arange(97.0), indexing="ij")
    dot = [torch.exp(-((x - centre) ** 2 + (y - 32) ** 2) / 8) for centre in (32, 64)]
    image = (0.5 - 0.3 * dot[0] + 0.3 * dot[1])[None, None]
    with torch.no_grad():
        prefers, even = (MobileDetector(darkness=weight).eval()(image)[0, 0, 32] for weight in (0.3, 0))
    assert prefers[32] - prefers[64] > 0.2
    assert abs(even[32] - even[64]) < 0.05


def test_kernels_are_means_over_the_turns_and_mirrorings_of_the_square():
    kernels = np.random.default_rng(0).normal(size=(4, 2, 5, 5)).astype(np.float32)
    turned = [np.rot90(k, n, (2, 3)) for k in (kernels, kernels[..., ::-1]) for n in range(4)]
    assert np.allclose(Symmetric(5)(torch.from_numpy(kernels)).numpy(), np.mean(turned, axis=0), atol=1e-6)


def test_thinned_scores_are_lowered_by_what_they_lack_to_their_neighbours():
    scores = np.random.default_rng(0).normal(size=(2, 1, 13, 17))
    best = np.stack([ndimage.maximum_filter(image[0], 3, mode="nearest")[None] for image in scores])
    found = thin(torch.from_numpy(scores), 10.0).numpy()
    assert np.allclose(found, scores - 10 * (best - scores))
    assert np.array_equal(found[best == scores], scores[best == scores])  # to the bit: peaks keep their ranks


def test_a_small_peak_on_the_slope_of_a_large_one_is_found_once_scores_are_thinned():
    def bumps(x, y):
        large, small = (torch.exp(-((x - at) ** 2 + (y - 15.3) ** 2) / (2 * s**2)) for at, s in ((20.2, 4), (27.8, 1)))
        return large + 0.3 * small

    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    scores, along = bumps(x, y)[None, None], torch.arange(26, 29, 0.01)
    tops = torch.tensor([[20.2, 15.3], [along[bumps(along, torch.tensor(15.3)).argmax()], 15.3]])
    for found, count in (
        (extract_keypoints(scores, subpixel=True), 1),
        (extract_keypoints(thin(scores, THINNING), subpixel=True), 2),
    ):
        assert found.valid.sum() == count
        assert (found.xy[found.valid] - tops[:count]).norm(dim=1).max() < 0.1


def test_keypoints_are_refined_to_the_same_place_on_thinned_scores():
    y, x = torch.meshgrid(*(torch.arange(n).double() for n in (20, 24)), indexing="ij")
    scores = -((x - 11.3) ** 2 + (y - 8.8) ** 2 + 0.5 * (x - 11.3) * (y - 8.8))[None, None]
    for found in (
        extract_keypoints(scores, 1, subpixel=True),
        extract_keypoints(thin(scores, THINNING), 1, subpixel=True),
    ):
        assert torch.allclose(found.xy[0, 0].double(), torch.tensor([11.3, 8.8], dtype=torch.float64), atol=1e-5)


def test_scores_are_thinned_in_evaluation_mode_alone_and_only_if_asked():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 40, 56)
    detector, dense = MobileDetector().eval(), MobileDetector(thinning=0.0).eval()
    dense.load_state_dict(detector.state_dict())
    with torch.no_grad():
        assert torch.equal(detector(image), thin(dense(image), THINNING))
        assert torch.equal(detector.dense(image), dense(image))
        assert not torch.equal(detector(image), dense(image))
        assert torch.equal(detector.train()(image), dense.train()(image))


def test_odds_of_four_sizes_over_their_pixels_add_up_outside_training():
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 12, 15), (96, 121), mode="bicubic").clamp(0, 1)
    several, one = MobileDetector(num_scales=4, thinning=0.0).eval(), MobileDetector(thinning=0.0).eval()
    one.load_state_dict(several.state_dict())
    change = {"mode": "bicubic", "antialias": True}
    with torch.no_grad():
        odds = one(image).double().exp()
        for size, pixels in (((136, 172), 2), ((68, 86), 1 / 2), ((48, 61), 1 / 4)):  # rounded up
            resized = torch.nn.functional.interpolate(image, size, **change)
            there = torch.nn.functional.interpolate(one(resized), (96, 121), **change)
            odds = odds + there.double().exp() / pixels
        assert torch.allclose(several(image).double(), odds.log(), atol=1e-4)
        assert torch.equal(several.train()(image), one.train()(image))


def test_more_keypoints_stay_as_a_photograph_blurs_if_it_is_looked_at_in_four_sizes():
    image, same = read_image(folder() / "camera.png"), torch.eye(3)[None]
    size, blurred = tuple(image.shape[-2:]), torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, 0, 3, 3)))
    again = []
    for scales in (1, 4):
        detector = load_detector("mobilenet_v3_small", num_scales=scales)
        with torch.no_grad():
            sharp, soft = (extract_keypoints(detector(view), 300, subpixel=True) for view in (image, blurred))
        again.append(repeatability(sharp, soft, same, size, size))
    assert again[1].repeatability > again[0].repeatability + 0.03
    assert again[1].localisation_error < again[0].localisation_error


def test_a_turned_image_in_four_sizes_has_the_turned_scores():
    """Of a size on the lattice of the strides at all four: elsewhere the edge that is padded is told apart."""
    torch.manual_seed(0)
    image, detector = torch.rand(1, 1, 193, 193), MobileDetector(num_scales=4).eval()
    nn.init.normal_(detector.mix.weight)
    with torch.no_grad():
        scores = detector(image)
        for turn in (lambda x: x.rot90(1, (-2, -1)), lambda x: x.flip(-1)):
            assert (detector(turn(image)) - turn(scores)).std() < 1e-3 * scores.std()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scores_of_a_turned_image_are_the_turned_scores(encoder):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 65, 81)
    for symmetric in (True, False):
        detector = MobileDetector(encoder=encoder, symmetric=symmetric).eval()
        nn.init.normal_(detector.mix.weight)
        with torch.no_grad():
            scores = detector(image)
            for turn in (lambda x: x.rot90(1, (-2, -1)), lambda x: x.flip(-1)):
                apart = (detector(turn(image)) - turn(scores)).std() / scores.std()
                assert (apart < 1e-3) == symmetric


def test_settled_kernels_give_the_same_scores():
    torch.manual_seed(0)
    detector = MobileDetector().eval()
    nn.init.normal_(detector.mix.weight)
    image = torch.rand(1, 1, 40, 56)
    with torch.no_grad():
        before = detector(image)
        settle(detector)
        assert torch.equal(detector(image), before)
    assert not any("parametrizations" in name for name in detector.state_dict())


def test_peaks_do_not_depend_on_the_lattice():
    """An image moved by a pixel gives the scores moved by a pixel, or nearly: strides alias, smooth weights hide it."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 20, 24), scale_factor=6.0, mode="bicubic").clamp(0, 1)
    detector = MobileDetector().eval()
    nn.init.normal_(detector.mix.weight, std=0.3)
    with torch.no_grad():
        there, moved = detector(image[..., 3:-1, 3:-1]), detector(image[..., 2:-2, 2:-2])
    apart = there[..., 20:-21, 20:-21] - moved[..., 21:-20, 21:-20]
    assert apart.std() < 0.05 * there.std()


def test_a_little_of_what_the_network_draws_moves_the_peaks_little():
    """While offset and weights differ little from place to place, peaks stay within a pixel or so of the responses'."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 12, 16).round(), scale_factor=8.0)
    detector = MobileDetector().eval()
    with torch.no_grad():
        before = extract_keypoints(detector(image))
        nn.init.normal_(detector.mix.weight, std=0.1)
        after = extract_keypoints(detector(image), 60)
    nearest = torch.cdist(after.xy[after.valid], before.xy[before.valid]).amin(1)
    assert not torch.equal(before.scores, after.scores)
    assert (nearest <= 1.5).float().mean() > 0.8


def test_smoothed_weights_move_with_the_image():
    """The more they are smoothed, the less the map depends on where the network's strides fall."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 24).round(), scale_factor=8.0)
    detector = MobileDetector().eval()
    nn.init.normal_(detector.mix.weight)
    tied = []
    for blur in (1.0, 8.0):
        detector.settings = replace(detector.settings, mix_blur=blur)
        tied.append(shift(detector, image))
    assert tied[1] < 0.5 * tied[0]


def test_half_precision_keeps_the_keypoints():
    """As CUDA trains: neighbours that half precision makes equal would be peaks to nobody."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 12, 16).round(), scale_factor=8.0)
    detector = MobileDetector().eval()
    with torch.no_grad():
        plain = detector(image)
        with torch.autocast("cpu", torch.bfloat16):
            half = detector(image)
    assert half.dtype == torch.float32
    equal = [(half.diff(dim=dim) == 0).float().mean() for dim in (-1, -2)]
    assert max(equal) < 0.01
    found, again = (extract_keypoints(scores, 20).xy[0] for scores in (plain, half))
    assert (torch.cdist(found, again).amin(1) <= 1).float().mean() >= 1


def learnt_maps_only(**changes):
    """A detector whose score is made of the stem's maps alone."""
    torch.manual_seed(0)
    detector = MobileDetector(**changes).eval()
    nn.init.zeros_(detector.mix.bias)
    nn.init.normal_(detector.mix.bias.data[-detector.settings.stem_channels :])
    return detector


@pytest.mark.parametrize("normalised", [True, False])
def test_the_strength_of_the_light_matters_only_to_grey_that_is_not_normalised(normalised):
    detector = learnt_maps_only(normalised=normalised)
    image = torch.rand(1, 1, 64, 64)
    settle(detector)
    detector.stem[0][0].weight.data[:, 1:] = 0  # the stem then sees grey only
    with torch.no_grad():
        bright, dark = detector(image), detector(0.5 * image + 0.1)
    changed = (bright - dark).std() / bright.std()
    assert changed < 0.1 if normalised else changed > 0.2


def test_each_image_is_on_its_own_in_evaluation():
    torch.manual_seed(0)
    detector = MobileDetector().eval()
    images = torch.rand(3, 1, 40, 56)
    with torch.no_grad():
        assert torch.allclose(detector(images)[1:2], detector(images[1:2]), atol=1e-4)


class _Picker(nn.Module):
    """An encoder stand-in whose feature i of stride s is the image's pixel s * i."""

    def forward(self, image):
        return [image[..., ::2, ::2], image[..., ::4, ::4], image[..., ::8, ::8]]


@pytest.mark.parametrize("size", [(64, 64), (65, 73), (50, 71)])
def test_features_are_drawn_where_they_were_seen(size):
    detector = MobileDetector().eval()
    detector.encoder = _Picker()
    detector.lateral = nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(2))
    detector.smooth = nn.ModuleList(nn.Identity() for _ in range(2))
    for lateral in detector.lateral:
        nn.init.ones_(lateral.weight)
        nn.init.zeros_(lateral.bias)
    side = tuple(-(-(s - 1) // 8) * 8 + 1 for s in size)
    ramp = torch.arange(float(side[1])).expand(1, 1, *side)
    drawn = upsample(detector._pyramid(ramp)[0], 4)
    assert torch.allclose(drawn, 2 * ramp, atol=1e-3)  # two strides, each reads x at pixel x


def test_every_parameter_gets_gradient():
    torch.manual_seed(0)
    detector = MobileDetector()
    nn.init.normal_(detector.mix.weight)
    nn.init.normal_(detector.mix.bias)
    detector(torch.rand(4, 1, 64, 64)).square().mean().backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="unknown encoder resnet50"):
        MobileDetector(encoder="resnet50")
    with pytest.raises(ValueError, match="stride 8 or 16, not 32"):
        MobileDetector(stride=32)
    with pytest.raises(ValueError, match="at least 0, not -1"):
        MobileDetector(darkness=-1)
    with pytest.raises(ValueError, match="at least one size, not 0"):
        MobileDetector(num_scales=0)
    with pytest.raises(ValueError, match="one number for each scale"):
        MobileDetector(window_sigmas=(1.0,))
    with pytest.raises(ValueError, match="1 or 3 channels, not 4"):
        MobileDetector()(torch.rand(1, 4, 32, 32))
    with pytest.raises(ValueError, match="no device cuda:77"):
        choose_device("cuda:77")
    assert choose_device("cpu").type == "cpu"


# --- pretrained weights, from a local file:// server and from none ---


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


class FakeWeights:
    """Stands for torchvision's weights of one address."""

    def __init__(self, url):
        self.url = url


def test_torchvision_weights_are_downloaded_and_summed_to_grey(tmp_path, hub, monkeypatch):
    import torchvision

    model = torchvision.models.mobilenet_v3_small()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    served = (tmp_path / "w.pth").rename(tmp_path / f"mobilenet-{digest}.pth")
    monkeypatch.setitem(encoders._TORCHVISION, "mobilenet_v3_small", FakeWeights(served.as_uri()))
    encoder = Encoder("mobilenet_v3_small", 8, pretrained=True)
    assert (hub / served.name).exists()
    grey = torch.rand(1, 1, 32, 32)
    stem = model.features[0][0]
    assert torch.allclose(encoder.stages[0][0][0](grey), stem(grey.expand(1, 3, 32, 32)), atol=1e-5)


def test_timm_weights_are_downloaded(tmp_path, hub, monkeypatch):
    import timm
    from safetensors.torch import save_file

    tag = encoders._TIMM["mobilenetv4_conv_small"]
    (tmp_path / tag).mkdir()
    model = timm.create_model(tag)
    save_file(model.state_dict(), tmp_path / tag / "model.safetensors")
    monkeypatch.setattr(encoders, "_HUB", tmp_path.as_uri() + "/{tag}/model.safetensors")
    encoder = Encoder("mobilenetv4_conv_small", 8, pretrained=True)
    assert (hub / f"{tag}.safetensors").exists()
    assert torch.equal(encoder.stages[0][0][0].weight, model.conv_stem.weight.sum(1, keepdim=True))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenetv4_conv_small"])
def test_offline_names_the_file_and_where_to_put_it(tmp_path, hub, monkeypatch, name):
    missing = (tmp_path / "nowhere").as_uri()
    monkeypatch.setitem(encoders._TORCHVISION, "mobilenet_v3_small", FakeWeights(missing + "/v3-01234567.pth"))
    monkeypatch.setattr(encoders, "_HUB", missing + "/{tag}/model.safetensors")
    with pytest.raises(PretrainedError) as caught:
        Encoder(name, 8, pretrained=True)
    message = str(caught.value)
    assert "\n" not in message
    assert missing in message
    assert f"put it at {hub}" in message


def test_a_damaged_download_says_what_to_delete(hub):
    tag = encoders._TIMM["mobilenetv4_conv_small"]
    hub.mkdir(parents=True)
    (hub / f"{tag}.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(PretrainedError, match="delete it"):
        Encoder("mobilenetv4_conv_small", 8, pretrained=True)


class Malicious:
    """A pickle of this makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def served(tmp_path, content):
    """A file of torchvision's manner that holds the content, its hash in its name."""
    torch.save(content, tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    return (tmp_path / "w.pth").rename(tmp_path / f"mobilenet-{digest}.pth")


@pytest.mark.parametrize("cached", [False, True])
def test_pretrained_weights_cannot_run_code(tmp_path, hub, monkeypatch, cached):
    """The hash is right: the file was made by whoever serves it."""
    file = served(tmp_path, {"evil": Malicious(tmp_path / "owned")})
    if cached:
        hub.mkdir(parents=True)
        (hub / file.name).write_bytes(file.read_bytes())
    monkeypatch.setitem(encoders._TORCHVISION, "mobilenet_v3_small", FakeWeights(file.as_uri()))
    with pytest.raises(PretrainedError, match=r"no file of plain weights.*delete it") as caught:
        Encoder("mobilenet_v3_small", 8, pretrained=True)
    assert str(hub / file.name) in str(caught.value)
    assert not (tmp_path / "owned").exists()
    torch.load(hub / file.name, weights_only=False)
    assert (tmp_path / "owned").exists(), "the file was harmless"


def test_timm_weights_cannot_run_code(tmp_path, hub):
    path = hub / f"{encoders._TIMM['mobilenetv4_conv_small']}.safetensors"
    hub.mkdir(parents=True)
    torch.save({"evil": Malicious(tmp_path / "owned")}, path)
    with pytest.raises(PretrainedError, match="delete it"):
        Encoder("mobilenetv4_conv_small", 8, pretrained=True)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("damage", ["cut off", "of another model", "changed"])
def test_a_file_of_the_cache_is_not_believed(tmp_path, hub, monkeypatch, damage):
    import torchvision

    file = served(tmp_path, torchvision.models.mobilenet_v3_small().state_dict())
    hub.mkdir(parents=True)
    data = file.read_bytes()
    if damage == "cut off":
        data = data[:10_000]
    elif damage == "changed":  # a whole file with other numbers
        torch.manual_seed(1)
        torch.save(torchvision.models.mobilenet_v3_small().state_dict(), tmp_path / "other.pth")
        data = (tmp_path / "other.pth").read_bytes()
    else:
        file = served(tmp_path, torchvision.models.mobilenet_v3_large().state_dict())
        data = file.read_bytes()
    (hub / file.name).write_bytes(data)
    monkeypatch.setitem(encoders._TORCHVISION, "mobilenet_v3_small", FakeWeights(file.as_uri()))
    with pytest.raises(PretrainedError) as caught:
        Encoder("mobilenet_v3_small", 8, pretrained=True)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{hub / file.name} does not hold the weights" in message
    assert "delete it" in message
    assert ("SHA-256" in message) == (damage != "of another model")


def test_the_names_of_torchvision_hold_a_hash():
    for weights in encoders._TORCHVISION.values():
        name = weights.url.rsplit("/", 1)[-1]
        assert len(name.rsplit("-", 1)[-1].removesuffix(".pth")) >= 8
