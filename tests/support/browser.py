"""A headless Chromium, spoken to over a pipe by the DevTools protocol: pages at a width, in light or dark."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
# The browser reads commands from descriptor 3 and answers on 4, which may be taken by something else here.
PLACED = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def browser_path() -> str | None:
    """Where a browser is, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page. errors: what its console has complained of. requests: what pages have asked for."""

    def __init__(self, profile: Path) -> None:
        path = browser_path()
        assert path is not None
        theirs_in, self.writing = os.pipe()
        self.reading, theirs_out = os.pipe()
        options = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage",
        )  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", PLACED, str(theirs_in), str(theirs_out), path, *options, "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.number, self.session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self.writing)
        os.close(self.reading)

    def message(self) -> dict[str, Any]:
        """The next message; what it complains of is kept."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.reading], [], [], 120)
            assert ready, "the browser does not answer"
            piece = os.read(self.reading, 1 << 20)
            assert piece, "the browser has ended"
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        method, said = found.get("method"), found.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(said["exceptionDetails"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(said["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.errors.append(str(said["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        return found

    def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        """What one command answers."""
        self.number += 1
        asked: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            asked["sessionId"] = self.session
        os.write(self.writing, json.dumps(asked).encode() + b"\0")
        while (found := self.message()).get("id") != asked["id"]:
            pass
        assert "error" not in found, found
        result: dict[str, Any] = found["result"]
        return result

    def show(self, page: Path, width: int, height: int = 900, *, dark: bool = False, printed: bool = False) -> None:
        """Load a page in a window of a width, and wait until it is there."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if printed else "screen", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )  # fmt: skip
        self.call("Page.navigate", url=page.absolute().as_uri())
        while self.message().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> Path:
        """Write the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))
        return path
