"""Sources, generators and pictures for tests of streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.stream import Capture, CorruptFrameError, Source
from support.inverting_bundle import GRAPH, inverting_model


def grey_frame(level: int, height: int = 16, width: int = 24) -> Any:
    return np.full((height, width, 3), level, np.uint8)


def grey_frames(count: int) -> Iterator[Any]:
    return (grey_frame(i % 256) for i in range(count))


def write_frames(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:03d}.png").write_bytes(encode_image(grey_frame(10 * i), ".png", {}))
    return folder


def slow_generator(before: Callable[[int], None]) -> Generator:
    """The negative of each image, after `before` returned, which is given its first byte."""

    def invert(feeds: Feeds) -> dict[str, Any]:
        before(int(feeds["source"][0, 0, 0, 0]))
        pixels = 255 - feeds["source"]
        image = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        return {"image": image, "pixels": pixels, "image_sum": image.sum(axis=(1, 2, 3))}

    model = inverting_model()
    session = FakeSession(model.graphs[0], invert, backend="fake", precision="fp32")
    return Generator.from_sessions(model, {GRAPH: session})


class Camera(Source):
    """A live source: each connection is a list of what its reads give.

    A number is a grey level, None the end of the connection, an error is raised, and "hang" waits for `freed`.
    """

    name = "toy camera"

    def __init__(self, connections: list[list[Any]], *, interval: float = 0.001) -> None:
        self.connections = connections
        self.interval = interval
        self.opened = 0
        self.closed = 0
        self.freed = threading.Event()

    def open(self) -> Capture:
        if self.opened >= len(self.connections):
            raise InputError("toy camera: unplugged")
        self.opened += 1
        return _CameraCapture(self, self.connections[self.opened - 1])


class _CameraCapture(Capture):
    live = True

    def __init__(self, camera: Camera, frames: list[Any]) -> None:
        self._camera = camera
        self._frames = iter(frames)

    def read(self) -> Any:
        time.sleep(self._camera.interval)
        frame = next(self._frames, None)
        if frame == "hang":
            self._camera.freed.wait(20)
            return grey_frame(255)
        if frame == "corrupt":
            raise CorruptFrameError("toy camera: a frame is broken")
        if isinstance(frame, Exception):
            raise frame
        return None if frame is None else grey_frame(frame)

    def close(self) -> None:
        self._camera.closed += 1


@contextmanager
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("gensdk-")]
    assert not left, left
