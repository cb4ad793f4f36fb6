"""A headless Chromium that a test drives through the DevTools protocol, over a pipe."""

import json
import os
import subprocess
from pathlib import Path


class Chromium:
    """A browser with one page. Use it in a ``with`` statement, which ends it.

    Args:
        program: the path of Chromium.
        profile: an empty folder for its files.
        size: width and height of the page in pixels.
        flags: further arguments of the program.
    """

    def __init__(self, program: str, profile: Path, size: tuple[int, int] = (1280, 900), flags: tuple = ()) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        common = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        # Chromium reads commands from file 3 and writes answers to file 4.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *common, f"--window-size={size[0]},{size[1]}", *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._last, self._session = b"", 0, None
        self.requested = []  # addresses that the page asked for

    def __enter__(self) -> "Chromium":
        (page,) = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "DOM", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params: object) -> dict:
        """The result of a command of the protocol. Raises RuntimeError where it fails or the browser ends."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._last:
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression; promises are awaited. Raises RuntimeError on an exception."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "exception"))
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: int = 120) -> None:
        """Return when a JavaScript expression is true. Raises RuntimeError after so many seconds."""
        self.evaluate(f"""new Promise((resolve, reject) => {{
            const end = performance.now() + {1000 * seconds};
            (function look() {{
                if ({condition}) resolve();
                else if (performance.now() > end) reject(new Error("not in time: " + document.body.innerText));
                else setTimeout(look, 50);
            }})();
        }})""")

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in the file input of that CSS selector, as a user would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def _receive(self) -> dict:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 2**16)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)
