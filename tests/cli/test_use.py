"""kp detect and kp match on folders of mixed files, patterns, lists and videos, as a new user calls them."""

import json
import os
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from forked import Forked, unread
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from skimage import data

import kp
from kp.cli.errors import ERROR
from kp.cli.main import MODULES, main
from kp.cli.match import _Matcher
from kp.features import files
from kp.features.describe import METHODS
from kp.features.estimate import choose_estimator
from kp.features.extract import Extractor
from kp.features.images import to_grey_image
from kp.features.match_pair import describer, match_places
from kp.features.pair_store import PairStore
from kp.models.checkpoint import SHIPPED
from kp.support.files import digest

CAMERA, ASTRONAUT = data.camera()[100:340, 80:400], data.astronaut()[:240, :320, ::-1]
H_0TO1 = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 20], [1e-4, 0, 1]])


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with two photographs, one of them in a folder, a damaged file and a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    cv2.imwrite("photos/a.png", CAMERA)
    cv2.imwrite("photos/sub/b.JPG", ASTRONAUT)
    Path("photos/broken.jpg").write_bytes(b"x")
    Path("photos/notes.txt").write_text("x")
    return tmp_path


def video(path, frames=7):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (160, 120))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for number in range(frames):
        writer.write(np.ascontiguousarray(ASTRONAUT[number : number + 120, number : number + 160]))
    writer.release()


def test_a_folder_of_mixed_files(photos, capsys):
    assert main(["detect", "photos"]) == ERROR
    out, err = capsys.readouterr()
    assert "in 2 images: keypoints.h5" in out
    assert "photos/broken.jpg is truncated or no image" in err
    assert err.rstrip().endswith("kp: error: 1 of 3 images could not be read; the others are written")
    assert files.names_in("keypoints.h5") == ["a.png", "sub/b.JPG"]
    expected = kp.Extractor().extract("photos/sub/b.JPG")
    found = kp.load("keypoints.h5", "sub/b.JPG")
    assert np.array_equal(found["keypoints"], expected["keypoints"])
    assert {path.name for path in photos.iterdir() if path.suffix != ".lock"} == {"photos", "keypoints.h5"}


def test_the_same_command_goes_on_and_other_settings_do_not_mix(photos, capsys):
    Path("photos/broken.jpg").unlink()
    assert main(["detect", "photos"]) == 0
    cv2.imwrite("photos/c.png", CAMERA[::-1])
    capsys.readouterr()
    assert main(["detect", "photos"]) == 0
    assert "in 1 image, 2 were there" in capsys.readouterr().out
    assert files.names_in("keypoints.h5") == ["a.png", "c.png", "sub/b.JPG"]
    assert main(["detect", "photos", "--max-keypoints", "5"]) == ERROR
    assert "made with another max_keypoints: name another --out, or --overwrite it" in capsys.readouterr().err
    assert main(["detect", "photos", "--max-keypoints", "5", "--overwrite"]) == 0
    assert kp.load("keypoints.h5", "a.png")["keypoints"].shape == (1, 5, 2)


@pytest.mark.parametrize("form", ["npz", "csv"])
def test_a_file_for_each_image(photos, form):
    assert (
        main(["detect", "photos/a.png", "photos/sub", "--format", form, "--out", "points", "--max-keypoints", "9"]) == 0
    )
    assert {str(path) for path in Path("points").rglob(f"*.{form}")} == {f"points/a.png.{form}", f"points/b.JPG.{form}"}
    assert kp.load(f"points/a.png.{form}")["keypoints"].shape == (1, 9, 2)


def test_json_and_descriptors(photos):
    assert main(["detect", "photos/a.png", "--out", "f.json", "--descriptors", "sift", "--max-keypoints", "9"]) == 0
    assert np.shape(json.loads(Path("f.json").read_text())["a.png"]["descriptors"]) == (9, 128)


def test_patterns_are_expanded_here_too(photos):
    assert main(["detect", "photos/**/*.[Jp][Pn]*", "--out", "f.h5"]) == 0
    assert files.names_in("f.h5") == ["a.png", "sub/b.JPG"]


def test_masks_go_by_the_names_of_images(photos):
    mask = np.zeros((240, 320), np.uint8)
    mask[:, 160:] = 1
    Path("masks/sub").mkdir(parents=True)
    cv2.imwrite("masks/a.png", mask)
    assert main(["detect", "photos/a.png", "photos/sub/b.JPG", "--masks", "masks"]) == 0
    assert kp.load("keypoints.h5", "a.png")["keypoints"].shape[1] > 50
    assert (kp.load("keypoints.h5", "a.png")["keypoints"][0, :, 0] > 159).all()
    assert (kp.load("keypoints.h5", "b.JPG")["keypoints"][0, :, 0] < 159).any()


def test_pictures_of_what_was_found(photos):
    assert main(["detect", "photos/a.png", "photos/sub/b.JPG", "--draw", "seen"]) == 0
    drawn = cv2.imread("seen/a.png")
    assert drawn.shape == (240, 320, 3)
    assert 0.02 < (drawn != CAMERA[..., None]).any(2).mean() < 0.9
    assert Path("seen/b.JPG").exists()


def test_a_video(photos):
    video("film.mp4")
    assert main(["detect", "film.mp4", "--every", "3", "--draw", "film-kp.mp4"]) == 0
    assert files.names_in("keypoints.h5") == ["film.mp4/000000", "film.mp4/000003", "film.mp4/000006"]
    assert cv2.VideoCapture("film-kp.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 3
    Path("bad.mp4").write_bytes(b"x" * 100)
    assert main(["detect", "bad.mp4", "--out", "g.h5"]) == ERROR


def test_an_interrupted_run_keeps_what_was_found(photos, monkeypatch):
    from kp.features.store import Store

    put, calls = Store.put, []

    def interrupted(self, name, features):
        if calls:
            raise KeyboardInterrupt
        calls.append(name)
        put(self, name, features)

    monkeypatch.setattr(Store, "put", interrupted)
    Path("photos/broken.jpg").unlink()
    assert main(["detect", "photos"]) == 130
    monkeypatch.setattr(Store, "put", put)
    assert not Path("keypoints.h5").exists()
    with Forked(main, "detect", "photos") as another:
        code, out, err = another.finish()
    assert code == 0, err
    assert "in 1 image, 1 were there" in out
    assert files.names_in("keypoints.h5") == ["a.png", "sub/b.JPG"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nothing.png"], "there is no file or folder nothing.png"),
        (["photos/*.bmp"], "no image or video matches"),
        (["photos", "--out", "x.txt"], "must end in .h5, .json, .db"),
        (["photos", "--out", "x.csv", "--format", "h5"], "must end in .h5"),
        (["photos", "--out", "photos/a.png", "--format", "csv"], "is a file"),
        (["photos", "--max-keypoints", "-1"], "--max-keypoints must be at least 0"),
        (["photos", "--threshold", "nan"], "--threshold"),
        (["photos", "--threshold", "1"], "--threshold"),
        (["photos", "--resize", "3"], "--resize must be at least 32"),
        (["photos", "--every", "0"], "--every"),
        (["photos", "--weights", "none.safetensors"], "no weights at"),
        (["photos", "--device", "cuda:77"], "no device"),
        (["photos", "--masks", "nowhere"], "--masks nowhere is not a folder"),
        (["photos", "--draw", "photos/a.png"], "--draw photos/a.png is a file"),
        (["photos", "--draw", "folder.mp4"], "--draw folder.mp4 is a folder"),
        (["photos", "--out", "x.h5", "--format", "colmap"], "must end in .db"),
        (["photos/a.png", "photos/sub/../a.png", "masks"], "masks"),
    ],
)
def test_what_cannot_work_is_one_line_before_the_work(photos, capsys, flags, message):
    Path("folder.mp4").mkdir()
    before = sorted(photos.rglob("*"))
    assert main(["detect", *flags]) == ERROR
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert sorted(photos.rglob("*")) == before


def test_what_is_begun_anew_does_not_take_files_of_before(photos, capsys):
    """Of two images only one is found anew; the other is when it is named again."""
    both, few = ["photos/a.png", "photos/sub"], ["--format", "csv", "--out", "points", "--max-keypoints"]
    assert main(["detect", *both, *few, "5"]) == 0
    assert main(["detect", both[0], *few, "50", "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["detect", *both, *few, "50"]) == 0
    assert "in 1 image, 1 were there" in capsys.readouterr().out
    assert [kp.load(path)["keypoints"].shape[1] for path in sorted(Path("points").rglob("*.csv"))] == [50, 50]


def test_a_file_that_was_there_before_is_no_image_of_an_earlier_run(photos, capsys):
    Path("points").mkdir()
    Path("points/b.JPG.csv").write_text("x,y,score\n1,2,3\n")
    for named, found in ((["photos/a.png"], 1), (["photos/a.png", "photos/sub"], 1)):
        capsys.readouterr()
        assert main(["detect", *named, "--format", "csv", "--out", "points"]) == 0
        assert f"in {found} image" in capsys.readouterr().out
    assert kp.load("points/b.JPG.csv")["keypoints"].shape[1] > 100


def test_two_images_of_one_name_are_refused(photos, capsys):
    Path("other").mkdir()
    cv2.imwrite("other/a.png", CAMERA)
    assert main(["detect", "photos/a.png", "other/a.png"]) == ERROR
    assert "would both be 'a.png'" in capsys.readouterr().err


@pytest.fixture
def pair(photos):
    cv2.imwrite("b.png", cv2.warpPerspective(ASTRONAUT, H_0TO1, (330, 260)))
    return ["photos/sub/b.JPG", "b.png"]


def test_a_match_prints_its_homography_and_draws(pair, capsys):
    assert main(["match", *pair, "--draw", "m.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "matches; error below 3 px" in lines[0]
    H = np.array([line.split() for line in lines[2:5]], float)
    corners = np.array([[[0.0, 0]], [[319, 0]], [[0, 239]], [[319, 239]]])
    away = cv2.perspectiveTransform(corners, H) - cv2.perspectiveTransform(corners, H_0TO1)
    assert np.linalg.norm(away, axis=2).max() < 1.5
    assert cv2.imread("m.png").shape == (260, 320 + 8 + 330, 3)


@pytest.fixture
def turned(photos):
    """A photograph, and the same turned by 20 degrees and 0.8 times as large."""
    H = cv2.getRotationMatrix2D((160, 120), 20, 0.8)
    cv2.imwrite("t.png", cv2.warpAffine(ASTRONAUT, H, (320, 240), borderMode=cv2.BORDER_REFLECT))
    return ["photos/sub/b.JPG", "t.png"]


@pytest.mark.parametrize("words", [[], ["--descriptors", "own"], ["--descriptors", "rootsift"], ["--ratio", "0.9"]])
def test_a_pair_is_looked_at_twice_as_by_the_library(turned, capsys, words):
    found = {}
    for more in ([], ["--upright"], ["--unrefined"]):
        assert main(["match", *turned, "--json", *words, *more]) == 0
        found[" ".join(more)] = json.loads(capsys.readouterr().out)
    options = dict(zip(words[::2], words[1::2], strict=True))
    named = {"rootsift": "rootsift"}.get(options.get("--descriptors"))
    alike = kp.match_pair(*turned, descriptor=named, ratio=float(options.get("--ratio", 0)) or None)
    assert found[""]["matches"] == alike["matches"].tolist()
    assert sum(found[""]["inliers"]) > max(sum(found[name]["inliers"]) for name in ("--upright", "--unrefined"))


def test_indices_that_are_written_are_of_two_looks_too(turned):
    Path("pairs.txt").write_text(" ".join(turned))
    written = {}
    for more in ([], ["--unrefined"]):
        assert main(["match", "--pairs", "pairs.txt", "--out", "m.h5", "--overwrite", *more]) == 0
        with pytest.importorskip("h5py").File("m.h5") as file:
            names: list[str] = []
            file.visit(lambda name, names=names: names.append(name) if name.endswith("matches0") else None)
            written[" ".join(more)] = file[names[0]][()]
    assert (written[""] >= 0).sum() > (written["--unrefined"] >= 0).sum() > 50
    extractor = kp.Extractor("described")
    features = tuple(extractor.extract(name) for name in turned)
    greys = tuple(to_grey_image(name).grey for name in turned)
    found = match_places(features, greys, describer(extractor), context=False, estimator=choose_estimator())["matches"]
    assert torch.equal(torch.from_numpy(written[""]).long()[found[:, 0]], found[:, 1])
    assert (written[""] >= 0).sum() == len(found)


@pytest.mark.filterwarnings("ignore:lying.png is turned as its EXIF")
def test_a_turned_file_is_looked_at_again_as_it_is_shown(turned, capsys):
    """The second picture is stored lying on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(cv2.imread("t.png")[..., ::-1])).save("lying.png", exif=exif)
    counts = []
    for name in ("t.png", "lying.png"):
        assert main(["match", turned[0], name, "--exif", "apply", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        counts.append((len(found["matches"]), sum(found["inliers"])))
        alike = kp.match_pair(turned[0], name, kp.Extractor("described", exif="apply"))
        assert alike["matches"].tolist() == found["matches"]
    assert counts[0] == counts[1]


def test_images_in_a_folder_of_their_own_are_matched_and_drawn(pair):
    images = ["--images", "photos", "--draw"]
    assert main(["match", "a.png", "sub/b.JPG", *images, "m.png"]) == 0
    assert cv2.imread("m.png").shape[1] >= 2 * 320
    before = Path("photos/a.png").read_bytes()
    assert main(["match", "a.png", "sub/b.JPG", *images, "photos/a.png"]) == ERROR
    assert Path("photos/a.png").read_bytes() == before


def test_pairs_of_one_name_in_an_h5_are_refused_before_the_work(pair, capsys):
    Path("pairs.txt").write_text("x/y.png z.png\nx-y.png z.png\n")
    assert main(["match", "--pairs", "pairs.txt", "--images", "photos", "--out", "m.h5"]) == ERROR
    err = capsys.readouterr().err
    assert "the pairs x/y.png z.png and x-y.png z.png have one name in an h5" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("form", ["h5", "json", "npz"])
def test_an_image_without_keypoints_is_matched_with_nothing(photos, form):
    """Its descriptors are written too, though there are none."""
    extractor = kp.Extractor("described", covariances=True)
    kp.save(f"black.{form}", "black", extractor.extract(np.zeros((90, 120), np.uint8)))
    other = extractor.extract("photos/a.png")
    assert kp.load(f"black.{form}")["keypoint_covariances"].shape == (1, 0, 2, 2)
    for one, two in ((kp.load(f"black.{form}"), other), (other, kp.load(f"black.{form}"))):
        assert kp.match(one, two)["matches"].shape == (0, 2)


def test_matches_are_refined_unless_asked_not_to(pair, capsys):
    found, off = [], []
    for flags in ([], ["--unrefined"]):
        assert main(["match", *pair, "--json", *flags]) == 0
        found.append(json.loads(capsys.readouterr().out))
        there = cv2.perspectiveTransform(np.array(found[-1]["keypoints0"])[:, None], H_0TO1)[:, 0]
        off.append(np.linalg.norm(there - found[-1]["keypoints1"], axis=1))
    features = [kp.Extractor("described").extract(name) for name in pair]
    assert found[0]["matches"] == kp.match_pair(*pair)["matches"].tolist()
    assert found[1]["matches"] == kp.match(*features)["matches"].tolist()
    assert main(["match", *pair, "--out", "m.h5", "--unrefined"]) == 0
    names = "photos-sub-b.JPG", "b.png"
    with pytest.importorskip("h5py").File("m.h5") as file:
        kept = file["/".join(names)]["matches0"][()]
    at0, at1 = kp.match(*features)["matches"].unbind(1)
    assert (kept > -1).nonzero()[0].tolist() == at0.tolist()
    assert kept[kept > -1].tolist() == at1.tolist()
    right = [each < 3 for each in off]
    assert right[1].mean() > 0.7
    assert right[0].sum() > right[1].sum()
    assert np.median(off[0][right[0]]) < 0.6 * np.median(off[1][right[1]])


def test_an_image_that_changed_between_two_runs_is_read_again(pair, capsys):
    found = []
    for shift in (0, 20):
        cv2.imwrite("b.png", np.roll(cv2.imread("b.png"), shift, 1))
        assert main(["match", *pair, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        there = cv2.perspectiveTransform(np.array(result["keypoints0"])[:, None], H_0TO1)[:, 0] + (shift, 0)
        off = np.linalg.norm(there - result["keypoints1"], axis=1)
        found.append(np.median(off[off < 3]))
    assert max(found) < 0.2


def test_a_match_as_json(pair, capsys):
    assert main(["match", *pair, "--json", "--descriptors", "sift", "--ratio", "0.9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert np.shape(found["H_0to1"]) == (3, 3)
    assert len(found["matches"]) == len(found["inliers"]) == len(found["keypoints0"]) > 50
    assert "0 could" not in str(found)


@pytest.mark.parametrize("out", ["m.h5", "m.json", "m.db"])
def test_a_list_of_pairs(pair, capsys, out):
    if out == "m.db":
        pytest.importorskip("pycolmap")
    Path("pairs.txt").write_text("# two images a line\na.png sub/b.JPG\n\na.png broken.jpg\nsub/b.JPG\ta.png\n")
    assert main(["match", "--pairs", "pairs.txt", "--images", "photos", "--out", out]) == ERROR
    printed, err = capsys.readouterr()
    assert len(printed.splitlines()) == 2
    assert "kp: photos/broken.jpg is truncated" in err
    assert "1 of 3 pairs could not be matched" in err
    assert Path(out).stat().st_size > 0


LIST = ["match", "--pairs", "pairs.txt", "--images", "photos"]


def contents(out):
    """What a file of matches holds, without the settings."""
    if out.endswith(".json"):
        return json.loads(Path(out).read_text())
    if out.endswith(".db"):
        database = sqlite3.connect(out)
        return [database.execute(f"SELECT * FROM {table}").fetchall() for table in ("keypoints", "matches")]
    found = {}
    with pytest.importorskip("h5py").File(out) as file:
        file.visititems(lambda name, item: found.update({name: item[()].tolist()} if hasattr(item, "dtype") else {}))
    return found


@pytest.mark.parametrize("out", ["m.h5", "m.json", "m.db"])
def test_matches_that_were_interrupted_go_on(pair, capsys, monkeypatch, out):
    """Also after the last line that was written is torn."""
    if out == "m.db":
        pytest.importorskip("pycolmap")
    cv2.imwrite("photos/c.png", CAMERA[::-1])
    Path("pairs.txt").write_text("a.png sub/b.JPG\nsub/b.JPG c.png\nc.png a.png\n")
    assert main([*LIST, "--out", f"whole{out}"]) == 0
    match, seen = _Matcher.match, []

    def until_the_third(matcher, *names):
        seen.append(names)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return match(matcher, *names)

    monkeypatch.setattr(_Matcher, "match", until_the_third)
    assert main([*LIST, "--out", out]) != 0
    assert not Path(out).exists()
    assert main([*LIST, "--out", out, "--ratio", "0.9"]) == ERROR
    text = f"{out} was begun with other settings (ratio), as .{out}.pairs beside it says: name another --out, or "
    assert text in capsys.readouterr().err
    parts = Path(f".{out}.pairs")
    parts.write_text(parts.read_text()[:-9])
    seen = ["the second and the third are missing"] * 3
    assert main([*LIST, "--out", out]) == 0
    assert seen[3:] == [("sub/b.JPG", "c.png"), ("c.png", "a.png")]
    assert "1 of 3 pairs were matched before" in capsys.readouterr().err
    assert contents(out) == contents(f"whole{out}")
    assert not parts.exists()


def interrupted_at(monkeypatch, number):
    """The names of all pairs that are matched from now on; at that number the user interrupts."""
    match, seen = _Matcher.match, []

    def until(matcher, *names):
        seen.append(names)
        if len(seen) == number:
            raise KeyboardInterrupt
        return match(matcher, *names)

    monkeypatch.setattr(_Matcher, "match", until)
    return seen


def test_matches_that_were_begun_anew_go_on_too(pair, capsys, monkeypatch):
    Path("pairs.txt").write_text("a.png sub/b.JPG\nsub/b.JPG a.png\n")
    assert main([*LIST, "--out", "m.json"]) == 0
    before = contents("m.json")
    seen = interrupted_at(monkeypatch, 2)
    assert main([*LIST, "--out", "m.json", "--overwrite"]) != 0
    assert contents("m.json") == before
    assert main([*LIST, "--out", "m.json", "--overwrite"]) == 0
    assert seen[2:] == [("sub/b.JPG", "a.png")]
    assert contents("m.json") == before
    assert main([*LIST, "--out", "m.json", "--overwrite"]) == 0
    assert len(seen) == 5, "a run that ended is not gone on with"


@pytest.mark.parametrize(
    "left", [b"[1, 2]\n", b"null\n", b"\xff\xfe\n", b"", b'{"settings": {}}\n3\n', b'{"settings": 3}\n']
)
def test_what_is_no_list_of_pairs_is_begun_anew(pair, left):
    Path("pairs.txt").write_text("a.png sub/b.JPG\n")
    Path(".m.h5.pairs").write_bytes(left)
    assert main([*LIST, "--out", "m.h5"]) == 0
    assert len(contents("m.h5")) == 2


def test_json_has_the_pairs_of_an_interrupted_run_too(pair, capsys, monkeypatch):
    Path("pairs.txt").write_text("a.png sub/b.JPG\nsub/b.JPG a.png\n")
    interrupted_at(monkeypatch, 2)
    assert main([*LIST, "--out", "m.h5"]) != 0
    capsys.readouterr()
    assert main([*LIST, "--out", "m.h5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["names"] for each in found] == [["a.png", "sub/b.JPG"], ["sub/b.JPG", "a.png"]]
    assert all(np.shape(each["H_0to1"]) == (3, 3) for each in found)


def test_a_full_disk_is_told_with_the_file(pair, capsys, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    put = PairStore.put

    def on_a_full_disk(store, result):
        store.parts = Path("/dev/full")
        put(store, result)

    monkeypatch.setattr(PairStore, "put", on_a_full_disk)
    assert main(["match", "photos/a.png", "photos/sub/b.JPG", "--out", "m.json"]) == ERROR
    assert "/dev/full cannot be written: No space left on device" in capsys.readouterr().err


def test_pairs_that_left_the_list_are_not_written(pair, monkeypatch):
    cv2.imwrite("photos/c.png", CAMERA[::-1])
    Path("pairs.txt").write_text("a.png sub/b.JPG\na.png c.png\na.png none.png\n")
    finish = PairStore.finish
    monkeypatch.setattr(PairStore, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([*LIST, "--out", "m.json"]) != 0
    monkeypatch.setattr(PairStore, "finish", finish)
    Path("pairs.txt").write_text("a.png c.png\nsub/b.JPG c.png\n")
    assert main([*LIST, "--out", "m.json"]) == 0
    assert [each["names"] for each in contents("m.json")] == [["a.png", "c.png"], ["sub/b.JPG", "c.png"]]


@pytest.mark.parametrize("out", ["m.h5", "m.json", "m.db"])
def test_pairs_that_could_not_be_matched_are_tried_again(pair, capsys, monkeypatch, out):
    """The others are not matched again, and a file that has taken the place of the one that was written stays."""
    if out == "m.db":
        pytest.importorskip("pycolmap")
    Path("pairs.txt").write_text("a.png sub/b.JPG\na.png c.png\n")
    assert main([*LIST, "--out", out]) == ERROR
    assert "1 of 2 pairs could not be matched; the same command tries these again" in capsys.readouterr().err
    written = Path(out).read_bytes()
    assert main([*LIST, "--out", out, "--ratio", "0.9"]) == ERROR
    assert "begun with other settings (ratio)" in capsys.readouterr().err
    with monkeypatch.context() as later:
        later.setattr("kp.cli.match._VERSION", 99)
        assert main([*LIST, "--out", out]) == ERROR
        assert "begun with other settings (version)" in capsys.readouterr().err
    Path(out).write_bytes(b"mine")
    assert main([*LIST, "--out", out]) == ERROR
    assert f"{out} is there already" in capsys.readouterr().err
    assert Path(out).read_bytes() == b"mine"
    Path(out).unlink()
    seen = interrupted_at(monkeypatch, 3)
    assert main([*LIST, "--out", out]) == ERROR
    assert seen == [("a.png", "c.png")]
    assert out == "m.db" or Path(out).read_bytes() == written
    cv2.imwrite("photos/c.png", CAMERA[::-1])
    Path("pairs.txt").write_text("a.png sub/b.JPG\na.png c.png\nsub/b.JPG c.png\n")
    assert main([*LIST, "--out", out]) != 0
    assert main([*LIST, "--out", out]) == 0
    assert seen[1:] == [("a.png", "c.png"), ("sub/b.JPG", "c.png"), ("sub/b.JPG", "c.png")]
    assert main([*LIST, "--out", f"whole{out}"]) == 0
    assert contents(out) == contents(f"whole{out}")
    assert not Path(f".{out}.pairs").exists()
    assert main([*LIST, "--out", out]) == ERROR
    assert f"{out} is there already" in capsys.readouterr().err


def three(flags=(), lines="a.png sub/b.JPG\nsub/b.JPG c.png\na.png none.png\n"):
    """Match a list of three pairs, of which one fails."""
    cv2.imwrite("photos/c.png", CAMERA[::-1])
    Path("pairs.txt").write_text(lines)
    assert main([*LIST, "--out", "m.json", *flags]) == ERROR
    return [each["names"] for each in contents("m.json")]


def test_a_shorter_list_loses_no_pair_that_was_written(pair, capsys):
    both = three()
    assert len(both) == 2
    Path("pairs.txt").write_text("a.png none.png\n")
    assert main([*LIST, "--out", "m.json"]) == ERROR
    assert [each["names"] for each in contents("m.json")] == both
    cv2.imwrite("photos/none.png", CAMERA)
    assert main([*LIST, "--out", "m.json"]) == 0
    assert [each["names"] for each in contents("m.json")] == [["a.png", "none.png"], *both]
    assert not Path(".m.json.pairs").exists()


def test_two_images_do_not_go_on_with_a_list(pair, capsys):
    both = three()
    assert main(["match", "a.png", "sub/b.JPG", "--images", "photos", "--out", "m.json"]) == ERROR
    assert "begun with other settings (pairs), as .m.json.pairs beside it says" in capsys.readouterr().err
    assert [each["names"] for each in contents("m.json")] == both


def test_a_file_is_known_by_its_content(pair, capsys):
    three()
    written, when = Path("m.json").read_bytes(), Path("m.json").stat().st_mtime_ns
    Path("m.json").write_text("mine")
    os.utime("m.json", ns=(when, when))
    assert main([*LIST, "--out", "m.json"]) == ERROR
    assert "m.json is there already" in capsys.readouterr().err
    assert Path("m.json").read_text() == "mine"
    Path("m.json").write_bytes(written)
    assert main([*LIST, "--out", "m.json"]) == ERROR
    assert "2 of 3 pairs were matched before" in capsys.readouterr().err


def test_pairs_that_failed_when_a_file_was_begun_anew_are_tried_again(pair, capsys, monkeypatch):
    three()
    seen = interrupted_at(monkeypatch, None)
    three(["--overwrite"])
    assert len(seen) == 3, "begun anew"
    assert main([*LIST, "--out", "m.json", "--overwrite"]) == ERROR
    assert seen[3:] == [("a.png", "none.png")]
    capsys.readouterr()
    assert main([*LIST, "--out", "m.json", "--overwrite", "--ratio", "0.9"]) == ERROR
    assert len(seen) == 7, "begun anew with other settings"
    assert main([*LIST, "--out", "m.json", "--ratio", "0.9"]) == ERROR
    assert seen[7:] == [("a.png", "none.png")]


def test_two_images_are_printed_and_drawn_also_after_an_interruption(pair, capsys, monkeypatch):
    flags = ["match", "photos/a.png", "photos/sub/b.JPG", "--out", "m.json", "--draw", "m.png"]
    with monkeypatch.context() as patched:
        patched.setattr(PairStore, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(flags) != 0
    capsys.readouterr()
    assert main(flags) == 0
    assert "of a homography" in capsys.readouterr().out
    assert cv2.imread("m.png") is not None


def test_what_failed_as_a_whole_leaves_nothing(pair):
    assert main(["match", "photos/a.png", "photos/none.png", "--out", "m.json"]) == ERROR
    assert not Path(".m.json.pairs").exists()
    assert not Path("m.json").exists()


def test_an_old_result_of_an_image_that_is_gone_does_not_count(pair, capsys):
    """With --json all pairs are matched, so it fails: the others stay for another run."""
    three()
    Path("photos/c.png").unlink()
    assert main([*LIST, "--out", "m.json", "--json"]) == ERROR
    assert [each["names"] for each in contents("m.json")] == [["a.png", "sub/b.JPG"]]
    assert Path(".m.json.pairs").exists()


def rewritten(path, image):
    """Write another image into a file, ten seconds later."""
    cv2.imwrite(path, image)
    later = Path(path).stat().st_mtime + 10
    os.utime(path, (later, later))


def test_pairs_of_images_that_were_changed_are_matched_again(pair, capsys, monkeypatch):
    cv2.imwrite("photos/c.png", CAMERA[::-1])
    Path("pairs.txt").write_text("a.png sub/b.JPG\nsub/b.JPG c.png\na.png none.png\n")
    assert main([*LIST, "--out", "m.json"]) == ERROR
    rewritten("photos/a.png", CAMERA[:150])
    seen = interrupted_at(monkeypatch, None)
    assert main([*LIST, "--out", "m.json"]) == ERROR
    assert seen == [("a.png", "sub/b.JPG"), ("a.png", "none.png")]
    assert "1 of 3 pairs were matched before" in capsys.readouterr().err
    Path("photos/a.png").write_bytes(b"broken")
    os.utime("photos/a.png", (2e9, 2e9))
    assert main([*LIST, "--out", "m.json"]) == ERROR
    assert [each["names"] for each in contents("m.json")] == [["sub/b.JPG", "c.png"]]


@pytest.mark.parametrize("out", ["f.h5", "f"])
def test_images_that_were_changed_are_looked_at_again(pair, capsys, out):
    flags = ["detect", "photos/a.png", "photos/sub", "--out", out, *(["--format", "npz"] if out == "f" else [])]
    assert main(flags) == 0
    assert main(flags) == 0
    assert "0 keypoints in 0 images, 2 were there" in capsys.readouterr().out
    rewritten("photos/a.png", CAMERA[:150])
    assert main(flags) == 0
    assert "in 1 image, 1 were there" in capsys.readouterr().out
    found = kp.load("f.h5", "a.png") if out == "f.h5" else kp.load("f/a.png.npz")
    assert torch.equal(found["keypoints"], kp.Extractor().extract("photos/a.png")["keypoints"])


@pytest.mark.parametrize("out", ["m.h5", "m.json", "m.db"])
def test_matches_replace_nothing_unasked(pair, capsys, out):
    if out == "m.db":
        pytest.importorskip("pycolmap")
    Path(out).write_bytes(b"mine")
    flags = ["match", "photos/a.png", "photos/sub/b.JPG", "--out", out]
    assert main(flags) == ERROR
    assert capsys.readouterr().err == f"kp: error: {out} is there already: name another --out, or --overwrite it\n"
    assert Path(out).read_bytes() == b"mine"
    assert main(["match", "photos/a.png", "photos/none.png", "--out", out, "--overwrite"]) == ERROR
    assert Path(out).read_bytes() == b"mine", "nothing was matched"
    assert main([*flags, "--overwrite"]) == 0
    assert len(contents(out)) > 0


def test_features_of_a_file_are_matched(pair, capsys):
    """As those found anew, without the images; indices are of the file's own keypoints."""
    own = ["--weights", "described", "--descriptors", "own", "--max-keypoints", "300"]
    cv2.imwrite("photos/sub/b.JPG", cv2.resize(CAMERA, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    assert main(["detect", "photos/a.png", "photos/sub", "--out", "f.h5", "--descriptor-scales", "3", *own]) == 0
    assert main(["detect", "photos/a.png", "photos/sub", "--out", "none.h5"]) == 0
    assert main(["detect", "photos/a.png", "--out", "f.h5", *own]) == ERROR
    assert "made with another descriptor_scales" in capsys.readouterr().err
    assert main(["detect", "photos/a.png", "--out", "zero.h5", "--descriptor-scales", "0", *own]) == ERROR
    assert "--descriptor-scales must be at least 1, not 0" in capsys.readouterr().err
    assert main(["detect", "photos/a.png", "--out", "scales.h5", "--descriptor-scales", "3"]) == ERROR
    assert "--descriptor-scales is for own descriptors: --weights described --des" in capsys.readouterr().err
    assert not Path("scales.h5").exists()
    Path("photos/sub/b.JPG").rename("photos/b.JPG")
    Path("pairs.txt").write_text("a.png b.JPG\n")
    features = ["match", "--pairs", "pairs.txt", "--features", "f.h5", "--unrefined"]
    assert main([*features, "--out", "m.h5"]) == 0
    assert main([*LIST, "--out", "anew.h5", "--max-keypoints", "300", "--unrefined"]) == 0
    assert contents("m.h5") == contents("anew.h5")
    assert json.loads(h5_settings("m.h5"))["features"].startswith("f.h5 ")
    kept = Path("f.h5").read_bytes()
    assert json.loads(h5_settings("anew.h5"))["weights"].startswith("described ")
    capsys.readouterr()
    for flags, message in (
        (["--features", "nowhere.h5"], "there is no file --features nowhere.h5"),
        (["--features", "none.h5", "--unrefined"], "none.h5 has no descriptors: kp detect --weights described "),
        (["--features", "f.csv"], "--features f.csv must be an .h5, which has images by name"),
        (["--features", "f.h5", "--out", "f.h5", "--overwrite"], "--out f.h5 would overwrite --features"),
        (
            ["--features", "f.h5"],
            "there is no image a.png, which is needed to refine matches: --images DIR, or --unref",
        ),
        (["--overwrite"], "--overwrite replaces --out: name one"),
        (["--features", "f.h5", "--nms-radius", "2"], "--features has its keypoints: leave out --nms-radius"),
        *(
            (["--features", "f.h5", "--weights", "ranked", alone], "--features has its keypoints: leave out --weights")
            for alone in ("--unrefined", "--upright")
        ),
        (["--features", "f.h5", "--max-keypoints", "9"], "--features has its keypoints: leave out --max-keypoints"),
        (["--features", "f.h5", "--images", "photos/sub"], "photos/sub/a.png"),
    ):
        assert main(["match", "--pairs", "pairs.txt", *flags]) == ERROR
        assert message in capsys.readouterr().err
    assert Path("f.h5").read_bytes() == kept
    assert main([*features, "--device", "cpu", "--exif", "ignore"]) == 0, "as in the file"
    capsys.readouterr()
    Path("pairs.txt").write_text("a.png c.png\na.png b.JPG\n")
    assert main([*features, "--out", "n.h5"]) == ERROR
    err = capsys.readouterr().err
    assert "f.h5 has no image 'c.png': it has a.png, b.JPG" in err
    assert "1 of 2 pairs could not be matched" in err
    assert contents("n.h5") == contents("m.h5")


@pytest.fixture
def listed(turned):
    """A list with a pair of images that are not seen alike, and a command that finds the keypoints of both."""
    pytest.importorskip("h5py")
    Path(turned[0]).rename("photos/b.JPG")
    Path(turned[1]).rename("photos/t.png")
    Path("pairs.txt").write_text("b.JPG t.png\n")
    return ["detect", "photos/b.JPG", "photos/t.png", "--out", "f.h5"]


def matched(capsys, *flags):
    """The one pair of a list, and what is said beside it."""
    capsys.readouterr()
    assert main([*LIST, "--json", *flags]) == 0
    out, err = capsys.readouterr()
    return json.loads(out)[0], err


@pytest.mark.parametrize("descriptors", ["own", "rootsift"])
def test_features_of_a_file_have_a_second_look(listed, capsys, descriptors):
    """As those found anew: the file says how they were described. That of another program does not."""
    how = ["--weights", "described", "--descriptors", descriptors, "--resize", "300"]
    more = ["--descriptor-scales", "3"] if descriptors == "own" else []
    assert main([*listed, *how, *more]) == 0
    anew, _ = matched(capsys, *how)
    assert matched(capsys, "--features", "f.h5") == (anew, "")
    with pytest.importorskip("h5py").File("f.h5", "a") as file:
        del file.attrs["kp_settings"]
    without, err = matched(capsys, "--features", "f.h5")
    assert not err
    assert matched(capsys, "--features", "f.h5", "--exif", "apply") == (without, "")
    assert sum(anew["inliers"]) > sum(without["inliers"])
    first, _ = matched(capsys, *how, "--unrefined")
    assert without["keypoints1"] != first["keypoints1"], "matches are refined all the same"
    assert main([*LIST, "--features", "f.h5", "--weights", "ranked"]) == ERROR
    assert "f.h5 has no descriptors of weights: leave out --weights" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:photos/t.png is turned as its EXIF")
def test_images_of_features_are_turned_as_where_these_were_found(listed, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(cv2.imread("photos/t.png")[..., ::-1])).save("photos/t.png", exif=exif)
    how = ["--weights", "described", "--descriptors", "own", "--exif", "apply"]
    assert main([*listed, "--descriptor-scales", "3", *how]) == 0
    anew, _ = matched(capsys, *how)
    assert matched(capsys, "--features", "f.h5")[0] == anew
    assert sum(anew["inliers"]) > 100


@pytest.fixture
def own_weights(photos):
    """The shipped ones with other metadata: another file."""
    with safe_open(SHIPPED["described"], "pt") as file:
        save_file(load_file(SHIPPED["described"]), "mine.safetensors", file.metadata() | {"note": '"mine"'})
    return ["--weights", "mine.safetensors"]


def test_features_of_own_weights_have_a_second_look_by_them(listed, own_weights, capsys):
    shutil.copy(SHIPPED["described"], "other.safetensors")
    how = [*own_weights, "--descriptors", "own"]
    assert main([*listed, "--descriptor-scales", "3", *how]) == 0
    anew, _ = matched(capsys, *how)
    assert matched(capsys, "--features", "f.h5", *own_weights) == (anew, "")
    without, err = matched(capsys, "--features", "f.h5")
    weights = f"mine.safetensors {digest(Path('mine.safetensors'))}"
    assert err == f"kp: no image is looked at again: --weights must name the weights {weights} of f.h5\n"
    assert sum(without["inliers"]) < sum(anew["inliers"])
    for flags, message in (
        (["--weights", "other.safetensors"], "f.h5 was described by other weights than --weights other.safetensors"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        ([*own_weights, "--device", "nowhere"], "no device nowhere here"),
        (["--exif", "apply"], "--features f.h5 has keypoints of images as stored: leave out --exif apply"),
    ):
        assert main([*LIST, "--features", "f.h5", *flags]) == ERROR
        assert message in capsys.readouterr().err


def test_a_list_of_first_looks_is_not_gone_on_with_by_two(listed, own_weights, capsys):
    assert main([*listed, "--descriptors", "own", *own_weights]) == 0
    Path("pairs.txt").write_text("b.JPG t.png\nb.JPG none.png\n")
    flags = [*LIST, "--features", "f.h5", "--out", "m.json"]
    assert main(flags) == ERROR, "one pair is missing"
    capsys.readouterr()
    assert main([*flags, *own_weights]) == ERROR
    assert "m.json was begun with other settings (second_look)" in capsys.readouterr().err


def test_descriptors_that_cannot_be_had_here_are_not_looked_at_again(listed, capsys, monkeypatch):
    """The matches of the file are what they were without a second look, and this is said once."""
    assert main([*listed, "--weights", "described", "--descriptors", "rootsift"]) == 0
    change_settings("f.h5", descriptors="hardnet")
    monkeypatch.setitem(METHODS, "hardnet", unreachable)
    found, err = matched(capsys, "--features", "f.h5")
    assert found["verified_H"]
    assert err == "kp: no image is looked at again: no network here\n"


def unreachable(*_):
    raise ValueError("no network here")


def change_settings(path, **more):
    with pytest.importorskip("h5py").File(path, "a") as file:
        file.attrs["kp_settings"] = json.dumps(json.loads(file.attrs["kp_settings"]) | more)


def test_features_that_were_replaced_are_not_what_their_file_says(listed, capsys):
    """kp.save puts other descriptors in their place, as long or not."""
    how = ["--weights", "described", "--descriptors", "own", "--descriptor-scales", "3"]
    assert main([*listed, *how]) == 0
    kept = Path("f.h5").read_bytes()
    for method in ("orb", "rootsift"):
        Path("f.h5").write_bytes(kept)
        for name in ("b.JPG", "t.png"):
            features = kp.load("f.h5", name)
            features["descriptors"] = kp.describe(f"photos/{name}", features, method)
            kp.save("f.h5", name, features)
        assert files.read_settings(Path("f.h5")) == {}
        found, err = matched(capsys, "--features", "f.h5")
        assert not err
        assert found["verified_H"]
    assert main([*listed, *how]) == ERROR
    assert "f.h5 does not say how it was made" in capsys.readouterr().err


def test_other_images_than_those_of_the_features_are_told(listed, capsys):
    assert main([*listed, "--weights", "described", "--descriptors", "own"]) == 0
    cv2.imwrite("photos/t.png", cv2.imread("photos/t.png")[:-10])
    capsys.readouterr()
    assert main([*LIST, "--features", "f.h5"]) == ERROR
    err = capsys.readouterr().err
    assert "t.png: the image has 320 x 230 pixels, and the features are of another size" in err
    assert main([*LIST, "--features", "f.h5", "--unrefined"]) == 0, "no image is looked at"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: np.where(np.arange(values.size).reshape(values.shape) == 5, np.nan, values),
            "descriptors have values that are NaN or infinite",
        ),
        (lambda values: values[:, :-3], "there are {count} keypoints, but descriptors of {less}"),
        (lambda values: values.T, "there are {count} keypoints, but descriptors of 128"),
    ],
)
def test_descriptors_that_cannot_be_those_of_the_keypoints(listed, capsys, change, message):
    assert main([*listed, "--weights", "described", "--descriptors", "rootsift"]) == 0
    with pytest.importorskip("h5py").File("f.h5", "a") as file:
        values = change(file["t.png"]["descriptors"][()])
        count = len(file["t.png"]["keypoints"])
        del file["t.png"]["descriptors"]
        file["t.png"]["descriptors"] = values
    for more in ([], ["--unrefined"]):
        assert main([*LIST, "--features", "f.h5", *more]) == ERROR
        assert f"kp: b.JPG and t.png: {message.format(count=count, less=count - 3)}" in capsys.readouterr().err


def test_a_database_needs_sizes(listed, capsys):
    pytest.importorskip("pycolmap")
    assert main([*listed, "--weights", "described", "--descriptors", "own"]) == 0
    with pytest.importorskip("h5py").File("f.h5", "a") as file:
        del file["t.png"]["image_size"]
    assert main([*LIST, "--features", "f.h5", "--out", "m.db"]) == ERROR
    assert "f.h5 does not say how large t.png is, which a camera of m.db needs" in capsys.readouterr().err
    assert not Path("m.db").exists()


@pytest.mark.parametrize("settings", ["no JSON", "[1]", "3", np.arange(3), '{"exif": null}', '{"exif": ["apply"]}'])
def test_damaged_settings_are_one_line(listed, capsys, settings):
    assert main([*listed, "--weights", "described", "--descriptors", "rootsift"]) == 0
    with pytest.importorskip("h5py").File("f.h5", "a") as file:
        file.attrs["kp_settings"] = settings
    capsys.readouterr()
    assert main([*LIST, "--features", "f.h5"]) == ERROR
    err = capsys.readouterr().err
    assert err.startswith("kp: error: f.h5 is damaged: its attribute kp_settings ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "settings", ["null", "{}", '{"descriptors": ["own"]}', '{"descriptors": "own"}', '{"descriptors": "akaze"}']
)
def test_settings_that_do_not_say_how_are_those_of_another_program(listed, capsys, settings):
    assert main([*listed, "--weights", "described", "--descriptors", "rootsift"]) == 0
    with pytest.importorskip("h5py").File("f.h5", "a") as file:
        file.attrs["kp_settings"] = settings
    found, err = matched(capsys, "--features", "f.h5")
    assert not err
    assert found["verified_H"]


def test_other_features_of_the_same_name_are_not_gone_on_with(pair, capsys, monkeypatch):
    own = ["--weights", "described", "--descriptors", "own", "--out", "f.h5"]
    assert main(["detect", "photos/a.png", "photos/sub", *own]) == 0
    Path("pairs.txt").write_text("a.png b.JPG\nb.JPG a.png\n")
    flags = ["match", "--pairs", "pairs.txt", "--features", "f.h5", "--unrefined", "--out", "m.h5"]
    interrupted_at(monkeypatch, 2)
    assert main(flags) != 0
    assert main(["detect", "photos/a.png", "photos/sub", *own, "--max-keypoints", "50", "--overwrite"]) == 0
    assert main(flags) == ERROR
    assert "m.h5 was begun with other settings (features)" in capsys.readouterr().err


def h5_settings(path):
    with pytest.importorskip("h5py").File(path) as file:
        return file.attrs["kp_settings"]


@pytest.mark.parametrize("out", ["m.h5", "m.db"])
def test_no_more_than_some_images_are_kept(pair, monkeypatch, out):
    """The keypoints of an image that is not kept are found again: the same."""
    if out == "m.db":
        pytest.importorskip("pycolmap")
    cv2.imwrite("photos/c.png", CAMERA[:200])
    Path("pairs.txt").write_text("a.png sub/b.JPG\na.png c.png\nsub/b.JPG c.png\n")
    assert main([*LIST, "--out", out]) == 0
    wanted, seen = contents(out), []
    features = Extractor.extract
    monkeypatch.setattr(Extractor, "extract", lambda *given: seen.append(given) or features(*given))
    assert main([*LIST, "--out", out, "--overwrite"]) == 0
    assert len(seen) == 3
    monkeypatch.setattr("kp.cli.match._KEPT_FEATURES", 2)
    assert main([*LIST, "--out", out, "--overwrite"]) == 0
    assert contents(out) == wanted
    assert len(seen) > 3 + 3


def test_a_list_from_a_windows_editor(pair, capsys):
    Path("pairs.txt").write_bytes(b"\xef\xbb\xbfa.png sub/b.JPG\r\n")
    assert main(["match", "--pairs", "pairs.txt", "--images", "photos"]) == 0


def test_a_reader_that_has_left_does_not_keep_the_files_from_being_written(photos):
    Path("photos/broken.jpg").unlink()
    with Forked(partial(unread, main), "match", "photos/a.png", "photos/sub/b.JPG", "--json", "--out", "m.json") as one:
        code, _, err = one.finish()
    assert code == 0
    assert "rror" not in err
    assert len(json.loads(Path("m.json").read_text())) == 1


def test_nothing_in_common(photos, capsys):
    cv2.imwrite("black.png", np.zeros((100, 120), np.uint8))
    assert main(["match", "black.png", "photos/a.png"]) == 0
    out = capsys.readouterr().out
    assert "0 matches" in out
    assert out.endswith("; too few to tell from chance: the images may have nothing in common\n")


def test_of_other_pictures_no_match_is_shown_as_if_it_fitted(pair, capsys):
    assert main(["match", "photos/a.png", "b.png", "--draw", "m.png"]) == 0
    out = capsys.readouterr().out
    assert int(out.split(" of a homography")[0].split()[-1]) >= 4
    assert out.endswith("; too few to tell from chance: the images may have nothing in common\n")
    assert "homography, pixels of" not in out
    drawn = cv2.imread("m.png").reshape(-1, 3)
    count = {name: (drawn == colour).all(1).sum() for name, colour in DRAWN.items()}
    assert count["nothing"] > 500 > 10 * (count["homography"] + count["fundamental"])
    for names, verified in (("photos/a.png b.png", False), ("photos/sub/b.JPG b.png", True)):
        assert main(["match", *names.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["verified"] is verified
        assert kp.match_pair(*names.split())["verified"] is verified


@pytest.mark.parametrize("words", [[], ["--unrefined"]])
def test_evidence_is_of_matches_as_they_were_found(pair, monkeypatch, words):
    asked = []
    found = {"verified": True, "verified_H": True}
    monkeypatch.setattr("kp.features.match_pair.evidence", lambda *known: asked.append(known) or found)
    flags = ["match", "photos/a.png", "photos/sub/b.JPG", "--error", "7", *words]
    assert main([*flags, "--out", "m.json"]) == 0
    (result,) = contents("m.json")
    xy0, xy1, H_0to1, F_0to1, threshold, keypoints1 = asked[0]
    at1 = np.array(result["matches"])[:, 1]
    assert np.array_equal(xy0.numpy(), np.float32(result["keypoints0"]))
    assert np.array_equal(xy1.numpy(), keypoints1.numpy()[at1])
    assert np.array_equal(xy1.numpy(), np.float32(result["keypoints1"])) == bool(words)
    assert threshold == 7
    assert [matrix.tolist() for matrix in (H_0to1, F_0to1)] == [result["H_0to1"], result["F_0to1"]]


def test_a_homography_that_is_no_evidence_is_not_shown(pair, capsys, monkeypatch):
    """Also where a fundamental matrix is: its matches are drawn, all in its colour."""
    found = {"verified": True, "verified_H": False}
    monkeypatch.setattr("kp.features.match_pair.evidence", lambda *_: found)
    assert main(["match", "photos/a.png", "photos/sub/b.JPG", "--draw", "m.png"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("; too few of the homography to tell from chance\n")
    assert "homography, pixels of" not in out
    drawn = cv2.imread("m.png").reshape(-1, 3)
    count = {name: (drawn == colour).all(1).sum() for name, colour in DRAWN.items()}
    assert count["fundamental"] > 500 > 10 * count["homography"]


DRAWN = {"nothing": (0, 94, 213), "fundamental": (233, 180, 86), "homography": (115, 158, 0)}  # as OpenCV reads them


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a.png"], "two images are matched, not 1"),
        ([], "two images are matched, not 0"),
        (["photos/a.png", "photos/a.png", "--ratio", "1.5"], "--ratio"),
        (["photos/a.png", "photos/a.png", "--error", "0"], "--error"),
        (["photos/a.png", "photos/a.png", "--out", "x.csv"], "--out x.csv must end in"),
        (["photos/a.png", "photos/a.png", "--draw", "x.gif"], "must end in .png"),
        (["photos/a.png", "--pairs", "pairs.txt"], "not both"),
        (["--pairs", "nowhere.txt"], "--pairs nowhere.txt cannot be read: No such file or directory"),
        (["--pairs", "photos"], "--pairs photos cannot be read: Is a directory"),
        (["--pairs", "photos/a.png"], "--pairs photos/a.png cannot be read: invalid start byte"),
        (["--pairs", "photos/notes.txt"], "two names a line"),
        (["photos/a.png", "photos/a.png", "--images", "nowhere"], "--images nowhere is not a folder"),
    ],
)
def test_what_cannot_be_matched_is_one_line(photos, capsys, flags, message):
    assert main(["match", *flags]) == ERROR
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_matches_need_descriptors(photos, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["match", "photos/a.png", "photos/a.png", "--descriptors", "none"])
    err = capsys.readouterr().err
    assert err.startswith("kp match: error: argument --descriptors: invalid choice: 'none' (choose from ")
    assert err.count("\n") == 1
    with pytest.raises(SystemExit, match="0"):
        main(["match", "--help"])
    assert "--descriptors {own,rootsift," in capsys.readouterr().out


@pytest.mark.parametrize("command", MODULES)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: kp {command} ")


def test_version_and_overview(capsys):
    for flag in ("--version", "--help"):
        with pytest.raises(SystemExit):
            main([flag])
    out = capsys.readouterr().out
    assert f"kp {kp.__version__}" in out
    assert all(command in out for command in MODULES)


def test_what_is_no_command_is_one_line(capsys):
    for argv in ([], ["destroy"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_files_of_other_programs_stay(photos):
    Path("out/sub").mkdir(parents=True)
    for name in ("out/mine.csv", "out/sub/other.csv"):
        Path(name).write_text("mine")
    for flags in ([], ["--overwrite"], ["--overwrite", "--max-keypoints", "5"]):
        assert main(["detect", "photos/a.png", "--format", "csv", "--out", "out", *flags]) == 0
        assert Path("out/mine.csv").read_text() == Path("out/sub/other.csv").read_text() == "mine"
    assert kp.load("out/a.png.csv")["keypoints"].shape == (1, 5, 2)


def test_pictures_never_replace_images(photos, capsys):
    before = Path("photos/a.png").read_bytes()
    assert main(["detect", "photos/a.png", "--draw", "photos"]) == ERROR
    assert main(["match", "photos/a.png", "photos/sub/b.JPG", "--draw", "photos/a.png"]) == ERROR
    assert capsys.readouterr().err.count("would overwrite") == 2
    assert Path("photos/a.png").read_bytes() == before


def test_suffixes_in_capitals_keep_the_images_of_an_earlier_run(photos):
    for name in ("photos/a.png", "photos/sub/b.JPG"):
        assert main(["detect", name, "--out", "F.H5"]) == 0
    assert files.names_in("F.H5") == ["a.png", "b.JPG"]


def test_types_that_cannot_be_read_are_told(photos, capsys):
    Path("phone").mkdir()
    Path("phone/a.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(50))
    assert main(["detect", "phone"]) == ERROR
    err = capsys.readouterr().err
    assert "phone/a.HEIC is an unsupported image type, heic" in err
    assert "none of 1 images could be read: nothing is written" in err
    assert not Path("keypoints.h5").exists()


def test_what_cannot_be_drawn_is_found_all_the_same(photos, capsys):
    cv2.imwrite("photos/small.png", CAMERA[:100, :100])
    assert main(["detect", "photos/a.png", "photos/small.png", "--draw", "both.mp4"]) == ERROR
    assert "different sizes" in capsys.readouterr().err
    assert files.names_in("keypoints.h5") == ["a.png", "small.png"]


def test_names_with_spaces_are_parted_by_tabs(photos):
    cv2.imwrite("photos/c d.png", CAMERA)
    Path("pairs.txt").write_text("a.png\tc d.png\n")
    assert main(["match", "--pairs", "pairs.txt", "--images", "photos", "--out", "m.json"]) == 0
    assert json.loads(Path("m.json").read_text())[0]["names"] == ["a.png", "c d.png"]


def test_a_file_that_does_not_say_how_it_was_made_is_not_added_to(photos, capsys):
    kp.save("keypoints.h5", "x.png", kp.Extractor().extract("photos/a.png"))
    assert main(["detect", "photos/a.png"]) == ERROR
    assert "does not say how it was made" in capsys.readouterr().err
    assert files.names_in("keypoints.h5") == ["x.png"]


def test_weights_of_one_name_and_another_content_do_not_mix(photos, capsys):
    for folder, name in (("one", "default"), ("two", "ranked")):
        Path(folder).mkdir()
        Path(folder, "weights.safetensors").write_bytes(SHIPPED[name].read_bytes())
    assert main(["detect", "photos/a.png", "--weights", "one/weights.safetensors"]) == 0
    assert main(["detect", "photos", "--weights", "two/weights.safetensors"]) == ERROR
    assert "made with another weights" in capsys.readouterr().err
