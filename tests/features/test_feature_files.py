"""Files of features: there and back, hloc's layout, COLMAP's database; nothing is lost or half-written."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import CONTEXT, Forked

import kp
from kp.features import files
from kp.features.match_files import save_matches
from kp.features.store import Store


def features(count=5, seed=0, descriptors=True):
    generator = torch.Generator().manual_seed(seed)
    found = {
        "keypoints": torch.rand(1, count, 2, generator=generator) * 1000 + 0.123,
        "keypoint_scores": torch.rand(1, count, generator=generator).sort(descending=True).values,
        "image_size": torch.tensor([[1200.0, 1100.0]]),
    }
    if descriptors:
        found["descriptors"] = torch.nn.functional.normalize(torch.rand(1, count, 128, generator=generator), dim=2)
    return found


@pytest.mark.parametrize("count", [5, 1, 0])
@pytest.mark.parametrize("descriptors", [True, False])
@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_there_and_back(tmp_path, suffix, descriptors, count):
    path, saved = tmp_path / f"f{suffix}", features(count, descriptors=descriptors)
    kp.save(path, "folder/a.jpg", saved)
    loaded = kp.load(path)
    assert loaded.keys() >= saved.keys() - {"image_size"}
    for name, value in loaded.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value, saved[name].reshape(value.shape), rtol=0, atol=1e-6 if suffix == ".csv" else 0
        )
    assert loaded["keypoints"].shape == (1, count, 2)


def test_h5_is_as_hloc_reads_it(tmp_path):
    """The code path of hloc: a group by the image's path; keypoints (N, 2), descriptors (D, N), size (w, h)."""
    h5py = pytest.importorskip("h5py")
    kp.save(tmp_path / "f.h5", "db/1.jpg", features(7))
    with h5py.File(tmp_path / "f.h5", "r", libver="latest") as file:
        names = []
        file.visititems(
            lambda _, item: names.append(item.parent.name.strip("/")) if isinstance(item, h5py.Dataset) else None
        )
        assert set(names) == {"db/1.jpg"}
        keypoints = file["db/1.jpg"]["keypoints"]
        assert keypoints.__array__().shape == (7, 2)
        assert keypoints.dtype == np.float32
        assert keypoints.attrs.get("uncertainty") is None or keypoints.attrs["uncertainty"] > 0
        assert file["db/1.jpg"]["descriptors"].__array__().shape == (128, 7)
        assert file["db/1.jpg"]["scores"].shape == (7,)
        assert file["db/1.jpg"]["image_size"].__array__().tolist() == [1200, 1100]


def test_an_h5_holds_many_images_and_replaces_one(tmp_path):
    path = tmp_path / "f.h5"
    for seed, name in enumerate(("a.jpg", "x/b.jpg", "a.jpg")):
        kp.save(path, name, features(seed=seed))
    assert files.names_in(path) == ["a.jpg", "x/b.jpg"]
    assert torch.equal(kp.load(path, "a.jpg")["keypoints"], features(seed=2)["keypoints"])
    assert torch.equal(kp.load(path, "x/b.jpg")["keypoints"], features(seed=1)["keypoints"])
    with pytest.raises(ValueError, match=r"no image 'c.jpg': it has a.jpg, x/b.jpg"):
        kp.load(path, "c.jpg")
    with pytest.raises(ValueError, match="several images"):
        kp.load(path)


def _save(path, seed):
    kp.save(path, f"{seed}.jpg", features(seed=seed))


def test_two_programs_add_to_one_h5(tmp_path):
    with CONTEXT.Pool(2) as pool:
        pool.starmap(_save, [(tmp_path / "f.h5", seed) for seed in range(6)])
    assert files.names_in(tmp_path / "f.h5") == [f"{seed}.jpg" for seed in range(6)]


def test_an_error_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "f.h5"
    kp.save(path, "a.jpg", features())
    before = path.read_bytes()
    monkeypatch.setattr(files, "_put", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        kp.save(path, "b.jpg", features())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["f.h5"]


@pytest.mark.parametrize("suffix", files.SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"nonsense\n1,2", b"\x00" * 300, b"{}", b"[1, 2]"])
def test_damaged_files_are_one_line(tmp_path, suffix, content):
    path = tmp_path / f"f{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"f{suffix}"):
        kp.load(path)
    with pytest.raises(ValueError, match="there is no file"):
        kp.load(tmp_path / f"other{suffix}")


def test_names_that_are_no_files_of_features(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.h5, \.npz, \.csv or \.json"):
        kp.save(tmp_path / "f.txt", "a", features())
    with pytest.raises(ValueError, match="for several choose"):
        files.save_all(tmp_path / "f.npz", {"a": features(), "b": features()})
    with pytest.raises(ValueError, match=r"keypoints \(1, N, 2\)"):
        kp.save(tmp_path / "f.npz", "a", {"keypoints": torch.zeros(5, 2)})


def test_evaluate_reads_what_save_writes(tmp_path):
    from kp.evaluation.keypoint_files import read_keypoints

    for suffix in (".npz", ".csv"):
        kp.save(tmp_path / f"1{suffix}", "1", features())
        found = read_keypoints(tmp_path / f"1{suffix}", (1100, 1200))
        torch.testing.assert_close(found.xy, features()["keypoints"])


def test_colmap_reads_and_verifies(tmp_path):
    """Back by pycolmap: half a pixel more, the matches, and COLMAP's own verification finds the homography."""
    pycolmap = pytest.importorskip("pycolmap")
    one = features(60)
    two = one | {"keypoints": one["keypoints"] * 0.9 + torch.tensor([30.0, -5.0])}
    pairs = torch.arange(60)[:, None].expand(-1, 2).clone()
    kp.write_colmap(tmp_path / "d.db", {"a.jpg": one, "b.jpg": two}, {("a.jpg", "b.jpg"): pairs})
    (tmp_path / "pairs.txt").write_text("a.jpg b.jpg\n")
    pycolmap.verify_matches(tmp_path / "d.db", tmp_path / "pairs.txt")
    with pycolmap.Database.open(tmp_path / "d.db") as database:
        images = {image.name: image for image in database.read_all_images()}
        ids = [images[name].image_id for name in ("a.jpg", "b.jpg")]
        np.testing.assert_allclose(database.read_keypoints(ids[0])[:, :2], one["keypoints"][0] + 0.5, atol=1e-4)
        assert database.read_matches(*ids).tolist() == pairs.tolist()
        camera = database.read_camera(images["a.jpg"].camera_id)
        assert (camera.width, camera.height) == (1200, 1100)
        assert database.read_two_view_geometry(*ids).inlier_matches.shape[0] >= 55
        stored = database.read_descriptors(ids[0]).data
        np.testing.assert_allclose(stored / 512, one["descriptors"][0].clamp(max=255 / 512), atol=1 / 512)


@pytest.mark.parametrize(
    ("pair", "matches", "message"),
    [
        (("a", "c"), torch.zeros(1, 2, dtype=torch.long), "no features of c"),
        (("a", "a"), torch.zeros(1, 2, dtype=torch.long), "itself"),
        (("a", "b"), torch.tensor([[0, 5]]), "not among its 5"),
        (("a", "b"), torch.tensor([[-1, 0]]), "not among its 5"),
        (("a", "b"), torch.zeros(3), "pairs"),
    ],
)
def test_matches_that_do_not_fit_the_features(tmp_path, pair, matches, message):
    pytest.importorskip("pycolmap")
    (tmp_path / "d.db").write_bytes(b"before")
    with pytest.raises(ValueError, match=message):
        kp.write_colmap(tmp_path / "d.db", {"a": features(), "b": features()}, {pair: matches})
    assert (tmp_path / "d.db").read_bytes() == b"before"


def test_matches_are_as_hloc_reads_them(tmp_path):
    h5py = pytest.importorskip("h5py")
    result = {"names": ("x/a.jpg", "b.jpg"), "matches": torch.tensor([[2, 0], [0, 3]]), "counts": [4, 5]}
    save_matches(tmp_path / "m.h5", [result | {"scores": torch.tensor([0.5, 0.25])}])
    with h5py.File(tmp_path / "m.h5", "r") as file:
        assert file["x-a.jpg/b.jpg/matches0"][()].tolist() == [3, -1, 0, -1]
        assert file["x-a.jpg/b.jpg/matching_scores0"][()].tolist() == [0.25, 0, 0.5, 0]


@pytest.mark.parametrize("form", ["h5", "json"])
def test_a_store_goes_on_where_it_was_interrupted(tmp_path, form):
    out = tmp_path / f"f.{form}"
    first = Store(out, form, {"threshold": 0.1})
    first.put("x" * 300, features(seed=1))
    first.close()  # as when the process ends
    again = Store(out, form, {"threshold": 0.1})
    assert "x" * 300 in again.names
    again.put("b", features(seed=2))
    again.finish()
    assert files.names_in(out) == ["b", "x" * 300]
    assert torch.equal(kp.load(out, "b")["keypoints"], features(seed=2)["keypoints"])
    assert not list(tmp_path.glob(".*parts"))


def _open_store():
    Store(Path(sys.argv[1]), "h5", {"threshold": 0.1})


def test_a_store_is_not_shared_or_mixed(tmp_path):
    store = Store(tmp_path / "f.h5", "h5", {"threshold": 0.1})
    with Forked(_open_store, tmp_path / "f.h5") as other:
        _, _, err = other.finish()
    assert "being written by another run" in err
    store.put("a", features())
    store.finish()
    with pytest.raises(ValueError, match="made with another threshold"):
        Store(tmp_path / "f.h5", "h5", {"threshold": 0.2})
    added = Store(tmp_path / "f.h5", "h5", {"threshold": 0.1})
    assert "a" in added.names
    added.put("b", features())
    added.finish()
    assert files.names_in(tmp_path / "f.h5") == ["a", "b"]
    anew = Store(tmp_path / "f.h5", "h5", {"threshold": 0.2}, overwrite=True)
    assert files.names_in(tmp_path / "f.h5") == ["a", "b"]  # until the new one is finished
    anew.put("c", features())
    anew.finish()
    assert files.names_in(tmp_path / "f.h5") == ["c"]


def test_a_name_within_another_stays(tmp_path):
    for seed, name in enumerate(("a/b", "a", "a")):
        kp.save(tmp_path / "f.h5", name, features(seed=seed))
    assert files.names_in(tmp_path / "f.h5") == ["a", "a/b"]
    assert torch.equal(kp.load(tmp_path / "f.h5", "a/b")["keypoints"], features(seed=0)["keypoints"])


def test_empty_places_are_not_written(tmp_path):
    padded = features(4, descriptors=False) | {"valid": torch.tensor([[True, True, False, False]])}
    kp.save(tmp_path / "f.npz", "a", padded)
    assert kp.load(tmp_path / "f.npz")["keypoints"].shape == (1, 2, 2)
    assert len(kp.to_opencv(padded)) == 2


@pytest.mark.parametrize("name", ["/x/a.jpg", "./x/a.jpg", "x//a.jpg", Path("x/a.jpg")])
def test_an_image_is_found_by_the_name_it_was_saved_by(tmp_path, name):
    kp.save(tmp_path / "f.h5", name, features())
    assert files.names_in(tmp_path / "f.h5") == ["x/a.jpg"]
    assert torch.equal(kp.load(tmp_path / "f.h5", name)["keypoints"], features()["keypoints"])


def test_a_name_that_an_npz_does_not_have_is_one_line(tmp_path):
    kp.save(tmp_path / "f.npz", "a.png", features(3))
    assert kp.load(tmp_path / "f.npz", "a.png")["keypoints"].shape == (1, 3, 2)
    with pytest.raises(ValueError, match=r"has no image 'b\.png': it has a\.png"):
        kp.load(tmp_path / "f.npz", "b.png")


def test_arrays_of_numpy_are_features_too(tmp_path):
    arrays = {name: value.numpy() for name, value in features().items()}
    kp.save(tmp_path / "f.npz", "a", arrays)
    assert torch.equal(kp.load(tmp_path / "f.npz")["keypoints"], features()["keypoints"])
    assert kp.match(arrays, arrays)["matches"].tolist() == [[i, i] for i in range(5)]
    with pytest.raises(ValueError, match="no image_size"):
        kp.write_colmap(tmp_path / "d.db", {"a": {"keypoints": features()["keypoints"]}}, {})
