"""Video files that are written: they play, keep times, pixels and sound, and survive a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.video import film_file as film_file_module
from gensdk_runtime.media.video.film_formats import FILMS
from gensdk_runtime.stream import StreamFacts, StreamOptions, TranslatedFrame, VideoSink, translate_stream
from gensdk_runtime.stream.video_sink import exact_rate
from support.another_os import LINUX
from support.streams import grey_frame, grey_frames, slow_generator
from support.videos import level_picture, levels_of, shown, sound_of, times_of, write_video

TIMES = [*range(25), 30, 35, 36, 41, 60]
"""In 1/25 s: even at first, then not."""


def run(source: Any, target: Path, **options: Any) -> Any:
    return translate_stream(slow_generator(lambda level: None), source, target, StreamOptions(**options))


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uneven times, pixels that are no squares, and sound that is longer than the pictures."""
    return write_video(
        tmp_path_factory.mktemp("source") / "phone.mp4",
        [level_picture(20 + 7 * i) for i in range(len(TIMES))],
        times=TIMES,
        pixel_aspect=Fraction(16, 15),
        sound="aac",
        sound_seconds=3.0,
    )


@pytest.mark.parametrize("suffix", sorted(FILMS))
def test_a_film_keeps_what_its_kind_can_hold_and_says_what_not(phone: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    report = run(phone, target)
    assert report.frames == len(TIMES)
    np.testing.assert_allclose(levels_of(target), [255 - 20 - 7 * i for i in range(len(TIMES))], atol=3)
    if suffix != ".avi":  # whose grid FFmpeg can only guess from so few frames
        np.testing.assert_allclose(times_of(target), [time / 25 for time in TIMES], atol=1e-9)
    with av.open(str(target)) as film:
        stream = film.streams.video[0]
        shape = stream.sample_aspect_ratio or 1
        wide = Fraction(stream.width, stream.height) * shape
    assert abs(wide - Fraction(64, 48) * Fraction(16, 15)) < 0.05
    assert (shape == 1) == any("square pixels" in remark for remark in report.remarks)
    sound, said = sound_of(target), " ".join(report.remarks)
    if suffix == ".gif":
        assert not sound
        assert "left out" in said
    else:
        assert len(sound) == 1
        kind, begin, end = sound[0]
        assert abs(begin) < 0.03
        assert abs(end - 3.0) < 0.1
        assert (kind == "aac") == ("encoded anew" not in said)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_an_mp4_plays_in_browsers(phone: Path, tmp_path: Path) -> None:
    """H.264, 8 bits, colours at half size, marked as BT.709, and the index before the pictures."""
    run(phone, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as film:
        context = film.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == ("h264", "yuv420p")
        marks = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
        assert marks == (1, 1, 1, 1)
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("suffix", sorted(FILMS))
def test_colours_come_back(tmp_path: Path, suffix: str) -> None:
    colours = [(255, 255, 255), (0, 0, 0), (200, 40, 40), (30, 180, 60), (20, 60, 220)]
    frames = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    run([255 - frame for frame in frames], tmp_path / f"out{suffix}")
    found: list[Any] = []
    translate_stream(slow_generator(lambda level: None), tmp_path / f"out{suffix}", found.append)
    for frame, colour in zip(found, colours, strict=True):
        assert np.abs(frame.source[20, 20].astype(int) - colour).max() <= 6


def test_a_grey_ramp_is_exact_in_a_gif(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (8, 256, 3)).copy()
    run([ramp, ramp[:, ::-1].copy()], tmp_path / "out.gif")
    for (_, picture), expected in zip(shown(tmp_path / "out.gif"), (255 - ramp, ramp), strict=True):
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize(
    ("codec", "container", "suffix", "kept"),
    [
        ("aac", "mpegts", ".mp4", True),
        ("mp2", "mpegts", ".mkv", True),
        ("pcm_s16le", "mov", ".mp4", False),
        ("pcm_s16le", "matroska", ".mp4", False),
        ("pcm_s16le", "mov", ".avi", True),
        ("libopus", "matroska", ".webm", True),
        ("libopus", "matroska", ".mp4", True),
        ("libmp3lame", "matroska", ".mov", True),
        ("flac", "matroska", ".webm", False),
    ],
)
def test_sound_is_copied_or_encoded_anew(
    tmp_path: Path, codec: str, container: str, suffix: str, kept: bool
) -> None:
    rate = 48_000
    source = write_video(
        tmp_path / "source.video",
        [level_picture(8 * i) for i in range(25)],
        container=container,
        sound=codec,
        sound_seconds=1.0,
        sound_rate=rate,
    )
    report = run(source, tmp_path / f"out{suffix}")
    ((_, begin, end),) = sound_of(tmp_path / f"out{suffix}")
    ((_, first, _),) = sound_of(source)
    with av.open(str(source)) as film:
        early = first - float((film.start_time or 0) / 1e6) if container == "mpegts" else 0.0
    assert abs(begin - early) < 0.08
    assert 0.85 < end - begin < 1.15
    assert kept == (not any("encoded anew" in remark for remark in report.remarks))
    np.testing.assert_allclose(np.diff(times_of(tmp_path / f"out{suffix}")), 0.04, atol=0.0011)


def test_sound_ends_with_a_film_that_ends_early(phone: Path, tmp_path: Path) -> None:
    run(phone, tmp_path / "out.mp4", max_frames=10)
    assert times_of(tmp_path / "out.mp4") == [i / 25 for i in range(10)]
    ((_, _, end),) = sound_of(tmp_path / "out.mp4")
    assert abs(end - 0.4) < 0.05


def test_other_streams_are_said_to_be_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source.mkv"
    with av.open(str(source), "w") as film:
        video: Any = film.add_stream("libx264", rate=25)
        video.height, video.width = 48, 64
        film.add_attachment("notes.txt", "text/plain", b"notes")
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(level_picture(50 * i), "rgb24")
            frame.pts = i
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
    report = run(source, tmp_path / "out.mp4")
    assert any("'attachment'" in remark and "left out" in remark for remark in report.remarks)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".gif"])
@pytest.mark.parametrize("shape", [(33, 49), (1, 1), (2, 3), (480, 2)])
def test_every_size_can_be_written(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    report = run([grey_frame(55, *shape)] * 3, tmp_path / f"out{suffix}")
    frames = shown(tmp_path / f"out{suffix}")
    assert len(frames) == 3
    odd = suffix != ".gif" and any(side % 2 for side in shape)
    assert any("even sides" in remark for remark in report.remarks) == odd
    assert abs(int(frames[0][1][0, 0, 0]) - 200) <= 3


def test_a_wrong_suffix_lists_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.mp4, \.m4v, \.mov, \.mkv, \.webm, \.avi, \.gif"):
        run(grey_frames(2), tmp_path / "out.wmv")
    with pytest.raises(InputError, match="fps above 0"):
        VideoSink(tmp_path / "out.mp4", fps=float("nan"))
    assert not list(tmp_path.iterdir())


class Disk:
    """Writes as the system does, until `room` bytes are used, those that were set aside among them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.film, self.aside = room, 0, 0
        write, allocate, unlink = os.write, os.posix_fallocate, Path.unlink

        def limited(descriptor: int, data: Any) -> int:
            size = min(len(data), self.room - self.aside - self.film)
            if size <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.film = max(self.film, os.lseek(descriptor, 0, os.SEEK_CUR) + size)
            return write(descriptor, bytes(data[:size]))

        def set_aside(descriptor: int, offset: int, size: int) -> None:
            if self.film + size > self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.aside = size
            allocate(descriptor, offset, size)

        def remove(path: Path, missing_ok: bool = False) -> None:
            if path.suffix == ".room":
                self.aside = 0
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(film_file_module.os, "write", limited)
        monkeypatch.setattr(film_file_module.os, "posix_fallocate", set_aside)
        monkeypatch.setattr(Path, "unlink", remove)
        monkeypatch.setattr(film_file_module, "MOST_ROOM", room // 8)


@pytest.mark.skipif(not LINUX, reason="the disk of this test counts what is set aside")
@pytest.mark.parametrize("suffix", sorted(set(FILMS) - {".m4v"}))
def test_a_full_disk_ends_the_film_at_once_and_leaves_what_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    given = [0]
    rng = np.random.default_rng(0)

    def noise() -> Any:
        while given[0] < 2000:
            given[0] += 1
            yield rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)

    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"an older film")
    Disk(monkeypatch, 300_000)
    with pytest.raises(InputError, match=r"the disk is full: .* holds the first \d+ frames"):
        run(noise(), target)
    assert given[0] < 500
    assert len(shown(target)) >= 3
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_disk_that_is_full_from_the_beginning_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an older film")

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(film_file_module.os, "write", full)
    with pytest.raises(InputError, match=r"out\.mp4: No space left"):
        run(grey_frames(100), target)
    assert target.read_bytes() == b"an older film"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def same_by(kind: str, source: Path) -> Path:
    target = source.with_name(f"other{source.suffix}")
    if kind == "name":
        return source.parent / "." / ".." / source.parent.name / source.name
    target.symlink_to(source) if kind == "link" else os.link(source, target)
    return target


@pytest.mark.parametrize("kind", ["name", "link", "hard link"])
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_a_sink_never_replaces_its_source(tmp_path: Path, kind: str, suffix: str) -> None:
    from gensdk_runtime.media.images import encode_image

    source = tmp_path / f"a{suffix}"
    if suffix == ".mp4":
        write_video(source, [level_picture(40)] * 5)
    else:
        source.write_bytes(encode_image(grey_frame(9), ".png", {}))
    before = source.read_bytes()
    with pytest.raises(InputError, match="is the source itself"):
        run(source, same_by(kind, source))
    assert source.read_bytes() == before


def test_a_folder_of_images_is_no_place_for_their_results(tmp_path: Path) -> None:
    from support.streams import write_frames

    folder = write_frames(tmp_path / "in", 1)
    for target in (folder, folder / "000.png", tmp_path / "in" / ".." / "in"):
        with pytest.raises(InputError, match="is the source itself"):
            run(folder, target)
    assert run(folder, folder / "film.gif").frames == 1
    with pytest.raises(InputError, match="two sinks"):
        translate_stream(
            slow_generator(lambda level: None), grey_frames(2), [tmp_path / "x.mp4", tmp_path / "in/../x.mp4"]
        )


def test_a_film_at_a_rate_of_its_own(phone: Path, tmp_path: Path) -> None:
    translate_stream(slow_generator(lambda level: None), phone, VideoSink(tmp_path / "out.mp4", fps=29.97))
    expected = [i * 1001 / 30_000 for i in range(len(TIMES))]
    np.testing.assert_allclose(times_of(tmp_path / "out.mp4"), expected, atol=1e-9)
    assert not sound_of(tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        *((29.97, (30_000, 1001)), (23.976, (24_000, 1001)), (59.94, (60_000, 1001)), (25, (25, 1)), (5, (5, 1))),
        *((30.0, (30, 1)), (12.5, (25, 2)), (1 / 3, (1, 3)), (1000, (1000, 1))),
    ],
)
def test_a_rate_is_what_is_meant_by_it(fps: float, rate: tuple[int, int]) -> None:
    assert exact_rate(fps) == Fraction(*rate)


def test_times_that_do_not_grow_are_made_to(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4")
    sink.open(StreamFacts("model", "camera", live=True))
    for captured in (5.0, 5.0, 4.0, 6.0):
        image = grey_frame(40)
        sink.write(TranslatedFrame(0, captured, image, image, image, False, 0.0, 0.0))
    sink.close()
    times = times_of(tmp_path / "out.mp4")
    assert times == sorted(set(times))
    assert len(times) == 4
    assert abs(times[-1] - 1.0) < 0.001


PROGRAM = """
import sys
sys.modules["cv2"] = None
sys.path.insert(0, sys.argv[1])
from support.streams import grey_frames, slow_generator
from gensdk_runtime.stream import StreamOptions, translate_stream
negative = slow_generator(lambda level: None)
for sink in ("first.mp4", "second.gif", lambda frame: None):
    options = StreamOptions(size=(32, 40), mix=0.5, side_by_side=True, skip_similar=1)
    translate_stream(negative, grey_frames(5) if sink == "first.mp4" else "first.mp4", sink, options)
for source, sink in ((0, "third.mp4"), ("first.mp4", "window")):
    try:
        translate_stream(negative, source, sink)
    except Exception as failure:
        print(type(failure).__name__, failure)
"""


def test_videos_and_callbacks_need_no_opencv_and_what_does_says_how_to_install_it(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tests)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("UnavailableError") and "pip install opencv-python" in line for line in lines)
    assert len(times_of(tmp_path / "second.gif")) == 5
