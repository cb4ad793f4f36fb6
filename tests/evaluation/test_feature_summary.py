"""Means, intervals and paired differences of complete features: by hand, and by drawing the sets one by one."""

import math

import numpy as np
import pytest

from kp.evaluation.feature_matching import ACCURACY_THRESHOLDS
from kp.evaluation.feature_summary import best_feature, difference, feature_differences, ratio, summarise_features
from kp.evaluation.matching import accuracy, auc
from kp.evaluation.summary import RESAMPLES

AUC = "homography_auc_5px_magsac"


def record(sequence, image, magsac, poselib=0.0, feature="kp", points=300, **more):
    numbers = {"dimensions": 64, "keypoints": 300.0, "matches": 100, "right_matches": 50, "matching_score": 0.5}
    numbers |= {f"matching_accuracy_{t}px": t / 10 for t in ACCURACY_THRESHOLDS} | more
    key = {"feature": feature, "points": points, "sequence": sequence, "split": sequence[0], "image": image}
    return key | numbers | {"corner_error_magsac": magsac, "corner_error_poselib": poselib}


def drawn_sets(errors):
    """The errors of each set of a bootstrap over sequences: ``errors`` has a list for each sequence."""
    drawn = np.random.default_rng(0).integers(0, len(errors), (RESAMPLES, len(errors)))
    return [[e for index in row for e in errors[index]] for row in drawn]


def quantiles(values):
    return pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=1e-12)


def random_records(seed, feature="kp", sequences=5):
    """Sequences of different numbers of pairs, with errors of which some are equal, some infinite."""
    rng = np.random.default_rng(seed)
    choices = [None, 0.0, 1.0, 5.0, *rng.uniform(0, 7, 8).tolist()]
    return [
        record(f"v_{s}", image, choices[rng.integers(len(choices))], feature=feature)
        for s in range(sequences)
        for image in range(2, 4 + s)
    ]


def errors_of(records):
    names = dict.fromkeys(r["sequence"] for r in records)
    finite = {r: math.inf if r is None else r for r in [each["corner_error_magsac"] for each in records]}
    return [[finite[r["corner_error_magsac"]] for r in records if r["sequence"] == name] for name in names]


def test_means_and_homographies_by_hand():
    """Errors of 1, 2, 4 and none. The curve to 5 px: from (0, 0) by (1, 1/4), (2, 2/4), (4, 3/4), then flat."""
    records = [
        record("i_a", 2, 1.0, 0.5, right_matches=10, matching_score=0.25),
        record("i_a", 3, 2.0, 0.5, right_matches=20, matching_score=0.75),
        record("v_b", 2, 4.0, None, right_matches=30, matching_score=1.0),
        record("v_b", 3, None, None, right_matches=40, matching_score=0.0),
    ]
    i, v, all_ = summarise_features(records)
    assert [row["split"] for row in (i, v, all_)] == ["i", "v", "all"]
    assert [row["pairs"] for row in (i, v, all_)] == [2, 2, 4]
    assert (i["right_matches"], v["right_matches"], all_["right_matches"]) == (15, 35, 25)
    assert (all_["matching_score"], all_["matching_accuracy_7px"]) == (0.5, pytest.approx(0.7))
    assert [all_[f"homography_{t}px_magsac"] for t in (1, 3, 5)] == [0.25, 0.5, 0.75]
    assert [all_[f"homography_{t}px_poselib"] for t in (1, 3, 5)] == [0.5, 0.5, 0.5]
    area = 1 * (0 + 0.25) / 2 + 1 * (0.25 + 0.5) / 2 + 2 * (0.5 + 0.75) / 2 + 1 * 0.75
    assert all_[AUC] == pytest.approx(area / 5)
    assert i["intervals"]["right_matches"] is None, "one sequence says nothing of others"
    assert all_["intervals"]["right_matches"] == quantiles([np.mean(s) for s in drawn_sets([[10, 20], [30, 40]])])


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_are_those_of_sets_drawn_one_by_one(seed):
    records = random_records(seed)
    row = summarise_features(records)[-1]
    sets = drawn_sets(errors_of(records))
    every = [e for errors in errors_of(records) for e in errors]
    for number, pixels in enumerate((1, 3, 5)):
        assert row[f"homography_auc_{pixels}px_magsac"] == pytest.approx(auc(every)[number], abs=1e-12)
        shares, areas = ([f(each)[number] for each in sets] for f in (accuracy, auc))
        assert row["intervals"][f"homography_{pixels}px_magsac"] == quantiles(shares)
        assert row["intervals"][f"homography_auc_{pixels}px_magsac"] == quantiles(areas)


def test_differences_are_of_the_same_sequences():
    a, b = random_records(1), random_records(2)
    sets = [drawn_sets(errors_of(records)) for records in (a, b)]
    found = difference(a, b, AUC)
    assert found["interval"] == quantiles([auc(one)[2] - auc(two)[2] for one, two in zip(*sets, strict=True)])
    assert found["pairs"] == len(a)
    assert difference(a[::-1], b, AUC) == found, "the order of records does not matter"
    back = difference(b, a, AUC)
    assert back["difference"] == pytest.approx(-found["difference"])


def test_a_difference_is_over_the_pairs_of_both():
    """One pair less: the 8 of it is not counted."""
    a = [record("v_a", 2, 1.0, right_matches=8), record("v_a", 3, 1.0, right_matches=4), record("v_b", 2, 1.0)]
    b = [record("v_a", 3, 1.0, right_matches=1), record("v_b", 2, 1.0, right_matches=51), record("v_c", 2, 1.0)]
    found = difference(a, b, "right_matches")
    assert (found["difference"], found["pairs"]) == ((4 - 1 + 50 - 51) / 2, 2)
    assert found["verdict"] == "not separated"
    assert difference(a[:1], b, "right_matches") is None


def features(sequences=8):
    """``good`` has 10 right matches more than ``kp`` in every pair, ``other`` more or fewer by turns."""
    records = []
    for n in range(sequences):
        for name, more in (("kp", 0), ("good", 10), ("other", 9 * (-1) ** n)):
            records.append(record(f"{'iv'[n % 2]}_{n}", 2, 1.0, feature=name, right_matches=50 + n + more))
    return records


def test_a_ratio_is_of_means_over_the_pairs_of_both():
    """30 and 40 matches beside 20 and 20 of pairs that both have: 70 / 40; of the sequences alone 1.5 and 2."""
    ours = [record("i_a", 2, 1.0, right_matches=30), record("i_b", 2, 1.0, right_matches=40)]
    theirs = [record("i_a", 2, 1.0, right_matches=20), record("i_b", 2, 1.0, right_matches=20)]
    alone = record("i_b", 3, 1.0, right_matches=900)
    value, span = ratio([*ours, alone], theirs, "right_matches")
    assert value == 1.75
    drawn = np.random.default_rng(0).integers(0, 2, (RESAMPLES, 2))
    assert span == quantiles([np.mean([(1.5, 2.0)[index] for index in row]) for row in drawn])
    assert ratio(ours[:1], theirs, "right_matches") == (1.5, None)
    assert ratio(ours, [record("v_c", 2, 1.0)], "right_matches") is None
    assert ratio(ours, [each | {"right_matches": 0} for each in theirs], "right_matches") is None


def test_the_first_feature_is_compared_with_each_other():
    found = [d for d in feature_differences(features()) if d["measure"] == "right_matches" and d["split"] == "all"]
    assert [(d["feature"], d["other"], d["points"]) for d in found] == [("kp", "good", 300), ("kp", "other", 300)]
    assert found[0] | {"interval": None} == {
        **{"feature": "kp", "other": "good", "points": 300, "split": "all", "measure": "right_matches"},
        **{"difference": -10, "interval": None, "verdict": "worse", "pairs": 8},
    }
    assert found[0]["interval"] == [-10, -10]
    assert found[1]["verdict"] == "not separated"
    assert feature_differences([]) == []


def test_the_best_feature_must_be_better_than_every_other():
    assert best_feature(features(), 300, "all", "right_matches") == "good"
    assert best_feature([r for r in features() if r["feature"] != "good"], 300, "all", "right_matches") is None
    assert best_feature([r for r in features() if r["feature"] == "good"], 300, "all", "right_matches") is None
    assert best_feature(features(), 1000, "all", "right_matches") is None


def test_an_oracle_is_not_the_best_feature():
    oracle = [r | {"feature": "kp+oracle", "right_matches": 999} for r in features() if r["feature"] == "good"]
    assert best_feature(features() + oracle, 300, "all", "right_matches") == "good"
