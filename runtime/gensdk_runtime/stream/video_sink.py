"""A video file, complete or not there: written beside its place, closed, and put in place at the end."""

from __future__ import annotations

import errno
import math
import os
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.atomic import put_in_place, sibling
from gensdk_runtime.host.system import sync
from gensdk_runtime.media.sounds import to_pcm16
from gensdk_runtime.media.video.containers import pyav, reason
from gensdk_runtime.media.video.film import GIF_UNIT, Film, FilmSettings, even, fitted
from gensdk_runtime.media.video.film_formats import FilmFormat, film_format
from gensdk_runtime.media.video.view import resized
from gensdk_runtime.media.wav import encode_wav
from gensdk_runtime.stream.figures import StreamFigures, StreamReport
from gensdk_runtime.stream.frame import StreamFacts, TranslatedFrame, Uint8
from gensdk_runtime.stream.sink import Sink

DEFAULT_FPS = Fraction(25)
FINEST_GRID = 120
"""Frames per second."""
LIVE_UNIT = Fraction(1, 90_000)
LONGEST_GAP = 60_000
"""Units between two frames; .avi writes an empty one for each."""
FASTEST_GIF = 50
"""Frames per second; browsers show faster ones slowly."""


class VideoSink(Sink):
    """A film as .mp4, .mov, .mkv, .webm, .avi or .gif, with the times, the shape of pixels and the sound of its
    source.

    Frames keep their times; those of a live source are shown when they came. Where the source has no times, or
    `fps` is given, they come evenly, 25 a second unless the source says otherwise, and then without sound. All
    frames have the first one's size, less a last odd row or column; others are fitted into it, with black around.
    What the kind of file can't hold is said. Needs PyAV.

    Where the disk is full, the film ends at once, and what there is of it is put in place, unless `partial` is
    False.
    """

    def __init__(self, path: str | Path, *, fps: float | None = None, partial: bool = True) -> None:
        self.path = Path(path)
        self._partial = partial
        if fps is not None and not (isinstance(fps, int | float) and 0 < fps <= 1000):
            raise InputError(f"expected fps above 0, at most 1000, got {fps!r:.40}")
        self._fps = None if fps is None else exact_rate(fps)
        self._undo = ExitStack()
        self._facts = StreamFacts("", "", live=False)
        self._beside = Path()
        self._film: Film | None = None
        self._stretch = Fraction(1)
        self._begun = 0.0
        self._next = 0  # the earliest time that is free, in units
        self._count = 0
        self._end = Fraction(0)
        self._whole = False
        self._remarks: list[str] = []

    def open(self, facts: StreamFacts) -> None:
        """Raises :class:`InputError` for another suffix, and where no file can be written."""
        film_format(self.path.suffix).codec()
        if self.path.is_dir():
            raise InputError(f"can't write {self.path}: it is a folder")
        self._facts = facts
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = self._undo.enter_context(sibling(self.path.absolute(), folder=True))
        except OSError as failure:
            raise InputError(f"can't write {self.path}: {failure.strerror or failure}") from None
        self._beside = folder / f"video{self.path.suffix.lower()}"

    def write(self, frame: TranslatedFrame) -> None:
        """Appends it; :class:`InputError` where the disk is full, after the film was put in place without it."""
        try:
            film = self._film or self._begin(frame)
            pts, length = self._timing(frame, film)
            film.add(self._fitted(frame.view, film.settings), pts, length)
        except (OSError, pyav().error.FFmpegError) as failure:
            raise self._failed(failure, self._film) from None
        if film.full:
            self._end_early(film)

    def take_remarks(self) -> list[str]:
        """What could not be kept as it was."""
        remarks, self._remarks = self._remarks, []
        return [f"{self.path}: {remark}" for remark in remarks]

    def tell(self, figures: StreamFigures) -> None:
        """The report says whether the source came to its end: then the sound does too."""
        if isinstance(figures, StreamReport):
            self._whole = figures.ended in ("source", "cut")

    def close(self) -> None:
        """Puts the finished video in place; without a frame, what stood there stays."""
        with self._undo:
            film, self._film = self._film, None
            if film is not None:
                self._finish(film)

    def _begin(self, frame: TranslatedFrame) -> Film:
        facts, kind = self._facts, film_format(self.path.suffix)
        rate = self._fps or _rate(facts, kind)
        shown, steady = frame.presentation, self._fps is not None
        unit = 1 / rate
        if kind.container == "gif":
            unit = GIF_UNIT
        elif kind.times and not steady:
            unit = (facts.file and facts.file.time_base) or (LIVE_UNIT if facts.live else unit)
        halves = kind.container != "gif"
        aspect = shown.pixel_aspect if shown is not None else Fraction(1)
        self._stretch = Fraction(1) if kind.aspect else aspect
        stored = stretched_size(frame.view.shape, self._stretch)
        height, width = (even(side) if halves else side for side in stored)
        settings = FilmSettings(
            height=height,
            width=width,
            rate=rate,
            time_base=unit,
            pixel_aspect=aspect / self._stretch,
            live=facts.live,
            sound=_sound_of(facts) if shown is not None and not steady else None,
        )
        self._begun = frame.captured
        self._film = Film(self._beside, kind, settings)
        self._remarks += self._film.remarks
        self._remark_on(frame, kind, settings)
        return self._film

    def _remark_on(self, frame: TranslatedFrame, kind: FilmFormat, settings: FilmSettings) -> None:
        """What this kind of file, or this film, can't hold."""
        height, width = frame.view.shape[:2]
        if (height, width) != (settings.height, settings.width):
            why = "videos have even sides" if self._stretch == 1 else f"{self.path.suffix} has square pixels"
            self._remarks.append(f"{width} x {height} pixels become {settings.width} x {settings.height}: {why}")
        if kind.container == "gif" and settings.rate > FASTEST_GIF:
            self._remarks.append(
                f"players show .gif at {FASTEST_GIF} frames a second at most, slower than this one"
            )
        if not kind.times and not self._facts.live and not self._is_even(settings.rate):
            self._remarks.append(
                f"{self.path.suffix} holds no times: frames come at the next of {float(settings.rate):g} a second"
            )
        others = self._facts.file.others if self._facts.file is not None else ()
        for name in sorted(set(others)):
            self._remarks.append(f"{others.count(name)} stream(s) of kind {name!r} of the source are left out")

    def _is_even(self, rate: Fraction) -> bool:
        """True if all frames of the source come at that rate, as far as FFmpeg can tell."""
        file = self._facts.file
        return file is None or self._fps is not None or file.rate == file.grid == rate

    def _timing(self, frame: TranslatedFrame, film: Film) -> tuple[int, int | None]:
        """When the frame is shown, and for how long, in units; each after the one before."""
        shown, unit = frame.presentation, film.settings.time_base
        if self._fps is not None or (shown is None and not self._facts.live):
            step = 1 / film.settings.rate / unit
            wanted = round(self._count * step)
            length: int | None = max(1, round(step))
            self._count += 1
        elif shown is not None:
            wanted = round(shown.time / unit)
            length = round(shown.duration / unit) if shown.duration else None
        else:
            wanted, length = round(Fraction(frame.captured - self._begun) / unit), None
        longest = 1 << 30 if film.kind.times else LONGEST_GAP
        pts = max(self._next, min(wanted, self._next + longest))
        self._next = pts + 1
        self._end = (pts + (length or 1)) * unit
        return pts, length

    def _fitted(self, view: Uint8, settings: FilmSettings) -> Uint8:
        if self._stretch != 1:
            view = resized(view, *stretched_size(view.shape, self._stretch))
        return fitted(view, settings.height, settings.width)

    def _finish(self, film: Film) -> None:
        try:
            film.finish(sound_until=None if self._whole else self._end)
            if film.written:
                sync(self._beside)
                put_in_place(self._beside, self.path.absolute())
        except (OSError, pyav().error.FFmpegError) as failure:
            raise self._failed(failure, film) from None

    def _end_early(self, film: Film) -> None:
        """Raises, after what there is was put in place."""
        self._film = None
        if not self._partial:
            film.close()
            raise self._failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), film)
        with self._undo:
            self._finish(film)
        raise InputError(
            f"the disk is full: {self.path} holds the first {film.written} frames; make room and start again"
        )

    def _failed(self, failure: Exception, film: Film | None) -> InputError:
        why = reason(failure, writing=True) if film is None else film.reason(failure)
        return InputError(f"can't write {self.path}: {why}")


def _sound_of(facts: StreamFacts) -> Path | bytes | None:
    """Where the sound of a source is: in its video file, or in a WAV file in memory, of 16 bits."""
    file = facts.file
    if file is None or file.sound is None:
        return None if file is None else file.path
    return encode_wav(to_pcm16(file.sound.samples), file.sound.sample_rate)


def _rate(facts: StreamFacts, kind: FilmFormat) -> Fraction:
    """Frames per second: the average, or where a file has no times those on whose grid all lie."""
    file = facts.file
    if file is not None and file.rate:
        finer = file.grid is not None and file.rate <= file.grid <= FINEST_GRID
        return file.grid if file.grid is not None and finer and not kind.times else file.rate
    fps = facts.fps
    return exact_rate(fps) if fps > 0 and math.isfinite(fps) else DEFAULT_FPS


def exact_rate(fps: float) -> Fraction:
    """The frame rate that is meant: 30000/1001 by 29.97 and by 29.970029, as television has it."""
    meant = Fraction(round(fps * 1.001) * 1000, 1001)
    near = abs(meant - Fraction(fps)) < Fraction(3, 10_000) * meant
    return meant if near else Fraction(fps).limit_denominator(1001)


def stretched_size(shape: tuple[int, ...], aspect: Fraction) -> tuple[int, int]:
    """Height and width at which pixels are squares, when they are `aspect` times as wide as high; none is lost."""
    height, width = shape[:2]
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)
