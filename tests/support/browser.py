"""Headless Chromium, driven through its own protocol over a pipe: no driver, no port and no package."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = (1280, 900), (390, 844)

# First to numbers above both, so that the second move cannot overwrite what the first has left.
_MOVE_AND_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
    os.close(end)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    """The browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class BrowserError(Exception):
    """What the page's script, or the browser, refused."""


class Browser:
    """One page of a browser without a window. Its script errors and messages are in `problems`."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        # The browser reads commands from its file 3 and writes answers to its file 4, each ended by a zero byte.
        read_end, self._commands = os.pipe()
        self._answers, write_end = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += ["--no-first-run", "--disable-background-networking", "--force-color-profile=srgb"]
        flags += [f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MOVE_AND_START, str(read_end), str(write_end), program, *flags],
            pass_fds=(read_end, write_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._unread = b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result. Raises BrowserError for one that fails, or where the browser has ended."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {} if self._session is None else {"sessionId": self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") != number:
                self.events.append(found)
            elif "error" in found:
                raise BrowserError(f"{method}: {found['error']['message']}")
            else:
                result: dict[str, Any] = found["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            received = os.read(self._answers, 1 << 16)
            if not received:
                raise BrowserError("the browser has ended")
            self._unread += received
        message, self._unread = self._unread.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path, *, size: tuple[int, int] = DESKTOP, dark: bool = False, scripts: bool = True) -> None:
        """Load a file and wait for it."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait_for("Page.loadEventFired")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page. Raises BrowserError for what it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserError(json.dumps(found["exceptionDetails"])[:1000])
        return found["result"].get("value")

    def wait_until(self, expression: str) -> Any:
        """The value of an expression in the page as soon as it is true; only the timeout of the test ends this."""
        return self.run(
            "new Promise((done) => { const look = () => { const found = "
            f"{expression}; found ? done(found) : setTimeout(look, 20); }}; look(); }})"
        )

    def press(self, key: str, code: int, times: int = 1) -> None:
        """Press a key on whatever has the focus."""
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        # Enter acts through the character that it types.
        typed = {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **typed)
            self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def problems(self) -> list[str]:
        """Errors of scripts, and what the policy of the page refused."""
        wanted = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"])[:500] for event in self.events if event.get("method") in wanted]

    def requests(self) -> list[str]:
        """What the page fetched."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [str(parameters["request"]["url"]) for parameters in sent]

    def downloads_to(self, folder: Path) -> None:
        """Save downloads in a folder."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)

    def wait_for(self, method: str, **values: Any) -> None:
        """Wait for an event that has these values."""
        while not any(
            event.get("method") == method and values.items() <= event["params"].items() for event in self.events
        ):
            self.events.append(self._read())

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen, or the whole page, as a PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        os.write(self._commands, json.dumps({"id": next(self._numbers), "method": "Browser.close"}).encode() + b"\0")
        self._process.wait(60)
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()
