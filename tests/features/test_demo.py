"""The page in the browser: in headless Chromium it shows the keypoints of Python and asks no other host."""

import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from chromium import Chromium

from kp import load_detector
from kp.config import DESCRIBED, DETECTION_THRESHOLD
from kp.data import photographs

DEMO = Path(__file__).parents[2] / "notebooks" / "demo"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [  # the build exports the detector and loads two packages
    pytest.mark.exact,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
    pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    """The address of the page, built and served."""
    if not (DEMO / "node_modules").is_dir():
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=DEMO, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm ci fails: {done.stderr.strip().splitlines()[-1]}")
    build = ["npm", "run", "build"]
    subprocess.run(build, cwd=DEMO, env=os.environ | {"PYTHON": sys.executable}, check=True, capture_output=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=DEMO / "dist")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def page(address, tmp_path):
    with Chromium(BROWSER, tmp_path / "profile") as browser:
        browser.call("Page.navigate", url=address)
        browser.wait_for("document.getElementById('status')?.textContent === 'Ready'")
        yield browser
        assert browser.requested
        assert all(url.startswith((address, "blob:", "data:")) for url in browser.requested)


def photograph(folder, name):
    """A photograph as a PNG file of colours without alpha, and the file."""
    image = cv2.imread(str(photographs.folder() / name), cv2.IMREAD_COLOR)
    path = folder / f"{Path(name).stem}.png"
    cv2.imwrite(str(path), image)
    return image, path


def saved(page):
    """The rows (N, 4) of the file that the page saves: picture, x, y, score."""
    text = page.evaluate("fetch(document.getElementById('save').href).then((answer) => answer.text())")
    return np.loadtxt(text.splitlines(), delimiter=",", skiprows=1, ndmin=2)


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "camera.png"])
def test_keypoints_are_those_of_python(page, tmp_path, name):
    image, path = photograph(tmp_path, name)
    page.choose("#file0", path)
    page.wait_for("!document.getElementById('save').hidden && document.getElementById('save').href")
    found = saved(page)

    blue, green, red = (image[..., channel].astype(np.float32) for channel in range(3))
    grey = torch.from_numpy((0.299 * red + 0.587 * green + 0.114 * blue) / 255)[None, None]
    with torch.inference_mode():
        expected = load_detector(DESCRIBED).keypoints(
            grey, 500, nms_size=9, border=4, subpixel=True, threshold=DETECTION_THRESHOLD
        )
    scores, keep = expected.scores.sigmoid(), expected.valid
    distances = torch.cdist(expected.xy[keep].double(), torch.from_numpy(found[:, 1:3]))
    assert len(found) == keep.sum() == 500
    assert (distances.amin(1) < 0.1).double().mean() >= 0.998  # the last of the 500 may be another one
    assert distances.amin(1).median() < 1e-3
    np.testing.assert_allclose(np.sort(found[:, 3]), np.sort(scores[keep]), atol=1e-3)


def test_sliders_choose_the_best(page, tmp_path):
    page.choose("#file0", photograph(tmp_path, "camera.png")[1])
    page.wait_for("document.getElementById('status').textContent.startsWith('500 ')")
    slide = "const s = document.getElementById('{}'); s.value = {}; s.dispatchEvent(new Event('input'))"
    page.evaluate(slide.format("count", 50))
    page.wait_for("document.getElementById('status').textContent.startsWith('50 ')")
    page.evaluate("{" + slide.format("threshold", 0.5) + "}")
    page.evaluate("{" + slide.format("count", 2000) + "}")
    page.wait_for("document.getElementById('threshold-value').textContent === '0.50'")
    found = saved(page)
    assert 0 < len(found) < 500
    assert found[:, 3].min() > 0.5


def test_a_turned_picture_matches(page, tmp_path):
    image, path = photograph(tmp_path, "astronaut.png")
    turned = tmp_path / "turned.png"
    middle = (image.shape[1] / 2, image.shape[0] / 2)
    cv2.imwrite(str(turned), cv2.warpAffine(image, cv2.getRotationMatrix2D(middle, 20, 0.9), image.shape[1::-1]))
    page.choose("#file0", path)
    page.choose("#file1", turned)
    page.wait_for("/ matches/.test(document.getElementById('status').textContent)")
    text = page.evaluate("document.getElementById('status').textContent")
    assert int(text.split(", ")[1].split()[0]) > 250, text  # of 500


def test_errors_are_one_line(page, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    page.choose("#file0", tmp_path / "text.png")
    page.wait_for("!document.getElementById('error').hidden")
    assert page.evaluate("document.getElementById('error').textContent").startswith("text.png is not an image")
    page.evaluate("document.getElementById('webcam').click()")
    page.wait_for("document.getElementById('error').textContent.includes('webcam')")
    assert page.evaluate("document.getElementById('view').hidden")
