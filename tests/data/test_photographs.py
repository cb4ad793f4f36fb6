"""The built-in sequences: repeatable, borderless, and true to their homographies by OpenCV's own warp."""

import socket

import cv2
import numpy as np
import pytest
import torch

from kp.data import photographs
from kp.data.hpatches import HPatchesError
from kp.data.photographs import FILES, make_sequence, read


def numpy_image(load):
    return load()[0, 0].numpy()


@pytest.fixture(scope="module")
def sequences():
    """All of them, made without a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a download was tried"))
        return read(0)


def photograph(tmp_path, image, name="wall.png"):
    assert cv2.imwrite(str(tmp_path / name), image)
    return tmp_path / name


def test_names_sizes_and_counts(sequences):
    stems = [file.split(".")[0] for file in FILES]
    assert [s.name for s in sequences] == [f"i_{stem}" for stem in stems] + [f"v_{stem}" for stem in stems]
    for sequence in sequences:
        assert sequence.split == sequence.name[0]
        assert (len(sequence.images), len(sequence.homographies), sequence.files) == (6, 5, ())
        for load in sequence.images:
            image = load()
            assert (image.shape, image.dtype) == ((1, 1, 240, 320), torch.float32)
            assert torch.equal((image * 255).round() / 255, image)
            assert 0 <= image.min() < image.max() <= 1


def test_illumination_changes_the_light_and_keeps_the_view(sequences):
    for sequence in sequences[: len(FILES)]:
        assert all(torch.equal(H, torch.eye(3, dtype=torch.float64)) for H in sequence.homographies)
        images = [numpy_image(load) for load in sequence.images]
        assert all(np.abs(images[0] - image).mean() > 1e-3 for image in images[1:])


def test_viewpoint_homographies_are_true(sequences):
    """Image 1, warped by OpenCV, looks like image k where it shows; not so with the wrong homography."""
    right, wrong = [], []
    for sequence in sequences[len(FILES) :]:
        reference = numpy_image(sequence.images[0])
        for k in range(2, 7):
            H, image = sequence.homographies[k - 2].numpy(), numpy_image(sequence.images[k - 1])
            for results, matrix in (
                (right, H),
                (wrong, np.diag([1.0, 1.0, 1]) + [[0, 0, 6], [0, 0, 6], [0, 0, 0]] @ H),
            ):
                warped = cv2.warpPerspective(reference, matrix, (320, 240), borderValue=-1)
                shown = cv2.erode((warped > -0.5).astype(np.uint8), np.ones((5, 5))) > 0
                assert shown.mean() > 0.2
                results.append(np.corrcoef(warped[shown], image[shown])[0, 1])
    assert np.median(right) > 0.95
    assert np.mean(np.array(right) > np.array(wrong)) > 0.95


def test_hard_homographies_are_true_though_every_image_is_warped(monkeypatch):
    lights = []
    changed = photographs.change_photometry
    monkeypatch.setattr(photographs, "change_photometry", lambda *a: lights.append(a[2]) or changed(*a[:2], 0.0))
    right = []
    for file in ("coffee.png", "camera.png", "rocket.jpg"):
        sequence = make_sequence(photographs.folder() / file, "hard", 0)
        plain, *images = (numpy_image(load) for load in sequence.images)
        photograph = numpy_image(make_sequence(photographs.folder() / file, "v", 0).images[0])
        assert np.abs(plain - photograph).mean() > 0.02  # the reference is warped too
        for H, image in zip(sequence.homographies, images, strict=True):
            warped = cv2.warpPerspective(plain, H.numpy(), (320, 240), borderValue=-1)
            shown = cv2.erode((warped > -0.5).astype(np.uint8), np.ones((5, 5))) > 0
            right.append(np.corrcoef(warped[shown], image[shown])[0, 1])
    assert np.min(right) > 0.95
    assert lights[:6] == [1.0] * 6


def test_changes_grow_from_image_2_to_image_6(sequences):
    strength = []
    for sequence in sequences[len(FILES) :]:
        corners = np.array([[0, 0, 1], [319, 0, 1], [0, 239, 1], [319, 239, 1.0]])
        moved = [corners @ H.numpy().T for H in sequence.homographies]
        strength.append([np.abs(m[:, :2] / m[:, 2:] - corners[:, :2]).max() for m in moved])
    mean = np.mean(strength, axis=0)
    assert mean[4] > 2 * mean[0] > 10


@pytest.mark.parametrize("shape", [(512, 512), (300, 451), (1411, 1411), (241, 700)])
def test_no_view_has_a_border(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(photographs, "change_photometry", lambda image, generator, strength: image)
    white = photograph(tmp_path, np.full(shape, 255, np.uint8))
    for seed in range(3):
        for sequence in (make_sequence(white, "v", seed), make_sequence(white, "hard", seed)):
            for load in sequence.images:
                assert (load() == 1).all()


def test_the_same_seed_gives_the_same_images_and_another_does_not(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (480, 640), dtype=np.uint8)
    path = photograph(tmp_path, cv2.GaussianBlur(image, (0, 0), 2))
    for split in "iv":
        first, again, other = (make_sequence(path, split, seed) for seed in (0, 0, 1))
        for i in range(6):
            assert torch.equal(first.images[i](), again.images[i]())
            assert i == 0 or not torch.equal(first.images[i](), other.images[i]())
    assert not torch.equal(first.homographies[0], other.homographies[0])


def test_a_part_alone_is_the_same_as_in_all(sequences, monkeypatch):
    monkeypatch.setattr(photographs, "FILES", FILES[3:5])
    alone = read(0, "v")
    assert [s.name for s in alone] == [s.name for s in sequences[len(FILES) + 3 : len(FILES) + 5]]
    assert torch.equal(alone[1].images[5](), sequences[len(FILES) + 4].images[5]())


def test_a_large_photograph_is_shrunk_without_aliasing(tmp_path):
    stripes = np.zeros((1920, 1920), np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: gray, once averaged
    image = numpy_image(make_sequence(photograph(tmp_path, stripes), "i", 0).images[0])
    assert np.abs(image - 0.5).max() < 0.01


@pytest.mark.parametrize("found", [False, True])
def test_without_its_pictures_the_message_says_what_to_install(monkeypatch, tmp_path, found):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(photographs, "find_spec", lambda name: Spec if found else None)
    with pytest.raises(HPatchesError, match="pip install 'scikit-image"):
        read()
