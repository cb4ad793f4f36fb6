"""Write the numbers of the stored results into README.md, notebooks/report.md and notebooks/results.md.

These pages are edited by hand, except between two markers: <!-- kp:NAME --> and <!-- /kp -->. What stands between
them is replaced by what NAME stands for, such as a table. Its numbers come from the files in notebooks/results. An
opening marker that ends its line holds a block; any other marker holds a part of a sentence. The block of features is
empty until their files are there. The figure of what keypoints cost is drawn from them too.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from kp.config import DESCRIBED, RunSettings, complete
from kp.evaluation.features import UPRIGHT
from kp.evaluation.summary import SPLITS
from kp.models.cost import SIZE
from kp.reporting import feature_pages, inference_tables, plots, result_tables
from kp.reporting.page_tables import (
    Content,
    MissingResult,
    Read,
    ablation,
    above_by_kind,
    errors,
    kinds,
    measured,
    models,
    swept,
)

ROOT = Path(__file__).parents[2]
RESULTS = Path("notebooks/results")
PAGES = ("README.md", "notebooks/report.md", "notebooks/results.md")
_MARKED = re.compile(r"(<!-- kp:(\S+) -->)(.*?)(<!-- /kp -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (?:kp:|/kp)[^\n]*?-->")


def fill() -> dict[Path, str]:
    """The text of every page and figure by its path.

    Raises ValueError where a page, marker or result is missing or damaged.
    """
    read = _reader(ROOT / RESULTS)
    filled = {ROOT / name: fill_text(_text(ROOT / name), name, read) for name in PAGES}
    return filled | {ROOT / name: draw(ROOT / name, read) for name, draw in FIGURES.items()}


def differing(pages: Mapping[Path, str]) -> list[Path]:
    """The pages whose file does not hold this text."""
    return [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def fill_text(text: str, page: str, read: Read) -> str:
    """The text with what its markers stand for between them. ``page`` is its name in messages of errors."""

    def filled(match: re.Match) -> str:
        opening, name, old, closing = match.groups()
        if _MARKER.search(old):
            raise ValueError(f"{page}: the marker kp:{name} has no end")
        if name not in NAMES:
            raise ValueError(f"{page}: no number or table is called {name}, see kp/reporting/pages.py")
        try:
            new = NAMES[name](read)
        except (KeyError, TypeError, IndexError, AttributeError, StopIteration, ZeroDivisionError) as error:
            raise ValueError(f"{page}: {name}: a result is missing or damaged: {error!r}") from error
        if old.startswith("\n"):
            new = f"\n\n{new}\n\n" if new else "\n"
        return f"{opening}{new}{closing}"

    if stray := _MARKER.search(_MARKED.sub("", text)):
        raise ValueError(f"{page}: {stray[0]} is half of a pair of markers")
    return _MARKED.sub(filled, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _reader(folder: Path) -> Read:
    """A function that reads a JSON file of ``folder``, once."""

    def read(name: str) -> Any:
        try:
            return json.loads((folder / name).read_bytes())
        except FileNotFoundError as error:
            raise MissingResult(f"{folder / name} cannot be read: {error}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{folder / name} cannot be read: {error}") from None

    return cache(read)


def _list(lines: Sequence[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def _difference(file: str, detector: str, floor: str, split: str) -> Callable[[Read], str]:
    """What reads how much a detector is above a floor: the difference, and its 95 % interval."""

    def text(read: Read) -> str:
        key = {"detector": detector, "floor": floor, "split": split}
        found = next(d for d in read(file)["differences"] if key.items() <= d.items())
        low, high = found["interval"]
        return f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"

    return text


def _minutes(read: Read) -> str:
    return ", ".join(f"{model['name']} {model['minutes']:.0f}" for model in read("models.json") if model["steps"])


def _covariance(read: Read) -> str:
    """The table of ``kp covariance``."""
    return result_tables.covariances(read("covariance.json")["rows"]).markdown()


def _seeds(read: Read) -> str:
    """How much the ranker is above the floor on the validation, for each seed: i, v, all."""
    lines = []
    for run in read("ranked_seeds.json"):
        above = ", ".join(f"{part} {run['scores'][f'above_floor_{part}']:+.3f}" for part in SPLITS)
        lines.append(f"seed {run['seed']}: {above}")
    return "; ".join(lines)


def _all_costs(read: Read) -> list[Any]:
    """What keypoints cost, of three runs: what several have measured is that of the first."""
    found: dict[tuple[Any, ...], Any] = {}
    for file in ("inference.json", "inference_sizes.json", "inference_4k.json"):
        for cost in read(file)["costs"]:
            found.setdefault((cost["name"], *cost["size"], cost["threads"]), cost)
    return list(found.values())


def _costs(read: Read, threads: int) -> list[Content]:
    """What keypoints of an image of the common size cost."""
    costs = [cost for cost in _all_costs(read) if tuple(cost["size"]) == SIZE]
    return [cost for cost in costs if cost["threads"] == threads]


def _ratio(read: Read, name: str, threads: int) -> str:
    """The time of a detector as a share of XFeat's."""
    costs = {cost["name"]: cost["milliseconds"] for cost in _costs(read, threads)}
    return f"{costs[name] / costs[read('inference.json')['reference']]:.2f}"


def _inference(read: Read) -> str:
    """A table for each number of threads."""
    content = read("inference.json")
    numbers = dict.fromkeys(cost["threads"] for cost in content["costs"])
    tables = [inference_tables.one(costs, content["reference"]) for n in numbers if (costs := _costs(read, n))]
    return "\n\n".join(table.markdown() for table in tables)


def _inference_figure(path: Path, read: Read) -> str:
    """The SVG file of the times on one thread.

    If the file that is there was drawn from the same numbers it is kept: another matplotlib would draw other bytes.
    """
    costs = [cost for cost in _all_costs(read) if cost["threads"] == 1]
    mark = f"<!-- {hashlib.sha256(json.dumps(costs, sort_keys=True).encode()).hexdigest()} -->"
    if path.exists() and mark in (old := _text(path)):
        return old
    colours = plots.palette([cost["name"] for cost in costs])
    return f"{plots.svg(plots.cost_lines(costs, colours)).decode()}{mark}\n"


FIGURES: dict[str, Callable[[Path, Read], str]] = {"notebooks/figures/inference.svg": _inference_figure}
_SETS = ("test", "validation")
_DIFFERENCES = (  # single numbers of the text: set, detector, floor, splits
    *((name, "kp", "corner", ("i", "v")) for name in _SETS),
    *((name, "ranked", "corner", SPLITS) for name in _SETS),
)
_BESIDE = (  # what the shipped feature, refined, is compared with
    *("xfeat", "aliked-t16", "aliked-n16", "kp+rootsift"),
    *("xfeat+refined", "aliked-t16+refined", "aliked-n16+refined", "kp+rootsift+refined", "kp+xfeat+refined"),
)
_SHORT = ("kp",)  # detectors of the short list of differences
_LEFT_OUT = (  # of the short table
    *("harris-gaussian", "shi-tomasi", "fast", "orb"),
    *("mobilenetv4_conv_small", "mobilenet_v3_large", "aliked-t16"),
)
_RUN = complete(RunSettings())
NAMES: dict[str, Callable[[Read], str]] = {
    **{f"table-{name}": lambda read, name=name: measured(read(f"{name}.json")).markdown() for name in _SETS},
    **{f"kinds-{name}": lambda read, name=name: kinds(read(f"{name}.json")).markdown() for name in _SETS},
    **{
        f"differences-{name}": lambda read, name=name: _list(
            result_tables.difference_lines(read(f"{name}.json")["differences"])
        )
        for name in _SETS
    },
    **{
        f"{detector}-{floor}-{split}-{name}": _difference(f"{name}.json", detector, floor, split)
        for name, detector, floor, splits in _DIFFERENCES
        for split in splits
    },
    **{
        f"ranked-kinds-{name}": lambda read, name=name: above_by_kind(read(f"{name}.json"), "ranked", "corner")
        for name in _SETS
    },
    "differences-short": lambda read: _list(
        result_tables.difference_lines([d for d in read("test.json")["differences"] if d["detector"] in _SHORT])
    ),
    "protocol-native": lambda read: read("test.json")["settings"]["protocols"]["native"]["summary"],
    "table-short": lambda read: measured(read("test.json"), without=_LEFT_OUT).markdown(),
    "table-greedy": lambda read: measured(read("greedy.json")).markdown(),
    "table-builtin": lambda read: measured(read("builtin.json")).markdown(),
    "features": feature_pages.section,
    "features-brief": feature_pages.brief,
    **{
        f"features-{short}-{name}": partial(feature_pages.beside, name=name, other=other)
        for name in _SETS
        for short, other in (("rootsift", "kp+rootsift"), ("upright", f"{DESCRIBED}+{UPRIGHT}"))
    },
    **{f"refined-{name}": partial(feature_pages.refined, name=name) for name in _SETS},
    **{f"same-points-{name}": partial(feature_pages.same_points, name=name) for name in _SETS},
    **{f"right-{name}": partial(feature_pages.right, name=name) for name in _SETS},
    **{f"gain-{other}": partial(feature_pages.gain, other=other) for other in _BESIDE},
    "rotation": lambda read: swept(read("builtin.json"), "rotation").markdown(),
    "scale": lambda read: swept(read("builtin.json"), "scale").markdown(),
    "models": lambda read: models(read("models.json"), read("test.json")).markdown(),
    "errors": lambda read: errors(read).markdown(),
    "ablation": lambda read: ablation(read("ablation.json")["entries"]),
    **{
        f"ablation-{name}": lambda read, name=name: ablation(read(f"ablation_{name}.json")["entries"])
        for name in ("descriptors", "descriptors_upright")
    },
    "covariance": _covariance,
    "domain": lambda read: result_tables.scores(read("domain.json")["scores"]).markdown(),
    "minutes": _minutes,
    "seeds": _seeds,
    "inference": _inference,
    "inference-sizes": lambda read: inference_tables.by_size(_all_costs(read)).markdown(),
    **{
        f"ratio-{name}-{threads}": partial(_ratio, name=f"{name}{more}", threads=threads)
        for more, names in {"": ("default", "ranked", "described"), ", detectAndCompute": ("orb", "sift")}.items()
        for name in names
        for threads in (1, 2)
    },
    **{
        f"setting-{name}": lambda _, group=group, name=name: f"{getattr(getattr(_RUN, group), name):g}"
        for group, names in {
            "train": ("steps", "batch", "lr", "keypoints_per_megapixel", "remembered"),
            "world": ("image_size", "views"),
            "camera": ("bracket_stops", "scene_stops", "hard_jpeg", "shoulder_share", "relit_share"),
        }.items()
        for name in names
    },
}
