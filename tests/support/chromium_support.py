"""Drives a headless Chromium by its DevTools protocol, over a pair of pipes.

Needs no package and no second program: Chromium reads commands from file descriptor 3
and writes answers and events to 4, each ended by a zero byte.
"""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

PATH = shutil.which("chromium") or shutil.which("google-chrome")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-component-update",
    "--remote-debugging-pipe",
)
# Chromium is slow to start where others work.
_SECONDS = 180.0


class Browser:
    """A Chromium process with one page.

    Args:
        profile: Folder of its profile, new.

    Attributes:
        events: What the page has told, since the start: name and parameters.
    """

    def __init__(self, profile):
        (to_browser, commands), (answers, from_browser) = _pipe(), _pipe()
        # Descriptors that bash can move to 3 and 4 without losing one.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash"]
            + [PATH, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._commands, self._answers = commands, answers
        self._rest = b""
        self._count = 0
        self._session = None
        self.events = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.call(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Sends a command and returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next(_SECONDS)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def pump(self, seconds=0.05):
        """Collects events for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                self._next(left)

    def go(self, url):
        """Loads a page."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, expression):
        """Evaluates JavaScript, and awaits its value."""
        found = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression, seconds=_SECONDS):
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"it never came to be: {expression}"
            self.pump()

    def text(self, selector):
        """Returns the visible text of an element."""
        return self.evaluate(f"document.querySelector({selector!r}).innerText")

    def choose(self, selector, path):
        """Sets the file of an input element."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key, text=""):
        """Presses and releases a key."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}
        event = {"key": key, "code": "Space" if key == " " else key}
        event["windowsVirtualKeyCode"] = codes.get(key, ord(key[0]))
        text = text or {"Enter": "\r", " ": " "}.get(key, "")
        kind = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **kind, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text):
        """Types a text."""
        self.call("Input.insertText", text=text)

    def resize(self, width, height, touch=False):
        """Sets the size of the window, and whether it has a touch screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if touch else 1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)

    def screenshot(self, path):
        """Writes a PNG of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(found["data"]))

    def told(self, name):
        """Returns the parameters of all events of a name."""
        return [parameters for method, parameters in self.events if method == name]

    def close(self):
        """Ends the browser."""
        for descriptor in (self._commands, self._answers):
            os.close(descriptor)
        try:
            # It goes when the pipes do.
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _next(self, seconds):
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], seconds)[0]:
                raise TimeoutError("Chromium says nothing")
            part = os.read(self._answers, 1 << 20)
            assert part, f"Chromium ended with {self._process.wait()}"
            self._rest += part
        data, self._rest = self._rest.split(b"\0", 1)
        answer = json.loads(data)
        if "method" in answer:
            self.events.append((answer["method"], answer["params"]))
        return answer


def _pipe():
    """Opens a pipe with descriptors from 10 on."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends
