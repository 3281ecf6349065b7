"""Streams of files and iterators: every frame, in order, to its end, whatever happens in a stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gensdk_runtime.errors import BackendError, InputError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.video.film_formats import FILMS
from gensdk_runtime.stream import Sink, StreamOptions, TranslatedFrame, WindowSink, translate_stream
from gensdk_runtime.stream import pipeline as module
from gensdk_runtime.stream.figures import Ages
from support.inverting_bundle import write_inverting_bundle
from support.streams import grey_frame, grey_frames, no_thread_left, slow_generator, write_frames
from support.videos import levels_of, times_of


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    path = write_inverting_bundle(tmp_path_factory.mktemp("bundle") / "negative.gsdk")
    with Generator.load(path, backend="onnxruntime", threads=1) as loaded:
        yield loaded


def test_every_frame_arrives_in_order(generator: Generator) -> None:
    seen: list[tuple[int, int, int]] = []
    with no_thread_left():
        report = translate_stream(
            generator, grey_frames(300), lambda f: seen.append((f.index, f.source[0, 0, 0], f.result[-1, -1, 2]))
        )
    assert seen == [(i, i % 256, 255 - i % 256) for i in range(300)]
    assert (report.frames, report.dropped, report.skipped, report.corrupt) == (300, 0, 0, 0)
    assert (report.ended, report.live, report.reconnects) == ("source", False, 0)
    assert report.age_ms["p50"] <= report.age_ms["p95"] <= report.age_ms["p99"]
    assert set(report.stage_ms) == {"decode", "translate", "show"}


@pytest.mark.parametrize("suffix", list(FILMS))
def test_a_video_goes_through_and_keeps_its_length_and_rate(
    generator: Generator, tmp_path: Path, suffix: str
) -> None:
    levels = [20 * i for i in range(12)]
    frames = [grey_frame(level, 32, 48) for level in levels]
    first, second = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    translate_stream(generator, frames, str(first))
    report = translate_stream(generator, first, second)
    assert report.frames == 12
    np.testing.assert_allclose(levels_of(first), [255 - level for level in levels], atol=6)
    np.testing.assert_allclose(levels_of(second), levels, atol=8)
    np.testing.assert_allclose(times_of(second), [i / 25 for i in range(12)], atol=1e-9)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, second.name])


def test_a_folder_goes_to_a_folder_and_a_corrupt_image_is_skipped(generator: Generator, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "in", 5)
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no image")
    told: list[str] = []
    report = translate_stream(generator, folder, tmp_path / "out", StreamOptions(on_event=told.append))
    assert (report.frames, report.corrupt) == (4, 1)
    assert [line for line in told if "002.png" in line and "skipped" in line]
    assert report.remarks == (f"{folder}: left out 1 .txt",)
    assert len(told) == 2
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"00{i}.png" for i in (0, 1, 3, 4)]
    assert (np.asarray(Image.open(tmp_path / "out" / "003.png")) == 255 - 30).all()
    with pytest.raises(InputError, match="not empty"):
        translate_stream(generator, folder, tmp_path / "out")


def test_what_is_shown(tmp_path: Path) -> None:
    path = write_inverting_bundle(tmp_path / "large.gsdk", scale=2)
    views: dict[str, Any] = {}
    with Generator.load(path, backend="onnxruntime", threads=1) as doubling:
        for name, options in {
            "plain": StreamOptions(),
            "mixed": StreamOptions(mix=0.25),
            "both": StreamOptions(side_by_side=True, size=(8, 12)),
        }.items():
            translate_stream(doubling, [grey_frame(55)], lambda f, n=name: views.update({n: f.view}), options)
    assert (views["plain"].shape, views["plain"].max()) == ((32, 48, 3), 200)
    assert (views["mixed"].shape, views["mixed"][0, 0, 0]) == ((32, 48, 3), round(0.25 * 55 + 0.75 * 200))
    assert views["both"].shape == (16, 48, 3)
    assert (views["both"][:, :24] == 55).all()
    assert (views["both"][:, 24:] == 200).all()


def test_grey_models_and_models_with_classes(tmp_path: Path) -> None:
    path = write_inverting_bundle(tmp_path / "grey.gsdk", channels=1, classes=5)
    with Generator.load(path, backend="onnxruntime", threads=1) as grey:
        with pytest.raises(InputError, match="pass label"):
            translate_stream(grey, [grey_frame(9)], lambda f: None)
        seen: list[TranslatedFrame] = []
        translate_stream(grey, [grey_frame(9)], seen.append, StreamOptions(label=4))
    assert seen[0].result.shape == (16, 24, 1)
    assert (seen[0].view == 250).all()
    assert seen[0].view.shape == (16, 24, 3)


def test_back_pressure() -> None:
    """A fast source never gets far ahead of a slow sink."""
    given, ahead = [0], []

    def frames() -> Iterator[Any]:
        for i in range(60):
            given[0] += 1
            yield grey_frame(i)

    def slow(frame: TranslatedFrame) -> None:
        time.sleep(0.002)
        ahead.append(given[0] - frame.index)

    translate_stream(slow_generator(lambda level: None), frames(), slow)
    assert len(ahead) == 60
    assert max(ahead) <= 2 * module.SLOTS + 4


def test_order_holds_where_two_frames_are_translated_at_once() -> None:
    """Even frames take longer than odd ones, which therefore are ready before them."""
    together, busy = [0], [0]
    lock = threading.Lock()

    def uneven(level: int) -> None:
        with lock:
            busy[0] += 1
            together[0] = max(together[0], busy[0])
        time.sleep(0.004 if level % 2 == 0 else 0.0)
        with lock:
            busy[0] -= 1

    seen: list[int] = []
    with no_thread_left():
        translate_stream(slow_generator(uneven), grey_frames(40), lambda f: seen.append(255 - f.result[0, 0, 0]))
    assert seen == list(range(40))
    assert together[0] == module.AT_ONCE
    together[0] = 0
    translate_stream(slow_generator(uneven), grey_frames(20), lambda f: None, StreamOptions(live=True))
    assert together[0] == 1


def test_similar_frames_are_not_translated() -> None:
    calls, results = [0], []

    def count(level: int) -> None:
        calls[0] += 1

    moved = grey_frame(10)
    moved[:2, :3] = 90  # small, but not for its cells
    frames = [
        grey_frame(10),
        grey_frame(11),
        grey_frame(12),
        grey_frame(14),
        moved,
        grey_frame(200),
        grey_frame(200),
    ]
    report = translate_stream(
        slow_generator(count),
        frames,
        lambda f: results.append((f.reused, f.result[-1, -1, 0])),
        StreamOptions(skip_similar=2),
    )
    expected = [(False, 245), (True, 245), (True, 245), (False, 241), (False, 245), (False, 55), (True, 55)]
    assert results == expected
    assert (calls[0], report.skipped, report.frames) == (4, 3, 7)


@pytest.mark.parametrize("limit", [{"max_frames": 7}, {"max_seconds": 0.3}])
def test_limits_end_the_stream(generator: Generator, limit: dict[str, Any]) -> None:
    taken = [0]

    def endless() -> Iterator[Any]:
        while True:
            taken[0] += 1
            yield grey_frame(taken[0] % 256)

    report = translate_stream(generator, endless(), lambda f: None, StreamOptions(**limit))
    assert report.ended == "limit"
    if "max_frames" in limit:
        assert report.frames == taken[0] == 7


@pytest.mark.parametrize("as_type", [bool, np.bool_, np.array], ids=["bool", "numpy", "array"])
def test_a_callback_that_returns_true_of_any_kind_ends_the_stream(generator: Generator, as_type: Any) -> None:
    stopped = translate_stream(generator, grey_frames(50), lambda f: as_type(f.index == 4))
    assert (stopped.ended, stopped.frames) == ("sink", 5)


@pytest.mark.parametrize("answer", [None, 1, "yes", np.int64(1), np.ones(3, bool), [True]])
def test_what_else_a_callback_returns_is_left_alone(generator: Generator, answer: Any) -> None:
    assert translate_stream(generator, grey_frames(5), lambda f: answer).frames == 5


OUT_OF_RANGE: dict[str, list[Any]] = {
    "size": [(32.0, 32.0), (32, float("nan")), (True, 32), (-1, 5), (0, 5), (2**40, 5), (32,), 32, "32x32"],
    "mix": [2, -0.1, float("nan"), "0.5", None, True],
    "skip_similar": [-1, 256, float("nan"), "2", False],
    "max_frames": [0, -3, 2.0, float("nan"), True, 2**70],
    "max_seconds": [0, -1.0, float("nan"), float("inf"), 1e300, "9", True],
    "stall_seconds": [0, float("nan"), 1e9, None],
    "reconnects": [-1, 1.0, 10**9, None, True],
    "tile": [-1, 64.0, float("nan"), "64", True],
    "live": [1, "yes"],
    "side_by_side": [1, None, "no"],
    "on_second": [3],
    "on_event": ["print"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_each_option_out_of_range_is_one_line_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(InputError) as raised:
        StreamOptions(**{name: value})
    assert name in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 200


def test_options_may_be_numpys_numbers() -> None:
    options = StreamOptions(size=[np.int64(8), np.int32(12)], mix=np.float32(0.5), max_frames=np.int64(3))  # type: ignore[arg-type]
    assert options.size == (8, 12)


class Recorder(Sink):
    """Notes what it was told, and fails where it is asked to."""

    def __init__(self, fail_at: int = -1) -> None:
        self.indices: list[int] = []
        self.closed = 0
        self.fail_at = fail_at

    def write(self, frame: TranslatedFrame) -> None:
        self.indices.append(frame.index)
        if frame.index == self.fail_at:
            raise OSError("no space left")

    def close(self) -> None:
        self.closed += 1


def failing_frames() -> Iterator[Any]:
    yield from grey_frames(10)
    raise RuntimeError("the camera caught fire")


def test_an_error_in_each_stage_ends_the_stream_and_closes_the_sink(tmp_path: Path) -> None:
    def break_down(level: int) -> None:
        if level == 5:
            raise BackendError("out of memory")

    with no_thread_left():
        for frames, before, fail_at, error, shown in (
            (failing_frames(), lambda level: None, -1, RuntimeError, 10),
            (grey_frames(100), break_down, -1, BackendError, 5),
            (grey_frames(100), lambda level: None, 3, OSError, 4),
            ([grey_frame(1), "no frame"], lambda level: None, -1, InputError, 1),
        ):
            sink = Recorder(fail_at)
            with pytest.raises(error):
                translate_stream(slow_generator(before), frames, sink)
            assert sink.indices == list(range(shown))
            assert sink.closed == 1


def test_an_error_leaves_what_was_written_and_nothing_leaves_what_stood_there(
    generator: Generator, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="fire"):
        translate_stream(generator, failing_frames(), target)
    assert len(levels_of(target)) == 10
    before = target.read_bytes()
    for source in (iter([]), [np.zeros((4, 4), np.uint8)]):
        with pytest.raises(InputError):
            translate_stream(generator, source, target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_frames_of_other_sizes_are_fitted_into_the_video(generator: Generator, tmp_path: Path) -> None:
    frames = [grey_frame(0, 33, 49), grey_frame(0, 16, 48), grey_frame(0, 60, 10)]
    report = translate_stream(generator, frames, tmp_path / "out.avi")
    assert report.frames == 3
    np.testing.assert_allclose(levels_of(tmp_path / "out.avi"), [255, 127, 28], atol=6)


def test_figures_come_each_second(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECOND", 0.02)
    told: list[Any] = []

    def unhurried() -> Iterator[Any]:
        for i in range(30):
            time.sleep(0.005)
            yield grey_frame(i)

    report = translate_stream(generator, unhurried(), lambda f: None, StreamOptions(on_second=told.append))
    assert len(told) >= 3
    assert 0 < sum(figures.frames for figures in told) <= report.frames == 30
    assert "frames/s" in report.text()
    assert all(figures.text() for figures in told)


def test_ages_are_percentiles_rounded_up_by_a_step() -> None:
    ages, values = Ages(), [0.001 * i for i in range(1, 1001)]
    for value in values:
        ages.add(value)
    for percent in (1, 50, 95, 99, 100):
        exact = values[int(10 * percent) - 1]
        assert exact <= ages.percentile(percent) <= 1.011 * exact
    ages.add(1e9)
    assert ages.percentile(100) >= 1e4


REFUSALS: list[tuple[Any, Any, dict[str, Any], str]] = [
    ("no-such.mp4", "out.mp4", {}, "no source"),
    ("file:///etc/passwd", "out.mp4", {}, "rtsp"),
    ("concat://a", "out.mp4", {}, "rtsp"),
    ("rtsp://", "out.mp4", {}, "expected a host"),
    (-1, "out.mp4", {}, "camera"),
    (1.5, "out.mp4", {}, "got float"),
    ([grey_frame(1)], "out.xyz", {}, r"can't write \.xyz files; use one of \.mp4, .*\.gif"),
    ([grey_frame(1)], "http:99999", {}, "65535"),
    ([grey_frame(1)], "http://127.0.0.1:80/", {}, "no sink"),
    ([grey_frame(1)], 3, {}, "got int"),
    ([grey_frame(1)] * 2, "out.png", {}, "holds one image"),
    ([grey_frame(1)], "out.mp4", {"mix": 2}, "mix from 0 to 1"),
    ([grey_frame(1)], "out.mp4", {"size": (0, 5)}, "height, width"),
    ([grey_frame(1)], "out.mp4", {"max_frames": 0}, "max_frames"),
    ([grey_frame(1)], "out.mp4", {"max_seconds": float("nan")}, "max_seconds"),
    ([grey_frame(1)], "out.mp4", {"label": 1}, "no classes"),
]


@pytest.mark.parametrize(("source", "sink", "options", "reason"), REFUSALS)
def test_refusals(
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Any,
    sink: Any,
    options: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=reason), no_thread_left():
        translate_stream(generator, source, sink, StreamOptions(**options))
    assert not list(tmp_path.iterdir())


def test_what_is_no_video_is_named(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"can't open .*notes\.mp4"):
        translate_stream(generator, tmp_path / "notes.mp4", lambda f: None)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"none of 1 frames .*broken\.png"):
        translate_stream(generator, tmp_path / "broken.png", lambda f: None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="give a folder with images"):
        translate_stream(generator, tmp_path / "empty", lambda f: None)


def test_a_video_that_is_cut_is_told(generator: Generator, tmp_path: Path) -> None:
    whole, cut, told = tmp_path / "whole.avi", tmp_path / "cut.avi", []
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    translate_stream(generator, noise, whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    report = translate_stream(generator, cut, lambda f: None, StreamOptions(on_event=told.append))
    assert 10 <= report.frames <= 16
    assert told[-1].endswith(f"ended after {report.frames} of 30 frames: the file ends early")
    assert (report.ended, report.frames + report.missing) == ("cut", 30)


def test_a_model_that_draws_is_refused() -> None:
    with Generator.load("digits-dcgan", backend="fake") as drawing, pytest.raises(InputError, match="sample"):
        translate_stream(drawing, [grey_frame(1)], lambda f: None)


def test_a_window_needs_an_opencv_that_has_them(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UnavailableError, match="--page"):
        translate_stream(generator, [grey_frame(1)], WindowSink())
    assert threading.active_count() >= 1
