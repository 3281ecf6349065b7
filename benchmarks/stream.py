"""``gensdk translate`` against a bare loop of its backend's calls, how fresh live frames are, and its memory.

All in one run and one process, on one open model. The video: 300 frames of 256x256 that pan and zoom over
scikit-image's photographs (or a folder's). Timed in turn: the bare calls on buffers that are ready, the stream
from the video to a callback, and the stream from the video to a video. Then a camera that is twice as fast as the
model is translated live, for the age of its frames and the memory of the process.

    python benchmarks/stream.py                               # a pix2pix U-Net with random weights, made first
    python benchmarks/stream.py BUNDLE --backend openvino --threads 1 --seconds 60
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from figures import Figure, at_least, at_most, ratio_figure
from numpy.typing import NDArray
from overhead import recorded, replay
from PIL import Image

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_files import SUFFIXES, decode
from gensdk_runtime.stream import Capture, Source, StreamFigures, StreamOptions, VideoSink, translate_stream

Frames = NDArray[np.uint8]

FRAMES, SIDE = 300, 256
PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
"""Those that come with scikit-image itself; others it would download."""
ROUNDS = 5
RATE, AGE, GROWTH = 0.95, 2.0, 1.02
"""The bounds: of the frame rate, of p99 of the age in inference times, of memory at the end against the start."""


def photographs(folder: Path | None) -> list[Frames]:
    """uint8 [H, W, 3] in RGB each."""
    if folder is None:
        found = importlib.util.find_spec("skimage")
        if found is None or found.origin is None:
            raise InputError(
                "expected scikit-image for its photographs: pip install scikit-image, or give --images"
            )
        paths = [Path(found.origin).parent / "data" / name for name in PHOTOGRAPHS]
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:8]
    return [decode(path.read_bytes(), 3) for path in paths]


def moving_picture(photos: Sequence[Frames], count: int = FRAMES) -> Frames:
    """uint8 [count, 256, 256, 3]: a window wanders over each photograph in turn, and grows or shrinks."""
    frames = np.empty((count, SIDE, SIDE, 3), np.uint8)
    each = -(-count // len(photos))
    for i in range(count):
        photo, along = photos[i // each], (i % each) / each
        shorter = min(photo.shape[:2])
        size = shorter * (0.55 + 0.35 * np.sin(np.pi * along))
        left = (photo.shape[1] - size) * along
        top = (photo.shape[0] - size) * (0.5 + 0.5 * np.sin(2 * np.pi * along))
        box = (left, top, min(left + size, photo.shape[1]), min(top + size, photo.shape[0]))
        picture = Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
        frames[i] = np.asarray(picture)
    return frames


def write_video(frames: Frames, path: Path) -> Path:
    """As MPEG-4, 25 frames a second."""
    with av.open(str(path), "w") as film:
        video: Any = film.add_stream("mpeg4", rate=25, options={"qmin": "2", "qmax": "6"})
        video.height, video.width = SIDE, SIDE
        for frame in frames:
            film.mux(video.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        film.mux(video.encode(None))
    return path


def make_bundle(path: Path) -> Path:
    """pix2pix's U-Net of three eighths of its width, 7.7 M parameters, with random weights, bytes in and out."""
    import torch
    from workloads.batch_norms import calibrate_batch_norms
    from workloads.pix2pix import IMAGE, WIDTHS, UNetGenerator

    from gensdk_export.export import ExportOptions, export_plan
    from gensdk_runtime.spec.conditions import SourceSpec
    from gensdk_runtime.spec.provenance import Provenance
    from gensdk_training.graphs.translator import translation_plan

    torch.manual_seed(0)
    network = UNetGenerator(IMAGE.channels, tuple(width * 3 // 8 for width in WIDTHS))
    calibrate_batch_norms(network, [torch.randn(4, *IMAGE.shape)])
    source = SourceSpec(channels=3, height=SIDE, width=SIDE, multiple=SIDE)
    export_plan(
        translation_plan("pix2pix", "stream", network, source, IMAGE),
        Provenance(),
        path,
        ExportOptions(),
    )
    return path


def compare_rates(
    generator: Generator, frames: Frames, video: Path, label: Any, rounds: int
) -> tuple[list[Figure], float]:
    """Frame rates of both streams over the bare loop's, and the seconds of a bare call."""
    translate = partial(generator.translate, label=label)
    translate(frames[0])
    with recorded() as recording:
        translate(frames[0])
    bare = replay(recording)
    target = video.with_name("out.mp4")
    times: dict[str, list[Any]] = {"bare": [], "callback": [], "video": []}
    sinks: dict[str, Any] = {"callback": lambda: lambda frame: None, "video": lambda: VideoSink(target)}
    for turn in range(rounds):
        for name in ("bare", "callback", "video") if turn % 2 else ("video", "callback", "bare"):
            if name == "bare":
                times[name].append(np.array([_seconds_of(bare, len(frames))]))
                continue
            started = time.perf_counter()
            report = translate_stream(generator, video, sinks[name](), StreamOptions(label=label))
            assert (report.frames, report.dropped) == (len(frames), 0)
            times[name].append(np.array([(time.perf_counter() - started) / report.frames]))
    once = float(np.median(times["bare"]))
    detail = {name: f"{1 / np.median(each):.1f} frames/s" for name, each in times.items()}
    return [
        ratio_figure(
            "stream",
            f"{len(frames)} frames from a video to a {name}: frame rate / bare loop",
            times["bare"],
            times[name],
            at_least(RATE),
            detail=f"{detail[name]} and {detail['bare']}",
        )
        for name in ("callback", "video")
    ], once


def _seconds_of(call: Any, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


class Camera(Source):
    """A live source that has a new frame each `interval` seconds, and no patience: who is late misses some."""

    name = "camera"

    def __init__(self, frames: Frames, interval: float) -> None:
        self._frames = frames
        self._interval = interval

    def open(self) -> Capture:
        """Begins now."""
        return _CameraCapture(self._frames, self._interval)


class _CameraCapture(Capture):
    live = True

    def __init__(self, frames: Frames, interval: float) -> None:
        self._frames, self._interval = frames, interval
        self._begun, self._last = time.perf_counter(), -1

    def read(self) -> Frames | None:
        number = max(self._last + 1, int((time.perf_counter() - self._begun) / self._interval))
        time.sleep(max(0.0, self._begun + number * self._interval - time.perf_counter()))
        self._last = number
        return self._frames[number % len(self._frames)].copy()


def measure_live(generator: Generator, frames: Frames, once: float, label: Any, seconds: float) -> list[Figure]:
    """The age of live frames in inference times, and memory in MB after a tenth, a half and all of the time."""
    memory: list[float] = []

    def note(figures: StreamFigures) -> None:
        memory.append(resident_bytes() / 1e6)

    report = translate_stream(
        generator,
        Camera(frames, once / 2),
        lambda frame: None,
        StreamOptions(label=label, max_seconds=seconds, on_second=note),
    )
    ages = report.age_ms
    inference = report.stage_ms["translate"]
    detail = (
        f"{report.frames} frames in {report.seconds:.0f} s, {report.dropped} dropped; age p50 {ages['p50']:.1f}, "
        f"p95 {ages['p95']:.1f}, p99 {ages['p99']:.1f} ms; inference {inference:.1f} ms, {1e3 * once:.1f} ms bare"
    )
    figures = [
        Figure(
            "live", "p99 of frame age / inference time", ages["p99"] / inference, bound=at_most(AGE), detail=detail
        )
    ]
    if len(memory) >= 10:
        start, middle, end = (memory[int(part * (len(memory) - 1))] for part in (0.1, 0.5, 1.0))
        detail = f"{start:.1f}, {middle:.1f} and {end:.1f} MB after a tenth, a half and all of the time"
        figures.append(Figure("live", "memory, end / start", end / start, bound=at_most(GROWTH), detail=detail))
    return figures


def resident_bytes() -> int:
    """Memory of this process that is in use now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def opened(bundle: Path | None, backend: str, threads: int | None) -> Iterator[tuple[Generator, Path]]:
    """The generator, and a folder for videos."""
    with tempfile.TemporaryDirectory() as scratch:
        path = bundle or make_bundle(Path(scratch) / "pix2pix.gsdk")
        with Generator.load(path, backend=backend, threads=threads) as generator:
            yield generator, Path(scratch)


@click.command(help=__doc__)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path, exists=True), help="A folder with photographs.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--threads", type=int, help="[default: the backend's]")
@click.option("--label", help="For a model with classes.")
@click.option("--frames", "count", default=FRAMES, show_default=True)
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="Of the live stream.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
def main(
    *,
    bundle: Path | None,
    images: Path | None,
    backend: str,
    threads: int | None,
    label: str | None,
    count: int,
    rounds: int,
    seconds: float,
    as_json: bool,
) -> None:
    frames = moving_picture(photographs(images), count)
    with opened(bundle, backend, threads) as (generator, scratch):
        video = write_video(frames, scratch / "in.mp4")
        found, once = compare_rates(generator, frames, video, label, rounds)
        found += measure_live(generator, frames, once, label, seconds)
    print(json.dumps([asdict(each) for each in found])) if as_json else print(*(f.line() for f in found), sep="\n")
    sys.exit(1 if any(each.verdict == "MISSES" for each in found) else 0)


if __name__ == "__main__":
    main()
