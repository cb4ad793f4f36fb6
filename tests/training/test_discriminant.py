import numpy as np
import pytest
import torch
from scipy.linalg import eigh, subspace_angles
from torch import Tensor

from kp.training.discriminant import Moments, discriminant, merged, tilt_maps

ALONE = torch.arange(6)[:, None]  # features that no turn of the image changes


def places(seed: int, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Six features of places in two views: two tell places apart, one does a little, three vary from view to view."""
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    own = torch.randn(count, 6, generator=g, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.2, 0, 0, 0])
    noise = torch.tensor([0.3, 0.2, 0.5, 1.0, 2.0, 4.0])
    views = [own + torch.randn(count, 6, generator=g, dtype=torch.float64) * noise for _ in range(2)]
    return tuple(view @ turn + torch.arange(6.0) for view in views)


def moments(*views: Tensor) -> Moments:
    found = Moments(6)
    found.add(*views)
    return found


def test_directions_are_scipys_generalised_eigenvectors():
    one, two = places(1)
    weight, bias = discriminant(moments(one, two), 2, ALONE)
    both = torch.cat([one, two])
    change = (one - two).numpy()
    within = change.T @ change / (2 * len(one))
    within[range(6), range(6)] += 0.03 * within.trace() / 6
    centred = (both - both.mean(0)).numpy()
    values, vectors = eigh(centred.T @ centred / len(both), within)
    assert subspace_angles(vectors[:, ::-1][:, :2], weight.mT.numpy()).max() < 1e-6
    mapped = both @ weight.mT + bias
    assert mapped.mean(0).abs().max() < 1e-9
    assert mapped.square().sum(1).mean().item() == pytest.approx(1)
    noise = (weight.numpy() @ within @ weight.mT.numpy()).diagonal()  # the share that Wiener's filter leaves, squared
    shares = (1 - 1 / values[::-1][:2]) ** 2
    assert noise[0] / noise[1] == pytest.approx(shares[0] / shares[1], rel=1e-6)


def test_a_mapped_place_is_nearer_to_itself_than_unmapped():
    fitted = discriminant(moments(*places(1)), 2, ALONE)
    one, two = places(2, 300)

    def right(a: Tensor, b: Tensor) -> float:
        return (torch.cdist(a, b).argmin(1) == torch.arange(len(a))).double().mean().item()

    mapped = [view @ fitted[0].mT + fitted[1] for view in (one, two)]
    assert right(*mapped) > 3 * right(one, two)


def test_sums_of_parts_are_the_sums_of_all_and_are_saved():
    one, two = places(3, 100)
    parts = [moments(one[:30], two[:30]), moments(one[30:], two[30:])]
    again = Moments(6)
    again.load_state_dict(merged(parts).state_dict())
    for found, wanted in zip(*(discriminant(sums, 3, ALONE) for sums in (again, moments(one, two))), strict=True):
        assert torch.allclose(found.abs(), wanted.abs(), atol=1e-8)


@pytest.mark.parametrize("count", [1, 2])
def test_few_places_or_equal_ones_give_a_finite_map(count):
    one, _ = places(4, count)
    for view in (one, torch.zeros_like(one)):
        weight, bias = discriminant(moments(view, view), 4, ALONE)
        assert weight.shape == (4, 6)
        assert weight.isfinite().all()
        assert bias.isfinite().all()


def turned(features: Tensor, orbits: Tensor, turns: int = 1) -> Tensor:
    found = torch.empty_like(features)
    found[:, orbits.roll(-turns, 1)] = features[:, orbits]
    return found


@pytest.mark.parametrize("size", [5, 6, 9, 12])
def test_a_turn_of_the_image_turns_what_is_mapped(size):
    orbits = torch.randperm(24, generator=torch.Generator().manual_seed(0)).view(3, 8)
    g = torch.Generator().manual_seed(1)
    own = torch.randn(500, 24, generator=g, dtype=torch.float64) @ torch.randn(24, 24, generator=g, dtype=torch.float64)
    one, two = (own + torch.randn(500, 24, generator=g, dtype=torch.float64) for _ in range(2))
    sums = Moments(24)
    sums.add(one, two)
    weight, bias = discriminant(sums, size, orbits)
    assert weight.shape == (size, 24)
    mapped, after = (view @ weight.mT + bias for view in (one, turned(one, orbits)))
    turn = torch.linalg.lstsq(mapped, after).solution
    assert torch.allclose(mapped @ turn, after, atol=1e-9)
    assert torch.allclose(turn @ turn.mT, torch.eye(size, dtype=torch.float64), atol=1e-9)


def test_it_is_the_map_of_all_turns_of_the_pairs():
    orbits = torch.arange(16).view(4, 4).mT.reshape(4, 4)
    g = torch.Generator().manual_seed(2)
    own = torch.randn(300, 16, generator=g, dtype=torch.float64) * torch.arange(1.0, 17)
    one, two = (own + torch.randn(300, 16, generator=g, dtype=torch.float64) for _ in range(2))
    one, two = (torch.cat([turned(view, orbits, k) for k in range(4)]) for view in (one, two))
    sums = Moments(16)
    sums.add(one, two)
    mapped = []
    for each in (torch.arange(16)[:, None], orbits):
        weight, bias = discriminant(sums, 16, each)
        mapped.append(one[:50] @ weight.mT + bias)
    assert torch.allclose(*(view @ view.mT for view in mapped), atol=1e-9)  # they differ by a rotation at most


# --- tilts ---

PAIRS = torch.tensor([[0, 1], [2, 3], [4, 5]])  # features that half a turn of the image exchanges


def half_turn(features: Tensor) -> Tensor:
    return features[..., PAIRS.flip(1).flatten()]


def tilted_places(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features from the front, two linear maps that are the same after half a turn, and the features they give."""
    g = torch.Generator().manual_seed(7)
    front = torch.randn(count, 6, generator=g, dtype=torch.float64) + torch.arange(6.0)
    maps = torch.randn(2, 6, 6, generator=g, dtype=torch.float64)
    maps = (maps + half_turn(half_turn(maps.mT).mT)) / 2
    return front, maps, front @ maps.mT


def test_maps_of_tilts_are_those_that_made_the_features():
    front, maps, sides = tilted_places(400)
    found = Moments(6, 2)
    found.add_tilted(front[:150], sides[:, :150])
    found.add_tilted(front[150:], sides[:, 150:])
    weight = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(8), dtype=torch.float64))[0]
    learnt = tilt_maps(found, weight, torch.zeros(6), PAIRS)
    wanted = weight @ maps @ torch.linalg.inv(weight)
    assert torch.allclose(learnt, wanted, rtol=0.05, atol=0.05 * wanted.abs().max())


def test_maps_of_tilts_are_least_squares_by_numpy():
    """Of features that no linear map makes: with a bias, and the same places seen after half a turn."""
    g = torch.Generator().manual_seed(9)
    front, side = (torch.randn(300, 6, generator=g, dtype=torch.float64) + 1 for _ in range(2))
    side = side + front.square()
    weight, bias = torch.randn(4, 6, generator=g, dtype=torch.float64), torch.tensor([1.0, 0, -2, 3]).double()
    found = Moments(6, 1)
    found.add_tilted(front, side[None])
    x, y = (torch.cat([each, half_turn(each)]) @ weight.mT + bias for each in (front, side))
    wanted = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0].T
    assert np.abs(tilt_maps(found, weight, bias, PAIRS)[0].numpy() - wanted).max() < 0.02 * np.abs(wanted).max()


def test_sums_of_tilts_are_merged_and_saved():
    front, _, sides = tilted_places(50)
    parts = [Moments(6, 2), Moments(6, 2)]
    parts[0].add_tilted(front[:20], sides[:, :20])
    parts[1].add_tilted(front[20:], sides[:, 20:])
    whole, again = Moments(6, 2), Moments(6, 2)
    whole.add_tilted(front, sides)
    again.load_state_dict(merged(parts).state_dict())
    assert torch.allclose(again.fronts, whole.fronts)
    assert torch.allclose(again.sides, whole.sides)
    assert whole.fronts[-1, -1] == 50
