"""Live streams: the newest frame wins, and a source that is lost comes back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.stream import StreamFacts, StreamOptions, TranslatedFrame, VideoSink, translate_stream
from gensdk_runtime.stream import reader as reader_module
from gensdk_runtime.stream.channel import Channel, EndedError
from support.inverting_bundle import write_inverting_bundle
from support.streams import Camera, grey_frame, grey_frames, no_thread_left, slow_generator
from support.videos import levels_of, times_of


@pytest.fixture
def generator() -> Generator:
    return slow_generator(lambda level: None)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "FIRST_PAUSE", 0.002)


def test_the_newest_frame_wins() -> None:
    """While a frame is translated others come; the next one that is translated is the last of them."""
    gate, entered, shown = threading.Semaphore(0), threading.Semaphore(0), []

    def wait(level: int) -> None:
        entered.release()
        assert gate.acquire(timeout=20)

    def frames() -> Iterator[Any]:
        for i in range(12):
            if i == 1:
                assert entered.acquire(timeout=20)  # frame 0 is being translated
            if i == 9:
                gate.release()
                assert entered.acquire(timeout=20)  # frame 8 is, after frame 0 was
                wait_for(lambda: len(shown) == 1)
            yield grey_frame(i)
        gate.release()
        wait_for(lambda: len(shown) == 2)
        gate.release()

    report = translate_stream(
        slow_generator(wait), frames(), lambda f: shown.append(f.index), StreamOptions(live=True)
    )
    assert shown == [0, 8, 11]
    assert (report.frames, report.dropped, report.live) == (3, 9, True)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it never came")


def test_a_slow_sink_sees_fresh_frames(generator: Generator) -> None:
    """The age of what is shown depends on the stages, never on how long the stream has been running."""
    behind: list[int] = []
    given = [0]

    def frames() -> Iterator[Any]:
        for i in range(400):
            time.sleep(0.0005)
            given[0] += 1
            yield grey_frame(i % 256)

    def slow(frame: TranslatedFrame) -> None:
        behind.append(given[0] - frame.index)
        time.sleep(0.01)

    report = translate_stream(generator, frames(), slow, StreamOptions(live=True))
    assert report.dropped + report.frames == 400
    assert sorted(behind)[len(behind) // 2] < 200  # a queue without bounds would be behind by half of all


def test_a_channel_where_the_newest_wins_holds_one() -> None:
    channel: Channel[int] = Channel(1, newest=True)
    assert all(channel.put(i) for i in range(5))
    assert (channel.get(), channel.dropped) == (4, 4)
    assert channel.get(timeout=0.01) is None
    channel.put(5)
    channel.end(ValueError("broken"))
    assert not channel.put(6)
    assert channel.get() == 5
    with pytest.raises(ValueError, match="broken"):
        channel.get()
    channel.abort()
    kept: Channel[int] = Channel(2)
    kept.put(1)
    kept.abort()
    with pytest.raises(EndedError):
        kept.get()


def test_a_camera_is_opened_again_and_corrupt_frames_are_counted(generator: Generator) -> None:
    camera = Camera([[1, "corrupt", 2, None], [None], [3, 4, None], [5, OSError("driver")]], interval=0.004)
    told: list[str] = []
    shown: list[int] = []
    with no_thread_left(), pytest.raises(OSError, match="driver"):
        translate_stream(
            generator,
            camera,
            lambda f: shown.append(int(f.source[0, 0, 0])),
            StreamOptions(live=False, on_event=told.append),
        )
    assert shown == [1, 2, 3, 4, 5]
    assert camera.opened == camera.closed == 4
    assert sum("open again" in line for line in told) == 3
    assert sum("is broken" in line for line in told) == 1
    assert "(attempt 2 of 5)" in "".join(told)  # the connection that gave nothing counts as a failure


def test_a_camera_that_stays_away_ends_the_stream_with_what_was_seen(generator: Generator) -> None:
    camera, shown = Camera([[1, 2, None]]), []
    with (
        no_thread_left(),
        pytest.raises(InputError, match="did not come back in 3 attempts: toy camera: unplugged"),
    ):
        translate_stream(
            generator, camera, lambda f: shown.append(f.index), StreamOptions(live=False, reconnects=3)
        )
    assert shown == [0, 1]


def test_a_camera_that_was_never_there_is_an_error_at_once(generator: Generator, tmp_path: Path) -> None:
    with no_thread_left(), pytest.raises(InputError, match="unplugged"):
        translate_stream(generator, Camera([]), tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_a_read_that_hangs_is_left_behind(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waits the stream for it, nor does its late frame get in; it closes what it held."""
    monkeypatch.setattr("gensdk_runtime.stream.pipeline.STALL_CHECK", 0.01)
    camera = Camera([[1, "hang", 9], [2, 3, 4]])
    told: list[str] = []
    options = StreamOptions(live=False, stall_seconds=0.1, on_event=told.append)
    shown: list[int] = []

    def free_the_first(frame: TranslatedFrame) -> bool:
        shown.append(int(frame.source[0, 0, 0]))
        if len(shown) == 2:
            camera.freed.set()  # the hanging read returns now
        return len(shown) == 4

    with no_thread_left():
        report = translate_stream(generator, camera, free_the_first, options)
    assert shown == [1, 2, 3, 4]
    assert report.reconnects == 1
    assert camera.closed == camera.opened == 2
    assert any("no frame for 0.1 s" in line for line in told)


def test_a_video_plays_live_at_its_own_speed(tmp_path: Path) -> None:
    path = write_inverting_bundle(tmp_path / "negative.gsdk")
    with Generator.load(path, backend="onnxruntime", threads=1) as generator:
        sink = VideoSink(tmp_path / "in.avi", fps=50.0)
        translate_stream(generator, grey_frames(20), sink)
        report = translate_stream(generator, tmp_path / "in.avi", lambda f: None, StreamOptions(live=True))
    assert report.live
    assert report.frames + report.dropped == 20
    assert report.seconds > 0.9 * 19 / 50  # a lower bound: it can't be faster than it plays


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov", ".gif"])
def test_a_live_recording_shows_each_frame_when_it_came(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    record(path, [0.0, 0.02, 0.5, 9.0, 9.1])
    np.testing.assert_allclose(times_of(path), [0.0, 0.02, 0.5, 9.0, 9.1], atol=0.0006)
    np.testing.assert_allclose(levels_of(path), [0, 40, 80, 120, 160], atol=3)


def test_a_live_recording_without_times_runs_as_fast_as_what_it_shows(tmp_path: Path) -> None:
    """At 10 frames/s: the second frame comes at the next tenth of a second, and the gaps stay."""
    record(tmp_path / "out.avi", [0.0, 0.02, 0.5, 9.0, 9.1])
    np.testing.assert_allclose(times_of(tmp_path / "out.avi"), [0.0, 0.1, 0.5, 9.0, 9.1], atol=1e-9)
    np.testing.assert_allclose(levels_of(tmp_path / "out.avi"), [0, 40, 80, 120, 160], atol=3)


def record(path: Path, moments: list[float]) -> None:
    sink = VideoSink(path)
    sink.open(StreamFacts("model", "camera", live=True, fps=10.0))
    for i, captured in enumerate(moments):
        image = grey_frame(40 * i)
        sink.write(TranslatedFrame(0, captured, image, image, image, False, 0.0, 0.0))
    sink.close()


def test_ctrl_c_in_the_callers_thread_ends_with_the_report(generator: Generator) -> None:
    def interrupted(frame: TranslatedFrame) -> None:
        if frame.index == 5:
            raise KeyboardInterrupt

    with no_thread_left():
        report = translate_stream(generator, grey_frames(100), interrupted)
    assert (report.ended, report.frames) == ("interrupted", 5)


def test_ctrl_c_waits_for_the_frame_that_is_written(generator: Generator) -> None:
    """Each of two sinks gets the same frames, and the report counts them."""
    first: list[int] = []
    second: list[int] = []

    def interrupted(frame: TranslatedFrame) -> None:
        first.append(frame.index)
        if frame.index == 5:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)  # the interpreter looks at signals now and then: here, not after this frame

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = translate_stream(
            generator, grey_frames(100), [interrupted, lambda frame: second.append(frame.index)]
        )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (report.ended, report.frames) == ("interrupted", 6)
    assert first == second == list(range(6))


def test_a_second_ctrl_c_leaves_a_sink_that_hangs(generator: Generator) -> None:
    def hangs(frame: TranslatedFrame) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("goes on after two signals")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = translate_stream(generator, grey_frames(100), hangs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (report.ended, report.frames) == ("interrupted", 0)
