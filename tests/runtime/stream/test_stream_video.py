"""Video files that are read: every frame is given, dropped, corrupt or missing; times, colours and shape are
right."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.video import containers as containers_module
from gensdk_runtime.media.video import decoding as decoding_module
from gensdk_runtime.stream import StreamOptions, StreamReport, TranslatedFrame, VideoSource, translate_stream
from support.streams import no_thread_left, slow_generator
from support.videos import corner_picture, level_picture, packet_places, write_video

COUNT = 24
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264.mp4": ("libx264", {"options": {"g": "8"}}),
    "h264.mkv": ("libx264", {"options": {"g": "8"}}),
    "h264.ts": ("libx264", {"options": {"g": "8"}}),
    "h265.mp4": ("libx265", {"options": {"x265-params": "log-level=none:keyint=8:pools=none:frame-threads=1"}}),
    "vp8.webm": ("libvpx", {"options": {"auto-alt-ref": "1", "lag-in-frames": "8", "g": "8"}}),
    "vp9.webm": ("libvpx-vp9", {"options": {"deadline": "realtime", "cpu-used": "8", "g": "8"}}),
    "mpeg4.avi": ("mpeg4", {}),
    "jpeg.avi": ("mjpeg", {"pixels": "yuvj420p"}),
    "mpeg2.mpg": ("mpeg2video", {"options": {"bf": "2", "g": "8"}}),
}
"""By file name: with B-frames and hidden reference frames, with and without a count and an index."""


def pictures() -> list[Any]:
    """Noise that moves: packets are large enough to be hit."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    return [np.ascontiguousarray(noise[:, i : i + 64]) for i in range(COUNT)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        name: write_video(folder / name, pictures(), codec=codec, **more)
        for name, (codec, more) in KINDS.items()
        if has_encoder(codec)
    }


def has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def read(path: Path, **options: Any) -> tuple[StreamReport, list[TranslatedFrame]]:
    frames: list[TranslatedFrame] = []
    with no_thread_left():
        report = translate_stream(
            slow_generator(lambda level: None), path, frames.append, StreamOptions(**options)
        )
    return report, frames


def in_file(path: Path) -> int:
    """Packets of the video that are to be shown, and what the file announces beyond them.

    VP8 marks its references that are not shown in the first byte (RFC 6386, 9.1), which a damage may hit.
    """
    with av.open(str(path)) as film:
        stream = containers_module.video_of(film, str(path))
        hides = stream.codec_context.name == "vp8"
        packets = sum(
            bool(packet.size) and not (hides and not bytes(packet)[0] & 16) for packet in film.demux(stream)
        )
        return max(packets, len(stream.index_entries) if film.format.name.startswith("mov") else 0)


@pytest.mark.parametrize("name", KINDS)
def test_each_frame_of_a_whole_video_is_given(whole: dict[str, Path], name: str) -> None:
    report, frames = read(whole[name])
    assert (report.frames, report.corrupt, report.missing, report.ended) == (COUNT, 0, 0, "source")
    assert [frame.index for frame in frames] == list(range(COUNT))
    times = [frame.presentation.time for frame in frames if frame.presentation]
    np.testing.assert_allclose([float(time) for time in times], [i / 25 for i in range(COUNT)], atol=0.0006)
    assert not report.remarks


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), name=st.sampled_from(sorted(KINDS)))
def test_each_frame_of_a_damaged_video_is_given_or_counted(
    whole: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: Any, name: str
) -> None:
    content = bytearray(whole[name].read_bytes())
    places = packet_places(whole[name])
    for _ in range(data.draw(st.integers(1, 6), label="flips")):
        start, size = places[data.draw(st.integers(0, len(places) - 1))]
        content[start + data.draw(st.integers(0, size - 1))] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.mktemp("damaged") / name
    damaged.write_bytes(content)
    report, frames, said = None, [], ""
    try:
        report, frames = read(damaged)
    except InputError as refused:
        said = str(refused)
    if report is None:  # nothing of it is left, and that is said
        assert re.search(r"can be read|can't open|no decoder|holds no video", said)
    else:
        assert report.ended == "cut" or (
            report.frames + report.dropped + report.corrupt + report.missing == in_file(damaged)
        )
        assert len(frames) == report.frames
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))


@pytest.mark.parametrize("ahead", [False, True])
def test_a_frame_that_cannot_be_decoded_does_not_end_the_video(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Whichever it is, and whether several are decoded at once or not."""
    monkeypatch.setattr(decoding_module, "FRAME_THREADS_FROM", 0 if ahead else 1 << 40)
    monkeypatch.setattr(decoding_module, "cores_to_fill", lambda: 4)
    places = packet_places(whole["h264.mp4"])
    for number in (9, 16, 20, 22, 23):
        content = bytearray(whole["h264.mp4"].read_bytes())
        start, _ = places[number]
        content[start + 4] = 0xFF  # the type of the first unit: none that there is
        (tmp_path / "hit.mp4").write_bytes(content)
        told: list[str] = []
        report, frames = read(tmp_path / "hit.mp4", on_event=told.append)
        assert report.frames + report.corrupt == COUNT
        assert report.corrupt == 1 or (number == 16 and report.corrupt <= 8)  # a key frame takes others with it
        assert report.ended == "source"
        assert sum("can't be decoded" in line for line in told) == report.corrupt
        assert len({frame.index for frame in frames}) == report.frames


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "vp9.webm", "jpeg.avi", "mpeg4.avi"])
@pytest.mark.parametrize("part", [0.6, 0.7])
def test_a_video_that_is_cut_says_so(whole: dict[str, Path], tmp_path: Path, name: str, part: float) -> None:
    content = whole[name].read_bytes()
    if name.endswith(".mp4"):
        content = faststart(whole[name], tmp_path).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    report, _ = read(tmp_path / name)
    assert report.ended == "cut"
    assert 0 < report.frames < COUNT
    assert any("ended after" in remark for remark in report.remarks)
    if name.endswith((".mp4", ".avi")):
        assert report.frames + report.corrupt + report.missing == COUNT
        assert f"{report.missing} missing" in report.text()


def faststart(path: Path, folder: Path) -> Path:
    """The same with its index first, so that a cut leaves it."""
    with (
        av.open(str(path)) as source,
        av.open(str(folder / "fast.mp4"), "w", options={"movflags": "faststart"}) as film,
    ):
        stream = film.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                film.mux(packet)
    return folder / "fast.mp4"


def test_times_are_exactly_those_of_the_file(tmp_path: Path) -> None:
    times = [*range(0, 25), 30, 35, 41, 60]
    unit = Fraction(1, 30_000)
    path = write_video(
        tmp_path / "phone.mp4",
        [level_picture(8 * i) for i in range(len(times))],
        times=[1001 * time for time in times],
        unit=unit,
    )
    _, frames = read(path)
    assert [f.presentation.time for f in frames if f.presentation] == [1001 * time * unit for time in times]


def test_a_late_begin_is_kept_and_a_clock_that_begins_anywhere_is_not(tmp_path: Path) -> None:
    grey = [level_picture(10 * i) for i in range(5)]
    late = write_video(tmp_path / "late.mp4", grey, times=[10, 11, 12, 13, 14])
    clock = write_video(tmp_path / "clock.ts", grey, times=[250_000, 250_001, 250_002, 250_003, 250_004])
    for path, begin in ((late, 0.4), (clock, 0.0)):
        _, frames = read(path)
        found = [float(f.presentation.time) for f in frames if f.presentation]
        np.testing.assert_allclose(found, [begin + i / 25 for i in range(5)], atol=1e-9)


def test_two_recordings_in_one_file_follow_each_other(tmp_path: Path) -> None:
    """A transport stream may be put together from several, whose clocks jump."""
    parts = []
    for i, begin in enumerate((500, 50_000, 100)):
        part = write_video(
            tmp_path / f"{i}.ts", [level_picture(40)] * 5, codec="mpeg2video", times=range(begin, begin + 5)
        )
        parts.append(part.read_bytes())
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    report, frames = read(tmp_path / "all.ts")
    assert report.frames == 15
    steps = np.diff([float(f.presentation.time) for f in frames if f.presentation])
    np.testing.assert_allclose(steps, 1 / 25, atol=0.001)
    assert any("clock jumps" in remark for remark in report.remarks)


@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
def test_a_turned_video_is_set_upright(tmp_path: Path, degrees: int) -> None:
    upright, turns = corner_picture(), degrees // 90
    path = write_video(
        tmp_path / "phone.mp4", [np.ascontiguousarray(np.rot90(upright, -turns))] * 3, rotation=degrees
    )
    with av.open(str(path)) as film:
        assert next(film.decode(video=0)).rotation % 360 == degrees % 360
    _, frames = read(path)
    for frame in frames:
        assert frame.source.shape == upright.shape
        assert corners(frame.source) == corners(upright)


def corners(picture: Any) -> list[tuple[bool, ...]]:
    height, width = picture.shape[:2]
    middles = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(bool(level > 128) for level in picture[place]) for place in middles]


def test_a_turn_by_other_angles_is_said(tmp_path: Path) -> None:
    report, frames = read(write_video(tmp_path / "tilted.mp4", [corner_picture()] * 3, rotation=30))
    assert corners(frames[0].source) == corners(corner_picture())
    assert any("degrees, which is not done" in remark for remark in report.remarks)


def test_frames_over_the_limit_are_refused_by_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "large.mp4", [corner_picture()] * 3)
    monkeypatch.setattr(containers_module, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(InputError):
        read(path)
    monkeypatch.setattr(containers_module, "MAX_PIXELS", 64 * 48)
    assert read(path)[0].frames == 3


def test_a_mirrored_video_is_turned_back(tmp_path: Path) -> None:
    from gensdk_runtime.media.video.picture import upright

    picture = corner_picture()
    np.testing.assert_array_equal(upright(picture, (-1, 0, 0, 1)), picture[:, ::-1])
    np.testing.assert_array_equal(upright(picture, (1, 0, 0, -1)), picture[::-1])
    np.testing.assert_array_equal(upright(picture, (0, 1, 1, 0)), picture.transpose(1, 0, 2))
    np.testing.assert_array_equal(upright(picture, (0, 1, -1, 0)), np.rot90(picture, -1))


def test_the_shape_of_pixels_comes_along_and_turns_with_them(tmp_path: Path) -> None:
    for degrees, expected in ((0, Fraction(16, 15)), (90, Fraction(15, 16))):
        path = write_video(
            tmp_path / f"{degrees}.mp4",
            [level_picture(50)] * 3,
            pixel_aspect=Fraction(16, 15),
            rotation=degrees,
        )
        _, frames = read(path)
        assert {f.presentation.pixel_aspect for f in frames if f.presentation} == {expected}


MATRICES = {"bt601": (5, 0.299, 0.114), "bt709": (1, 0.2126, 0.0722), "bt2020": (9, 0.2627, 0.0593)}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("bits", [8, 10])
def test_colours_are_those_of_the_matrix_and_the_range(tmp_path: Path, matrix: str, full: bool, bits: int) -> None:
    """Values by construction: luma and chroma are computed here from RGB, and stored without loss."""
    number, red, blue = MATRICES[matrix]
    for colour in ((255, 255, 255), (0, 0, 0), (200, 40, 40), (30, 180, 60), (20, 60, 220)):
        path = write_planes(tmp_path / f"{sum(colour)}.mkv", colour, number, red, blue, full=full, bits=bits)
        report, frames = read(path)
        assert np.abs(frames[0].source[8, 8].astype(int) - colour).max() <= 3, (colour, frames[0].source[8, 8])
        assert any("8 bits" in remark for remark in report.remarks) == (bits == 10)


def write_planes(
    path: Path, colour: tuple[int, ...], number: int, red: float, blue: float, *, full: bool, bits: int
) -> Path:
    r, g, b = (level / 255 for level in colour)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    step = 1 << bits - 8
    if full:
        top = (256 * step) - 1
        stored = [round(luma * top), *(round(128 * step + c * top) for c in chroma)]
    else:
        stored = [round(step * (16 + 219 * luma)), *(round(step * (128 + 224 * c)) for c in chroma)]
    with av.open(str(path), "w") as film:
        video: Any = film.add_stream("ffv1", rate=25)
        video.height, video.width = 32, 32
        video.pix_fmt = "yuv444p" if bits == 8 else "yuv444p10le"
        context = video.codec_context
        context.colorspace, context.color_range = number, 2 if full else 1
        frame = av.VideoFrame(32, 32, video.pix_fmt)
        frame.colorspace, frame.color_range = number, 2 if full else 1
        for plane, value in zip(frame.planes, stored, strict=True):
            kind = np.uint8 if bits == 8 else np.uint16
            plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, value, kind).tobytes())
        frame.pts = 0
        film.mux(video.encode(frame))
        film.mux(video.encode(None))
    return path


def test_large_video_that_names_no_matrix_is_taken_as_players_take_it(tmp_path: Path) -> None:
    """Green of BT.709 in 720 lines, unmarked; and the same in 480 lines, which is BT.601 then."""
    for height, width, remarked in ((720, 1280, True), (480, 640, False)):
        path = tmp_path / f"{height}.mkv"
        with av.open(str(path), "w") as film:
            video: Any = film.add_stream("ffv1", rate=25)
            video.height, video.width, video.pix_fmt = height, width, "yuv420p"
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, value in zip(frame.planes, (173, 42, 26), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            film.mux(video.encode(frame))
            film.mux(video.encode(None))
        report, frames = read(path)
        green = frames[0].source[10, 10].astype(int)
        assert (np.abs(green - (0, 255, 0)).max() <= 3) == remarked
        assert any("BT.709" in remark for remark in report.remarks) == remarked


def test_high_dynamic_range_is_brought_to_ordinary_screens(tmp_path: Path) -> None:
    """The reference white of ITU-R BT.2408, 203 cd/m2 in PQ (SMPTE ST 2084), is white; black stays black."""

    def pq(nits: float) -> float:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = (nits / 10_000) ** m1
        return float(((c1 + c2 * power) / (1 + c3 * power)) ** m2)

    with av.open(str(tmp_path / "hdr.mkv"), "w") as film:
        video: Any = film.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p10le"
        for i, nits in enumerate((0, 20, 80, 203)):
            frame = av.VideoFrame(32, 32, "yuv420p10le")
            for each in (video.codec_context, frame):
                each.colorspace, each.color_range, each.color_trc, each.color_primaries = 9, 1, 16, 9
            for plane, value in zip(frame.planes, (round(64 + 876 * pq(nits)), 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
            frame.pts = i
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
    report, frames = read(tmp_path / "hdr.mkv")
    levels = [int(frame.source.mean()) for frame in frames]
    assert any("HDR (PQ)" in remark for remark in report.remarks)
    assert levels == sorted(levels)
    assert levels[0] <= 2
    assert levels[-1] >= 250


def test_transparency_and_interlacing_are_said(tmp_path: Path) -> None:
    clear = write_video(tmp_path / "clear.mkv", [level_picture(90)] * 3, codec="ffv1", pixels="yuva420p")
    report, _ = read(clear)
    assert any("transparency" in remark for remark in report.remarks)
    woven = write_video(
        tmp_path / "woven.ts",
        [level_picture(90)] * 25,
        codec="mpeg2video",
        options={"flags": "+ildct+ilme"},
    )
    report, _ = read(woven)
    assert (report.frames, report.corrupt) == (25, 0)
    assert any("interlaced" in remark for remark in report.remarks)


LISTS = {
    "concat.mp4": "ffconcat version 1.0\nfile {secret}\n",
    "socket.mp4": "ffconcat version 1.0\nfile http://127.0.0.1:{port}/x.mp4\n",
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{secret}\n#EXT-X-ENDLIST\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\nhttp://127.0.0.1:{port}/x.ts\n#EXT-X-ENDLIST\n",
    "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "script.avs": 'AviSource("{secret}")\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_a_file_that_is_a_list_opens_nothing(tmp_path: Path, name: str) -> None:
    """Neither the video that it names, planted beside it, nor an address."""
    import socket

    secret = write_video(tmp_path / "secret.ts", [level_picture(200)] * 5, codec="mpeg2video")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        text = LISTS[name].format(secret=secret, port=server.getsockname()[1])
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="can't open") as raised:
            read(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["-i.mp4", "a:b.mp4", "concat:a.mp4", "img%03d.mp4", "subfile,,start,0,end,9,,:x.mp4", "ä b'\".mp4"]
)
def test_a_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "x.mp4", [level_picture(200)] * 5).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read(Path(name))[0].frames == 5


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as film:
        audio: Any = film.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44_100
        film.mux(audio.encode(frame))
        film.mux(audio.encode(None))
    for path, words in ((tmp_path / "empty.mp4", "can't open"), (sound, "holds no video")):
        with pytest.raises(InputError, match=words) as raised:
            read(path)
        assert len(str(raised.value).splitlines()) == 1


def test_without_pyav_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "x.mp4", [level_picture(200)])
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UnavailableError, match=r'pip install "gensdk\[video\]"'):
        VideoSource(path).open()


def test_a_pyav_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "x.mp4", [level_picture(200)])
    monkeypatch.setattr(av, "__version__", "17.0.1")
    with pytest.raises(UnavailableError, match=r"PyAV 18 or later, this is 17\.0\.1: pip install"):
        VideoSource(path).open()
