"""A headless Chromium to be told what to do, by the DevTools protocol over pipes: nothing to install beside it."""

import base64
import itertools
import json
import os
import shutil
import subprocess

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Browser:
    """One page in one browser. `requests` are the addresses asked for, `errors` what the console says of faults."""

    def __init__(self, folder):
        self.requests, self.errors, self._numbers = [], [], itertools.count(1)
        told, self._write = os.pipe()
        self._read, tells = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        # The browser reads from descriptor 3 and writes to 4.
        script = f'exec "$0" "$@" 3<&{told} 4>&{tells}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, PROGRAM, *options, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(told, tells),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(told)
        os.close(tells)
        self._ahead, self._session = b"", None
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        options = {"targetId": pages[0]["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", **options)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._read)
            os.close(self._write)

    def call(self, method, **parameters):
        """Returns the answer to a command; what happens meanwhile is kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._until(lambda answer: answer.get("id") == number)["result"]

    def open(self, path, width=1280, height=900, dark=False):
        """Opens a file at a width and with a system's theme, and waits until it is loaded."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=theme)
        self.call("Page.navigate", url=path.as_uri())
        self._until(lambda event: event.get("method") == "Page.loadEventFired")

    def run(self, script):
        """Returns the value of a script; an exception in it is an error here."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def screenshot(self, path):
        """Writes the whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path):
        """Writes the page as it is printed."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))

    def _until(self, is_it):
        while True:
            while b"\0" not in self._ahead:
                part = os.read(self._read, 1 << 20)
                if not part:
                    raise RuntimeError("The browser ended.")
                self._ahead += part
            text, self._ahead = self._ahead.split(b"\0", 1)
            message = json.loads(text)
            self._keep(message)
            if is_it(message):
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message

    def _keep(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.errors.append(f"console.{parameters['type']}")
