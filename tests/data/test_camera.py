"""The camera that brackets: light, exposure, noise and clipping against numbers worked out by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from kp.config import CameraSettings
from kp.data.camera import bracket
from kp.data.synthetic.render import render
from kp.data.view_groups import view_groups
from kp.geometry.coords import warp_image

PLAIN = CameraSettings(
    metering=0.0,
    shoulder_share=0.0,
    scene_stops=0.0,
    full_well=(1e9, 1e9),
    read_noise=(1e-9, 1e-9),
    s_curve=0.0,
    sharpening=0.0,
    jpeg_quality=(100.0, 100.0),
    out_of_focus_share=0.0,
    hard_jpeg_share=0.0,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def steps(views=2, batch=1):
    """Scenes of four grey bars, the same in every view."""
    bars = torch.tensor([0.2, 0.4, 0.6, 0.8]).repeat_interleave(16).expand(48, 64)
    return bars[None, None, None].expand(batch, views, 1, 48, 64).contiguous()


def test_the_first_view_of_a_scene_is_exposed_for_a_middle_grey():
    views = bracket(steps(batch=3), seeded(), PLAIN)
    assert views[:, 0].pow(2.2).mean((1, 2, 3)).tolist() == pytest.approx([0.18] * 3, abs=0.003)


def test_other_views_get_as_many_stops_more_or_less_of_light():
    """Grey is light to the power 1 / 2.2: a ratio of greys to the power 2.2 is the ratio of exposures."""
    views = bracket(steps(4, 6), seeded(1), replace(PLAIN, bracket_stops=2.0))
    dark = views[:, :, 0, :, 4]  # a bar that no exposure here clips
    stops = (dark[:, 1:].mean(2) / dark[:, :1].mean(2)).log2() * 2.2
    assert stops.abs().min() > 0.95
    assert stops.abs().max() < 2.05
    assert stops.min() < -1 < 1 < stops.max()


def test_a_scene_out_of_focus_is_blurred_and_keeps_its_light():
    settings = replace(PLAIN, out_of_focus_share=1.0, out_of_focus=2.0, bracket_stops=0.0)
    sharp, soft = (bracket(steps(batch=4), seeded(), s) for s in (PLAIN, settings))
    edges = [view[:, 0, 0, 20].diff(dim=-1).abs().amax(-1) for view in (sharp, soft)]
    assert (edges[1] <= edges[0]).all()
    assert edges[1].mean() < 0.8 * edges[0].mean()
    assert soft[:, 0].pow(2.2).mean() == pytest.approx(0.18, abs=0.005)


SHOULDER = replace(PLAIN, shoulder_share=1.0, shoulder_power=(1.0, 1.0), relit_share=0.0)


def test_a_response_with_a_shoulder_is_exponential():
    """Grey g = 1 - exp(-E), so the light of a bar is E = -log(1 - g), up to the exposure; 1 - exp(-6) is white."""
    views = bracket(steps(6, 3), seeded(4), replace(SHOULDER, bracket_stops=2.0))
    light = -(1 - views[:, :, 0, 24, 4::16].double() * (1 - np.exp(-6))).log()  # (3, 6, 4 bars)
    expected = -np.log(1 - np.array([0.2, 0.4, 0.6, 0.8]))
    middle = light[:, 0]
    assert middle.mean(1).numpy() == pytest.approx(np.full(3, 0.5), abs=0.01)
    assert (middle / middle[:, :1]).numpy() == pytest.approx(np.tile(expected / expected[0], (3, 1)), rel=0.06)
    stops = (light[:, 1:, 1] / light[:, :1, 1]).log2()
    assert stops.abs().max() < 2.1
    assert stops.min() < -0.5 < 0.5 < stops.max()
    assert views[..., 60].max() < 1  # a bar of .8, up to 2 stops over the middle, is compressed and not clipped


def test_highlights_are_clipped_without_a_shoulder_and_kept_with_one():
    bright, settings = torch.tensor([0.8, 0.9]), replace(PLAIN, bracket_stops=2.0)
    scene = (
        bright.repeat_interleave(32).expand(4, 6, 1, 48, 64) * torch.tensor([0.3, 1.0]).repeat_interleave(24)[:, None]
    )
    clipped = bracket(scene, seeded(1), settings)[:, :, 0, 36]
    kept = bracket(scene, seeded(1), replace(settings, shoulder_share=1.0, relit_share=0.0))[:, :, 0, 36]
    over = clipped[..., 8] == 1  # views where the darker of two bright halves is white already
    assert over.any()
    assert (clipped[over][:, 8] == clipped[over][:, 56]).all()
    assert (kept[..., 8] < kept[..., 56]).all()


def test_relit_views_have_a_light_of_their_own_and_the_same_exposure():
    flat = torch.full((4, 3, 1, 64, 64), 0.5)
    settings = replace(SHOULDER, relit_share=1.0)
    views = bracket(flat, seeded(2), settings)[:, :, 0]
    light = -(1 - views * (1 - np.exp(-6))).clamp(min=1e-6).log()
    means = light.mean((2, 3)) / 0.5
    assert means.log2().abs().max() < 1.5  # a standard deviation of .3 stops; highlights near white are coarse
    shape = light / light.mean((2, 3), keepdim=True)
    assert (shape[:, 0] - shape[:, 1]).abs().amax((1, 2)).min() > 0.2  # the first two views are not lit alike
    still = bracket(flat, seeded(2), replace(settings, relit_stops=0.0, shadow_stops=0.0))[:, :, 0]
    assert still.std((2, 3)).max() < 0.01


def test_photon_noise_is_that_of_the_full_well():
    """In light L of the well, the standard deviation of light is the root of L / well (Poisson)."""
    flat = torch.full((1, 2, 1, 200, 200), 0.5)
    view = bracket(flat, seeded(), replace(PLAIN, full_well=(1000.0, 1000.0)))[0, 0, 0]
    assert view.pow(2.2).std().item() == pytest.approx((0.18 / 1000) ** 0.5, rel=0.06)


def test_views_are_of_8_bits_and_white_where_light_is_clipped():
    views = bracket(steps(6, 4), seeded(2), replace(PLAIN, bracket_stops=4.0))
    assert torch.equal((views * 255).round() / 255, views)
    assert views.max() == 1
    assert (views[..., 60] == 1).any()


def test_the_same_seed_gives_the_same_views():
    one, two, other = (bracket(steps(3), seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("still", [0.0, 1.0])
def test_views_of_a_group_agree_with_their_homographies(still):
    camera = replace(PLAIN, bracket_stops=1.0)  # more would clip what is compared
    leaves = partial(render, families=("leaves",))
    group = next(view_groups(2, 3, (96, 96), seeded(3), camera=camera, still=still, render=leaves, detail=1))
    assert group.images.shape == (2, 3, 1, 96, 96)
    assert torch.equal(group.H[:, 0], group.H[:, 1]) == bool(still)
    for b in range(2):
        H_1to0 = group.H[b, 0].double() @ torch.linalg.inv(group.H[b, 1].double())
        carried = warp_image(group.images[b, 1:2], H_1to0[None].float(), (96, 96))[0, 0, 30:66, 30:66]
        first = group.images[b, 0, 0, 30:66, 30:66]
        seen = carried > 0
        assert torch.corrcoef(torch.stack([carried[seen].log(), first[seen].clamp(min=0.01).log()]))[0, 1] > 0.8


def test_the_pair_of_a_group_goes_from_its_first_view_to_its_second():
    group = next(view_groups(2, 3, (64, 64), seeded(4), still=0.0, detail=1))
    pair = group.pair()
    assert torch.equal(pair.image0, group.images[:, 0])
    assert torch.equal(pair.image1, group.images[:, 1])
    scene = np.array([[30.0, 40, 1], [50, 20, 1], [45, 45, 1]]).T
    for b in range(2):
        in0, in1 = (H.double().numpy() @ scene for H in group.H[b, :2])
        found = pair.H_0to1[b].double().numpy() @ (in0 / in0[2])
        assert np.allclose(found / found[2], in1 / in1[2], atol=1e-3)


def test_every_takes_scenes_of_a_group():
    group = next(view_groups(4, 2, (64, 64), seeded(), detail=1))
    part = group.every(1, 2)
    assert torch.equal(part.images, group.images[1::2])
    assert torch.equal(part.H, group.H[1::2])
