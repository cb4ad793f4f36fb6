"""Every setting, once: its default, its unit, its bounds and what it means. Flags (:mod:`kp.support.flags`) and
checkpoints (:mod:`kp.support.settings`) are made from it.

Only the commands, the training and the detector know settings objects. Every other function takes plain values.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from kp.support.settings import ABOVE_ZERO, setting

ENCODERS = ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenetv4_conv_small", "mobilenetv4_conv_medium")
MODELS = (  # weights that come with kp
    *("default", "ranked", "described"),
    *("mobilenet_v3_small", "mobilenetv4_conv_small", "mobilenet_v3_large"),
)
WEIGHTS = MODELS[0]  # what is meant where none are named
DESCRIBED = MODELS[2]  # the ranked keypoints, with descriptors
DETECTORS = (  # what evaluate.py measures by default
    *("kp", "ranked", "corner", "harris", "harris-gaussian", "shi-tomasi", "fast", "sift", "orb", "random"),
)
DESCRIPTOR_SCALES = 3  # sizes of an image in which its keypoints are described, each half of the one before
POINTS = (300, 1000, 2000)  # of each image, for which evaluate.py --features has a table by default

# least score of a keypoint for users: noise of .0075 of the grey range has none, and the best 300 keypoints of the
# validation sequences repeat as without it (.569 of .569; from .11 on fewer do, where exposures are dark)
DETECTION_THRESHOLD = 0.105


@dataclass(frozen=True)
class DetectorSettings:
    """The detector."""

    encoder: str = setting(
        "none",
        "torchvision's MobileNetV3 or timm's MobileNetV4; none: the corner response, of which nothing is learnt",
        ("none", *ENCODERS),
    )
    derivative_sigmas: tuple[float, ...] = setting(
        (0.7, 1.4, 2.8, 4.0),
        "pixels: blur of the image before its derivatives, for each scale of the corner response",
        bounds=(0.1, 100),
    )
    window_sigmas: tuple[float, ...] = setting(
        (1.5, 2.0, 4.0, 5.6), "pixels: blur of the products of these derivatives, for each scale", bounds=(0.1, 100)
    )
    half_size_scales: int = setting(
        2, "coarsest scales that are computed at half the size of the image; no encoder", bounds=(0, 16)
    )
    score_blur: float = setting(
        1.0, "pixels (standard deviation) over which the score map is smoothed", bounds=(0.1, 100)
    )
    surround_sigma: float = setting(
        4.0, "pixels (standard deviation) of the surround whose mean score is subtracted", bounds=(0.1, 100)
    )
    surround_weight: float = setting(0.9, "share of that mean that is subtracted", bounds=(0, 10))
    response_gain: float = setting(
        4.0,
        "weight, before training, of the corner response: of all scales; with an encoder, of the finest",
        bounds=(0, 1000),
    )
    thinning: float = setting(
        10.0, "outside training, scores lose so many times what they lack to the best within 1 px", bounds=(0, 1000)
    )
    ranker_width: int = setting(
        48, "numbers in each hidden layer of the ranker of keypoints; 0: none; no encoder", bounds=(0, 1024)
    )
    ranker_weight: float = setting(
        1.0, "of the ranker's logit, added to the score of a keypoint; 0: not used", bounds=(0, 1000)
    )
    descriptor_size: int = setting(128, "numbers of a descriptor; 0: no descriptors; no encoder", bounds=(0, 256))
    covariance_scale: float = setting(
        0.017,
        "square pixels of a keypoint's covariance, times the inverse of the score map's sharpness; see kp covariance",
        bounds=(0, 1000),
    )
    stride: int = setting(8, "pixels between two features of the coarsest stage that is kept", (8, 16))
    width: int = setting(32, "channels of the feature pyramid", bounds=(1, 1024))
    stem_channels: int = setting(12, "learnt full-resolution maps", bounds=(1, 1024))
    symmetric: bool = setting(True, "kernels that do not change when turned or mirrored: nor do the score maps then")
    normalised: bool = setting(True, "encoder and stem see grey in units of the contrast around, not grey itself")
    contrast_sigma: float = setting(
        8.0, "pixels (standard deviation) over which that contrast is measured", bounds=(0.1, 100)
    )
    darkness: float = setting(
        0.3, "weight, before training, of dark spots beside the corner response; 0: no such map", bounds=(0, 100)
    )
    dark_slope: float = setting(
        3.0, "of a dark spot, for a pixel that is darker than its surround by the contrast", bounds=(0, 1000)
    )
    mix_blur: float = setting(
        8.0, "pixels (standard deviation) over which the weights of the maps are smoothed", bounds=(1, 1000)
    )
    pretrained: bool = setting(False, "begin with ImageNet weights for the encoder, downloaded once")


@dataclass(frozen=True)
class WorldSettings:
    """The synthetic pairs."""

    families: tuple[str, ...] = setting(
        ("classic=2", "leaves=3", "foliage=1", "planes=3", "collage=1", "noise=0.25"),
        "what is drawn, and how often in proportion: NAME or NAME=WEIGHT, NAME being a family (python -m kp preview "
        "shows them all) or a group, classic or planes, whose weight its families share",
        metavar="FAMILY",
    )
    image_size: int | None = setting(None, "side of a training view in pixels", bounds=(32, 4096), by_model=(480, 160))
    max_translation: float = setting(0.15, "of a view's centre, either way, as a fraction of its side", bounds=(0, 1))
    max_scale: float = setting(
        1.8, "factor of a view's scale, either way, log-uniform; between two views its square", bounds=(1, 10)
    )
    max_rotation: float = setting(
        60.0, "degrees of a view's rotation, either way; between two views twice that", bounds=(0, 180)
    )
    max_shear: float = setting(45.0, "degrees of a view's shear, either way", bounds=(0, 80))
    max_perspective: float = setting(
        0.4, "change of depth from the centre to the corners of a view, in [0, 1)", bounds=(0, 0.95)
    )
    illumination_only: float = setting(
        0.25, "share of pairs whose views differ almost only in light and translation", bounds=(0, 1)
    )
    viewpoint_only: float = setting(0.5, "share of pairs whose views have almost the same light", bounds=(0, 1))
    relit_pairs: float = setting(
        0.33, "share of the steps in which the views of the describer differ as day and night", bounds=(0, 1)
    )
    views: int = setting(4, "photographs of a scene, for the ranker", bounds=(2, 16))
    pairs: int = setting(2, "pairs of views a step, for descriptors", bounds=(1, 4096))
    still: float = setting(0.8, "share of the scenes whose photographs are all from one place", bounds=(0, 1))
    detail: int = setting(1, "scenes of the camera are drawn so many times as large, and reduced", bounds=(1, 8))

    def ranges(self) -> dict[str, float]:
        """The limits of :func:`kp.geometry.homography.random_homographies`, by name."""
        return {name: value for name, value in vars(self).items() if name.startswith("max_")}


@dataclass(frozen=True)
class LightSettings:
    """The changes of light, lens, sensor and file: how far each goes at most, drawn for each view."""

    photometric: float = setting(
        1.0, "strength of all of them, up to 2, of which a view draws a share; 0 is none", bounds=(0, 2)
    )
    exposure: float = setting(2.0, "stops of light either way; the sensor clips", bounds=(0, 16))
    gamma: float = setting(1.6, "power of grey, factor either way, log-uniform", bounds=(1, 100))
    contrast: float = setting(1.6, "factor of grey about the image's mean, either way, log-uniform", bounds=(1, 100))
    colour_cast: float = setting(
        1.5, "factor of each channel either way, log-uniform; nothing where images are grey", bounds=(1, 100)
    )
    illumination: float = setting(1.5, "stops of light either way, falling off smoothly over the image", bounds=(0, 16))
    shadow: float = setting(0.9, "share of the light that a cast shadow takes, in [0, 1]", bounds=(0, 1))
    specular: float = setting(0.8, "grey that spots of glare add, in [0, 1]", bounds=(0, 1))
    noise: float = setting(
        0.04, "standard deviation of the sensor's noise, as a share of the grey range", bounds=(0, 1)
    )
    jpeg: float = setting(30.0, "lowest quality of JPEG compression, from 1; 100 is none", bounds=(1, 100))
    defocus: float = setting(1.5, "standard deviation of the blur, in pixels", bounds=(0, 100))
    motion: float = setting(7.0, "path of a shaken camera, in pixels", bounds=(0, 100))


# values of CameraSettings for pairs that differ as day and night
DAY_AND_NIGHT = {"relit_share": 1.0, "shoulder_share": 1.0, "relit_stops": 6.0, "shadow_stops": 5.0}


@dataclass(frozen=True)
class CameraSettings:
    """The camera that photographs a scene several times: for the ranking of keypoints and, with the values of
    ``DAY_AND_NIGHT``, for descriptors.
    """

    bracket_stops: float = setting(
        4.0, "stops by which a view is exposed more or less than for a middle grey, at most", bounds=(0, 16)
    )
    scene_stops: float = setting(
        3.0, "stops between the brightest and the darkest light on a scene, at most", bounds=(0, 16)
    )
    metering: float = setting(0.7, "stops by which the middle exposure of a scene is off, at most", bounds=(0, 16))
    shoulder_share: float = setting(
        0.5, "share of the scenes whose camera compresses highlights; in the others they are clipped", bounds=(0, 1)
    )
    shoulder_power: tuple[float, float] = setting(
        (0.8, 1.3), "p of these scenes' response, grey = (1 - exp(-light)) ^ p, lowest and highest", bounds=(0.1, 10)
    )
    relit_share: float = setting(
        0.4, "share of these scenes whose views are lit differently and exposed automatically", bounds=(0, 1)
    )
    relit_stops: float = setting(
        4.0, "stops between the brightest and the darkest light that such a view adds, at most", bounds=(0, 16)
    )
    shadow_stops: float = setting(
        3.0, "stops by which a region of such a view is darker or brighter, at most", bounds=(0, 16)
    )
    full_well: tuple[float, float] = setting(
        (300.0, 5000.0), "electrons that saturate a pixel: sets the photon noise", bounds=(1, 1e9)
    )
    read_noise: tuple[float, float] = setting(
        (0.0005, 0.006), "standard deviation of the read noise, of the full well", bounds=(1e-9, 1)
    )
    s_curve: float = setting(0.3, "share of a smooth step that is mixed into the tone curve, at most", bounds=(0, 1))
    sharpening: float = setting(1.0, "share of the detail below 1 px that is added again, at most", bounds=(0, 10))
    jpeg_quality: tuple[float, float] = setting((70.0, 97.0), "of JPEG, lowest and highest", bounds=(1, 100))
    out_of_focus: float = setting(2.0, "pixels (standard deviation) of the blur of some views, at most", bounds=(0, 20))
    out_of_focus_share: float = setting(0.15, "share of the views that are out of focus", bounds=(0, 1))
    hard_jpeg: float = setting(3.0, "lowest quality of JPEG of some views", bounds=(1, 100))
    hard_jpeg_share: float = setting(0.3, "share of the views that are compressed hard", bounds=(0, 1))


@dataclass(frozen=True)
class TrainSettings:
    """The training."""

    steps: int | None = setting(
        None, "length of the whole run, unless --minutes is given", bounds=(1, 1e9), by_model=(300, 200)
    )
    minutes: float | None = setting(
        None, "length of the whole run in minutes instead of steps", bounds=(ABOVE_ZERO, 1e6)
    )
    batch: int | None = setting(
        None,
        "scenes a step of the ranker or encoder, of each rank under torchrun; with an encoder a GPU takes 64 and more",
        bounds=(1, 4096),
        by_model=(2, 8),
    )
    prefetch_steps: int = setting(
        0,
        "steps whose pairs are drawn at once; 0: one on a CPU, on a GPU as many as fit in a gibibyte",
        bounds=(0, 4096),
    )
    lr: float | None = setting(None, "peak learning rate of AdamW", bounds=(ABOVE_ZERO, 10), by_model=(1e-2, 1e-3))
    warmup: int | None = setting(
        None, "steps in which the learning rate rises to its peak", by_model=(20, 100), bounds=(0, 1e9)
    )
    decay: float | None = setting(
        None,
        "share of the run, at its end, in which the learning rate falls to zero",
        bounds=(0, 1),
        by_model=(0.6, 0.4),
    )
    weight_decay: float = setting(1e-4, "of AdamW", bounds=(0, 10))
    clip: float = setting(1.0, "largest norm of the gradient", bounds=(ABOVE_ZERO, 1e12))
    ema: float = setting(
        0.99, "memory of the averaged weights, which are what is validated and saved, a step", bounds=(0, 1)
    )
    corner_weight: float = setting(0.001, "weight of the corner labels", bounds=(0, 1e6))
    localization_weight: float = setting(
        0.03, "weight of the distance between a keypoint and its repetition", bounds=(0, 1e6)
    )
    repeatability_weight: float = setting(
        1.0, "weight of the share of keypoints that the other view does not repeat", bounds=(0, 1e6)
    )
    keypoints_per_megapixel: float | None = setting(
        None,
        "keypoints of a view that the losses look at, for each megapixel that both views share",
        bounds=(ABOVE_ZERO, 1e6),
        by_model=(650.0, 1000.0),
    )
    remembered: int = setting(
        150_000, "keypoints of the steps so far that the ranker goes on learning from; 12 MB", bounds=(1, 10_000_000)
    )
    ranked_peaks: int = setting(4096, "of them that a step looks at, of each rank", bounds=(1, 1_000_000))
    described_per_megapixel: float = setting(
        4000.0,
        "keypoints of a pair that descriptors learn from, for each megapixel of a view",
        bounds=(ABOVE_ZERO, 1e6),
    )
    temperature: float = setting(
        0.3,
        "of scores: the repeatability loss is undecided about keypoints within so much of the last that counts",
        bounds=(ABOVE_ZERO, 1e3),
    )
    match_radius: float = setting(
        1.0, "pixels within which a keypoint is repeated, in the repeatability loss", bounds=(0, 100)
    )
    seed: int = setting(0, "of the weights and of every pair", bounds=(0, 2**63 - 1))
    validate_every: float = setting(5.0, "minutes between validations; each writes a checkpoint", bounds=(0, 1e6))
    save_every: float = setting(0.5, "minutes between checkpoints", bounds=(0, 1e6))
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")


@dataclass(frozen=True)
class RunSettings:
    """All that a training run depends on, by group: what its checkpoint and its weights record."""

    detector: DetectorSettings = DetectorSettings()
    world: WorldSettings = WorldSettings()
    light: LightSettings = LightSettings()
    camera: CameraSettings = CameraSettings()
    train: TrainSettings = TrainSettings()


def complete(settings: RunSettings) -> RunSettings:
    """Settings whose numbers are all given: those that are None get the default of their model.

    ``steps`` stays None where the length of the run is given in minutes.
    """
    column, groups = int(settings.detector.encoder != "none"), {}
    for name, group in vars(settings).items():
        pairs = {f.name: f.metadata["by_model"] for f in fields(group) if f.metadata["by_model"]}
        missing = {setting: pair[column] for setting, pair in pairs.items() if getattr(group, setting) is None}
        if settings.train.minutes is not None:
            missing.pop("steps", None)
        groups[name] = replace(group, **missing)
    return RunSettings(**groups)


def parts(detector: DetectorSettings) -> tuple[str, ...]:
    """What of a detector a run trains: a score map; or a ranker, a describer or both; or nothing."""
    if detector.encoder != "none":
        return ("score map",)
    sizes = {"ranker": detector.ranker_width, "describer": detector.descriptor_size}
    return tuple(part for part, size in sizes.items() if size)


ENCODER_DEFAULTS = complete(RunSettings(detector=DetectorSettings(encoder=ENCODERS[0])))  # of a run with an encoder


@dataclass(frozen=True)
class EvaluateSettings:
    """How ``evaluate.py`` measures."""

    detectors: tuple[str, ...] = setting(
        DETECTORS,
        "what to measure, in this order; kp is the detector of --weights; all names: see below",
        metavar="NAME",
    )
    features: tuple[str, ...] = setting(
        (),
        "measure complete features instead of detectors, such as kp+rootsift sift xfeat; differences are between the "
        "first and each of the others; see above",
        metavar="NAME",
    )
    points: tuple[int, ...] = setting(
        POINTS, "with --features: best points of each image that count, a table for each number", bounds=(1, 1e6)
    )
    split: str = setting("all", "i (illumination), v (viewpoint) or all", ("i", "v", "all"))
    subset: str = setting("all", "d2net leaves out the eight HPatches sequences of very large images", ("all", "d2net"))
    protocol: tuple[str, ...] = setting(("native",), "one table for each of these; see below", metavar="NAME")
    max_keypoints: int | None = setting(
        None, "best keypoints of each view that count, instead of the protocol's", bounds=(1, 1e6)
    )
    threshold: float | None = setting(
        None, "pixels within which a keypoint repeats another, instead of the protocol's", bounds=(0, 100)
    )
    nms_size: int | None = setting(
        None,
        "non-maximum suppression of every detector, odd kernel in pixels, instead of the protocol's",
        bounds=(1, 99),
    )
    nms: str | None = setting(
        None,
        "window: a keypoint is the best pixel of its window; greedy: it is the best but for pixels that a better "
        "keypoint suppresses, as in rpautrat's code; instead of the protocol's",
        ("window", "greedy"),
    )
    border: int | None = setting(
        None, "pixels at an image's edge without keypoints, instead of the protocol's", bounds=(0, 1000)
    )
    weights: Path = setting(
        Path(WEIGHTS), "of the detector kp: a name of python -m kp models, or a file", metavar="NAME|FILE"
    )
    baseline_weights: Path | None = setting(
        None, "read the learned baselines' weights from files in DIR and never from the network", metavar="DIR"
    )
    scales: int = setting(
        1,
        "sizes in which kp and the shipped detectors look at an image: several begin at 1.41 times its own, each 0.71 "
        "of the one before; 4 find more again, and place them better, in large images that are blurred or zoomed, in "
        "four times the time",
        bounds=(1, 12),
    )
    keypoints: Path | None = setting(
        None,
        "measure keypoints of your own as the detector mine: DIR/SEQUENCE/1.npz, 2.npz, ... with keypoints (N, 2) and "
        "scores (N), or .csv with x,y,score; in pixels of the image files, (0, 0) the centre of the top-left pixel; "
        "they are suppressed like those of all detectors, in the window of --nms-size, greedily, and get the same "
        "border",
        metavar="DIR",
    )
    subpixel: bool = setting(
        True,
        "refine every keypoint to a fraction of a pixel: by a quadric through the 3x3 scores around it, the same for "
        "all detectors; SIFT, ORB and AKAZE have their own places instead, FAST and random keep whole pixels; never "
        "with --export",
    )
    curves: bool = setting(
        False, "then measure the built-in photographs turned by 0 to 180 degrees, scaled by 1/4 to 4"
    )
    seed: int = setting(0, "seed of the random detector and of the built-in sequences", bounds=(0, 2**63 - 1))
    workers: int = setting(1, "processes that share the sequences; the numbers do not depend on it", bounds=(1, 256))
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")


@dataclass(frozen=True)
class OutputSettings:
    """What ``evaluate.py`` writes, beside the table."""

    report: Path | None = setting(None, "write DIR/index.html: tables, plots, best and worst sequences", metavar="DIR")
    json: Path | None = setting(None, "write protocol, rows and every pair's numbers", metavar="FILE")
    export: Path | None = setting(
        None,
        "write DIR/SEQUENCE/N_det.npy and H_1_K: score maps of kp or, without kp, of the one detector measured",
        metavar="DIR",
    )
