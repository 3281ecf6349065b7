"""Frames in, translated frames out: three stages in three threads, with few frames between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from math import inf
from pathlib import Path
from threading import Thread
from time import perf_counter, sleep
from typing import Any, NamedTuple

from gensdk_runtime.conditions.base import checked
from gensdk_runtime.conditions.image import source_of
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.sounds import Float32
from gensdk_runtime.media.video.view import as_grey, compose, difference
from gensdk_runtime.methods.prepared import Prepared
from gensdk_runtime.methods.translate import TILED_FROM
from gensdk_runtime.stream.channel import Channel, EndedError
from gensdk_runtime.stream.figures import Ending, StreamReport, Tally
from gensdk_runtime.stream.frame import CapturedFrame, StreamFacts, TranslatedFrame, Uint8
from gensdk_runtime.stream.interrupts import Interrupts
from gensdk_runtime.stream.options import StreamOptions
from gensdk_runtime.stream.places import check_apart, open_sink, open_source
from gensdk_runtime.stream.reader import Reader
from gensdk_runtime.stream.sink import FolderSink, ImageSink, Sink, is_stop
from gensdk_runtime.stream.source import Capture, ImageSource, Source
from gensdk_runtime.stream.talking_face import source_with_sound

SLOTS = 3
"""Frames that may wait between two stages, where every frame is kept."""

AT_ONCE = 2
"""Frames that are translated at the same time, where every frame is kept: one keeps the processor busy while the
other is copied or waits for its slowest thread. Live frames, and those that come in tiles, go one by one."""

STALL_CHECK = POLL = 0.25
SECOND = 1.0


def translate_stream(
    generator: Generator,
    source: Source | str | Path | int | Iterable[Any],
    sink: Sink | str | Path | Callable[[TranslatedFrame], object] | Sequence[Any],
    options: StreamOptions | None = None,
) -> StreamReport:
    """Translates the frames of `source` with `generator`, and hands them to `sink`, until one of them ends.

    `source`: a camera's number, a video file, a folder of images, an image, a URL, an iterable of uint8 [H, W, 3]
    frames in RGB, or a :class:`Source`. `sink`: a video (.mp4, .m4v, .mov, .mkv, .webm, .avi or .gif), a folder,
    an image file for a single image, "window", "http:PORT", a function that is called with each
    :class:`TranslatedFrame` (returning True stops), a :class:`Sink`, or a list of them, each of which gets every
    frame and may end the stream. A sink that would replace what the source reads is refused. Videos and URLs need
    PyAV, cameras and windows OpenCV.

    With ``options.audio``, `source` is a still face, and the model makes it say that: one that was trained for it
    (:class:`gensdk_runtime.stream.talking_face.TalkingFace`). The film has the sound.

    Each frame of a video is given, or counted in the report as dropped, corrupt or missing; what was guessed, left
    out or repaired is in its remarks. A film that is only shown, or watched while it is written, plays at its own
    speed.

    Reading, translating and writing overlap: the first two have threads, the third is the caller's. Where every
    frame is kept, two are translated at the same time. Ctrl-C ends the stream as its end does, with the report,
    and never in the middle of a frame. Whatever happens, the threads end and the sinks are closed. Raises
    :class:`InputError` for a model that does not translate images, a source that can't be opened or is lost for
    good, and options that don't fit; and what a source, the model or a sink raises.
    """
    options = options or StreamOptions()
    check_model(generator, options)
    sinks = open_sinks(sink)
    talking = source_with_sound(source, sinks, generator.model, options)
    opened = talking or open_source(source, timeout=options.stall_seconds)
    if isinstance(opened, ImageSource):
        opened.keeps_alpha = keeps_alpha(generator, sinks, options)
    check_apart(opened, sinks)
    with ExitStack() as undo:
        capture = opened.open()
        unread = undo.enter_context(ExitStack())
        unread.callback(capture.close)
        realtime = capture.live if options.live is None else options.live
        facts = StreamFacts(generator.model.name, opened.name, realtime, capture.fps, capture.frames, capture.file)
        for each in sinks:
            undo.callback(each.close)
            told = each.open(facts)
            if told and options.on_event is not None:
                options.on_event(told)
        stream = _Stream(generator, opened, sinks, options, realtime=realtime)
        unread.pop_all()  # the thread that reads closes it
        return stream.run(capture)


def open_sinks(sink: Any) -> list[Sink]:
    """One sink, or each of a list."""
    return [open_sink(each) for each in (sink if isinstance(sink, list | tuple) else [sink])]


def keeps_alpha(generator: Generator, sinks: Sequence[Sink], options: StreamOptions) -> bool:
    """True if transparency goes through: colours below it can be translated where each place comes from its
    surrounding alone, and files must be able to hold it. Otherwise pictures are laid over white."""
    source = generator.model.source
    local = source is not None and source.receptive_field is not None and not source.receptive_field.whole
    plain = not options.side_by_side and not options.mix
    return local and plain and all(isinstance(each, FolderSink | ImageSink) and each.holds_alpha for each in sinks)


def check_model(generator: Generator, options: StreamOptions) -> None:
    """Raises :class:`InputError` unless the model turns RGB or grey images into such, and has its label."""
    model = generator.model
    channels, made = source_of(model).channels, model.output.shape[0]
    if channels not in (1, 3) or made not in (1, 3, 4):
        raise InputError(f"streams hold RGB or grey; model {model.name!r} turns {channels} channels into {made}")
    if options.label is None and model.num_classes is not None:
        known = ", ".join(model.class_names or (f"0 .. {model.num_classes - 1}",))
        raise InputError(f"model {model.name!r} has classes: pass label, one of {known}")
    checked({"label": options.label}, model, 1)


class _Result(NamedTuple):
    image: Uint8
    seconds: float


class _Translation(NamedTuple):
    """A frame, and the work that gives its result; `reused`: it is an earlier frame's."""

    frame: CapturedFrame
    work: Future[_Result]
    reused: bool


class _Stream:
    """One run: the threads, the channels between them, and what they count."""

    def __init__(
        self,
        generator: Generator,
        source: Source,
        sinks: Sequence[Sink],
        options: StreamOptions,
        *,
        realtime: bool,
    ) -> None:
        self._generator = generator
        self._sinks = sinks
        self._options = options
        self._realtime = realtime
        self._frames: Channel[CapturedFrame] = Channel(1 if realtime else SLOTS, newest=realtime)
        self._results: Channel[_Translation] = Channel(1 if realtime else SLOTS, newest=realtime)
        self._source = source
        self._total, self._second = Tally(perf_counter()), Tally(perf_counter())
        self._reader = Reader(source, self._frames, options, realtime=realtime)
        self._translator = Thread(target=self._translate_all, name="gensdk-translate", daemon=True)
        self._last: _Translation | None = None  # the last one that is no other's
        self._prepared: tuple[tuple[int, ...], Prepared | None] = (), None  # for frames of one size
        self._pool = None if realtime else ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gensdk-translate")
        self._interrupts = Interrupts()
        self._playing_since: float | None = None
        self._grey = source_of(generator.model).channels == 1

    def run(self, capture: Capture) -> StreamReport:
        """Runs to the end, in the calling thread and two more, which are gone afterwards."""
        ended: Ending = "source"
        try:
            self._reader.start(capture)
            self._translator.start()
            with self._interrupts:
                ended = self._show_all()
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            over = perf_counter()
            self._stop()
        return self._report(ended, over)

    def _translate_all(self) -> None:
        """The second stage. An error travels with the frames, to the caller."""
        try:
            while True:
                frame = self._frames.get(STALL_CHECK)
                if frame is None:
                    self._reader.check_stall()
                elif not self._results.put(self._translation(frame)):
                    break
        except EndedError:
            self._results.end()
        except BaseException as failure:
            self._results.end(failure)
        finally:
            self._frames.abort()

    def _translation(self, frame: CapturedFrame) -> _Translation:
        """The frame with its result, or what will be its result."""
        limit, last = self._options.skip_similar, self._last
        if limit is not None and last is not None and difference(frame.image, last.frame.image) <= limit:
            return _Translation(frame, last.work, reused=True)
        tiled = bool(self._options.tile) or frame.image.size > 3 * TILED_FROM
        if self._pool is None or tiled:
            work: Future[_Result] = Future()
            work.set_result(self._translate(frame.image, frame.heard))
        else:
            work = self._pool.submit(self._translate, frame.image, frame.heard)
        self._last = _Translation(frame, work, reused=False)
        return self._last

    def _translate(self, image: Uint8, heard: Float32 | None = None) -> _Result:
        started = perf_counter()
        result = self._result(image, heard)
        return _Result(result, perf_counter() - started)

    def _result(self, image: Uint8, heard: Float32 | None) -> Uint8:
        if self._grey:
            if (image != image[..., :1]).any():
                self._reader.remark(f"model {self._generator.model.name!r} takes grey images: colours are dropped")
            image = as_grey(image)
        if self._options.tile is not None:
            return self._generator.translate(image, label=self._options.label, tile=self._options.tile)
        size, prepared = self._prepared
        if prepared is None or size != image.shape[:2]:
            height, width = image.shape[:2]
            prepared = self._generator.prepare(label=self._options.label, size=(height, width), warm=False)
            self._prepared = image.shape[:2], prepared
        return prepared.translate(image, audio=heard)

    def _show_all(self) -> Ending:
        """The third stage, in the calling thread: windows want that, and Ctrl-C arrives there."""
        options = self._options
        until = self._total.begun + (options.max_seconds or inf)
        while True:
            now = self._tick()
            if now >= until:
                return "limit"
            try:
                frame = self._results.get(max(0.0, min(until, self._second.begun + SECOND) - now))
            except EndedError:
                return "source"
            if frame is None:
                continue
            finished = self._finished(frame)
            if not self._is_due(finished, until):
                return "limit"
            if self._show(finished):
                return "sink"
            if self._total.frames == options.max_frames:
                return "limit"

    def _is_due(self, frame: TranslatedFrame, until: float) -> bool:
        """Waits until a frame's time if a film is being watched; False if the stream ends before."""
        shown = frame.presentation
        if self._realtime or shown is None or not any(each.plays for each in self._sinks):
            return True
        alone = all(each.plays for each in self._sinks)
        while alone or any(each.watched() for each in self._sinks):
            now = self._tick()
            if self._playing_since is None:
                self._playing_since = now - float(shown.time)
            left = self._playing_since + float(shown.time) - now
            if left < -SECOND:  # the model is slower than the film: what is late is not caught up with
                self._playing_since = now - float(shown.time)
            if left <= 0:
                return True
            if now >= until:
                return False
            sleep(min(left, POLL, until - now))
        self._playing_since = None
        return True

    def _finished(self, translation: _Translation) -> TranslatedFrame:
        """Waits for the result."""
        while not translation.work.done():
            wait([translation.work], POLL)  # in turns: on Windows Ctrl-C comes through between them alone
        frame, result = translation.frame, translation.work.result()
        seconds = 0.0 if translation.reused else result.seconds
        return TranslatedFrame(
            frame.index,
            frame.captured,
            frame.image,
            result.image,
            result.image,
            translation.reused,
            frame.decode,
            seconds,
            frame.presentation,
            frame.name,
            frame.alpha,
        )

    def _show(self, frame: TranslatedFrame) -> bool:
        """Passes the frame to each sink; True if one of them ends the stream."""
        started = perf_counter()
        options = self._options
        frame.view = compose(frame.source, frame.result, mix=options.mix, side_by_side=options.side_by_side)
        with self._interrupts.held():
            stops = [is_stop(each.write(frame)) for each in self._sinks]
            now = perf_counter()
            for remark in (remark for each in self._sinks for remark in each.take_remarks()):
                self._reader.remark(remark)
            for tally in (self._total, self._second):
                tally.add(frame, now - started, now)
        return any(stops)

    def _tick(self) -> float:
        """The time; at the end of each second its figures go out."""
        now = perf_counter()
        if now - self._second.begun >= SECOND:
            figures = self._second.figures(now, dropped=self._dropped, corrupt=self._reader.corrupt)
            self._second = Tally(now, dropped=self._dropped, corrupt=self._reader.corrupt)
            for sink in self._sinks:
                sink.tell(figures)
            if self._options.on_second is not None:
                self._options.on_second(figures)
        return now

    @property
    def _dropped(self) -> int:
        return self._frames.dropped + self._results.dropped

    def _stop(self) -> None:
        self._frames.abort()
        self._results.abort()
        if self._translator.ident is not None:
            self._translator.join()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._reader.stop()

    def _report(self, ended: Ending, over: float) -> StreamReport:
        reader, name = self._reader, self._source.name
        if not self._total.frames and ended == "source":
            if reader.corrupt:
                raise InputError(f"none of {reader.corrupt} frames of {name} can be read: {reader.first_corrupt}")
            raise InputError(f"{name} holds no frame; give a source with at least one")
        figures = self._total.figures(over, dropped=self._dropped, corrupt=reader.corrupt)
        if ended == "source" and reader.cut:
            ended = "cut"
        report = StreamReport(
            **vars(figures),
            reconnects=reader.reconnects,
            ended=ended,
            live=self._realtime,
            missing=reader.missing,
            remarks=tuple(reader.remarks),
        )
        for sink in self._sinks:
            sink.tell(report)
        return report
