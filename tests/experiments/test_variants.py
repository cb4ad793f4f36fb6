"""Other uses of a detector: each does what its name says."""

import torch
from torch import nn

from kp.experiments.variants import four_sizes, mixed_alike
from kp.models.mobile import MobileDetector


def test_four_sizes_are_those_of_a_detector_that_looks_at_four():
    torch.manual_seed(0)
    given, image = MobileDetector(thinning=0.0).eval(), torch.rand(1, 1, 65, 97)
    other = MobileDetector(num_scales=4, thinning=0.0).eval()
    other.load_state_dict(given.state_dict())
    with torch.no_grad():
        assert torch.equal(four_sizes(given)(image), other(image))
    assert given.num_scales == 1


def test_mixed_alike_everywhere_is_what_a_detector_does_whose_encoder_says_nothing():
    torch.manual_seed(0)
    detector, image = MobileDetector(thinning=0.0).eval(), torch.rand(1, 1, 65, 97)
    with torch.no_grad():
        assert torch.allclose(mixed_alike(detector)(image), detector(image), atol=1e-4)  # before training
        nn.init.normal_(detector.mix.weight, std=500)  # of features that hardly differ yet
        told, alike = detector(image), mixed_alike(detector)(image)
        assert not torch.allclose(told, alike, atol=0.1)
        weights = []
        hook = detector.mix.register_forward_hook(lambda *call: weights.append(call[-1].mean((0, 2, 3))))
        assert torch.equal(detector(image), told)  # the one given is as it was
        hook.remove()
        detector.mix.weight.zero_()
        detector.mix.bias.copy_(weights[0])
        assert torch.allclose(detector(image), alike, atol=1e-3 * alike.abs().max().item())
