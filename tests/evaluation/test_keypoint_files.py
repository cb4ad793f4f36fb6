"""Keypoints from files: what is read, what is refused and why, and suppression between pixels."""

import pickle
import time

import numpy as np
import pytest
import torch

from kp.evaluation.keypoint_files import WANTED, file_finder, keypoint_file, read_keypoints, suppress
from kp.models.keypoints import Keypoints, extract_keypoints

SIZE = (30, 40)  # (H, W)
XY = np.array([[1.5, 2], [39.5, 29.5], [-0.5, -0.5], [20, 10.25]])
SCORES = np.array([0.25, -3, 8, 0.5])
BEST_FIRST = [[-0.5, -0.5], [20, 10.25], [1.5, 2], [39.5, 29.5]]


def csv(*columns, header="", separator=","):
    lines = [separator.join(f"{value:g}" for value in row) for row in zip(*columns, strict=True)]
    return header + "\n".join(lines) + "\n"


def check(found):
    assert found.xy.tolist() == [BEST_FIRST]
    assert found.scores.tolist() == [[8, 0.5, 0.25, -3]]
    assert found.valid.tolist() == [[True] * 4]
    assert found.xy.dtype == found.scores.dtype == torch.float32


@pytest.mark.parametrize(
    "entries",
    [
        {"keypoints": XY, "scores": SCORES},
        {"keypoints": XY.astype(np.float16), "keypoint_scores": SCORES.astype(np.float32)},
        {"x": XY[:, 0], "y": XY[:, 1], "score": SCORES, "descriptors": np.array([None])},
        {"keypoints": np.asfortranarray(XY), "scores": SCORES.astype(">f8"), "x": np.zeros(2), "image": np.array("a")},
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz(tmp_path, entries, save):
    save(tmp_path / "1.npz", **entries)
    check(read_keypoints(tmp_path / "1.npz", SIZE))


@pytest.mark.parametrize(
    "text",
    [
        csv(*XY.T, SCORES),
        csv(*XY.T, SCORES, header="x,y,score\n"),
        csv(*XY.T, SCORES, header="# x,y,score\n"),
        csv(*XY.T, SCORES, header="\ufeffX, Y, Scores\n").replace("\n", "\r\n"),
        csv(range(4), SCORES, *XY.T, header=",keypoint_scores,x,y\n"),
        csv(*XY.T, SCORES, header="\n\n", separator=" , ").replace("\n", "\n\n"),
    ],
)
def test_a_csv(tmp_path, text):
    (tmp_path / "1.csv").write_bytes(text.encode())
    check(read_keypoints(tmp_path / "1.csv", SIZE))


def test_a_csv_may_have_columns_of_words(tmp_path):
    (tmp_path / "1.csv").write_text("kind,x,y,score\ncorner,1,2,3\nblob,4,5,6\n")
    assert read_keypoints(tmp_path / "1.csv", SIZE).xy.tolist() == [[[4, 5], [1, 2]]]


def test_what_numpy_writes_is_read(tmp_path):
    np.savetxt(tmp_path / "1.csv", np.column_stack([XY, SCORES]), delimiter=",", header="x,y,score")
    check(read_keypoints(tmp_path / "1.csv", SIZE))


def test_integers_are_numbers_and_equal_scores_keep_their_order(tmp_path):
    x = np.arange(40, dtype=np.uint8)
    np.savez(tmp_path / "1.npz", x=x, y=x // 2, score=np.array([7, 200] * 20, dtype=np.uint8))
    found = read_keypoints(tmp_path / "1.npz", SIZE)
    assert found.xy[0, :, 0].tolist() == [*range(1, 40, 2), *range(0, 40, 2)]
    assert found.scores[0].tolist() == [200] * 20 + [7] * 20


def test_no_keypoints(tmp_path):
    np.savez(tmp_path / "1.npz", keypoints=np.zeros((0, 2)), scores=np.zeros(0))
    (tmp_path / "1.csv").write_text("x,y,score\n")
    for path in tmp_path.iterdir():
        found = read_keypoints(path, SIZE)
        assert (found.xy.shape, found.scores.shape, found.valid.shape) == ((1, 0, 2), (1, 0), (1, 0))
        assert suppress(found, 9, SIZE).xy.shape == (1, 0, 2)


def refused(path, size=SIZE):
    """The message of a refusal: one line that names the file and what is wanted."""
    with pytest.raises(ValueError, match="wanted is") as caught:
        read_keypoints(path, size)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(WANTED)
    assert "\n" not in message
    assert "allow_pickle" not in message
    return message.removeprefix(f"{path}: ").removesuffix(f": wanted is {WANTED}")


def replaced(array, value, *place):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"keypoints": XY}, "it has no scores"),
        ({}, "it has no scores"),
        ({"scores": SCORES, "x": XY[:, 0]}, "it has neither keypoints nor x and y"),
        ({"keypoints": np.c_[XY, SCORES], "scores": SCORES}, "its keypoints have the shape (4, 3)"),
        ({"keypoints": XY.T, "scores": SCORES}, "its keypoints have the shape (2, 4)"),
        ({"keypoints": XY[None], "scores": SCORES[None]}, "its keypoints have the shape (1, 4, 2)"),
        ({"keypoints": XY, "scores": SCORES[:3]}, "its x, y and scores have the shapes (4,), (4,), (3,)"),
        ({"keypoints": XY, "scores": SCORES[:, None]}, "its x, y and scores have the shapes (4,), (4,), (4, 1)"),
        (dict.fromkeys(["x", "y", "score"], np.array(1.0)), "its x, y and scores have the shapes (), (), ()"),
        ({"keypoints": XY.astype(str), "scores": SCORES}, "not all numbers"),
        ({"keypoints": XY, "scores": SCORES > 0}, "not all numbers"),
        ({"keypoints": XY + 0j, "scores": SCORES}, "not all numbers"),
        ({"keypoints": replaced(XY, np.nan, 2, 1), "scores": SCORES}, "NaN or infinite"),
        ({"keypoints": XY, "scores": replaced(SCORES, np.nan, 0)}, "NaN or infinite"),
        ({"keypoints": XY, "scores": replaced(SCORES, -np.inf, 3)}, "NaN or infinite"),
        ({"keypoints": XY, "scores": replaced(SCORES, 1e300, 3)}, "NaN or infinite"),
        ({"keypoints": replaced(XY, 39.75, 1, 0), "scores": SCORES}, "x = 39.75, y = 29.5 is outside the image"),
        ({"keypoints": replaced(XY, -0.75, 2, 1), "scores": SCORES}, "x = -0.5, y = -0.75 is outside the image"),
        ({"keypoints": XY[:, ::-1], "scores": SCORES}, "x = 29.5, y = 39.5 is outside the image of 40 x 30 pixels"),
        ({"keypoints": XY.astype(object), "scores": SCORES}, "no npz of plain numbers"),
    ],
)
def test_an_npz_that_is_refused(tmp_path, entries, reason):
    np.savez(tmp_path / "1.npz", **entries)
    assert reason in refused(tmp_path / "1.npz")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        ("x,y\n1,2\n", "it has no column score"),
        ("y,score\n1,2\n", "it has no column x"),
        ("x;y;score\n1;2;3\n", "it has no column x"),
        ("1,2\n", "its line '1,2' has not 3 columns"),
        ("1,2,3,4\n", "its line '1,2,3,4' has not 3 columns"),
        ("x,y,score\n0,1,2,3\n", "its line '0,1,2,3' has not 3 columns"),
        ("1,2,3\n1,2\n", "its line '1,2' has not 3 columns"),
        ("1,2,3\n1,,3\n", "could not convert"),
        ("1,2,3\n1,two,3\n", "could not convert"),
        ("nan,2,3\n", "NaN or infinite"),
        ("1,2,inf\n", "NaN or infinite"),
        ("1,30,3\n", "x = 1, y = 30 is outside the image of 40 x 30 pixels"),
    ],
)
def test_a_csv_that_is_refused(tmp_path, text, reason):
    (tmp_path / "1.csv").write_text(text)
    assert reason in refused(tmp_path / "1.csv")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("kind", ["pickle", "npy", "empty", "half", "page", "damaged", "evil"])
def test_a_file_that_is_no_npz(tmp_path, kind):
    path = tmp_path / "1.npz"
    np.savez(path, keypoints=XY, scores=SCORES)
    whole = path.read_bytes()
    if kind == "evil":
        np.savez(path, keypoints=np.array([[Evil(), Evil()]], dtype=object), scores=np.zeros(1))
    elif kind == "npy":
        np.save(tmp_path / "1.npy", XY)
        (tmp_path / "1.npy").rename(path)
    else:
        contents = {"pickle": pickle.dumps(Evil()), "half": whole[: len(whole) // 2], "page": b"<html>", "empty": b""}
        contents["damaged"] = whole.replace(XY.tobytes(), XY[::-1].tobytes())  # the checksum is of the old bytes
        path.write_bytes(contents[kind])
    assert refused(path) == "it is damaged, or no npz of plain numbers"


def test_files_that_cannot_be_read(tmp_path):
    for name in ["1.npz", "1.csv"]:
        assert refused(tmp_path / name) == "No such file or directory"
    (tmp_path / "2.csv").write_bytes(b"\xff\xfe\x00\x81")
    assert refused(tmp_path / "2.csv") == "it has no column x"
    (tmp_path / "3.csv").mkdir()
    assert refused(tmp_path / "3.csv") == "Is a directory"


@pytest.mark.parametrize("name", ["1.npz", "1.csv", "1.ppm.npz", "1.jpg.csv", "1.png.npz", "1.JPEG.NPZ"])
def test_the_file_of_an_image_is_found(tmp_path, name):
    folder = tmp_path / "v_graf"
    folder.mkdir()
    for other in [name, "10.npz", "11.csv", "2.npz", "1.ppm", "1.txt", "1.ppm.txt", "1.npz.part", "1.old.npz"]:
        (folder / other).touch()
    assert keypoint_file(tmp_path, "v_graf", 1) == folder / name


@pytest.mark.parametrize("sequence", ["v_graf", "v_wall"])
def test_an_image_without_a_file(tmp_path, sequence):
    (tmp_path / "v_graf").mkdir()
    (tmp_path / "v_graf" / "10.npz").touch()
    with pytest.raises(ValueError, match=rf"{sequence}/1\.npz does not exist.*: wanted is an npz .*[^\n]$"):
        keypoint_file(tmp_path, sequence, 1)


def test_an_image_with_two_files(tmp_path):
    (tmp_path / "v_graf").mkdir()
    for name in ["1.npz", "1.csv"]:
        (tmp_path / "v_graf" / name).touch()
    with pytest.raises(ValueError, match=r"v_graf/1\.csv and 1\.npz are of the same image"):
        keypoint_file(tmp_path, "v_graf", 1)


def test_a_folder_gives_the_keypoints_of_every_image_in_other_processes_too(tmp_path):
    for sequence, number in [("i_a", 1), ("i_a", 2), ("v_b", 1)]:
        (tmp_path / sequence).mkdir(exist_ok=True)
        (tmp_path / sequence / f"{number}.csv").write_text(f"{number},{len(sequence)},5\n{ord(sequence[0]) - 97},0,1\n")
    read = pickle.loads(pickle.dumps(file_finder(tmp_path)))
    assert read("i_a", 2, SIZE).xy.tolist() == [[[2, 3], [8, 0]]]
    assert read("v_b", 1, SIZE).xy.tolist() == [[[1, 3], [21, 0]]]
    with pytest.raises(ValueError, match=r"v_b/1\.csv.*outside the image of 10 x 30"):
        read("v_b", 1, (30, 10))
    with pytest.raises(ValueError, match="v_b/2"):
        read("v_b", 2, SIZE)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        file_finder(tmp_path / "nowhere")


def keypoints(xy, valid=None):
    """Points (N, 2), best first, with scores N, N - 1, ..."""
    xy = torch.as_tensor(xy, dtype=torch.float32).reshape(1, -1, 2)
    scores = torch.arange(xy.shape[1], 0, -1, dtype=torch.float32)[None]
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else torch.as_tensor(valid)[None]
    return Keypoints(xy.masked_fill(~valid[..., None], 0), scores.masked_fill(~valid, -torch.inf), valid)


def greedy(xy, radius):
    """The indices that remain: every point against all that were kept before it."""
    kept = []
    for index, point in enumerate(xy):
        if not kept or np.abs(xy[kept] - point).max(axis=1).min() > radius:
            kept.append(index)
    return kept


@pytest.mark.parametrize("nms_size", [1, 3, 5, 9, 31, 101])
@pytest.mark.parametrize("grid", [None, 1, 0.5])
def test_suppression_is_greedy(nms_size, grid):
    generator = np.random.default_rng(nms_size)
    xy = generator.uniform(-0.5, [59.5, 39.5], (600, 2)).astype(np.float32)
    xy = xy if grid is None else np.round(xy / grid) * grid  # many at the same place, many just as far as the radius
    left = suppress(keypoints(xy), nms_size, (40, 60))
    expected = greedy(xy.astype(np.float64), nms_size // 2)
    count = len(expected)
    assert left.xy[0, :count].tolist() == xy[expected].tolist()
    assert left.scores[0, :count].tolist() == [600 - index for index in expected]
    assert left.valid.tolist() == [[True] * count + [False] * (600 - count)]
    assert (left.xy[0, count:] == 0).all()
    assert (left.scores[0, count:] == -torch.inf).all()


def test_suppression_by_hand():
    xy = [[10, 10], [12, 12], [12.01, 10], [14.5, 10], [10, 7.5], [8, 10], [10, 10]]
    left = suppress(keypoints(xy), 5, (20, 20))
    assert left.scores[0, : left.valid.sum()].tolist() == [7, 5, 4, 3]


def test_a_dropped_point_drops_none():
    left = suppress(keypoints([[0, 0], [2, 0], [4, 0], [6, 0]]), 5, (1, 7))
    assert left.xy[left.valid].tolist() == [[0, 0], [4, 0]]


def test_a_place_without_a_keypoint_drops_none():
    left = suppress(keypoints([[0, 0], [0, 0], [1, 1]], [False, True, True]), 3, SIZE)
    assert left.xy[left.valid].tolist() == [[0, 0]]
    assert left.scores[left.valid].tolist() == [2]


def test_the_maxima_of_a_score_map_survive_the_same_window():
    scores = torch.rand(1, 1, 60, 80, generator=torch.Generator().manual_seed(0))
    found = extract_keypoints(scores, None, 9, 0)
    left = suppress(found, 9, (60, 80))
    assert torch.equal(left.xy, found.xy)
    assert torch.equal(left.valid, found.valid)
    everywhere = extract_keypoints(scores, None, 1, 0)
    greedily = suppress(everywhere, 9, (60, 80))
    maxima = set(map(tuple, found.xy[found.valid].tolist()))
    assert maxima < set(map(tuple, greedily.xy[greedily.valid].tolist()))


@pytest.mark.parametrize("nms_size", [0, 2, -1])
def test_a_window_without_a_middle(nms_size):
    with pytest.raises(ValueError, match=f"odd and positive, not {nms_size}"):
        suppress(keypoints([[0, 0]]), nms_size, SIZE)


def test_ten_thousand_points_take_no_time():
    xy = np.random.default_rng(0).uniform(0, [799, 639], (10_000, 2))
    started = time.perf_counter()
    suppress(keypoints(xy), 9, (640, 800))
    assert time.perf_counter() - started < 2  # it takes 0.05 s; all pairs in Python would take a minute
