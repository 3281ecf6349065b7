"""A small web server that shows a stream: a page, two motion JPEGs, and the figures as JSON."""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from ipaddress import ip_address
from math import inf
from threading import BoundedSemaphore, Condition, Lock, Thread
from time import monotonic
from typing import Any

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.stream.figures import StreamFigures
from gensdk_runtime.stream.frame import StreamFacts, TranslatedFrame
from gensdk_runtime.stream.sink import Sink

MAX_STREAMS = 8
"""Motion JPEGs at once, two for each open page."""
MAX_CONNECTIONS = 32
CLIENT_SECONDS = 10.0
"""What a client may take to ask, to take a frame, and to confirm what came, until its connection is closed."""
LOOK_SECONDS = 1.0
"""How often a client that waits for a frame is looked after: it may have gone."""

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
STREAMS = {"/source.mjpg": "source", "/result.mjpg": "view"}
BOUNDARY = "frame"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class HttpSink(Sink):
    """Serves ``/`` (the page), ``/result.mjpg``, ``/source.mjpg`` and ``/figures.json``.

    On `host` 127.0.0.1 only this machine sees it, and requests that name another host are refused, so that no
    website can read the stream through a name of its own. `port` 0 takes a free one; :attr:`url` tells it. Each
    client gets the newest frame when it is ready for one, and none makes the stream wait. A frame is encoded once,
    and only if a client is watching.
    """

    plays = True

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: Thread | None = None
        self.board = Board()

    @property
    def url(self) -> str:
        """Where the page is, once the sink is open."""
        if self._server is None:
            return ""
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def open(self, facts: StreamFacts) -> str:
        """Begins to listen, and tells where; :class:`InputError` where the port is taken."""
        self.board.facts = facts
        try:
            self._server = _Server(self._address, self.board)
        except OSError as failure:
            where = ":".join(map(str, self._address))
            raise InputError(
                f"can't listen on {where}: {failure.strerror or failure}; choose another port"
            ) from None
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="gensdk-http", daemon=True)
        self._thread.start()
        return f"watch at {self.url}"

    def watched(self) -> bool:
        """True if a page is open."""
        return self.board.watched

    def write(self, frame: TranslatedFrame) -> None:
        """The newest frame."""
        self.board.show(frame)

    def tell(self, figures: StreamFigures) -> None:
        """The newest figures."""
        self.board.figures = figures

    def close(self) -> None:
        """Ends all connections."""
        self.board.end()
        if self._server is not None:
            self._server.shutdown()
            self._server.disconnect_all()
            self._server.server_close()  # waits for the threads of all clients
        if self._thread is not None:
            self._thread.join()


class Board:
    """The newest frame and figures, for many readers."""

    def __init__(self) -> None:
        self.facts: StreamFacts | None = None
        self.figures: StreamFigures | None = None
        self._viewers = 0
        self._changed = Condition()
        self._frame: TranslatedFrame | None = None
        self._count = 0
        self._ended = False
        self._encoding = Lock()
        self._encoded: dict[str, tuple[int, bytes]] = {}

    def show(self, frame: TranslatedFrame) -> None:
        """Puts the newest frame on the board."""
        with self._changed:
            self._frame = frame
            self._count += 1
            self._changed.notify_all()

    def end(self) -> None:
        """No more frames will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def watched(self) -> bool:
        """True if a client is receiving a stream."""
        return self._viewers > 0

    @contextmanager
    def viewer(self) -> Iterator[bool]:
        """Takes one of the :data:`MAX_STREAMS` for as long as it is open; False where there is none."""
        with self._changed:
            free = self._viewers < MAX_STREAMS
            self._viewers += free
        try:
            yield free
        finally:
            with self._changed:
                self._viewers -= free

    def next_jpeg(self, what: str, after: int) -> tuple[int, bytes] | None:
        """The number and the JPEG of ``source`` or ``view`` of the newest frame that is later than `after`.

        Where none comes within :data:`LOOK_SECONDS`, `after` itself and no bytes; None at the end.
        """
        with self._changed:
            if self._count <= after and not self._ended:
                self._changed.wait(LOOK_SECONDS)
            if self._count <= after or self._frame is None:
                return None if self._ended else (after, b"")
            count, frame = self._count, self._frame
        with self._encoding:
            known = self._encoded.get(what)
            if known is None or known[0] < count:
                known = self._encoded[what] = count, encode_image(getattr(frame, what), ".jpg", {})
        return known

    def to_json(self) -> bytes:
        """What the page asks for each second."""
        facts = self.facts
        return json.dumps(
            {
                "model": facts.model if facts else "",
                "source": facts.source if facts else "",
                "live": facts.live if facts else False,
                "ended": self._ended,
                "shown": self._count,
                "figures": self.figures.to_dict() if self.figures else None,
            }
        ).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], board: Board) -> None:
        self.board = board
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._room = BoundedSemaphore(MAX_CONNECTIONS)
        self._open: dict[Any, float] = {}  # each connection, and until when it may ask; inf once it has
        self._lock = Lock()
        super().__init__(address, _Handler)

    def local_only(self) -> bool:
        """True if only this machine can connect."""
        try:
            return ip_address(self.server_address[0]).is_loopback  # type: ignore[arg-type]
        except ValueError:
            return False

    def server_bind(self) -> None:
        """Like that of ``TCPServer``: looking up this machine's name, as ``HTTPServer`` does, may take long."""
        if os.name == "posix":  # elsewhere it would let two programs share a port
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each client, up to a limit; the others are turned away."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        _notice_vanishing(request)
        with self._lock:
            self._open[request] = monotonic() + CLIENT_SECONDS
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Makes room again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self._room.release()

    def has_asked(self, request: Any) -> None:
        """Notes that the request has arrived completely."""
        with self._lock:
            self._open[request] = inf

    def service_actions(self) -> None:
        """Disconnects clients that send their request too slowly."""
        now = monotonic()
        with self._lock:
            for request in [each for each, until in self._open.items() if until < now]:
                _shut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave or are too slow are not reported."""

    def disconnect_all(self) -> None:
        """Wakes every thread that waits for its client."""
        with self._lock:
            for request in self._open:
                _shut(request)


def _shut(request: Any) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def _notice_vanishing(connection: Any) -> None:
    """Makes the system close the connection of a client that vanished, such as a sleeping laptop.

    It probes an idle connection, and a client has :data:`CLIENT_SECONDS` to acknowledge what was sent.
    """
    seconds = int(CLIENT_SECONDS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": seconds,
        "TCP_KEEPALIVE": seconds,  # macOS's name for it
        "TCP_KEEPINTVL": max(1, seconds // 3),
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 1000 * seconds,
    }.items():
        if hasattr(socket, name):
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_SECONDS
    server: _Server
    server_version = "gensdk"
    sys_version = ""

    def do_GET(self) -> None:
        """The page, a stream or the figures."""
        self.server.has_asked(self.connection)
        path = self.path.partition("?")[0]
        if self.server.local_only() and not _is_local(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "open the page as http://127.0.0.1")
        elif path in PAGE:
            name, kind = PAGE[path]
            file = resources.files("gensdk_runtime.stream").joinpath("static", name)
            self._answer(file.read_bytes(), f"{kind}; charset=utf-8")
        elif path == "/figures.json":
            self._answer(self.server.board.to_json(), "application/json")
        elif path in STREAMS:
            self._stream(STREAMS[path])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _stream(self, what: str) -> None:
        board = self.server.board
        with board.viewer() as admitted:
            if not admitted:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_STREAMS} streams are open; close one")
                return
            self._begin(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            count = 0
            while (found := board.next_jpeg(what, count)) is not None:
                if found[0] == count and self._has_gone():
                    return
                count, jpeg = found
                if jpeg:
                    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            self.wfile.write(f"--{BOUNDARY}--\r\n".encode())

    def _has_gone(self) -> bool:
        """True if the client closed its end; one that only says more than it was asked has not."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            try:
                return bool(selector.select(0)) and not self.connection.recv(4096)
            except OSError:
                return True

    def _answer(self, body: bytes, kind: str) -> None:
        self._begin(kind, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _begin(self, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {"Content-Type": kind, **HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Requests are not printed."""


def _is_local(host: str) -> bool:
    """True if a Host header names this machine."""
    return host.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]") or host in (
        "127.0.0.1",
        "localhost",
        "[::1]",
    )
