"""The stand-in for HPatches: what people take for HPatches can read it, and its homographies are true."""

import pytest
import torch

from kp.cli.main import main
from kp.data import hpatches, standin


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The first sequence of each split."""
    root = tmp_path_factory.mktemp("standin") / "root"
    patch = pytest.MonkeyPatch()
    patch.setattr(standin, "_ILLUMINATION_COUNT", 1)
    patch.setattr(standin, "_SIZES", ((48, 64), (50, 70)))
    standin.write(root, 2)
    patch.undo()
    return root


def test_it_reads_as_sequences_of_six_images_of_the_size(root):
    still, moved = hpatches.read(root)
    assert (still.split, moved.split) == ("i", "v")
    assert [tuple(load().shape) for load in still.images] == [(1, 1, 48, 64)] * 6
    assert [tuple(load().shape) for load in moved.images] == [(1, 1, 50, 70)] * 6


def test_a_homography_carries_what_is_seen(root):
    _, moved = hpatches.read(root)
    first, second = moved.images[0]()[0, 0], moved.images[1]()[0, 0]
    right, wrong = [], []
    H = moved.homographies[0].numpy()
    for y in range(10, 40):
        for x in range(10, 60):
            u, v, w = H @ (x, y, 1)
            column, row = round(u / w), round(v / w)
            if 0 <= column < 70 and 0 <= row < 50:
                right.append((first[y, x] - second[row, column]).abs())
                wrong.append((first[y, x] - second[(row + 13) % 50, column]).abs())
    assert torch.stack(right).mean() < 0.6 * torch.stack(wrong).mean()


def test_it_counts_as_hpatches():
    assert standin.COUNT == 57 + 59
    assert sum(number % standin._LARGE_PERIOD == standin._FIRST_LARGE for number in range(standin.COUNT)) == 8


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert main(["standin", str(tmp_path), "--sequences", "1"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_writes_and_says_how_to_go_on(tmp_path, capsys):
    assert main(["standin", str(tmp_path / "root"), "--sequences", "1"]) == 0
    assert f"evaluate.py --hpatches {tmp_path / 'root'}" in capsys.readouterr().out
    (sequence,) = hpatches.read(tmp_path / "root")
    assert sequence.images[5]().shape == (1, 1, 480, 640)
