"""Kornia's learned detectors with random weights: where a pixel's score stands, and weights that cannot be had."""

import pickle
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.error import URLError

import kornia.core.download as kornia_download
import pytest
import torch
from kornia.feature import XFeat
from kornia.feature.aliked import aliked
from kornia.feature.dedode import dedode
from kornia.feature.dedode.utils import sample_keypoints
from torch import nn

from kp.evaluation import learned_baselines
from kp.evaluation.baselines import Unavailable, available
from kp.evaluation.learned_baselines import FILES, NAMES, URLS, file_names, make
from kp.models.keypoints import extract_keypoints

SMALL = [name for name in NAMES if name != "dedode"]  # DeDoDe takes seconds to build
ALIKEDS = ["aliked", "aliked-t16"]


@pytest.fixture(scope="module")
def models():
    """Every network with random weights and, as after training, statistics that are not those of a new one."""
    torch.manual_seed(0)
    models = {name: learned_baselines._SPECS[name].build() for name in NAMES}
    for model in models.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    nn.init.ones_(models["keynet"].last_conv[0].bias)  # or its ReLU may leave nothing
    return {name: model.eval() for name, model in models.items()}


@pytest.fixture(scope="module")
def detectors(models):
    return {
        name: partial(learned_baselines._score_map, model=models[name], spec=learned_baselines._SPECS[name])
        for name in NAMES
    }


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, no wait, an empty cache. Holds the addresses that were asked for."""
    asked = []

    def urlopen(request, *args, **kwargs):
        asked.append(getattr(request, "full_url", request))
        raise URLError("no network")

    monkeypatch.setattr(kornia_download, "urlopen", urlopen)
    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return asked


def save(model, name, directory):
    """The weights as the published file holds them: without Kornia's constant of ALIKED, in their part."""
    state = {key: value for key, value in model.state_dict().items() if key != "dkd.hw_grid"}
    part = {"keynet": "state_dict", "disk": "extractor"}.get(name)
    torch.save({part: state, "epoch": 3} if part else state, directory / FILES[name])


def noise(size, channels=1):
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (7, 90), (33, 65), (64, 32)])
def test_every_pixel_of_an_image_of_any_size_has_a_score(detectors, name, size):
    scores = detectors[name](noise(size))
    assert scores.shape == (1, 1, *size)
    assert scores.dtype == torch.float32
    assert not scores.isnan().any()
    assert (scores < torch.inf).all()
    assert (scores > -torch.inf).all() or name == "keynet"
    assert not scores.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_gray_is_equal_channels_and_any_dtype_will_do(detectors, name):
    image = noise((40, 50))
    scores = detectors[name](image)
    torch.testing.assert_close(detectors[name](image.expand(1, 3, 40, 50)), scores, rtol=1e-3, atol=1e-4)
    assert torch.equal(detectors[name](image.double()), scores)


def test_scores_are_in_the_range_of_their_kind(detectors):
    scores = {name: detector(noise((64, 96))) for name, detector in detectors.items()}
    found = scores["keynet"] > -torch.inf
    assert found.any()
    assert (scores["keynet"][found] > 0).all()
    for name in ALIKEDS:
        assert 0 < scores[name].min() <= scores[name].max() < 1
    assert scores["xfeat"].max() < 0  # the logarithm of a probability


@pytest.mark.parametrize("name", NAMES)
def test_keypoints_come_out(detectors, name):
    assert extract_keypoints(detectors[name](noise((96, 64))), 10).valid.sum() >= 5


@pytest.mark.parametrize(("name", "step"), [("keynet", 36), ("disk", 16), ("xfeat", 32), ("dedode", 8)])
def test_a_shifted_image_has_a_shifted_map(detectors, name, step):
    """By what the network's pyramid allows: Key.Net's levels are 1.2 and 1.44 apart, 36 px are 30 and 25 there.

    The surroundings are even, so that they shift nothing and the instance norms of the whole image stay as they are.
    ALIKED is none of these: it draws its levels larger with corners aligned.
    """
    size = (288, 288)
    image = torch.full((1, 1, *size), 0.5)
    image[..., 130:150, 130:150] = noise((20, 20))
    shifted = image.roll((step, step), (2, 3))
    here, there = (detectors[name](x) for x in (image, shifted))
    middle = here[..., 125:155, 125:155]
    moved = there[..., 125 + step : 155 + step, 125 + step : 155 + step]
    finite = middle.masked_fill(middle == -torch.inf, 0)
    assert finite.std() > 0
    error = (moved.masked_fill(moved == -torch.inf, 0) - finite).abs().max()
    assert error < 0.02 * (finite.max() - finite.min())
    unmoved = there[..., 125:155, 125:155]
    assert (unmoved.masked_fill(unmoved == -torch.inf, 0) - finite).abs().max() > 10 * error


class Same(nn.Module):
    """A network that gives its first channel back and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, image):
        self.seen = image
        return image[:, :1] * self.weight


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 64), (70, 45)])
def test_padding_moves_nothing(channels, size):
    spec = learned_baselines._Spec(
        Same, lambda model, image: model(image), ["net/same.pth"], channels=channels, stride=16
    )
    model, image = Same(), noise(size)
    assert torch.equal(learned_baselines._score_map(image, model=model, spec=spec), image)
    height, width = model.seen.shape[-2:]
    assert model.seen.shape[1] == channels
    assert height % 16 == width % 16 == 0
    assert max(32, size[0]) <= height < max(32, size[0]) + 16
    assert max(32, size[1]) <= width < max(32, size[1]) + 16
    assert (model.seen[..., size[1] :] == model.seen[..., size[1] - 1 : size[1]]).all()
    assert (model.seen[..., size[0] :, :] == model.seen[..., size[0] - 1 : size[0], :]).all()


def test_xfeat_scores_the_points_of_kornias_own_detector(models, detectors):
    xfeat = XFeat(detection_threshold=0.0)
    xfeat.net = models["xfeat"]
    image = noise((64, 96))
    found = xfeat.detectAndCompute(image, top_k=50)[0]
    x, y = found["keypoints"].long().T
    torch.testing.assert_close(detectors["xfeat"](image)[0, 0, y, x].exp(), found["scores"], rtol=1e-3, atol=1e-6)


def test_disk_scores_the_points_of_kornias_own_detector(models, detectors):
    image = noise((64, 96))
    with torch.no_grad():
        found = models["disk"](image.expand(1, 3, 64, 96), score_threshold=-1e9)[0]
    x, y = found.keypoints.long().T
    torch.testing.assert_close(detectors["disk"](image)[0, 0, y, x], found.detection_scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ALIKEDS)
def test_aliked_scores_the_points_of_kornias_own_detector(models, detectors, name):
    image = noise((64, 96))
    with torch.no_grad():
        keypoints, scores, _ = models[name].dkd(detectors[name](image).clone(), sub_pixel=False)
    x, y = ((keypoints[0] + 1) / 2 * torch.tensor([95, 63])).round().long().T
    assert len(x) > 0
    torch.testing.assert_close(detectors[name](image)[0, 0, y, x], scores[0], rtol=1e-3, atol=1e-5)


def test_dedode_scores_the_points_of_kornias_own_detector(models, detectors, monkeypatch):
    monkeypatch.setattr(dedode, "get_detector", lambda *_: models["dedode"])
    monkeypatch.setattr(dedode, "get_descriptor", lambda *_: nn.Identity())
    image = noise((56, 112), channels=3)  # sizes that neither of us pads
    expected = dedode.DeDoDe().detect(image, n=20)
    found = sample_keypoints(detectors["dedode"](image)[0].flatten(1).softmax(1).view(1, 56, 112), num_samples=20)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("name", SMALL)
def test_a_detector_can_be_sent_to_another_process(detectors, name):
    copy = pickle.loads(pickle.dumps(detectors[name]))
    assert torch.equal(copy(noise((40, 50))), detectors[name](noise((40, 50))))


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_read_from_a_folder_without_a_network(models, detectors, offline, tmp_path, name):
    save(models[name], name, tmp_path)
    image = noise((40, 50))
    assert torch.equal(make(name, tmp_path)(image), detectors[name](image))
    assert offline == []


@pytest.mark.parametrize(
    ("name", "file", "wrap"),
    [
        ("aliked", "aliked-n16.pth", dict),
        ("aliked-t16", "aliked-t16.pth", dict),
        ("disk", "disk-depth-save.pth", lambda state: {"extractor": state}),
        ("xfeat", "xfeat.pt", dict),
        ("keynet", "keynet_pytorch.pth", lambda state: {"state_dict": state, "optimizer": {"state": {0: {"step": 7}}}}),
    ],
)
def test_files_are_taken_as_people_pass_them_on(models, detectors, offline, tmp_path, name, file, wrap):
    """The names and the nesting of files that others keep: DISK's has its network in front of its name."""
    state = {key: value for key, value in models[name].state_dict().items() if key != "dkd.hw_grid"}
    torch.save(wrap(state), tmp_path / file)
    image = noise((40, 50))
    assert torch.equal(make(name, tmp_path)(image), detectors[name](image))
    _, skipped = available({other: partial(make, other, tmp_path) for other in NAMES})
    assert list(skipped) == [other for other in NAMES if other != name]
    assert offline == []


def test_of_two_files_the_one_named_like_the_download_is_read(models, detectors, tmp_path):
    first, second = (tmp_path / file for file in file_names("disk"))
    save(models["disk"], "disk", tmp_path)
    second.write_bytes(b"<html>")
    image = noise((40, 50))
    assert torch.equal(make("disk", tmp_path)(image), detectors["disk"](image))
    first.unlink()
    with pytest.raises(Unavailable, match=r"disk-depth-save\.pth does not hold the weights of disk"):
        make("disk", tmp_path)


def test_a_folder_without_the_file_names_all_it_may_be_called(tmp_path):
    with pytest.raises(Unavailable, match=r"depth-save\.pth or disk-depth-save\.pth: download them from https://"):
        make("disk", tmp_path)


def test_the_tiny_aliked_does_not_take_the_weights_of_the_normal_one(models, tmp_path):
    save(models["aliked"], "aliked-t16", tmp_path)
    with pytest.raises(Unavailable, match=r"aliked-t16\.pth does not hold the weights of aliked-t16"):
        make("aliked-t16", tmp_path)


@pytest.mark.parametrize("name", ["keynet", "xfeat"])
def test_weights_are_read_from_the_cache_of_torch_hub(models, detectors, offline, tmp_path, name):
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    save(models[name], name, cache)
    assert torch.equal(make(name)(noise((40, 50))), detectors[name](noise((40, 50))))
    assert offline == []


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The files in tmp_path / "www" over HTTP: the address of the folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "www").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "www")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_weights_are_downloaded_from_the_second_address_if_the_first_fails(
    models, detectors, server, tmp_path, monkeypatch
):
    save(models["xfeat"], "xfeat", tmp_path / "www")
    monkeypatch.setitem(learned_baselines.URLS, "xfeat", (f"{server}/gone/xfeat.pt", f"{server}/xfeat.pt"))
    assert torch.equal(make("xfeat")(noise((40, 50))), detectors["xfeat"](noise((40, 50))))
    (tmp_path / "www" / "xfeat.pt").unlink()
    make("xfeat")  # out of the cache


def test_a_page_in_place_of_the_weights(server, tmp_path, monkeypatch):
    (tmp_path / "www" / "xfeat.pt").write_text("<html>")
    monkeypatch.setitem(learned_baselines.URLS, "xfeat", (f"{server}/xfeat.pt",))
    with pytest.raises(Unavailable, match=r"no weights \(it is no file of plain weights\).*/xfeat\.pt"):
        make("xfeat")


@pytest.mark.parametrize("name", NAMES)
def test_offline_the_reason_names_the_file_and_its_address(offline, name):
    with pytest.raises(Unavailable) as caught:
        make(name)
    message = str(caught.value)
    assert "\n" not in message
    assert "no network" in message
    assert URLS[name][0] in message
    assert message.endswith(FILES[name])
    assert "--baseline-weights" in message
    assert set(offline) == set(URLS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_file_asks_no_network(offline, tmp_path, name):
    with pytest.raises(Unavailable) as caught:
        make(name, tmp_path / "weights")
    assert str(tmp_path / "weights" / FILES[name]) in str(caught.value)
    assert URLS[name][0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert offline == []


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


def damage(kind, path, model, name):
    if kind == "another network's":
        torch.save(nn.Linear(2, 3).state_dict(), path)
    elif kind == "a tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "a part missing":
        state = dict(list(model.state_dict().items())[1:])
        torch.save({"state_dict": state, "extractor": state} | state, path)
    elif kind == "code":
        path.write_bytes(pickle.dumps(Evil(), protocol=2))
    elif kind == "a folder":
        path.mkdir()
    else:
        save(model, name, path.parent)
        whole = path.read_bytes()
        old = path.with_suffix(".old")
        torch.save(torch.load(path), old, _use_new_zipfile_serialization=False)
        cut = {"half": whole[: len(whole) // 2], "old, half": old.read_bytes()[: old.stat().st_size // 2]}
        cut |= {
            "old, start": old.read_bytes()[:1000],
            "text": b"version https://git-lfs",
            "page": b"<html>\n404\n</html>",
        }
        path.write_bytes(cut.get(kind, b""))


KINDS = ["another network's", "a tensor", "a list", "a part missing", "code", "a folder"]
KINDS += ["half", "old, half", "old, start", "text", "page", "empty"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_does_not_hold_the_weights(models, offline, tmp_path, name, kind):
    damage(kind, tmp_path / FILES[name], models[name], name)
    with pytest.raises(Unavailable) as caught:
        make(name, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / FILES[name]) in message
    assert URLS[name][0] in message
    assert "\n" not in message
    assert len(message) < 600


def test_a_damaged_file_in_the_cache_is_skipped_too(offline, tmp_path):
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / FILES["keynet"]).write_bytes(b"<html>")
    with pytest.raises(Unavailable, match=FILES["keynet"]):
        make("keynet")


def test_skipped_rows_have_their_reasons(models, offline, tmp_path):
    save(models["keynet"], "keynet", tmp_path)
    made, skipped = available({name: partial(make, name, tmp_path) for name in NAMES})
    assert list(made) == ["keynet"]
    assert list(skipped) == [name for name in NAMES if name != "keynet"]
    assert all(URLS[name][0] in reason for name, reason in skipped.items())


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match="superpoint"):
        make("superpoint")


def test_addresses_are_kornias():
    """Where Kornia keeps them to itself, and what the files are called: what ``--baseline-weights`` promises."""
    assert URLS["aliked"] == tuple(url.format("aliked-n16") for url in aliked._CHECKPOINT_URLS)
    assert URLS["aliked-t16"] == tuple(url.format("aliked-t16") for url in aliked._CHECKPOINT_URLS)
    assert list(FILES.values()) == [
        "keynet_pytorch.pth",
        "depth-save.pth",
        "aliked-n16.pth",
        "aliked-t16.pth",
        "xfeat.pt",
        "dedode_detector_L_v2.pth",
    ]


@pytest.mark.parametrize("name", SMALL)
def test_a_detector_is_made_on_the_device_asked_for(models, tmp_path, name):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    save(models[name], name, tmp_path)
    image = noise((40, 50))
    scores = make(name, tmp_path, torch.device("cuda"))(image)
    assert scores.device.type == "cuda"
    torch.testing.assert_close(scores.cpu(), make(name, tmp_path)(image), rtol=1e-2, atol=1e-2)
