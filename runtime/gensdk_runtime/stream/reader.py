"""The first stage: a thread that reads a source, resizes frames, and opens a live source anew when it is lost."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from threading import Event, Lock, Thread
from time import monotonic, perf_counter

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.video.view import resized
from gensdk_runtime.stream.channel import Channel
from gensdk_runtime.stream.frame import CapturedFrame, Presentation, Uint8
from gensdk_runtime.stream.options import StreamOptions
from gensdk_runtime.stream.source import Capture, CorruptFrameError, Source

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds before a lost source is opened again; each failure doubles them."""

MAX_REMARKS = 50

JOIN_SECONDS = 5.0
"""What a read that hangs in a driver is waited for at the end; its thread ends by itself, or with the process."""


class Reader:
    """Reads `source` into `channel` until its end.

    A read may hang, inside a driver or a network library, and can't be interrupted. The thread of a live source
    that stalls is therefore left behind, and another one opens the source anew; when the old one wakes up, it
    closes what it held and goes.
    """

    def __init__(
        self, source: Source, channel: Channel[CapturedFrame], options: StreamOptions, *, realtime: bool
    ) -> None:
        self.corrupt = 0
        self.reconnects = 0
        self.first_corrupt = ""
        self.missing = 0
        self.cut = ""
        self.remarks: list[str] = []
        self._source = source
        self._channel = channel
        self._options = options
        self._realtime = realtime
        self._stopped = Event()
        self._threads: list[Thread] = []
        self._turn = 0
        self._lock = Lock()
        self._reading_since: float | None = None
        self._live = False
        self._count = 0
        self._failures = 0

    def start(self, capture: Capture) -> None:
        """Begins with `capture`, open; it is closed at the end."""
        self._live = capture.live
        self._begin(capture)

    def check_stall(self) -> None:
        """Opens a live source anew that has given no frame for too long; whoever waits for frames asks."""
        with self._lock:
            since = self._reading_since
            if not self._live or since is None or monotonic() - since < self._options.stall_seconds:
                return
            self._turn += 1
            self._reading_since = None
        self._tell(f"{self._source.name}: no frame for {self._options.stall_seconds:g} s")
        self._begin(None)

    def stop(self) -> None:
        """Ends all threads, and waits for them."""
        self._stopped.set()
        self._channel.abort()
        until = monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))

    def _begin(self, capture: Capture | None) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        name = f"gensdk-decode-{self._turn}"
        thread = Thread(target=self._run, args=(self._turn, capture), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, turn: int, capture: Capture | None) -> None:
        try:
            while capture is not None or (capture := self._reopened(turn)) is not None:
                with closing(capture):
                    over = self._read_all(turn, capture)
                if over:
                    break
                capture = None
        except BaseException as failure:
            if turn == self._turn:
                self._channel.end(failure)
            return
        if turn == self._turn:
            self._channel.end()

    def _read_all(self, turn: int, capture: Capture) -> bool:
        """Reads to the end; False where a live source was lost."""
        limit = None if self._realtime else self._options.max_frames
        pace = 1.0 / capture.fps if self._realtime and not capture.live and capture.fps else 0.0
        begun, given, first = perf_counter(), 0, None
        while turn == self._turn and not self._stopped.is_set() and (limit is None or given < limit):
            started = perf_counter()
            try:
                image = self._timed(turn, capture)
            except CorruptFrameError as failure:
                self._note_corrupt(turn, failure)
                continue
            if turn != self._turn or self._stopped.is_set():
                return True
            for remark in capture.take_remarks():
                self.remark(remark)
            if image is None:
                self._note_early_end(capture)
                return not capture.live
            captured = perf_counter() - (capture.lag if self._realtime else 0.0)
            prepared = self._resized(image)
            frame = CapturedFrame(
                self._count,
                prepared,
                captured,
                perf_counter() - started,
                self._presentation(capture, image),
                capture.name,
                capture.alpha,
                capture.heard,
            )
            self._count += 1
            self._failures = 0
            given += 1
            if not self._channel.put(frame):
                return True
            due, shown = given * pace, capture.presentation
            if pace and shown is not None:
                first = shown.time if first is None else first
                due = float(shown.time - first) + pace
            if pace and self._stopped.wait(max(0.0, begun + due - perf_counter())):
                return True
        return True

    def _timed(self, turn: int, capture: Capture) -> Uint8 | None:
        """Reads a frame, while :meth:`check_stall` watches."""
        with self._lock:
            if turn == self._turn:
                self._reading_since = monotonic()
        try:
            return capture.read()
        finally:
            with self._lock:
                if turn == self._turn:
                    self._reading_since = None

    def _note_corrupt(self, turn: int, failure: CorruptFrameError) -> None:
        if turn != self._turn:
            return
        self.first_corrupt = self.first_corrupt or str(failure)
        self.corrupt += 1
        self._count += 1
        self._tell(f"skipped {failure}")

    def _note_early_end(self, capture: Capture) -> None:
        """A file that is cut looks like the end, as does a broken download."""
        if capture.live:
            return
        self.missing = capture.missing
        if capture.cut:
            self.cut = capture.cut
            of = f" of {self._count + capture.missing}" if capture.missing else ""
            self.remark(f"{self._source.name}: ended after {self._count}{of} frames: {capture.cut}")
        elif self._count < capture.frames and capture.file is None:  # an iterable that said more than it gave
            self._tell(f"{self._source.name}: ended after {self._count} of {capture.frames} frames")

    def _resized(self, image: Uint8) -> Uint8:
        size = self._options.size
        return image if size is None else resized(image, *size)

    def _presentation(self, capture: Capture, image: Uint8) -> Presentation | None:
        """The capture's; of frames that were resized the pixels are square, since their size was asked for."""
        shown, size = capture.presentation, self._options.size
        if shown is None or size is None or shown.pixel_aspect == 1 or image.shape[:2] == size:
            return shown
        self.remark(f"{self._source.name}: its pixels are not square; resized frames are shown as if they were")
        return replace(shown, pixel_aspect=Fraction(1))

    def _reopened(self, turn: int) -> Capture | None:
        """The source, open again; None if the stream has ended meanwhile. Raises InputError after the last
        attempt."""
        name, most = self._source.name, self._options.reconnects
        reason = "it gives no frames"
        while turn == self._turn:
            if self._failures >= most:
                raise InputError(f"{name} was lost, and did not come back in {most} attempts: {reason}")
            pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
            self._failures += 1
            self._tell(f"{name}: lost; opening it again in {pause:g} s (attempt {self._failures} of {most})")
            if self._stopped.wait(pause):
                return None
            try:
                capture = self._source.open()
            except InputError as failure:
                reason = str(failure)
                continue
            if turn == self._turn and not self._stopped.is_set():
                self.reconnects += 1
                self._tell(f"{name}: open again")
                return capture
            capture.close()
        return None

    def remark(self, text: str) -> None:
        """Reports a remark once, and keeps it for the report."""
        with self._lock:
            if text in self.remarks or len(self.remarks) >= MAX_REMARKS:
                return
            self.remarks.append(text)
        self._tell(text)

    def _tell(self, event: str) -> None:
        if self._options.on_event is not None:
            self._options.on_event(event)
