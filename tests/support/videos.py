"""Small videos for tests, made with PyAV, and what is in one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

HEIGHT, WIDTH = 48, 64


def level_picture(level: int, height: int = HEIGHT, width: int = WIDTH) -> Any:
    """A grey picture, uint8 [height, width, 3]."""
    return np.full((height, width, 3), level, np.uint8)


def corner_picture(height: int = HEIGHT, width: int = WIDTH) -> Any:
    """Red, green, blue and white quarters, from the top left in the order of reading: turned pictures differ."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255, 0, 0
    picture[: height // 2, width // 2 :] = 0, 255, 0
    picture[height // 2 :, : width // 2] = 0, 0, 255
    picture[height // 2 :, width // 2 :] = 255
    return picture


def write_video(
    path: Path,
    pictures: Iterable[Any],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 25),
    options: dict[str, str] | None = None,
    rotation: int = 0,
    pixel_aspect: Fraction = Fraction(1),
    sound: str = "",
    sound_seconds: float = 0.0,
    sound_rate: int = 44_100,
) -> Path:
    """Pictures uint8 [H, W, 3] in RGB, shown at `times` in units (one after the other for None); `sound`: a
    codec."""
    pictures = list(pictures)
    with av.open(str(path), "w", format=container) as film:
        video: Any = film.add_stream(codec, rate=25, options=options or {})
        video.height, video.width, video.pix_fmt = *pictures[0].shape[:2], pixels
        video.codec_context.time_base = video.time_base = unit
        video.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            video.set_display_rotation(rotation)
        audio: Any = film.add_stream(sound, rate=sound_rate, layout="stereo") if sound else None
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = times[i] if times else i, unit
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
        if audio is not None:
            for packet in tone(audio, sound_seconds, sound_rate):
                film.mux(packet)
    return path


def tone(audio: Any, seconds: float, rate: int) -> Iterable[Any]:
    """Packets of 440 Hz."""
    wave = np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32) * 0.5
    context = audio.codec_context
    resampler = av.AudioResampler(
        format=context.format, layout=context.layout, rate=rate, frame_size=context.frame_size
    )
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for ready in (*resampler.resample(frame), *resampler.resample(None)):
        yield from audio.encode(ready)
    yield from audio.encode(None)


def shown(path: Path) -> list[tuple[float, Any]]:
    """The time in seconds and the picture of each frame, in the order in which they are shown."""
    with av.open(str(path)) as film:
        return [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]


def levels_of(path: Path) -> list[int]:
    """The mean level of each frame."""
    return [round(float(picture.mean())) for _, picture in shown(path)]


def times_of(path: Path) -> list[float]:
    """When each frame is shown, in seconds."""
    return [time for time, _ in shown(path)]


def sound_of(path: Path) -> list[tuple[str, float, float]]:
    """The kind, the first moment and the end of each stream of sound, in seconds."""
    found = []
    with av.open(str(path)) as film:
        for stream in film.streams.audio:
            ends = [
                (p.pts * p.time_base, (p.pts + (p.duration or 0)) * p.time_base)
                for p in film.demux(stream)
                if p.pts is not None
            ]
            found.append((stream.codec_context.name, float(ends[0][0]), float(ends[-1][1])))
            film.seek(0)
    return found


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Place and size of each packet of the video in its file."""
    with av.open(str(path)) as film:
        return [(p.pos, p.size) for p in film.demux(video=0) if p.size and p.pos is not None]
