"""Headless Chromium, driven through chromedriver's own protocol (W3C WebDriver), and a server of one folder."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=900,1100",
)


class Browser:
    """One tab. `requests`: what it has asked the network for since :meth:`open`, read by :meth:`requested`."""

    def __init__(self, driver: str, session: str) -> None:
        self._address = f"{driver}/session/{session}"
        self.requests: list[str] = []

    def open(self, url: str) -> None:
        self.requested()
        self.requests.clear()  # of the tab that the browser starts with
        self._ask("POST", "url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of an async function returns; AssertionError where it throws."""
        code = (
            "const done = arguments[arguments.length - 1]; const given = Array.from(arguments).slice(0, -1);"
            f"(async (...given) => {{ {script} }})(...given)"
            ".then((value) => done({ value }), (failure) => done({ error: String(failure) }));"
        )
        answer = self._ask("POST", "execute/async", {"script": code, "args": list(arguments)})
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "screenshot")))

    def requested(self) -> list[str]:
        """All that was asked of the network so far, whether or not it was let through."""
        for entry in self._ask("POST", "se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return self.requests

    def close(self) -> None:
        ask("DELETE", self._address)

    def _ask(self, method: str, command: str, body: Any = None) -> Any:
        return ask(method, f"{self._address}/{command}", body)


def ask(method: str, url: str, body: Any = None) -> Any:
    data = None if method != "POST" else json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as failure:
        raise AssertionError(json.load(failure)["value"]["message"]) from None


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps its files in the empty `folder`."""
    assert DRIVER is not None
    assert CHROMIUM is not None
    log = (folder / "driver.log").open("w+b")
    process = subprocess.Popen([DRIVER, "--port=0"], stdout=log, stderr=subprocess.STDOUT)
    try:
        driver = f"http://127.0.0.1:{_port(folder / 'driver.log')}"
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": flags},
            "goog:loggingPrefs": {"performance": "ALL"},
            "timeouts": {"script": 60_000},
        }
        started = ask("POST", f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
        tab = Browser(driver, started["sessionId"])
        try:
            yield tab
        finally:
            tab.close()
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _port(log: Path) -> int:
    """chromedriver says where it listens."""
    for _ in range(1200):
        for line in log.read_text(errors="replace").splitlines():
            if "started successfully on port" in line:
                return int(line.rstrip(". \r").split()[-1])
        time.sleep(0.05)
    raise AssertionError(f"chromedriver did not start: {log.read_text(errors='replace')[:500]}")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder as ``python -m http.server`` serves it; its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass
