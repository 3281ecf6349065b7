"""A film that is being written: its encoder, its container, its sound, and what is done where the disk is full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.media.images import Uint8
from gensdk_runtime.media.video.containers import pyav, reason
from gensdk_runtime.media.video.film_file import FilmFile
from gensdk_runtime.media.video.film_formats import FilmFormat
from gensdk_runtime.media.video.sound import Sound, sound_of

BT709, BT470BG = 1, 5
"""Colour matrices, as ITU-T H.273 numbers them: that of video, and that of JPEG."""
LIMITED, FULL = 1, 2
GIF_UNIT = Fraction(1, 100)


@dataclass(frozen=True)
class FilmSettings:
    """The properties of a film: `height` and `width` of its frames, `rate` in frames per second, the unit of its
    times in seconds, how wide a pixel is for its height, whether its frames come in real time, and where its sound
    is: a video file, or a WAV file's bytes."""

    height: int
    width: int
    rate: Fraction
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)
    live: bool = False
    sound: Path | bytes | None = None


class Film:
    """Frames are added, and at the end it is finished; `written` counts those whose packets are in the file."""

    def __init__(self, path: Path, kind: FilmFormat, settings: FilmSettings) -> None:
        self.written = 0
        self.remarks: list[str] = []
        self.kind, self.settings = kind, settings
        self._begins_early = kind.times
        self._lengths: dict[int, int] = {}
        self._file = FilmFile(path)
        self._sound: Sound | None = None
        try:
            self._container = pyav().open(self._file, "w", format=kind.container, options=dict(kind.options))
            self._stream = self._video(kind)
            self._sound = sound_of(settings.sound, self._container, kind)
        except BaseException:
            self._file.close()
            raise
        if self._sound is not None:
            self.remarks += self._sound.remarks
        self._paint = _palettes(settings) if kind.container == "gif" else _planes(self._stream)

    @property
    def full(self) -> bool:
        """True if the disk is full: it has to be finished now."""
        return self._file.full

    def reason(self, failure: Exception) -> str:
        """Why it could not be written: the system's message, else FFmpeg's."""
        return reason(self._file.failure or failure, writing=self._file.failure is None)

    def add(self, view: Uint8, pts: int, length: int | None) -> None:
        """A frame uint8 [H, W, 3] of the film's size, shown at `pts` time units, and for `length` of them."""
        av = pyav()
        frame = av.VideoFrame.from_ndarray(view, format="rgb24")
        frame.pts, frame.time_base = pts, self.settings.time_base
        if length:
            self._lengths[pts] = length
        for painted in self._paint(frame):
            self._mux(self._stream.encode(painted))

    def finish(self, *, sound_until: Fraction | None) -> None:
        """Completes the file, with its sound up to a time in seconds, or all of it.

        Where the disk is full, without the frames that wait in the encoder. Raises what the system says.
        """
        try:
            if not self.full:
                for painted in self._paint(None):
                    self._mux(self._stream.encode(painted))
                self._mux(self._stream.encode(None))
            if self._sound is not None and not self.full:
                self._mux_sound(self._sound.until(sound_until))
                self._mux_sound(self._sound.rest())
            self._container.close()
        finally:
            self.close()

    def close(self) -> None:
        """Frees everything."""
        if self._sound is not None:
            self._sound.close()
        self._file.close()

    def _video(self, kind: FilmFormat) -> Any:
        """The stream of pictures, with its encoder."""
        settings, codec = self.settings, kind.codec()
        if codec is not kind.codecs[0]:
            self.remarks.append(f"this FFmpeg has no {kind.codecs[0].name}; encoded with {codec.name}")
        options = dict(codec.live if settings.live and codec.live else codec.options)
        stream: Any = self._container.add_stream(codec.name, rate=settings.rate, options=options)
        stream.height, stream.width, stream.pix_fmt = settings.height, settings.width, codec.pixels
        stream.time_base = settings.time_base
        context = stream.codec_context
        context.time_base = settings.time_base
        context.thread_type = "AUTO"
        if codec.pixels != "pal8":
            context.sample_aspect_ratio = settings.pixel_aspect
            jpeg = codec.pixels.startswith("yuvj")
            context.colorspace = BT470BG if jpeg else BT709
            context.color_range = FULL if jpeg else LIMITED
            if not jpeg:
                context.color_primaries = context.color_trc = BT709
        return stream

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            if length := self._lengths.pop(packet.pts, None):
                packet.duration = length
            if self._sound is not None and packet.dts is not None:
                self._mux_sound(self._sound.until(packet.dts * packet.time_base))
            self._file.note_packet(packet.size)
            self._container.mux(packet)
            self.written += 1

    def _mux_sound(self, packets: Iterator[Any]) -> None:
        for packet in packets:
            if not self._begins_early and packet.pts is not None and packet.pts < 0:
                continue  # what an encoder of sound needs before the first moment; the pictures would come late
            self._file.note_packet(packet.size)
            self._container.mux(packet)


def _planes(stream: Any) -> Any:
    """Turns RGB frames into the encoder's, by its colour matrix and range."""
    from av.video.reformatter import VideoReformatter

    reformatter, context = VideoReformatter(), stream.codec_context

    def paint(frame: Any) -> Iterator[Any]:
        if frame is not None:
            yield reformatter.reformat(
                frame,
                format=stream.pix_fmt,
                dst_colorspace=context.colorspace,
                dst_color_range=context.color_range,
            )

    return paint


def _palettes(settings: FilmSettings) -> Any:
    """Turns RGB frames into such with a palette of their own, exact up to 256 colours."""
    av = pyav()
    graph = av.filter.Graph()
    size, unit = f"{settings.width}x{settings.height}", settings.time_base
    source = graph.add("buffer", f"video_size={size}:pix_fmt=rgb24:time_base={unit}:pixel_aspect=1/1")
    split, colours = graph.add("split"), graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use, sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(colours, 1, 0)
    colours.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()

    def paint(frame: Any) -> Iterator[Any]:
        source.push(frame)
        while True:
            try:
                yield graph.vpull()  # by the graph, which has to outlive its filters
            except (BlockingIOError, EOFError):
                return

    return paint


def even(side: int) -> int:
    """What encoders that halve the colours' size can take: `side` less an odd pixel, at least 2."""
    return max(2, side - side % 2)


def fitted(image: Uint8, height: int, width: int) -> Uint8:
    """`image` [h, w, 3] in a frame of another size: cut by one pixel, or shrunk or enlarged with black around."""
    if image.shape[:2] == (height, width):
        return image
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return np.ascontiguousarray(image[:height, :width])
    from gensdk_runtime.media.video.view import resized

    scale = min(height / image.shape[0], width / image.shape[1])
    inner = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    framed[top : top + inner[0], left : left + inner[1]] = resized(image, *inner)
    return framed
