"""Two result files side by side: known changes, an interval drawn again by other means, and files that are none."""

import copy
import json

import numpy as np
import pytest
from sequence_folders import write_root

import evaluate
from kp.evaluation.compare import above_floors, change, partners, separated, verdict
from kp.evaluation.results import read
from kp.evaluation.summary import MEASURES
from kp.reporting.comparison import compare_files

KEY = {"protocol": "native", "detector": "kp"}


def record(sequence, image, value=0.5, **changes):
    """A pair of which every measure is ``value``, unless told otherwise."""
    where = KEY | {"sequence": sequence, "split": sequence[0], "image": image, "corner_error": 1.0}
    return where | dict.fromkeys(MEASURES, value) | changes


def records(values, **changes):
    """Pairs (1, 2), (1, 3), ... of sequences v_0, v_1, ... from nested lists of values."""
    return [record(f"v_{n}", k, v, **changes) for n, row in enumerate(values) for k, v in enumerate(row, start=2)]


def row(split="v", value=0.5, **changes):
    return (
        KEY | {"split": split, "interval": [0.4, 0.6], "homography_3px": 1.0} | dict.fromkeys(MEASURES, value) | changes
    )


def content(rows, pairs, **changes):
    protocols = {"native": {"name": "native", "max_keypoints": 300, "threshold": 3.0, "size": [240, 320]}}
    settings = {"source": "here", "split": "all", "seed": 0, "images": "gray, 8 bits", "protocols": protocols}
    weights = {"path": "w", "sha256": "0123456789abcdef"}
    rest = {"settings": settings, "complete": True, "versions": {"kp": "0.1.0"}, "weights": weights}
    rest["shipped"] = {"mine": {"sha256": "0123456789abcdef"}}
    return copy.deepcopy(rest | {"rows": rows, "pairs": pairs} | changes)


def save(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def compared(tmp_path, a, b):
    return compare_files(save(tmp_path / "a.json", a), save(tmp_path / "b.json", b))


def body(text, title):
    """The cells of the lines of a measure."""
    lines = [line.removeprefix(split) for line in text.splitlines() for split in ("i  ", "v  ", "all", "   ")]
    return [line.split(title)[1].split() for line in lines if line.strip().startswith(title + "  ")]


def noise(sequences=40, pairs=5):
    return np.random.default_rng(0).uniform(0.2, 0.8, (sequences, pairs))


def test_a_change_that_is_everywhere_the_same_has_no_width():
    found = change(records(noise()), records(noise() + 0.1), "repeatability")
    assert found["a"] == pytest.approx(noise().mean())
    assert found["b"] == pytest.approx(noise().mean() + 0.1)
    assert [found["change"], *found["interval"]] == pytest.approx([0.1] * 3)
    assert (found["verdict"], found["pairs"]) == ("better", 200)


def test_changes_of_which_half_go_either_way_separate_nothing():
    found = change(records(noise()), records(noise() + 0.1 * (-1.0) ** np.arange(40)[:, None]), "one_to_one")
    low, high = found["interval"]
    assert -0.1 < low < 0 < high < 0.1
    assert found["change"] == pytest.approx(0)
    assert found["verdict"] == "not separated"


def test_a_localisation_error_is_better_when_it_goes_down():
    a, b = records(noise()), records(noise() - 0.1)
    assert change(a, b, "localisation_error")["verdict"] == "better"
    assert change(b, a, "localisation_error")["verdict"] == "worse"
    assert change(a, b, "repeatability")["verdict"] == "worse"


@pytest.mark.parametrize(
    ("span", "word"),
    [
        ([0.01, 0.02], "better"),
        ([-0.02, -0.01], "worse"),
        ([-0.01, 0.02], "not separated"),
        ([0.0, 0.02], "not separated"),
        ([-0.02, 0.0], "not separated"),
        ([1e-9, 2e-9], "not separated"),  # rounding
        ([-2e-9, -1e-9], "not separated"),
        (None, "not separated"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(span, word):
    assert verdict(span, "repeatability") == word
    other = {"better": "worse", "worse": "better"}.get(word, word)
    assert verdict(span, "localisation_error") == other


def test_the_interval_is_that_of_paired_sequences():
    """Sequences of unequal length, each far from the others and changed by an amount of its own; drawn by numpy."""
    rng = np.random.default_rng(1)
    base, moved = rng.uniform(0, 0.5, 60), rng.normal(0.03, 0.05, 60)
    lengths = rng.integers(1, 6, 60)
    a = records([[x] * n for x, n in zip(base, lengths, strict=True)])
    b = records([[x + d] * n for x, d, n in zip(base, moved, lengths, strict=True)])
    found = change(a, b, "repeatability")
    drawn = [rng.choice(60, 60) for _ in range(20_000)]
    means = [np.average(moved[index], weights=lengths[index]) for index in drawn]
    expected, sigma = np.percentile(means, [2.5, 97.5]), np.std(means)
    assert found["interval"] == pytest.approx(expected.tolist(), abs=0.25 * sigma)  # 3 deviations of 1000 draws
    assert found["change"] == pytest.approx(np.average(moved, weights=lengths))
    apart = np.hypot(np.std(base), np.std(base + moved)) / 60**0.5
    assert apart > 3 * sigma, "unpaired, or over pairs, it would be another interval"


def test_neither_the_order_of_records_nor_that_of_files_matters():
    rng = np.random.default_rng(2)
    a, b = records(noise()), records(noise() + rng.normal(0.02, 0.05, (40, 5)))
    found = change(a, b, "repeatability")
    assert change([a[i] for i in rng.permutation(200)], [b[i] for i in rng.permutation(200)], "repeatability") == found
    swapped = change(b, a, "repeatability")
    assert swapped["change"] == pytest.approx(-found["change"])
    assert swapped["interval"] == pytest.approx([-v for v in found["interval"][::-1]])
    assert (swapped["a"], swapped["b"]) == (found["b"], found["a"])
    assert {found["verdict"], swapped["verdict"]} == {"better", "worse"}


def test_only_common_pairs_count(tmp_path):
    a = [record("v_a", 2, 0.1), record("v_a", 3, 0.9), record("v_b", 2, 0.2), record("v_c", 2, 1.0)]
    b = [record("v_a", 2, 0.4), record("v_b", 2, 0.3), record("v_b", 3, 0.0), record("v_d", 2, 0.0)]
    found = change(a, b, "repeatability")
    assert [found["a"], found["b"], found["change"], found["pairs"]] == pytest.approx([0.15, 0.35, 0.2, 2])
    assert found["interval"] == pytest.approx([0.1, 0.3])  # of v_a v_a, v_a v_b, v_b v_a, v_b v_b
    text = compared(tmp_path, content([row()], a), content([row()], b))
    assert "2 common pairs of a's 4 and b's 4" in text
    assert "few sequences (v 2)" in text
    assert body(text, "repeatability")[0][:3] == ["0.150", "0.350", "+0.200"]


def test_where_the_points_found_no_neighbour_there_is_no_localisation_error():
    a = [record("v_a", 2, localisation_error=None), record("v_b", 2, 1.0), record("v_c", 2, 2.0)]
    b = [record("v_a", 2, 9.0), record("v_b", 2, 0.5), record("v_c", 2, localisation_error=None)]
    found = change(a, b, "localisation_error")
    assert (found["a"], found["b"], found["change"], found["pairs"]) == (1.0, 0.5, -0.5, 1)
    assert (found["interval"], found["verdict"]) == (None, "not separated"), "one sequence says nothing of others"
    assert change(a[:1], b[:1], "localisation_error") is None
    assert change([], b, "repeatability") is None


def test_a_homography_is_right_to_3_px_or_not():
    errors = [(3.0, 3.1), (0.0, None), (2.9, 0.1), (None, 1e300)]
    a = [record(f"v_{n}", 2, corner_error=error) for n, (error, _) in enumerate(errors)]
    b = [record(f"v_{n}", 2, corner_error=error) for n, (_, error) in enumerate(errors)]
    found = change(a, b, "homography_3px")
    assert (found["a"], found["b"], found["change"], found["pairs"]) == (0.75, 0.25, -0.5, 4)


def test_files_without_a_common_pair_show_their_own_numbers(tmp_path):
    a = content([row("i", 0.25), row("all", 0.25)], [record("i_x", 2, 0.25)])
    b = content([row("i", 0.75, localisation_error=None), row("all", 0.75)], [record("i_y", 2, 0.75)])
    text = compared(tmp_path, a, b).split("\n\n")[1]
    for cells in body(text, "repeatability"):
        assert cells[:7] == ["0.250", "0.750", "-", "-", "no", "common", "pair"]
    assert body(text, "loc. error (px)")[0][:3] == ["0.250", "-", "-"]
    assert len(body(text, "repeatability")) == 2
    assert "better" not in text
    assert "worse" not in text
    assert "separated" not in text


def test_a_file_is_no_better_than_itself(tmp_path):
    path = save(tmp_path / "a.json", content([row("v"), row("all")], records(noise(8, 2))))
    head, table = compare_files(path, path).split("\n\n")
    assert len(head.splitlines()) == 2, "nothing differs"
    assert len(table.splitlines()) == 2 + 2 * 6
    assert table.count("  +0.000  +0.000 to +0.000  not separated") == 2 * 6


def test_the_text_is_aligned_and_says_where_from(tmp_path):
    a = content([row("v"), row("all", interval=[0.1, 0.2])], records(noise()))
    b = content([row("v"), row("all", interval=[0.3, 0.4])], records(noise() - 0.1))
    lines = compared(tmp_path, a, b).splitlines()
    assert lines[0] == f"a: {tmp_path / 'a.json'}: here, kp 0.1.0, weights 01234567"
    assert lines[1] == f"b: {tmp_path / 'b.json'}: here, kp 0.1.0, weights 01234567"
    table = lines[3:]
    assert table[0] == "native: kp"
    ends = {line.index("not separated") if "not separated" in line else line.index("wors") for line in table[2:5]}
    assert len(ends) == 1
    assert table[2].split()[-2:] == ["200", "overlap"]
    assert table[8].split()[:2] == ["all", "repeatability"]
    assert table[8].split()[-2:] == ["200", "apart"]
    swapped = compare_files(tmp_path / "b.json", tmp_path / "a.json").splitlines()[3:]
    assert [line.split()[-1] for line in (swapped[2], swapped[8])] == ["overlap", "apart"]
    assert max(map(len, table)) <= 120
    assert [line for line in table if line.endswith(("overlap", "apart"))] == [table[2], table[8]]


@pytest.mark.parametrize(("sequences", "few"), [(2, True), (5, True), (6, False)])
def test_few_sequences_are_pointed_out(tmp_path, sequences, few):
    made = content([row()], records(noise(sequences, 2)))
    assert (f"note: few sequences (v {sequences})" in compared(tmp_path, made, made)) == few


def test_a_zero_has_no_minus(tmp_path):
    text = compared(tmp_path, content([row()], records(noise())), content([row()], records(noise() - 1e-5)))
    assert body(text, "repeatability")[0][2:5] == ["+0.000", "+0.000", "to"]


def test_each_protocol_has_its_table(tmp_path):
    rows, pairs = [row(), row(protocol="squash")], records(noise()) + records(noise(), protocol="squash")
    moved = records(noise() + 0.1) + records(noise() - 0.2, protocol="squash")
    text = compared(tmp_path, content(rows, pairs), content(rows, moved))
    assert [cells[2] for cells in body(text, "repeatability")] == ["+0.100", "-0.200"]
    assert len(text.split("\n\n")) == 3


def changed(**changes):
    """A content with other settings, of which ``protocol`` are the protocol's."""
    made = content([row()], [record("v_a", 2)])
    made["settings"]["protocols"]["native"] |= changes.pop("protocol", {})
    for name in ("source", "seed", "split", "images"):
        made["settings"][name] = changes.pop(name, made["settings"][name])
    return made | changes


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": "there"}, 'warning: source differs: "here" v. "there"'),
        ({"seed": 7}, "warning: seed differs: 0 v. 7"),
        ({"split": "v"}, 'warning: split differs: "all" v. "v"'),
        ({"images": "colour " * 20}, "warning: images differs: the numbers may not be comparable"),
        ({"protocol": {"max_keypoints": 1000}}, "warning: protocol native: max_keypoints differs: 300 v. 1000"),
        (
            {"protocol": {"threshold": 1.5}},
            "warning: protocol native: threshold differs: 3.0 v. 1.5: the numbers are not",
        ),
        ({"protocol": {"size": None}}, "warning: protocol native: size differs: [240, 320] v. null"),
        ({"versions": {"kp": "0.2.0"}}, 'note: version of kp differs: "0.1.0" v. "0.2.0"'),
        ({"weights": {"sha256": "fedcba9876543210"}}, "note: weights differ: 01234567 v. fedcba98"),
        ({"weights": None}, "note: weights differ: 01234567 v. none"),
        (
            {"shipped": {"mine": {"sha256": "fedcba9876543210"}}},
            'note: weights of mine differs: "01234567" v. "fedcba98"',
        ),
        ({"complete": False}, "note: b is incomplete"),
    ],
)
def test_what_else_differs_is_said(tmp_path, changes, line):
    text = compared(tmp_path, changed(), changed(**changes))
    said = [text for text in text.splitlines() if text.startswith(("warning", "note")) and "few sequences" not in text]
    assert len(said) == 1
    assert said[0].startswith(line)
    assert body(text, "repeatability"), "still compared"


def test_what_says_the_same_again_or_cannot_be_printed_is_not_said(tmp_path):
    made = [changed(protocol={"summary": str(n), "\ud800": n, "a\nb": n}) for n in range(2)]
    text = compared(tmp_path, *made)
    assert text.encode()
    assert "warning" not in text


def rows_of(*keys):
    return [{"protocol": protocol, "detector": detector} for protocol, detector in keys]


def test_detectors_meet_their_namesakes_and_the_rest_is_named():
    a = rows_of(("native", "kp"), ("native", "fast"), ("squash", "kp"), ("squash", "fast"))
    b = rows_of(("native", "kp"), ("native", "orb"), ("native", "sift"), ("480x640", "kp"))
    couples, alone = partners(a, b)
    assert couples == [("native", "kp", "kp")]
    assert alone == [
        "only in a: native: fast",
        "only in a: squash: kp, fast",
        "only in b: native: orb, sift",
        "only in b: 480x640: kp",
    ]


def test_two_lone_detectors_meet_whatever_their_names(tmp_path):
    one, other = rows_of(("native", "harris"), ("squash", "harris")), rows_of(("squash", "kp"), ("480x640", "kp"))
    couples, alone = partners(one, other)
    assert couples == [("squash", "harris", "kp")]
    assert alone == ["only in a: native: harris", "only in b: 480x640: kp"]
    assert partners(rows_of(("native", "harris")), rows_of(("native", "kp"), ("native", "orb")))[0] == []
    harris = content([row(detector="harris")], records(noise(), detector="harris"))
    text = compared(tmp_path, harris, content([row()], records(noise() + 0.1)))
    assert "native: harris of a v. kp of b" in text
    assert body(text, "1 px")[0][2:] == ["+0.100", "+0.100", "to", "+0.100", "better", "200"]


def test_files_with_nothing_in_common_say_so(tmp_path):
    other = content([row(protocol="squash")], [record("v_a", 2, protocol="squash")])
    text = compared(tmp_path, changed(), other)
    assert "only in a: native: kp" in text
    assert "only in b: squash: kp" in text
    assert text.endswith("nothing is in both files")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("\x00\x01", "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "the whole is missing"),
        ("null", "the whole is missing"),
        ("{}", "settings is missing"),
        (json.dumps(content([], [])), "nothing was measured"),
        (json.dumps(content([], [record("v_a", 2)])), "rows is missing, empty"),
        (json.dumps(content([row()], [])), "nothing was measured"),
        (json.dumps(content([row()], [record("v_a", 2), {}])), "pairs[1].protocol is missing"),
        (json.dumps(content([row(repeatability="0.5")], [record("v_a", 2)])), "rows[0].repeatability is missing"),
        (json.dumps(content([row(one_to_one=True)], [record("v_a", 2)])), "rows[0].one_to_one is missing"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path, text, complaint):
    path = save(tmp_path / "bad.json", text)
    with pytest.raises(ValueError, match=r"bad\.json") as raised:
        read(path)
    assert complaint in str(raised.value)
    assert "evaluate.py --json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "bad.json").write_bytes(b'{"settings": "\xff"}')
    for name, complaint in (("none.json", "No such file"), (".", "directory"), ("bad.json", "not JSON")):
        with pytest.raises(ValueError, match=complaint) as raised:
            compare_files(tmp_path / name, tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


WRONG = [None, True, 0, -1, 2.5, 10**400, float("inf"), float("nan"), "", "x", "a\nb", "\ud800", [], [None], {}]
WRONG += [{"": {}}, {"\ud800": 1}, {"native": {"threshold": deep(900)}}, deep(900)]


def places(value, path=()):
    """The way to every value within a JSON value, itself included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def replaced(value, path, new):
    """A copy with something else at a place; with nothing there if ``new`` is Ellipsis."""
    made = holder = {"": copy.deepcopy(value)}
    for key in (path := ("", *path))[:-1]:
        holder = holder[key]
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return made.get("")


GOOD = content([row()], [record("v_a", 2), record("v_b", 2)])


@pytest.mark.parametrize("path", list(places(GOOD)), ids=lambda path: ".".join(map(str, path)) or "whole")
def test_whatever_is_wrong_anywhere_is_a_text_or_one_line(tmp_path, path):
    good, bad = save(tmp_path / "good.json", GOOD), tmp_path / "bad.json"
    for wrong in [..., *WRONG]:
        bad.write_text(json.dumps(replaced(GOOD, path, wrong)))
        for pair in ((good, bad), (bad, good), (bad, bad)):
            try:
                text = compare_files(*pair)
            except ValueError as error:
                text = str(error)
                assert "bad.json" in text
                assert "\n" not in text
            assert text.encode()  # printable


def test_two_files_of_evaluate_are_compared(tmp_path, capsys):
    root, paths = write_root(tmp_path / "root"), [tmp_path / "a.json", tmp_path / "b.json"]
    for path, names in zip(paths, (("harris", "fast"), ("random", "harris")), strict=True):
        flags = ["--hpatches", str(root), "--detectors", *names, "--json", str(path)]
        assert evaluate.main(flags) == 0
    capsys.readouterr()
    text = compare_files(*paths)
    assert "only in a: native: fast" in text
    assert "only in b: native: random" in text
    assert "warning" not in text
    tables = [json.loads(path.read_text())["rows"] for path in paths]
    expected = [r["repeatability"] for r in tables[0] if r["detector"] == "harris"]
    assert [cells[0] for cells in body(text, "repeatability")] == [f"{value:.3f}" for value in expected]
    assert text.count("+0.000") == 18 + 2 * 6, "the same detector; only of all are there two sequences"


def of(detector, values, measure="repeatability", **changes):
    """Pairs of a detector: one for each sequence, whose value is given by the sequence's name."""
    return [record(s, 2, detector=detector, **{measure: v}, **changes) for s, v in values.items()]


def test_how_far_ours_are_above_the_floors():
    names = [f"{split}_{n}" for split in "iv" for n in range(4)]
    corner = {name: 0.25 + 0.05 * i for i, name in enumerate(names)}
    ours = {name: value + (0.125 if name[0] == "i" else -0.0625) for name, value in corner.items()}
    found = above_floors([*of("kp", ours), *of("corner", corner), *of("fast", ours), *of("random", ours)])
    assert [(f["detector"], f["floor"], f["split"], f["verdict"], f["pairs"]) for f in found] == [
        ("kp", "corner", "i", "better", 4),
        ("kp", "corner", "v", "worse", 4),
        ("kp", "corner", "all", "no difference", 8),  # half of the sequences go either way
    ]
    i, v, both = found
    assert [i["difference"], *i["interval"]] == pytest.approx([0.125] * 3)
    assert [v["difference"], *v["interval"]] == pytest.approx([-0.0625] * 3)
    assert both["difference"] == pytest.approx(0.03125)
    assert -0.0625 <= both["interval"][0] < 0 < both["interval"][1] <= 0.125
    assert {f["protocol"] for f in found} == {"native"}


def test_every_detector_of_ours_has_every_floor_in_its_own_protocol_and_the_split_that_was_measured():
    records = [r for name in ("kp", "default", "corner", "harris") for r in of(name, {"v_a": 0.5, "v_b": 0.25})]
    records += [r | {"protocol": "squash"} for r in records if r["detector"] in ("kp", "harris")]
    found = above_floors(records, "v")
    assert [(f["protocol"], f["detector"], f["floor"], f["split"]) for f in found] == [
        *(("native", ours, floor, "v") for ours in ("kp", "default") for floor in ("corner", "harris")),
        ("squash", "kp", "harris", "v"),
    ]
    assert {(f["difference"], f["verdict"]) for f in found} == {(0, "no difference")}
    assert above_floors(records[:2]) == []
    [alone] = above_floors([*of("kp", {"i_a": 0.5}), *of("corner", {"i_a": 0.25})], "i")
    assert (alone["difference"], alone["interval"], alone["verdict"]) == (0.25, None, "no difference")


def test_the_best_is_separated_from_every_other_or_nobody_is():
    a, b = {"i_a": 0.5, "i_b": 0.75, "v_c": 0.5}, {"i_a": 0.25, "i_b": 0.5, "v_c": 0.75}
    chance = of("random", dict.fromkeys(a, 1.0))
    both = [*of("a", a), *of("b", b)]
    assert separated([*both, *chance], "repeatability", "i") == "a"
    assert separated(both, "repeatability", "all") is None, "b is better in a sequence"
    assert separated(both, "repeatability", "v") is None, "one sequence has no interval"
    close = of("c", {"i_a": 0.5, "i_b": 0.5})  # as good as a in one sequence
    assert separated([*both, *close], "repeatability", "i") is None
    assert separated([*of("a", a), *chance], "repeatability", "i") is None, "there is nothing else"
    assert separated([], "repeatability") is None


def test_a_small_error_and_many_right_homographies_are_the_best():
    a, b = {"i_a": 0.5, "i_b": 0.75}, {"i_a": 0.25, "i_b": 0.5}
    assert (
        separated([*of("a", a, "localisation_error"), *of("b", b, "localisation_error")], "localisation_error") == "b"
    )
    nothing = of("c", dict.fromkeys(a), "localisation_error")  # repeats no point: it has no error
    assert separated([*nothing, *of("b", b, "localisation_error")], "localisation_error") is None
    errors = [*of("a", {"i_a": 2.0, "i_b": 3.0}, "corner_error"), *of("b", {"i_a": 4.0, "i_b": None}, "corner_error")]
    assert separated(errors, "homography_3px") == "a"
    assert separated(errors, "homography_5px") is None
    assert separated(errors, "homography_1px") is None
