"""Damaged sequences, given to the command: one line names the file and says what to do, and finished rows are kept."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import evaluate
from kp.evaluation import baselines

SIZE = (41, 53)
PROGRESS_BAR = re.compile(r" *\d+%\|[^|]*\|[^\[\n]*\[[^\]\n]*\]")
ADVICE = ("unpack the archive again", "restore the file", "add --download", "pass the folder", "choose another")


def write_sequence(folder, count=3, size=SIZE, shift=0):
    """Images of blurred noise, and homographies that move by ``shift`` pixels to the right for each image."""
    folder.mkdir(parents=True)
    noise = cv2.GaussianBlur(np.random.default_rng(len(folder.name)).random(size), (0, 0), 1)
    image = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    for k in range(1, count + 1):
        assert cv2.imwrite(str(folder / f"{k}.ppm"), np.dstack([image] * 3))
        if k > 1:
            (folder / f"H_1_{k}").write_text(f"1 0 {shift * (k - 1)}\n0 1 0\n0 0 1\n")
    return folder


@pytest.fixture
def root(tmp_path):
    """A good root of a sequence of each split, with two pairs each; i_lamp comes first."""
    for name in ("i_lamp", "v_wall"):
        write_sequence(tmp_path / "root" / name)
    return tmp_path / "root"


@pytest.fixture
def run(tmp_path, capfd):
    """A function that runs the command. It returns the exit code, stdout, the lines of stderr, and the JSON content."""

    def run(root, *flags, json_file=tmp_path / "table.json"):
        capfd.readouterr()
        try:
            args = ["--hpatches", root, "--json", json_file, "--detectors", "harris", *flags]
            code = evaluate.main([str(a) for a in args])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()  # also what OpenCV writes to the file descriptors
        assert "Traceback" not in out + err
        lines = [line.strip() for line in PROGRESS_BAR.sub("", err).splitlines() if line.strip()]
        return code, out, lines, strict(json_file)

    return run


def strict(path):
    """The content of a JSON file without NaN and Infinity, or None if there is no file."""
    if not path.is_file():
        return None
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def message_of(code, lines):
    """The one line of a run that failed."""
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("evaluate.py: error: ")
    return lines[0]


def check_only_the_first_sequence_is_there(out, content):
    assert "harris" in out
    assert content["complete"] is False
    assert [(pair["sequence"], pair["image"]) for pair in content["pairs"]] == [("i_lamp", 2), ("i_lamp", 3)]
    assert [(row["split"], row["pairs"]) for row in content["rows"]] == [("i", 2), ("all", 2)]


# --- found before anything is measured ---


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda wall: (wall / "1.ppm").unlink(), "v_wall lacks image 1"),
        (lambda wall: (wall / "2.ppm").rename(wall / "2.heic"), "v_wall/2.heic is an unsupported image type .heic"),
        (lambda wall: [f.unlink() for f in wall.glob("H*")], "v_wall has images 1, 2, 3 but no homography H_1_k"),
        (lambda wall: [f.unlink() for f in wall.glob("*.ppm")], "v_wall lacks image 1, image 2, image 3"),
        (lambda wall: (wall / "H_1_3").rename(wall / "H_1_4"), "v_wall lacks image 4, H_1_3"),
        (lambda wall: (wall / "H_1_2").write_text("1 0 0 0 1 0 0 0"), "v_wall/H_1_2 has 8 numbers"),
        (lambda wall: (wall / "H_1_2").write_text("1 2 3 2 4 6 0 0 1"), "v_wall/H_1_2 is a singular matrix"),
        (lambda wall: replace_by_folder(wall / "H_1_2"), "v_wall/H_1_2 "),
        (lambda wall: [f.unlink() for f in wall.glob("[23H]*")], "v_wall has only one image"),
    ],
)
def test_a_sequence_that_cannot_be_whole_stops_before_measuring(root, run, damage, named):
    damage(root / "v_wall")
    code, out, lines, content = run(root)
    assert str(root / named) in message_of(code, lines)
    assert any(advice in lines[0] for advice in (*ADVICE, "needs at least", "convert it to .png", "add a text of 9"))
    assert (out, content) == ("", None)


def empty_root(root):
    shutil.rmtree(root)
    root.mkdir()
    return root


def empty_sequence(root):
    (empty_root(root) / "v_empty").mkdir()
    return root


def file_as_root(root):
    shutil.rmtree(root)
    root.write_text("PK")
    return root


@pytest.mark.parametrize(
    "make",
    [empty_root, empty_sequence, lambda root: empty_sequence(root) / "v_empty", file_as_root],
    ids=["empty root", "empty sequence", "empty sequence as root", "file"],
)
def test_a_root_with_nothing_to_measure(root, run, make):
    path = make(root)
    code, out, lines, content = run(path)
    assert f"{path} " in message_of(code, lines)
    assert any(advice in lines[0] for advice in ADVICE)
    assert (out, content) == ("", None)


# --- found while measuring ---


@pytest.mark.parametrize("data", [b"", b"P6\n100000 100000\n255\n" + bytes(99)], ids=["empty", "huge"])
def test_an_image_that_is_none_is_named_and_what_was_done_is_kept(root, run, data):
    path = root / "v_wall" / "3.ppm"
    path.write_bytes(data)
    code, out, lines, content = run(root)
    assert f"{path} " in message_of(code, lines)
    assert "unpack the archive again" in lines[0]
    check_only_the_first_sequence_is_there(out, content)


@pytest.mark.parametrize("how", ["folder", "permission"])
def test_an_image_that_cannot_be_read_is_named_with_what_to_do(root, run, monkeypatch, how):
    path, read = root / "v_wall" / "2.ppm", Path.read_bytes

    def refuse(self):
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return read(self)

    if how == "folder":
        replace_by_folder(path)
    else:
        monkeypatch.setattr(Path, "read_bytes", refuse)
    code, out, lines, content = run(root)
    assert f"{path} cannot be read" in message_of(code, lines)
    check_only_the_first_sequence_is_there(out, content)
    assert lines[0].rpartition(": ")[2] not in ("is a directory", "permission denied"), "it does not say what to do"


def test_a_homography_to_infinity_is_named_and_what_was_done_is_kept(root, run):
    """w = x - 26 is 0 at x = 26, the centre of 53 pixels."""
    (root / "v_wall" / "H_1_3").write_text("1 0 0 0 1 0 1 0 -26")
    code, out, lines, content = run(root)
    assert "v_wall/H_1_3 " in message_of(code, lines)
    assert "restore the file" in lines[0]
    check_only_the_first_sequence_is_there(out, content)


def harris_gives(monkeypatch, scores):
    """Replace Harris by ``scores(image, i)``: image (1, 1, H, W), number of the call 0, 1, ... -> score map."""
    calls = []

    def detector(image):
        calls.append(image)
        return scores(image, len(calls) - 1)

    monkeypatch.setitem(baselines.BASELINES, "harris", detector)


def test_scores_that_are_not_numbers_are_told_with_detector_and_sequence(root, run, monkeypatch):
    harris_gives(monkeypatch, lambda image, i: torch.where(image == image.max(), torch.nan if i == 4 else 1.0, 0.0))
    code, out, lines, content = run(root)
    message_of(code, lines)
    check_only_the_first_sequence_is_there(out, content)
    assert "NaN" in lines[0]
    assert "harris" in lines[0]
    assert "v_wall" in lines[0]


# --- other names than the release's ---


def test_oxford_names_and_numbers_from_0_measure_the_same_pairs(root, run):
    """A copy of v_wall with Oxford's names and a copy of i_lamp with numbers from 0 have rows like the originals."""
    for k in (1, 2, 3):
        (root / "graf").mkdir(exist_ok=True)
        (root / "night").mkdir(exist_ok=True)
        shutil.copy(root / "v_wall" / f"{k}.ppm", root / "graf" / f"img{k}.ppm")
        shutil.copy(root / "i_lamp" / f"{k}.ppm", root / "night" / f"0{k - 1}.ppm")
        if k > 1:
            (root / "graf" / f"H1to{k}p").write_text("1,0,2\r\n0,1,0\r\n0,0,1", encoding="utf-16")
            (root / "v_wall" / f"H_1_{k}").write_text("1 0 2\n0 1 0\n0 0 1\n")
            shutil.copy(root / "i_lamp" / f"H_1_{k}", root / "night" / f"H_0_{k - 1}.txt")
    code, _, lines, content = run(root, "--export", root.parent / "maps")
    assert (code, lines) == (0, [])
    pairs = {(pair["sequence"], pair["image"]): pair for pair in content["pairs"]}
    for copy, original, split in (("graf", "v_wall", "v"), ("night", "i_lamp", "i")):
        for k in (2, 3):
            named = {"sequence": copy, "image": k}
            assert pairs[copy, k] == pairs[original, k] | named
            assert pairs[copy, k]["split"] == split
    assert (root.parent / "maps" / "graf" / "H_1_2").read_text() == "1.0 0.0 2.0\n0.0 1.0 0.0\n0.0 0.0 1.0\n"


# --- small images and few keypoints ---


def test_two_images_are_a_sequence(tmp_path, run):
    write_sequence(tmp_path / "root" / "v_two", count=2)
    code, _, lines, content = run(tmp_path / "root")
    assert (code, lines) == (0, [])
    assert [(pair["sequence"], pair["image"]) for pair in content["pairs"]] == [("v_two", 2)]
    assert content["complete"] is True
    assert content["rows"][0]["repeatability"] == 1  # the same picture twice


def test_tiny_images_have_rows_like_any_other(tmp_path, run):
    sizes = [(1, 1), (5, 5), (1, 53)]
    for height, width in sizes:
        write_sequence(tmp_path / "root" / f"v_{height}x{width}", count=2, size=(height, width))
    names = ("kp", "harris", "sift", "random")
    flags = ("--protocol", "native", "squash", "240x320", "--max-keypoints", 5, "--detectors", *names)
    code, _, lines, content = run(tmp_path / "root", *flags)
    assert (code, lines) == (0, [])
    assert [row["detector"] for row in content["rows"][::2]] == list(names) * 3
    assert len(content["pairs"]) == len(sizes) * len(names) * 3
    for pair in content["pairs"]:
        if pair["protocol"] == "native":  # a border of 4 pixels leaves no room
            assert (pair["repeatability"], pair["localisation_error"], pair["common"]) == (0, None, 0)
        else:
            assert 0 <= pair["repeatability"] <= 1
            assert pair["common"] <= 5


@pytest.mark.parametrize("protocol", ["native", "240x320"])
def test_a_picture_of_nothing_scores_zero_in_strict_json(root, run, protocol):
    for path in root.rglob("*.ppm"):
        assert cv2.imwrite(str(path), np.full((*SIZE, 3), 77, np.uint8))
    code, _, lines, content = run(root, "--protocol", protocol)
    assert (code, lines) == (0, [])
    assert [row["split"] for row in content["rows"]] == ["i", "v", "all"]
    for numbers in content["rows"] + content["pairs"]:
        assert (numbers["repeatability"], numbers["localisation_error"]) == (0, None)
        assert (numbers["common"], numbers["one_to_one"], numbers["chance"], numbers["coverage"]) == (0, 0, 0, 0)
    assert len(content["pairs"]) == 4


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_keypoints_than_may_count_all_count(tmp_path, run, monkeypatch, count):
    """The keypoints are at the same places in both images, and the homography moves each by 2 pixels."""
    write_sequence(tmp_path / "root" / "v_few", count=2, shift=2)

    def scores(image, i):
        found = torch.full_like(image, -torch.inf)
        found[0, 0, 20, 10 : 10 + 12 * count : 12] = torch.arange(count, 0, -1.0)
        return found

    harris_gives(monkeypatch, scores)
    code, _, lines, content = run(tmp_path / "root")
    assert (code, lines) == (0, [])
    (pair,) = content["pairs"]
    assert (pair["common"], pair["repeated"], pair["localisation_error"]) == (count, count, 2)
    assert (pair["repeatability"], pair["one_to_one"], pair["repeatability_1px"]) == (1, 1, 0)


# --- paths and disks ---


def test_blanks_and_non_ascii_letters_in_every_path(root, tmp_path, run):
    there = tmp_path / "añ b ü" / "空 Ж"
    root = shutil.copytree(root, there / "die Wände")
    code, out, lines, content = run(root, "--export", there / "mäps of", json_file=there / "tàble 1.json")
    assert (code, lines) == (0, [])
    assert str(root) in out
    assert content["settings"]["source"] == "die Wände"
    assert len(content["pairs"]) == 4
    assert (np.load(there / "mäps of" / "v_wall" / "3_det.npy") > 0).any()
    (root / "v_wall" / "2.ppm").write_bytes(b"")
    code, out, lines, content = run(root, json_file=there / "tàble 2.json")
    assert f"{root / 'v_wall' / '2.ppm'} is truncated" in message_of(code, lines)
    check_only_the_first_sequence_is_there(out, content)


def test_a_json_file_in_a_folder_that_cannot_be_made_is_named(root, tmp_path, run):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "table.json"
    code, out, lines, content = run(root, json_file=path)
    assert f"{path} cannot be written" in message_of(code, lines)
    assert (out, content) == ("", None)


@pytest.mark.parametrize("bad", [False, True])
def test_a_full_disk_leaves_the_old_json_file_and_prints_the_table(root, tmp_path, run, monkeypatch, bad):
    def full(handle):
        if os.fstat(handle).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "there" / "table.json"
    path.parent.mkdir()
    path.write_text('{"old": true}')
    if bad:
        (root / "v_wall" / "2.ppm").write_bytes(b"")
    monkeypatch.setattr(os, "fsync", full)
    code, out, lines, content = run(root, json_file=path)
    assert f"{path} cannot be written: no space left" in message_of(code, lines).lower()
    assert content == {"old": True}
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
    assert f"pairs: {'i 2' if bad else 'i 2, v 2'}, all {2 if bad else 4}" in out


# --- Ctrl-C ---


def interrupt_at(monkeypatch, number):
    def scores(image, i):
        if i == number:
            raise KeyboardInterrupt
        return image

    harris_gives(monkeypatch, scores)


@pytest.mark.parametrize(
    ("third", "done"),
    [(2, []), (5, ["i_lamp", "i_lamp"])],
    ids=["of the first sequence", "of the second sequence"],
)
def test_ctrl_c_at_the_third_image(root, tmp_path, run, monkeypatch, third, done):
    (tmp_path / "table.json").write_text('{"old": true}')
    interrupt_at(monkeypatch, third)
    code, out, lines, content = run(root)
    assert code == 130
    assert len(lines) == 1
    assert lines[0].startswith("evaluate.py: interrupted: ")
    assert content["complete"] is False
    assert [pair["sequence"] for pair in content["pairs"]] == done
    if done:
        check_only_the_first_sequence_is_there(out, content)
    else:
        assert content["rows"] == []
        assert "nothing was measured" in out


def test_ctrl_c_in_the_second_protocol_keeps_all_of_the_first(root, run, monkeypatch):
    interrupt_at(monkeypatch, 6 + 4)
    code, out, lines, content = run(root, "--protocol", "native", "squash", "480x640", "--max-keypoints", 20)
    assert (code, len(lines), content["complete"]) == (130, 1, False)
    done = [(pair["protocol"], pair["sequence"], pair["image"]) for pair in content["pairs"]]
    native = [("native", name, k) for name in ("i_lamp", "v_wall") for k in (2, 3)]
    assert done == [*native, ("squash", "i_lamp", 2), ("squash", "i_lamp", 3)]
    assert [(row["protocol"], row["split"]) for row in content["rows"]] == [
        *[("native", split) for split in ("i", "v", "all")],
        *[("squash", split) for split in ("i", "all")],
    ]
    assert out.count("pairs: ") == 2
    assert "sequences, 480x640: " not in out
