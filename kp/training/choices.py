"""Which settings a training takes: within bounds, of use to its model, and free to change where a run goes on.

A flag that does nothing is refused, not only warned of. A run takes minutes to hours and records its settings; a
refused command takes a second.
"""

from collections.abc import Collection
from dataclasses import fields

from kp.config import DAY_AND_NIGHT, CameraSettings, DetectorSettings, LightSettings, RunSettings, parts
from kp.data.synthetic.render import parse_mixture
from kp.models.detector import check as check_detector
from kp.support.settings import check_bounds

_DETECTOR, _LIGHT, _CAMERA = (
    [f.name for f in fields(group)] for group in (DetectorSettings, LightSettings, CameraSettings)
)
_OF_DAY_AND_NIGHT = ("bracket_stops", *DAY_AND_NIGHT)  # of the camera: a describer does not ask for these
_PAIRS = ("illumination_only", "viewpoint_only", *_LIGHT)
_GRADIENT = ("batch", "lr", "warmup", "decay", "weight_decay", "clip", "ema", "keypoints_per_megapixel")
_OF_CORNERS = ("half_size_scales", "covariance_scale", "ranker_width", "descriptor_size")  # of what has no encoder
USED = {  # settings that only a run uses which trains this
    "score map": frozenset(
        (
            *("stride", "width", "stem_channels", "symmetric", "normalised", "contrast_sigma", "darkness"),
            *("dark_slope", "mix_blur", "pretrained", *_PAIRS, *_GRADIENT),
            *("corner_weight", "localization_weight", "repeatability_weight", "temperature", "match_radius"),
        )
    ),
    "ranker": frozenset(
        (
            *("ranker_weight", "views", "still", "detail", "remembered", "ranked_peaks"),
            *(*_OF_CORNERS, *_CAMERA, *_GRADIENT),
        )
    ),
    "describer": frozenset(
        (
            *("pairs", "relit_pairs", "still", "detail", "described_per_megapixel", *_OF_CORNERS, *_PAIRS),
            *(name for name in _CAMERA if name not in _OF_DAY_AND_NIGHT),
        )
    ),
}
FIXED = dict.fromkeys(_DETECTOR, "its detector stays as it began")  # where a run goes on
FIXED |= {"seed": "its random numbers go on", "init": "it has begun"}
OF_SCENES = frozenset(("families", "detail", "corner_weight"))  # settings of drawn scenes, which photographs replace


def check(settings: RunSettings) -> None:
    """Raises ValueError, naming the flag, on a setting with which nothing can be trained."""
    check_bounds(*vars(settings).values())
    train, world = settings.train, settings.world
    try:
        parse_mixture(world.families)
    except ValueError as error:
        raise ValueError(f"--families: {error}") from None
    check_detector(settings.detector)
    trained = parts(settings.detector)
    if settings.detector.descriptor_size == 1:
        raise ValueError("--descriptor-size 1 tells nothing apart: take 0 for no descriptors, or at least 2")
    if not trained:
        raise ValueError("--ranker-width 0 and --descriptor-size 0 without an --encoder leave nothing to train")
    if trained == ("score map",) and not (
        train.corner_weight or train.localization_weight or train.repeatability_weight
    ):
        raise ValueError(
            "--corner-weight, --localization-weight and --repeatability-weight are all 0: nothing to train"
        )
    if world.illumination_only + world.viewpoint_only > 1:
        raise ValueError("--illumination-only and --viewpoint-only are shares of the pairs: their sum is at most 1")


def has_effect(name: str, detector: DetectorSettings) -> bool:
    """Whether a setting is used where this detector is trained."""
    used = [part for part, names in USED.items() if name in names]
    return not used or any(part in used for part in parts(detector))


def check_given(
    given: Collection[str], detector: DetectorSettings, *, goes_on: bool = False, photographs: bool = False
) -> None:
    """Raises ValueError, naming the flag, where a setting that was ``given`` would do nothing but be recorded.

    Args:
        given: names of the settings that the command line has, see :func:`kp.support.flags.given`.
        detector: of the run, which says what it trains, see :func:`kp.config.parts`.
        goes_on: whether a run goes on, whose other settings are recorded already.
        photographs: whether the scenes are photographs of a folder.
    """
    trained = parts(detector)
    for name in sorted(given):
        flag = "--" + name.replace("_", "-")
        if goes_on and name in FIXED:
            raise ValueError(f"{flag} has no place in a run that goes on ({FIXED[name]}): leave it out")
        if not has_effect(name, detector):
            others = " or ".join(f"a {other}" for other, used in USED.items() if name in used)
            raise ValueError(
                f"{flag} has no effect on a {' or a '.join(trained)}, only on {others}: leave it out, or see "
                "--encoder, --ranker-width and --descriptor-size"
            )
        if photographs and name in OF_SCENES:
            raise ValueError(f"{flag} has no effect with --images, whose scenes are photographs: leave it out")
