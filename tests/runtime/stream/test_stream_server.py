"""The web server of a stream: newest frames, bounded clients, this machine alone; and the page in a browser."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gensdk_runtime.errors import InputError
from gensdk_runtime.stream import HttpSink, StreamFacts, StreamOptions, TranslatedFrame, translate_stream
from gensdk_runtime.stream import server as module
from support.another_os import LINUX
from support.browser import CHROMIUM, DRIVER, MISSING, browser
from support.streams import grey_frame, no_thread_left, slow_generator
from support.videos import level_picture, write_video

FACTS = StreamFacts("negative", "frames", live=True)


def frame_of(level: int) -> TranslatedFrame:
    return TranslatedFrame(
        0, 0.0, grey_frame(level), grey_frame(255 - level), grey_frame(255 - level), False, 0.0, 0.0
    )


@contextmanager
def opened() -> Iterator[HttpSink]:
    sink = HttpSink()
    with no_thread_left():
        try:
            sink.open(FACTS)
            yield sink
        finally:
            sink.close()


def connect(sink: HttpSink) -> http.client.HTTPConnection:
    host, port = sink.url.removeprefix("http://").rstrip("/").split(":")
    return http.client.HTTPConnection(host, int(port), timeout=10)


def answer(sink: HttpSink, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = connect(sink)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def next_image(response: http.client.HTTPResponse) -> Any:
    """The next JPEG of a stream; None at its end."""
    size = None
    while (line := response.readline().strip()) or size is None:
        if line.endswith(b"--"):
            return None
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    return np.asarray(Image.open(io.BytesIO(response.read(size))))


def test_clients_get_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [0]
    encode = module.encode_image

    def counted(*given: Any) -> bytes:
        encoded[0] += 1
        return encode(*given)

    monkeypatch.setattr(module, "encode_image", counted)
    with opened() as sink:
        for level in range(5):
            sink.write(frame_of(level))
        assert encoded[0] == 0  # nobody watches
        streams = [answer(sink, "/result.mjpg"), answer(sink, "/result.mjpg"), answer(sink, "/source.mjpg")]
        assert streams[0].headers["Content-Type"].startswith("multipart/x-mixed-replace")
        images = [next_image(stream) for stream in streams]
        assert [round(image.mean()) for image in images] == [251, 251, 4]
        assert encoded[0] == 2  # once for each kind, not for each client
        sink.write(frame_of(100))
        assert [round(next_image(stream).mean()) for stream in streams] == [155, 155, 100]


def test_the_figures_and_the_page_are_closed_to_the_outside() -> None:
    with opened() as sink:
        state = json.load(answer(sink, "/figures.json"))
        assert (state["model"], state["figures"], state["shown"]) == ("negative", None, 0)
        page = answer(sink, "/?x=1")
        assert page.status == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert b"page.js" in page.read()
        for path in ("/../server.py", "/static/page.js", "/nothing", "/%2e%2e/server.py"):
            assert answer(sink, path).status == 404
        assert answer(sink, "/result.mjpg", Host="evil.example").status == 421
        assert answer(sink, "/", Host=f"localhost:{sink.url.split(':')[-1].rstrip('/')}").status == 200
        connection = connect(sink)
        connection.request("POST", "/", b"x" * 10)
        assert connection.getresponse().status == 501


def test_streams_and_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as sink:
        sink.write(frame_of(1))
        held = [answer(sink, "/result.mjpg") for _ in range(module.MAX_STREAMS)]
        assert answer(sink, "/source.mjpg").status == 503
        assert answer(sink, "/figures.json").status == 200
        assert all(next_image(each) is not None for each in held)
        idle = [socket.create_connection(("127.0.0.1", int(sink.url.split(":")[-1][:-1]))) for _ in range(40)]
        with pytest.raises(OSError):  # noqa: PT011 - reset or closed, by the system
            answer(sink, "/figures.json").read()
        for each in idle:
            each.close()


def test_a_client_that_asks_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.1)
    with opened() as sink:
        idle = socket.create_connection(("127.0.0.1", int(sink.url.split(":")[-1][:-1])), timeout=10)
        assert idle.recv(1) == b""
        idle.close()


def port_of(sink: HttpSink) -> int:
    return int(sink.url.split(":")[-1].rstrip("/"))


def ask(sink: HttpSink, path: str = "/result.mjpg") -> socket.socket:
    viewer = socket.create_connection(("127.0.0.1", port_of(sink)), timeout=10)
    viewer.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return viewer


def wait_for(condition: Any) -> None:
    for _ in range(2000):
        came = condition()
        if came:
            break
        time.sleep(0.005)
    assert came, "it never came"


def test_viewers_who_left_free_their_places_though_no_frame_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    with opened() as sink:
        sink.write(frame_of(1))
        for _ in range(3):  # more than there are places, one page after the other
            viewers = [ask(sink) for _ in range(module.MAX_STREAMS)]
            assert all(b"200 OK" in viewer.recv(100) for viewer in viewers)
            assert sink.board.watched
            for viewer in viewers:
                viewer.close()
            wait_for(lambda: not sink.board.watched)


def test_viewers_who_never_read_free_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.1)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    with opened() as sink:
        viewers = [ask(sink) for _ in range(module.MAX_STREAMS)]
        wait_for(lambda: sink.board.watched)

        def shown_and_gone() -> bool:
            sink.write(TranslatedFrame(0, 0.0, noise, noise, noise, False, 0.0, 0.0))
            return not sink.board.watched

        wait_for(shown_and_gone)
        for viewer in viewers:
            viewer.close()


def test_the_system_watches_for_viewers_that_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet comes from a machine that lost its network, so that only the system can tell."""
    with opened() as sink:
        sink.write(frame_of(1))
        viewer = ask(sink)
        wait_for(lambda: sink.board.watched)
        (connection,) = sink._server._open  # type: ignore[union-attr]
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if LINUX:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        viewer.close()


def test_a_client_that_asks_byte_after_byte_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENT_SECONDS", 0.3)
    with opened() as sink:
        slow = socket.create_connection(("127.0.0.1", port_of(sink)), timeout=10)
        with pytest.raises(OSError):  # noqa: PT011, PT012 - reset or broken pipe, by the system
            for _ in range(2000):
                slow.sendall(b"G")
                time.sleep(0.005)
        slow.close()


def test_a_port_that_is_taken_is_an_error() -> None:
    with opened() as sink, pytest.raises(InputError, match="choose another port"):
        HttpSink(int(sink.url.split(":")[-1][:-1])).open(FACTS)


def test_a_client_never_makes_the_stream_wait() -> None:
    """One that reads nothing does not hold up another, nor the end."""
    with opened() as sink:
        sink.write(frame_of(0))
        lazy = socket.create_connection(("127.0.0.1", int(sink.url.split(":")[-1][:-1])))
        lazy.sendall(b"GET /result.mjpg HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
        for _ in range(60):  # more than the sockets hold
            sink.write(TranslatedFrame(0, 0.0, noise, noise, noise, False, 0.0, 0.0))
        quick = answer(sink, "/result.mjpg")
        assert next_image(quick).shape == (400, 400, 3)
    lazy.close()


def test_what_one_stream_serves_another_takes_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real address on the network: live, lost when the server ends, and given up after the last attempt."""
    monkeypatch.setattr("gensdk_runtime.stream.reader.FIRST_PAUSE", 0.01)
    sink, done = HttpSink(), threading.Event()
    seen: list[int] = []
    told: list[str] = []

    def frames() -> Iterator[Any]:
        while not done.is_set():
            time.sleep(0.01)
            yield grey_frame(100, 48, 64)

    def show(frame: TranslatedFrame) -> None:
        seen.append(round(frame.source.mean()))
        if len(seen) == 10:
            done.set()

    server = threading.Thread(target=translate_stream, args=(slow_generator(lambda level: None), frames(), sink))
    server.start()
    options = StreamOptions(reconnects=2, stall_seconds=5, on_event=told.append)
    try:
        while not json.loads(sink.board.to_json())["shown"]:
            time.sleep(0.01)
        with pytest.raises(InputError, match="did not come back in 2 attempts"), no_thread_left():
            translate_stream(slow_generator(lambda level: None), f"{sink.url}result.mjpg", show, options)
    finally:
        done.set()
        server.join()
    assert len(seen) >= 10
    assert {abs(level - 155) <= 2 for level in seen} == {True}
    assert "attempt 2 of 2" in told[-1]


def test_an_address_that_never_answers_is_given_up() -> None:
    generator, options = slow_generator(lambda level: None), StreamOptions(stall_seconds=0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.mp4"
        with pytest.raises(InputError, match="answers with a video"):
            translate_stream(generator, url, lambda frame: None, options)


def test_a_film_that_is_watched_plays_at_its_own_speed(tmp_path: Path) -> None:
    """Frames come no earlier than the film has them: evenly, then a pause. All come, however slow the model is."""
    times = [0, 1, 2, 3, 9]
    film = write_video(tmp_path / "film.mp4", [level_picture(40)] * 5, times=times, unit=Fraction(1, 20))
    came: list[float] = []

    class Watched(HttpSink):
        def write(self, frame: TranslatedFrame) -> None:
            came.append(time.perf_counter())
            super().write(frame)

    report = translate_stream(slow_generator(lambda level: None), film, Watched())
    assert (report.frames, report.dropped, report.live) == (5, 0, False)
    begun = came[0]
    assert all(moment - begun >= at / 20 - 0.001 for moment, at in zip(came, times, strict=True))


def test_a_film_that_is_written_races_until_somebody_watches(tmp_path: Path) -> None:
    """With a pause of an hour in it, which only a viewer would wait for."""
    film = write_video(tmp_path / "film.mp4", [level_picture(40)] * 3, times=[0, 1, 3600 * 25])
    sink = HttpSink()
    report = translate_stream(slow_generator(lambda level: None), film, [sink, tmp_path / "out.mp4"])
    assert report.frames == 3
    with opened() as page:
        page.write(frame_of(1))
        viewer = ask(page)
        wait_for(page.watched)
        limits = StreamOptions(max_seconds=0.3)
        played = translate_stream(
            slow_generator(lambda level: None), film, [page_of(page), lambda frame: None], limits
        )
        viewer.close()
    assert (played.frames, played.ended) == (2, "limit")


def page_of(page: HttpSink) -> HttpSink:
    """A sink that is watched as long as `page` is, and is no server of its own."""

    class Mirror(HttpSink):
        def open(self, facts: StreamFacts) -> str:
            return ""

        def watched(self) -> bool:
            return page.watched()

    return Mirror()


@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING)
def test_the_page_shows_both_pictures_and_the_figures(tmp_path: Any) -> None:
    sink, done = HttpSink(), threading.Event()

    def frames() -> Iterator[Any]:
        while not done.is_set():
            time.sleep(0.02)
            yield grey_frame(60, 48, 64)

    def stream() -> None:
        translate_stream(
            slow_generator(lambda level: None), frames(), sink, StreamOptions(live=True, skip_similar=1)
        )

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        while not sink.url:
            time.sleep(0.01)
        with browser(tmp_path) as tab:
            tab.open(sink.url)
            shown = tab.run(LOOK)
            asked = tab.requested()
            assert shown["levels"] == [60, 195]
            assert shown["sizes"] == [64, 48]
            assert shown["model"] == "negative"
            assert float(shown["fps"]) > 0
            assert shown["age"].endswith("ms")
            assert int(shown["skipped"]) > 0
            assert not [
                url for url in asked if not url.startswith((sink.url, "data:", "chrome:", "chrome-untrusted:"))
            ]
            done.set()
            thread.join()
            assert "ended" in tab.run(ENDED)
    finally:
        done.set()
        thread.join()


LOOK = """
  const part = (id) => document.getElementById(id);
  for (let i = 0; i < 400 && (part('fps').textContent === '-' || !part('result').naturalWidth); i++)
    await new Promise((next) => setTimeout(next, 50));
  const level = (image) => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [1, 1];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data[0];
  };
  const texts = Object.fromEntries(['model', 'fps', 'age', 'skipped'].map((id) => [id, part(id).textContent]));
  const levels = [level(part('source')), level(part('result'))];
  return { ...texts, levels, sizes: [part('source').naturalWidth, part('source').naturalHeight] };
"""

ENDED = """
  for (let i = 0; i < 200; i++) {
    const text = document.getElementById('status').textContent;
    if (text.includes('ended')) return text;
    await new Promise((next) => setTimeout(next, 50));
  }
  return document.getElementById('status').textContent;
"""
