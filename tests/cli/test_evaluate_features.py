"""evaluate.py --features as a user runs it: tables, files, comparison, and one line for everything that is wrong."""

import json
import pickle
import re

import pytest
from sequence_folders import write_root

import evaluate
from kp.cli import evaluate_features
from kp.evaluation import feature_benchmark

NAMES = ("kp+rootsift", "sift", "orb")


@pytest.fixture
def root(tmp_path):
    """Two pairs of each split; of v with shifts by 10 and 20 px, by 5 and 10 px."""
    return write_root(tmp_path / "root", size=(140, 180))


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
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("evaluate.py: error: ")
    return err


def test_tables_differences_json_and_page(root, tmp_path, capsys):
    flags = ["--points", 100, 20, "--json", tmp_path / "t.json", "--report", tmp_path / "page"]
    code, out, _ = run(capsys, "--hpatches", root, "--features", *NAMES, *flags)
    assert code == 0
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["complete"] is True
    assert [(row["feature"], row["points"], row["split"]) for row in content["rows"]] == [
        (name, points, split) for name in NAMES for points in (20, 100) for split in ("i", "v", "all")
    ]
    assert len(content["pairs"]) == 4 * 2 * len(NAMES)
    by_name = {row["feature"]: row for row in content["rows"] if (row["split"], row["points"]) == ("all", 100)}
    assert by_name["kp+rootsift"]["matching_accuracy_3px"] > 0.9
    assert by_name["kp+rootsift"]["homography_3px_magsac"] == by_name["kp+rootsift"]["homography_3px_poselib"] == 1
    assert [by_name[name]["dimensions"] for name in NAMES] == [128, 128, 256]
    assert {d["other"] for d in content["differences"]} == {"sift", "orb"}
    assert content["weights"]["sha256"]
    assert re.search(r"^kp\+rootsift +128 +100 ", out, re.MULTILINE)
    assert f"{by_name['sift']['homography_auc_5px_poselib']:.3f} (" in out
    assert "kp+rootsift - orb, AUC 5 px PoseLib: i " in out
    page = (tmp_path / "page" / "index.html").read_text()
    for name in NAMES:
        assert page.count(f">{name}<") >= 2 * (1 + 3)
    assert "100 points" in page
    assert "<svg" not in page, "figures are data"
    assert page.count("data:image/svg+xml;base64,") == 2 * 3


def test_matches_of_an_oracle_are_right_by_definition(root, tmp_path, capsys):
    names, path = ["kp+rootsift", "kp+oracle", "kp+oracle+refined"], tmp_path / "t.json"
    flags = ["--points", 100, "--json", path]
    assert run(capsys, "--hpatches", root, "--features", *names, *flags)[0] == 0
    rows = {r["feature"]: r for r in json.loads(path.read_text())["rows"] if r["split"] == "all"}
    assert rows["kp+oracle"]["matching_accuracy_3px"] == 1
    assert rows["kp+oracle"]["right_matches"] > rows["kp+rootsift"]["right_matches"]
    assert rows["kp+oracle+refined"]["matches"] == rows["kp+oracle"]["matches"]


def test_workers_share_the_sequences(root, tmp_path, capsys, monkeypatch):
    """What is sent to a process gives there what it gives here. That processes share items is tested elsewhere."""
    shared = []

    def map_items(make, items, workers, **_):
        shared.append(workers)
        work = pickle.loads(pickle.dumps(make))()
        return map(work, pickle.loads(pickle.dumps(items)))

    for workers in (1, 2):
        flags = ["--points", 50, "--workers", workers, "--json", tmp_path / f"{workers}.json"]
        assert run(capsys, "--hpatches", root, "--features", "kp+rootsift", "orb", *flags)[0] == 0
        monkeypatch.setattr(feature_benchmark, "map_items", map_items)
    assert shared == [2]
    first, second = (json.loads((tmp_path / f"{workers}.json").read_text())["pairs"] for workers in (1, 2))
    assert first == second


def test_each_image_is_described_once(root, capsys, monkeypatch):
    calls = []

    def make(names, count, where):
        feature = evaluate_features_make(names, count, where)[0]["orb"]
        return {"orb": lambda image: (calls.append(count), feature(image))[1]}, {}

    evaluate_features_make = evaluate_features.make_features
    monkeypatch.setattr(evaluate_features, "make_features", make)
    assert run(capsys, "--hpatches", root, "--features", "orb", "--points", 10, 30, 20)[0] == 0
    assert calls == [30] * 6


def test_a_feature_that_cannot_run_is_a_line_with_its_reason(root, tmp_path, capsys):
    flags = ["--baseline-weights", tmp_path, "--points", 20, "--json", tmp_path / "t.json"]
    code, out, _ = run(capsys, "--hpatches", root, "--features", "kp", "orb", "xfeat", *flags)
    assert code == 0
    assert re.search(r"^kp  skipped: .*give no descriptors", out, re.MULTILINE)
    assert re.search(r"^xfeat  skipped: no weights at ", out, re.MULTILINE)
    assert list(json.loads((tmp_path / "t.json").read_text())["skipped"]) == ["kp", "xfeat"]
    assert "give no descriptors" in run(capsys, "--hpatches", root, "--features", "kp")[2]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError("no memory")])
def test_what_was_measured_before_a_stop_is_kept(root, tmp_path, capsys, monkeypatch, stop):
    measure = feature_benchmark.measure_sequence

    def stopped(sequence, **settings):
        if sequence.name == "v_wall":
            raise stop
        return measure(sequence, **settings)

    monkeypatch.setattr(feature_benchmark, "measure_sequence", stopped)
    flags = ["--points", 20, "--json", tmp_path / "t.json", "--report", tmp_path / "page"]
    code, out, err = run(capsys, "--hpatches", root, "--features", "orb", *flags)
    assert code == (130 if stop is KeyboardInterrupt else 2)
    assert "Traceback" not in err
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["complete"] is False
    assert {pair["sequence"] for pair in content["pairs"]} == {"i_lamp"}
    assert "Only part was measured" in (tmp_path / "page" / "index.html").read_text()
    assert re.search(r"^orb +256 ", out, re.MULTILINE)


def test_two_files_are_compared(root, tmp_path, capsys):
    """The same feature, at 20 points v. the same 20 and 40: equal numbers, and what is in b only."""
    for name, points in (("a", [20]), ("b", [20, 40])):
        flags = ["--points", *points, "--json", tmp_path / f"{name}.json"]
        assert run(capsys, "--hpatches", root, "--features", "sift", *flags)[0] == 0
    code, out, _ = run(capsys, "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0
    assert "only in b: sift (40)" in out
    assert "sift, 20 points" in out
    lines = [line for line in out.splitlines() if "AUC 5 px PoseLib" in line or "right matches" in line]
    assert len(lines) == 2 * 3
    for line in lines:
        assert re.search(r"\+0\.0", line), line
        assert "not separated" in line
    (tmp_path / "c.json").write_text(json.dumps({"settings": {"source": "x"}}))
    assert "compare two of a kind" in error(capsys, "--compare", tmp_path / "a.json", tmp_path / "c.json")
    damaged = json.loads((tmp_path / "a.json").read_text())
    del damaged["pairs"][1]["right_matches"]
    (tmp_path / "c.json").write_text(json.dumps(damaged))
    message = error(capsys, "--compare", tmp_path / "a.json", tmp_path / "c.json")
    assert "pairs[1].right_matches is missing" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--features", "no"], "there is no feature no"),
        (["--features", "sift", "--detectors", "kp"], "--detectors is for detectors"),
        (["--features", "sift", "--max-keypoints", "300"], "--max-keypoints is for detectors"),
        (["--features", "sift", "--export", "maps"], "--export is for detectors"),
        (["--points", "300"], "--points is for --features"),
        (["--features", "sift", "--points", "0"], "--points must be at least 1"),
        (["--features", "sift", "--baseline-weights", "nowhere"], "nowhere is not a folder"),
        (["--features", "kp+orb", "--weights", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_asked_is_one_line(root, capsys, flags, message):
    assert message in error(capsys, "--hpatches", root, *flags)


def test_the_help_explains_every_measure(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for word in ("matching score", "MMA", "AUC", "MAGSAC", "PoseLib", "DETECTOR+DESCRIPTOR", "aliked-n16"):
        assert word in out
