"""A small WebDriver client (W3C WebDriver, https://www.w3.org/TR/webdriver2/) on
nothing but the standard library, for Debian's chromium and chromedriver."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# Chromium reaches for its maker's hosts at every start unless told not to.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]

START_TIMEOUT_S = 30
CALL_TIMEOUT_S = 120
CLOSE_TIMEOUT_S = 15


class Browser:
    """One headless browser; use it in a `with` statement."""

    def __init__(self):
        driver = shutil.which("chromedriver")
        chromium = shutil.which("chromium")
        if driver is None or chromium is None:
            raise RuntimeError("chromium or chromedriver is not installed: `just browser-install`")
        self.profile = tempfile.TemporaryDirectory(prefix="patarm-browser-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.base = f"http://127.0.0.1:{port}"
        self.session = None
        try:
            self._wait_until_ready()
            self._start(chromium)
        except Exception:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except (OSError, urllib.error.URLError):
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("chromedriver does not answer")
            time.sleep(0.1)

    def _start(self, chromium):
        arguments = ARGUMENTS + [f"--user-data-dir={self.profile.name}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = answer["sessionId"]

    def _call(self, method, path, body=None, timeout_s=CALL_TIMEOUT_S):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            problem = json.load(error)["value"]
            raise RuntimeError(f"{path}: {problem['error']}: {problem['message']}") from None

    def call(self, method, path, body=None):
        """A command of the session, by its path below it."""
        return self._call(method, f"/session/{self.session}{path}", body)

    def cdp(self, command, parameters):
        """A command of Chromium's own protocol."""
        return self.call(
            "POST", "/goog/cdp/execute", {"cmd": command, "params": parameters}
        )

    def open(self, url):
        """Loads a page and waits until it is there."""
        self.call("POST", "/url", {"url": url})
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.run("return document.readyState") != "complete":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url} does not finish loading")
            time.sleep(0.05)

    def resize(self, width, height):
        """Sets the size of the page in CSS pixels, as a device of one pixel a pixel."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def scheme(self, name):
        """`light` or `dark`."""
        self.cdp(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": name}]},
        )

    def run(self, script, *arguments):
        """The value of a script's `return`."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        """The ids of all elements that a CSS selector finds."""
        found = self.call("POST", "/elements", {"using": "css selector", "value": selector})
        return [next(iter(element.values())) for element in found]

    def click(self, selector):
        """Clicks the first element that a CSS selector finds."""
        self.call("POST", f"/element/{self.find(selector)[0]}/click", {})

    def type(self, selector, text):
        """Types into the first element that a CSS selector finds."""
        self.call("POST", f"/element/{self.find(selector)[0]}/value", {"text": text})

    def console(self):
        """Messages of the console since the last call."""
        return self.call("POST", "/se/log", {"type": "browser"})

    def screenshot(self, path):
        """Writes the whole page as PNG."""
        size = self.cdp("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        parameters = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        image = self.cdp("Page.captureScreenshot", parameters)["data"]
        path.write_bytes(base64.b64decode(image))

    def print_pdf(self, path):
        """Writes the page as it would be printed on A4."""
        parameters = {"page": {"width": 21.0, "height": 29.7}, "background": True}
        path.write_bytes(base64.b64decode(self.call("POST", "/print", parameters)))

    def close(self):
        """Ends the browser and its driver."""
        if self.session is not None:
            try:
                self._call("DELETE", f"/session/{self.session}", timeout_s=CLOSE_TIMEOUT_S)
            except (OSError, RuntimeError):
                pass
        self.driver.terminate()
        try:
            self.driver.wait(timeout=CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.wait()
        self.profile.cleanup()
