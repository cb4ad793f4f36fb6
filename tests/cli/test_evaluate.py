"""evaluate.py as a user runs it: what it prints, what it writes, and one line for everything that is wrong."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from forked import CONTEXT, Forked, unread
from kornia.feature import KeyNet
from sequence_folders import write_ppm, write_root

import evaluate
from kp.cli import evaluate as evaluate_command
from kp.config import MODELS
from kp.data.download import DownloadError
from kp.evaluation import benchmark, learned_baselines, registry, results
from kp.support import parallel

CLASSICAL = ("harris", "shi-tomasi", "fast", "sift", "orb", "random")


@pytest.fixture
def root(tmp_path):
    """A root with two pairs of each split."""
    return write_root(tmp_path / "root")


def run(capsys, *args):
    """Exit code, standard output and standard error of a run in this process."""
    try:
        code = evaluate.main([str(a) for a in args])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def error(capsys, *args):
    """The line of a run that fails before it measures anything."""
    code, out, err = run(capsys, *args)
    assert code == 2
    assert out == ""
    assert err.startswith("evaluate.py: error: ")
    assert err.count("\n") == 1
    return err


def test_all_classical_detectors_in_a_table_and_in_json(root, tmp_path, capsys):
    path = tmp_path / "new" / "table.json"
    code, out, _ = run(capsys, "--hpatches", root, "--detectors", *CLASSICAL, "--json", path)
    assert code == 0
    assert "best 300 keypoints that the other view sees, repeated within 3 px" in out
    lines = {line.split()[0]: line for line in out.splitlines()}
    content = json.loads(path.read_text())
    assert [(row["detector"], row["split"]) for row in content["rows"]] == [
        (name, split) for name in CLASSICAL for split in ("i", "v", "all")
    ]
    for row in content["rows"]:
        assert f"{row['repeatability']:.3f}" in lines[row["detector"]]
        assert row["pairs"] == (4 if row["split"] == "all" else 2)
        assert row["common"] > 0
    by_name = {row["detector"]: row for row in content["rows"] if row["split"] == "all"}
    assert by_name["harris"]["repeatability"] > 0.9 > 0.7 > by_name["random"]["repeatability"]
    assert content["complete"] is True
    assert content["settings"]["protocols"]["native"]["nms_size"] == 9
    assert content["weights"] is None
    assert len(content["pairs"]) == 6 * 4


def test_split_detector_and_settings_reach_the_measurement(root, tmp_path, capsys):
    path = tmp_path / "v.json"
    flags = [
        "--split",
        "v",
        "--max-keypoints",
        7,
        "--threshold",
        0.5,
        "--nms-size",
        5,
        "--detectors",
        "harris",
        "harris",
    ]
    code, *_ = run(capsys, "--hpatches", root, *flags, "--json", path)
    content = json.loads(path.read_text())
    assert code == 0
    assert [(row["detector"], row["split"], row["common"]) for row in content["rows"]] == [("harris", "v", 7)]
    assert {pair["sequence"] for pair in content["pairs"]} == {"v_wall"}


def test_a_detector_that_cannot_run_is_a_row_with_its_reason(root, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    flags = ["--detectors", "keynet", "harris", "--baseline-weights", tmp_path / "empty", "--json", tmp_path / "t.json"]
    code, out, _ = run(capsys, "--hpatches", root, *flags)
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("keynet"))
    assert "skipped: " in line
    assert "keynet_pytorch.pth" in line
    content = json.loads((tmp_path / "t.json").read_text())
    assert list(content["skipped"]) == ["keynet"]
    assert {row["detector"] for row in content["rows"]} == {"harris"}


def test_learned_baselines_read_their_weights_from_files(root, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save({"state_dict": KeyNet(pretrained=False).state_dict()}, tmp_path / learned_baselines.FILES["keynet"])
    code, out, _ = run(capsys, "--hpatches", root, "--detectors", "keynet", "--baseline-weights", tmp_path)
    assert code == 0
    assert "skipped" not in out
    assert any(line.startswith("keynet") for line in out.splitlines())


@pytest.fixture
def forked_workers(monkeypatch):
    """Worker processes start at once; tests/support/test_parallel.py has those of kp, which import torch anew."""
    monkeypatch.setattr(parallel, "get_context", lambda method: CONTEXT)


def test_workers_share_the_sequences(root, tmp_path, capsys, forked_workers):
    for workers in (1, 2):
        flags = ["--detectors", "fast", "random", "--workers", workers, "--json", tmp_path / f"{workers}.json"]
        assert run(capsys, "--hpatches", root, *flags)[0] == 0
    first, second = (json.loads((tmp_path / f"{workers}.json").read_text())["pairs"] for workers in (1, 2))
    assert first == second


def test_bad_input_in_a_worker_is_one_line(root, tmp_path, capsys, forked_workers):
    (root / "v_wall" / "3.ppm").write_bytes(b"P6 1")
    code, out, err = run(capsys, "--hpatches", root, "--detectors", "harris", "--workers", 2)
    assert code == 2
    assert "v_wall/3.ppm is truncated" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert "harris" in out


def test_the_same_command_gives_the_same_numbers(root, tmp_path, capsys):
    rows = []
    for name in ("a", "b"):
        run(capsys, "--hpatches", root, "--detectors", "random", "--json", tmp_path / name)
        rows.append(json.loads((tmp_path / name).read_text())["rows"])
    assert rows[0] == rows[1]


class Logits(torch.nn.Module):
    """A network in the place of the trained one: bright pixels, some of them beyond what a sigmoid can tell apart."""

    def forward(self, image):
        return (image - 0.4) * 200


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A weights file, and a loader that takes it."""
    monkeypatch.setattr(registry, "load_detector", lambda path, device, scales: Logits().to(device))
    (tmp_path / "my.safetensors").write_bytes(b"weights")
    return tmp_path / "my.safetensors"


def test_our_detector_is_measured_and_exported(root, weights, tmp_path, capsys):
    out, table = tmp_path / "maps", tmp_path / "t.json"
    flags = ["--weights", weights, "--detectors", "harris", "kp", "--export", out, "--json", table, "--device", "cpu"]
    code, *_ = run(capsys, "--hpatches", root, *flags)
    assert code == 0
    content = json.loads(table.read_text())
    assert content["weights"]["path"] == weights.name
    assert sorted(p.name for p in out.iterdir()) == ["i_lamp", "v_wall"]
    bright = cv2.imread(str(root / "v_wall" / "2.ppm"), cv2.IMREAD_GRAYSCALE)
    found = np.load(out / "v_wall" / "2_det.npy")
    assert found.shape == bright.shape
    assert (found > 0).any()
    assert found.max() <= 1  # probabilities, not logits
    for y, x in np.argwhere(found > 0):
        assert bright[y, x] == bright[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5].max()
    assert (out / "v_wall" / "H_1_3").read_bytes() == (root / "v_wall" / "H_1_3").read_bytes()


def test_shipped_detectors_go_by_their_names(root, tmp_path, capsys):
    path = tmp_path / "table.json"
    flags = ["--hpatches", root, "--detectors", "kp", *MODELS, "--json", path]
    assert run(capsys, *flags, "--weights", MODELS[1])[0] == 0
    rows = {}
    for row in json.loads(path.read_text())["rows"]:
        rows.setdefault(row.pop("detector"), []).append(row)
    assert rows["kp"] == rows[MODELS[1]]
    assert rows["kp"] != rows[MODELS[0]]


def test_protocols_each_have_a_table(root, tmp_path, capsys):
    flags = ["--protocol", "native", "240x320", "squash", "--detectors", "harris", "--json", tmp_path / "t.json"]
    code, out, _ = run(capsys, "--hpatches", root, *flags)
    assert code == 0
    assert [out.count(f"sequences, {name}: ") for name in ("native", "240x320", "squash")] == [1, 1, 1]
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert len(rows) == 9
    assert len({row["repeatability"] for row in rows if row["split"] == "v"}) > 1


def test_a_single_baseline_can_be_exported(root, tmp_path, capsys):
    code, *_ = run(capsys, "--hpatches", root, "--detectors", "fast", "--export", tmp_path / "maps")
    assert code == 0
    assert (np.load(tmp_path / "maps" / "i_lamp" / "1_det.npy") > 0).any()


def test_the_built_in_photographs_are_the_default(capsys, monkeypatch):
    monkeypatch.setattr(benchmark.photographs, "FILES", benchmark.photographs.FILES[:2])
    code, out, _ = run(capsys, "--detectors", "harris", "random", "--split", "v", "--seed", 3)
    assert code == 0
    assert out.startswith("the built-in photographs, seed 3, 2 sequences")


def test_hpatches_is_fetched_and_measured(root, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmark, "fetch_hpatches", lambda folder: asked.append(folder) or root)
    code, out, _ = run(capsys, "--download", "--detectors", "harris")
    assert (code, asked) == (0, [Path("hpatches-sequences-release")])
    assert out.startswith("hpatches-sequences-release, 2 sequences")

    def fail(folder):
        raise DownloadError("no network: put the archive there by hand")

    monkeypatch.setattr(benchmark, "fetch_hpatches", fail)
    message = error(capsys, "--hpatches", tmp_path / "data", "--download", "--detectors", "harris")
    assert "no network: put the archive there by hand" in message


def test_very_large_sequences_can_be_left_out(tmp_path, capsys):
    root = write_root(tmp_path / "root", ["i_dc", "i_lamp", "v_talent"])
    code, out, _ = run(capsys, "--hpatches", root, "--detectors", "harris", "--subset", "d2net")
    assert code == 0
    assert ", 1 sequences, " in out
    assert "leaves out" in error(capsys, "--hpatches", root / "i_dc", "--detectors", "harris", "--subset", "d2net")


def test_help_teaches(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for text in (
        "Repeatability is the share",
        "examples:",
        "python evaluate.py --hpatches",
        "within",
        "squash: whole images squashed to 240x320",
        "best 1000 keypoints",
        "ROOT/INDEX.md",
        "shifts them by half a pixel",
        "--keypoints DIR",
        "with --keypoints also mine",
    ):
        assert text in out


def test_hpatches_without_a_folder_says_what_to_download(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for args in (["--hpatches"], ["--hpatches", "elsewhere"]):
        message = error(capsys, *args)
        assert "add --download, or get hpatches-sequences-release.zip of vbalnt/hpatches" in message
        assert "https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/hpatches-sequences-release.zip" in message
        assert "the built-in photographs" in message


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--threshold", "-1"], "--threshold must be at least 0 and at most 100, not -1.0"),
        (["--threshold", "nan"], "--threshold"),
        (["--threshold", "inf"], "--threshold"),
        (["--threshold", "three"], "--threshold"),
        (["--max-keypoints", "0"], "--max-keypoints must be at least 1"),
        (["--max-keypoints", "1.5"], "--max-keypoints"),
        (["--nms-size", "8"], "--nms-size must be odd"),
        (["--scales", "0"], "--scales must be at least 1 and at most 12, not 0"),
        (["--nms", "soft"], "--nms"),
        (["--nms-size", "-3"], "--nms-size must be at least 1 and at most 99"),
        (["--nms-size", "999"], "--nms-size must be at least 1 and at most 99"),
        (["--nms-size", "2000001"], "--nms-size must be at least 1 and at most 99"),
        (["--max-keypoints", "9" * 400], "--max-keypoints must be at least 1 and at most"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--seed", "9" * 30], "--seed must be at least 0"),
        (["--workers", "100000"], "--workers must be at least 1 and at most 256"),
        (["--scales", "99"], "--scales must be at least 1 and at most 12"),
        (["--baseline-weights", "nowhere"], "--baseline-weights: nowhere is not a folder"),
        (["--keypoints", "nowhere"], "nowhere is not a folder"),
        (["--json", "."], ". is a folder"),
        (["--json", "page", "--report", "page"], "page is a folder"),
        (["--json", "/proc/nowhere/t.json"], "cannot be written"),
        (["--report", "/proc/nowhere"], "cannot be written"),
        (["--device", "hpu"], "no device hpu here"),
        (["--border", "-1"], "--border must be at least 0 and at most 1000"),
        (["--split", "x"], "--split"),
        (["--protocol", "superpoint"], "--protocol"),
        (["--workers", "0"], "--workers"),
        (["--protocol", "native", "squash", "--detectors", "harris", "--export", "maps"], "one protocol"),
        (["--detectors", "surf"], "--detectors"),
        (["--device", "abacus"], "abacus"),
        (["--nonsense"], "--nonsense"),
        (["--detectors", "harris", "fast", "--export", "maps"], "--export writes one detector"),
        (["--detectors", "kp", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_a_wrong_flag_is_one_line(root, capsys, tmp_path, monkeypatch, flags, complaint):
    monkeypatch.chdir(tmp_path)
    detectors = [] if "--detectors" in flags else ["--detectors", "harris"]
    assert complaint in error(capsys, "--hpatches", root, *detectors, *flags)


def test_our_detectors_look_at_as_many_sizes_as_the_flag_says(root, tmp_path, capsys):
    path, tables = tmp_path / "table.json", []
    for flags in ([], ["--scales", "1"], ["--scales", "4"]):
        assert run(capsys, "--hpatches", root, "--detectors", "harris", "kp", MODELS[0], "--json", path, *flags)[0] == 0
        tables.append(json.loads(path.read_text()))
    assert [table["settings"]["scales"] for table in tables] == [1, 1, 4]
    harris, ours, named = (
        [[row for row in table["rows"] if row["detector"] == name] for table in tables]
        for name in ("harris", "kp", MODELS[0])
    )
    assert harris[0] == harris[1] == harris[2]
    assert ours[0] == ours[1] != ours[2]
    assert [row | {"detector": "kp"} for row in named[2]] == ours[2]


def test_exported_keypoints_of_kp_are_at_whole_pixels_and_so_is_the_table(root, capsys, tmp_path):
    table, tables = tmp_path / "table.json", []
    for flags in ([], ["--no-subpixel"], ["--export", tmp_path / "maps"]):
        run(capsys, "--hpatches", root, "--detectors", "kp", "--json", table, *flags)
        tables.append(json.loads(table.read_text()))
    assert [t["settings"]["subpixel"] for t in tables] == [True, False, False]
    fine, whole, exported = (t["rows"] for t in tables)
    assert fine != whole == exported


def test_export_keeps_every_detector_at_whole_pixels(root, capsys, tmp_path):
    tables = []
    for flags in (["--no-subpixel"], ["--export", tmp_path / "maps"], []):
        _, out, _ = run(capsys, "--hpatches", root, "--detectors", "sift", "--json", tmp_path / "t.json", *flags)
        assert ("keypoints at whole pixels" in out) == ("--export" in flags)
        tables.append(json.loads((tmp_path / "t.json").read_text())["rows"])
    assert tables[0] == tables[1] != tables[2]


def test_greedy_suppression_leaves_more_keypoints_and_is_in_the_table_and_the_json(root, capsys, tmp_path):
    counts = []
    for nms in ("window", "greedy"):
        flags = ["--detectors", "random", "--nms", nms, "--max-keypoints", "1000", "--json", tmp_path / "t.json"]
        _, out, _ = run(capsys, "--hpatches", root, *flags)
        assert ("greedy NMS 9x9" in out) == (nms == "greedy")
        content = json.loads((tmp_path / "t.json").read_text())
        assert content["settings"]["protocols"]["native"]["nms"] == nms
        counts.append(content["rows"][-1]["common"])
    assert counts[1] > 1.2 * counts[0]


def test_kinds_and_differences_are_printed_and_written(tmp_path, capsys):
    root = write_root(tmp_path / "root", ["i_lamp", "i_sun", "v_wall"])
    (root / "INDEX.md").write_text(
        "| sequence | what |\n|---|---|\n| i_lamp | a lamp, exposure |\n| i_sun | Webcam |\n"
    )
    flags = ["--detectors", "kp", "corner", "random", "--json", tmp_path / "t.json"]
    code, out, _ = run(capsys, "--hpatches", root, *flags)
    assert code == 0
    lines = out.splitlines()
    at = lines.index("repeatability by kind (pairs), i")
    assert lines[at + 1].split() == ["detector", "exposure", "(2)", "webcam", "(2)"]
    assert [line.split()[0] for line in lines[at + 2 : at + 5]] == ["kp", "corner", "random"]
    content = json.loads((tmp_path / "t.json").read_text())
    assert [(row["detector"], row["kind"]) for row in content["kinds"]] == [
        (name, kind) for name in ("kp", "corner", "random") for kind in ("exposure", "webcam")
    ]
    means = {(r["detector"], r["split"]): r["repeatability"] for r in content["rows"]}
    for row in content["kinds"]:
        mine = [p["repeatability"] for p in content["pairs"] if p["kind"] == row["kind"]]
        mine = mine[2 * ["kp", "corner", "random"].index(row["detector"]) :][:2]
        assert row["repeatability"] == pytest.approx(np.mean(mine))
        assert f"{row['repeatability']:.3f}" in next(x for x in lines[at + 2 :] if x.startswith(row["detector"]))
    assert [(d["floor"], d["split"]) for d in content["differences"]] == [("corner", s) for s in ("i", "v", "all")]
    for found in content["differences"]:
        expected = means["kp", found["split"]] - means["corner", found["split"]]
        assert found["difference"] == pytest.approx(expected)
    assert any(line.startswith("kp - corner: i ") and "; all " in line for line in lines)
    assert "random -" not in out


def write_points(folder, root, count=3):
    """For every image of a root a file of 30 points: 20 px apart, those of the scene, best first."""
    x, y = np.meshgrid(np.arange(25, 125, 20), np.arange(15, 90, 15))
    points = np.stack([x.ravel() + 0.25, y.ravel() + 0.5], axis=1)
    for sequence in sorted(path.name for path in root.iterdir()):
        (folder / sequence).mkdir(parents=True)
        for k in range(1, count + 1):
            shift = (k - 1) * np.array([10, 5]) if sequence.startswith("v") else 0
            moved = points - shift
            inside = (moved >= 0).all(1)
            scores = np.arange(len(points), 0, -1.0)[inside]
            np.savez(folder / sequence / f"{k}.npz", keypoints=moved[inside], scores=scores)
    return folder


@pytest.mark.parametrize("protocol", ["native", "240x320"])
def test_keypoints_of_your_own_are_measured_as_mine(root, tmp_path, capsys, protocol):
    folder = write_points(tmp_path / "points", root)
    flags = ["--keypoints", folder, "--detectors", "random", "--protocol", protocol, "--json", tmp_path / "t.json"]
    code, _, err = run(capsys, "--hpatches", root, *flags, "--report", tmp_path / "page", "--border", 0)
    assert code == 0, err
    content = json.loads((tmp_path / "t.json").read_text())
    assert [row["detector"] for row in content["rows"]] == ["mine"] * 3 + ["random"] * 3
    for row in content["rows"][:3]:
        assert row["repeatability"] == 1
        assert row["localisation_error"] < 1e-3
        assert 10 < row["common"] <= 30
    assert "mine" in (tmp_path / "page" / "index.html").read_text()


def test_mine_comes_first_unless_it_has_a_place_and_is_left_out_of_the_curves(root, tmp_path, capsys, monkeypatch):
    folder = write_points(tmp_path / "points", root)
    seen = []
    monkeypatch.setattr(evaluate_command.sweeps, "measure", lambda make, *_: seen.append(list(make())) or [])
    for names in (["harris", "mine"], ["harris"]):
        flags = ["--detectors", *names, "--json", tmp_path / "t.json", "--curves", "--split", "i"]
        assert run(capsys, "--hpatches", root, "--keypoints", folder, *flags)[0] == 0
        rows = json.loads((tmp_path / "t.json").read_text())["rows"]
        seen.append([row["detector"] for row in rows])
    assert seen == [["harris"], ["harris", "mine"], ["harris"], ["mine", "harris"]]


def test_wrong_keypoints_are_one_line(root, tmp_path, capsys):
    assert "--detectors mine is measured with --keypoints DIR" in error(
        capsys, "--hpatches", root, "--detectors", "mine"
    )
    missing = tmp_path / "nowhere"
    message = error(capsys, "--hpatches", root, "--keypoints", missing, "--detectors", "harris")
    assert f"{missing} is not a folder" in message
    folder = write_points(tmp_path / "points", root)
    (folder / "v_wall" / "2.npz").unlink()
    code, out, err = run(capsys, "--hpatches", root, "--keypoints", folder, "--detectors", "harris")
    assert code == 2
    assert "mine on v_wall: " in err.splitlines()[-1]
    assert "2.npz does not exist" in err.splitlines()[-1]
    assert "mine" in out, "what was measured before is kept"


def test_weights_that_are_none_are_one_line(root, capsys, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    message = error(capsys, "--hpatches", root, "--detectors", "kp", "--weights", tmp_path / "bad.safetensors")
    assert "bad.safetensors" in message


@pytest.mark.parametrize("flag", ["--json", "--export"])
def test_where_nothing_can_be_written_is_found_out_before_measuring(root, capsys, tmp_path, monkeypatch, flag):
    monkeypatch.setattr(benchmark, "evaluate", lambda *_: pytest.fail("measured first"))
    (tmp_path / "file").write_text("in the way")
    message = error(capsys, "--hpatches", root, "--detectors", "harris", flag, tmp_path / "file" / "x")
    assert "cannot be written" in message
    if flag == "--json":
        assert "is a folder" in error(capsys, "--hpatches", root, "--detectors", "harris", flag, tmp_path)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda root: (root / "v_wall" / "2.ppm").unlink(), "v_wall lacks image 2"),
        (lambda root: (root / "v_wall" / "H_1_3").unlink(), "v_wall lacks H_1_3"),
        (lambda root: (root / "v_wall" / "H_1_3").write_text("1 2 3"), "has 3 numbers"),
        (lambda root: (root / "v_wall" / "H_1_3").write_text("nan " * 9), "not finite"),
        (lambda root: (root / "v_wall" / "H_1_3").write_text("1 " * 9), "singular"),
    ],
)
def test_a_broken_root_is_one_line(root, capsys, damage, complaint):
    damage(root)
    assert complaint in error(capsys, "--hpatches", root, "--detectors", "harris")


def test_a_truncated_image_is_one_line_and_what_was_done_is_kept(root, tmp_path, capsys):
    data = (root / "v_wall" / "3.ppm").read_bytes()
    (root / "v_wall" / "3.ppm").write_bytes(data[: len(data) // 2])
    code, out, err = run(capsys, "--hpatches", root, "--detectors", "harris", "--json", tmp_path / "t.json")
    assert code == 2
    assert err.splitlines()[-1].startswith("evaluate.py: error: ")
    assert "v_wall/3.ppm is truncated" in err.splitlines()[-1]
    assert "Traceback" not in err
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["complete"] is False
    assert [row["split"] for row in content["rows"]] == ["i", "all"]
    assert "harris" in out


def test_a_detector_that_finds_nothing_scores_zero(tmp_path, capsys):
    root = write_root(tmp_path / "flat")
    for path in root.rglob("*.ppm"):
        write_ppm(path, np.full((40, 50), 90, np.uint8))
    code, out, _ = run(capsys, "--hpatches", root, "--detectors", *CLASSICAL[:5], "--json", tmp_path / "t.json")
    assert code == 0
    assert "harris 0.000 0.000 0.000" in " ".join(out.split())
    for row in json.loads((tmp_path / "t.json").read_text())["rows"]:
        assert (row["repeatability"], row["localisation_error"], row["common"]) == (0, None, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "terminated"])
def test_an_interruption_exits_130_and_keeps_what_was_done(tmp_path, number):
    root = write_root(tmp_path / "root", [f"v_{i:03}" for i in range(150)], count=6)
    flags = ["--detectors", "sift", "--export", tmp_path / "maps", "--json", tmp_path / "t.json"]
    with Forked(evaluate.main, "--hpatches", root, *flags) as running:
        running.wait_for(tmp_path / "maps" / "v_001")
        os.kill(running.pid, number)  # with at least v_000 done
        code, out, err = running.finish()
    assert code == 130
    assert "Traceback" not in err
    assert "interrupted" in err.splitlines()[-1]
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["complete"] is False
    assert 0 < content["rows"][0]["pairs"] < 150 * 5
    assert "sift" in out


def test_report_is_one_page_with_the_numbers_of_the_json(root, tmp_path, capsys):
    flags = ["--detectors", "harris", "fast", "--json", tmp_path / "table.json", "--report", tmp_path / "page"]
    code, out, _ = run(capsys, "--hpatches", root, *flags)
    assert code == 0
    assert f"see {tmp_path / 'page' / 'index.html'}" in out
    assert [f.name for f in (tmp_path / "page").iterdir()] == ["index.html"]
    page = (tmp_path / "page" / "index.html").read_text()
    for row in json.loads((tmp_path / "table.json").read_text())["rows"]:
        assert f"{row['repeatability']:.3f}" in page
    assert page.count("data:image/jpeg") == 4  # a best and a worst sequence, two views each


def test_a_report_folder_that_is_a_file_is_refused_before_measuring(root, tmp_path, capsys):
    (tmp_path / "page").write_text("")
    assert str(tmp_path / "page") in error(capsys, "--hpatches", root, "--report", tmp_path / "page")


def test_curves_are_printed_and_written(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kp.data.photographs.FILES", ("coins.png",))
    monkeypatch.setattr("kp.evaluation.sweeps.SWEEPS", {"rotation": (0.0, 90.0), "scale": (0.5,)})
    flags = ["--detectors", "harris", "random", "--curves", "--json", tmp_path / "table.json"]
    code, out, _ = run(capsys, "--hpatches", root, *flags)
    assert code == 0
    assert "repeatability by rotation (degrees)" in out
    content = json.loads((tmp_path / "table.json").read_text())
    keys = [(row["sweep"], row["value"], row["detector"]) for row in content["curves"]]
    values = [("rotation", 0.0), ("rotation", 90.0), ("scale", 0.5)]
    assert keys == [(*value, name) for value in values for name in ("harris", "random")]


def test_every_field_of_the_json_is_documented(root, tmp_path, capsys):
    run(capsys, "--hpatches", root, "--detectors", "harris", "--json", tmp_path / "table.json")
    content = json.loads((tmp_path / "table.json").read_text())
    text = results.__doc__
    for name in content:
        assert f"\n{name} " in text
    for name in {**content["rows"][0], **content["pairs"][0]}:
        stem, _, end = name.rpartition("_")
        assert f"``{name}``" in text or (f"``{stem}_1px``" in text and f"``_{end}``" in text), name


def test_comparing_measures_nothing(root, tmp_path, capsys):
    for name, detector in (("a", "harris"), ("b", "fast")):
        run(capsys, "--hpatches", root, "--detectors", detector, "--json", tmp_path / f"{name}.json")
    code, out, _ = run(capsys, "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0
    assert "harris of a v. fast of b" in out
    assert "cannot be read" in error(capsys, "--compare", tmp_path / "a.json", tmp_path / "none.json")
    for flag in (["--json", "c.json"], ["--hpatches", root], ["--detectors", "harris"], ["--download"]):
        both = tmp_path / "a.json", tmp_path / "b.json"
        assert f"leave out {flag[0]}" in error(capsys, "--compare", *both, *flag)


def test_a_reader_that_has_left_does_not_keep_the_json_from_being_written(root, tmp_path):
    flags = ["--hpatches", root, "--detectors", "fast", "--json", tmp_path / "table.json"]
    with Forked(partial(unread, evaluate.main), *flags) as running:
        code, _, err = running.finish()
    assert "rror" not in err  # beside the progress bar
    assert code == 0
    assert json.loads((tmp_path / "table.json").read_text())["complete"] is True


def test_a_file_that_cannot_be_written_does_not_keep_the_report_from_being_written(root, tmp_path, capsys):
    flags = ["--detectors", "fast", "--json", "/dev/full", "--report", tmp_path / "page"]
    code, _, err = run(capsys, "--hpatches", root, *flags)
    assert code == 2
    assert "/dev/full cannot be written" in err
    assert (tmp_path / "page" / "index.html").exists()


def out_of_memory_of(kind):
    """What raises the error that a library raises where memory runs out."""
    return {
        "torch": lambda: torch.empty(1 << 46, dtype=torch.uint8),
        "numpy": lambda: np.zeros(1 << 60, np.uint8),
        "opencv": lambda: cv2.copyMakeBorder(np.zeros((2, 2), np.uint8), 0, 1 << 30, 0, 1 << 30, cv2.BORDER_REPLICATE),
    }[kind]


@pytest.mark.parametrize("place", ["finding", "matching"])
@pytest.mark.parametrize("kind", ["torch", "numpy", "opencv"])
def test_what_was_measured_before_memory_ran_out_is_written(root, tmp_path, capsys, monkeypatch, kind, place):
    module, name = (benchmark, "find_in") if place == "finding" else (benchmark.matching, "measure_pair")
    real, calls = getattr(module, name), []

    def later(*args, **kwargs):
        calls.append(1)
        if len(calls) > 5:  # in the second sequence: three images, two pairs
            out_of_memory_of(kind)()
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, later)
    flags = ["--detectors", "fast", *(["harris"] if place == "matching" else []), "--json", tmp_path / "t.json"]
    code, out, err = run(capsys, "--hpatches", root, *flags)
    assert code == 2
    last = err.splitlines()[-1]
    assert "on v_wall: out of memory (" in last
    assert "Traceback" not in err
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["complete"] is False
    assert {pair["sequence"] for pair in content["pairs"]} == {"i_lamp"}
    assert "fast" in out


def test_after_a_fault_of_kp_what_was_measured_is_written_too(root, tmp_path, capsys, monkeypatch):
    real = benchmark.views

    def wrong(sequence, sizes):
        return real(sequence, sizes) if sequence.name == "i_lamp" else {}["a fault"]

    monkeypatch.setattr(benchmark, "views", wrong)
    with pytest.raises(KeyError):
        run(capsys, "--hpatches", root, "--detectors", "fast", "--json", tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["complete"] is False
    assert {pair["sequence"] for pair in content["pairs"]} == {"i_lamp"}


@pytest.mark.parametrize("size", ["abc", "-3", "1.5", "2"])
def test_variables_of_torchrun_are_one_line(root, capsys, monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    assert ("torchrun is for training" if size == "2" else "WORLD_SIZE is") in error(capsys, "--hpatches", root)


def test_a_subset_of_hpatches_needs_hpatches(capsys):
    assert "--subset chooses among the sequences of --hpatches" in error(capsys, "--subset", "d2net")


def test_numbers_at_their_bounds_are_measured(root, capsys):
    """What the bounds allow must not fail in the middle of the work."""
    for flags in (["--nms-size", 99], ["--border", 1000], ["--threshold", 0], ["--seed", 2**63 - 1]):
        code, _, err = run(capsys, "--hpatches", root, "--detectors", "harris", "random", "corner", *flags)
        assert code == 0, err
