"""What an evaluation found, as one HTML page to look at, which needs no other file and no network."""

import html
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any

from kp.reporting import plots, sections
from kp.reporting.examples import Example
from kp.reporting.html_tables import Html, element
from kp.support.files import write_file

PAGE = "index.html"
_TEMPLATE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color: #1c1c1c; background: #fff; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 1240px; margin: 0 auto; padding: 1rem 1.25rem 4rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p { max-width: 72rem; margin: .4rem 0; }
nav a { margin-right: 1rem; }
.banner { background: #fff1d6; border-left: 5px solid #E69F00; padding: .6rem 1rem; }
.quiet, figcaption, dd { color: #555; font-size: .875rem; }
.scroll { overflow: auto; max-height: 80vh; width: fit-content; max-width: 100%; margin: .75rem 0; }
.scroll { border: 1px solid #ddd; }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; white-space: nowrap; text-align: right; border-bottom: 1px solid #eee; }
th { font-weight: 600; }
thead { position: sticky; top: 0; background: #f6f6f6; z-index: 2; }
thead th { vertical-align: bottom; }
th.group { text-align: center; color: #555; font-weight: 500; }
th[scope=row], th[scope=rowgroup], thead tr:first-child th:first-child { text-align: left; }
th[scope=row], thead tr:first-child th:first-child { position: sticky; left: 0; background: #f6f6f6; }
td small { display: block; color: #666; font-size: .75rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 1rem 1.5rem; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: .5rem; }
figure { margin: .5rem 0 1.25rem; }
.legend { list-style: none; padding: 0; }
.figures img { width: 100%; max-width: 480px; height: auto; }
.pair img { width: 100%; max-width: 640px; height: auto; }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def write_page(directory: Path, content: dict[str, Any], examples: Sequence[Example] = ()) -> Path:
    """Write the file ``PAGE`` into a folder, complete or not at all, and return its path. Raises HPatchesError.

    ``content`` is that of :func:`kp.evaluation.results.content`, with, if there are any, ``curves`` (rows of
    :func:`kp.evaluation.sweeps.measure`) and ``checks`` (messages to stand under the tables).
    """
    path = directory / PAGE
    write_file(path, make_page(content, examples, datetime.now().astimezone()).encode(errors="replace"))
    return path


def make_page(content: dict[str, Any], examples: Sequence[Example], when: datetime) -> str:
    """The page, see :func:`write_page`, as text; ``when`` stands in its head."""
    rows, curves = content["rows"], content.get("curves", [])
    colours = plots.palette([row["detector"] for row in [*rows, *curves]])
    parts = {
        "Numbers": sections.numbers(content),
        "Plots": sections.plots_of(rows, colours),
        "Sequences": sections.sequences(content["pairs"]),
        "Rotation and scale": sections.curves(curves, colours),
        "Best and worst": sections.pictures(examples),
        "Definitions and settings": definitions(content["settings"]),
    }
    parts = {title: children for title, children in parts.items() if children}
    names = {title: title.split()[0].lower() for title in parts}
    nav = element("nav", *(element("a", title, href=f"#{name}") for title, name in names.items()))
    body = [element("section", element("h2", title), *children, id=names[title]) for title, children in parts.items()]
    title = f"Keypoint detectors on {content['settings']['source']}"
    body = [element("h1", title), header(content, when), nav, *body]
    return _TEMPLATE.substitute(title=html.escape(title), body="\n".join(body))


def header(content: dict[str, Any], when: datetime) -> Html:
    """What was measured, when and with what; what is missing, so that it is seen."""
    pairs = {(pair["sequence"], pair["image"]) for pair in content["pairs"]}
    extent = f"{len({name for name, _ in pairs})} sequences, {len(pairs)} pairs of images"
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    parts = [element("p", f"{extent}. Written {when:%Y-%m-%d %H:%M %Z}, with {versions}.", class_="quiet")]
    if content["weights"]:
        weights = f"Weights of kp: {content['weights']['path']}, sha256 {content['weights']['sha256']}"
        parts.append(element("p", weights, class_="quiet"))
    if not content["complete"]:
        text = f"Only part was measured: the run was stopped. The numbers cover {extent}."
        parts.append(element("p", text, class_="banner", role="alert"))
    skipped = [element("li", f"{name} was skipped: {reason}") for name, reason in content["skipped"].items()]
    return element("header", *parts, *([element("ul", *skipped)] if skipped else []))


def definitions(settings: dict[str, Any]) -> list[Html]:
    """Every setting, in its words, which also say what each measure is."""
    words = {name.replace("_", " "): value for name, value in settings.items() if name != "protocols"}
    words |= {f"protocol {name}": _listed(fields) for name, fields in settings["protocols"].items()}
    items = [element(tag, text) for name, value in words.items() for tag, text in (("dt", name), ("dd", value))]
    return [element("details", element("summary", "What each number means, and all settings"), element("dl", *items))]


def _listed(fields: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in fields.items())
