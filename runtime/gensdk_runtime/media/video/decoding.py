"""The frames of a video stream in the order in which they are shown, and where one is missing."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from gensdk_runtime.host.processor import cores_to_fill
from gensdk_runtime.media.video.containers import Clock, pyav, reason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FRAME_THREADS_FROM = 1280 * 720
"""Pixels of a frame from which several are decoded at once; smaller ones are decoded faster than any model
runs."""
MOST_THREADS = 8
MOST_KEPT = 1000
"""Packets since the last key frame that are kept for decoding them again."""
PROGRESSIVE = 1
"""FFmpeg's field orders after it are interlaced."""
SORTED = 4
"""Frames that are sorted by their times where decoders have lost count; H.264 seldom changes the order of more."""
BROKEN_READS = 8
"""Failed reads in a row, after which a file counts as broken off."""
ENDS_WITHIN = Fraction(1, 4)
"""Seconds by which a whole file may end before the duration that it states."""
STATES_DURATION = ("matroska", "asf", "nut")
"""Formats whose header states the duration; others take it from their last frame, or guess."""


@dataclass(frozen=True)
class Lost:
    """Frames that were in the file and could not be decoded; `why`: FFmpeg's words for the first."""

    count: int
    why: str


class Decoder:
    """Reads packets and decodes them.

    Each packet holds one frame, and carries the time at which it is shown. Decoders give frames in the order of
    these times: where one comes and earlier ones have not, those will never come. So each frame is given, or
    counted in a :class:`Lost` at its place. Two kinds of packet hold none: hidden references of VP8, and the
    second field of an interlaced picture.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.missing = 0
        """Frames that the file announces and does not hold, where it says how many it should; known at the end."""
        self.cut = ""
        """Why the file counts as broken off, at the end; empty where it is whole."""
        self.clock = Clock(container)
        self._container = container
        self._stream = stream
        self._kind = container.format.name.split(",")[0]
        self._hidden = stream.codec_context.name in ("vp8", "libvpx")
        self._fields = (
            getattr(stream.codec_context, "field_order", PROGRESSIVE + 1) > PROGRESSIVE
        )  # PyAV 18.0 has none
        self._due: list[int] = []  # a heap: times of packets whose frames have not come
        self._undated = 0
        self._given_up: set[int] = set()
        self._number = count()
        self._sorted: list[tuple[int, int, VideoFrame]] = []
        self._failures = 0
        self._why = ""
        self._packets = 0
        self._ends = Fraction(0)
        self._kept: list[Packet[Any]] = []
        self._expected = self.announced
        self._ahead = stream.width * stream.height >= FRAME_THREADS_FROM
        if self._ahead:
            stream.thread_type = "AUTO"
            stream.thread_count = min(MOST_THREADS, cores_to_fill())

    @property
    def announced(self) -> int:
        """How many frames the file says that it holds; 0 where it does not say."""
        index = len(self._stream.index_entries)
        frames = int(self._stream.frames)
        if self._kind == "mov":  # those outside of its edit list are not shown
            return min(frames, index) if index else frames
        return frames

    def frames(self) -> Generator[VideoFrame | Lost]:
        """To the end of the file; what a live stream raises is raised."""
        for packet in self._demuxed():
            self._note(packet)
            yield from self._matched(self._decoded(packet))
        yield from self._matched(self._decoded(None))
        yield from self._rest()
        if self._due and self._ahead and len(self._kept) <= MOST_KEPT:
            yield from self._matched(self._decoded_again())
            yield from self._rest()
        if rest := len(self._due) + self._undated:
            yield Lost(rest, self._why or "it holds no picture")
        self._judge_end()

    def _demuxed(self) -> Iterator[Packet[Any]]:
        """The packets of the video that hold something, and the ends of all."""
        av, failed = pyav(), 0
        watched = self._container.streams if self._kind in STATES_DURATION else (self._stream,)
        source = self._container.demux(*watched)
        while True:
            try:
                packet = next(source, None)
            except av.error.FFmpegError as failure:
                failed += 1
                if failed >= BROKEN_READS or not _goes_on(failure):
                    self.cut = reason(failure)
                    return
                source = self._container.demux(*watched)
                continue
            if packet is None:
                return
            failed = 0
            if packet.pts is not None and packet.time_base:
                self._ends = max(self._ends, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.size and packet.stream_index == self._stream.index:
                self._packets += 1
                yield packet

    def _note(self, packet: Packet[Any]) -> None:
        self.clock.go_on(packet)
        if self._ahead:
            if packet.is_keyframe:
                self._kept.clear()
            if len(self._kept) <= MOST_KEPT:
                self._kept.append(packet)
        if packet.is_discard or (self._hidden and not bytes(packet)[0] >> 4 & 1):
            return
        if packet.pts is None:
            self._undated += 1
        else:
            heappush(self._due, packet.pts)

    def _decoded(self, packet: Packet[Any] | None) -> Iterator[VideoFrame]:
        av = pyav()
        try:
            yield from self._stream.decode(packet)
        except EOFError:
            return
        except av.error.FFmpegError as failure:
            self._failures += 1
            self._why = self._why or reason(failure)

    def _decoded_again(self) -> Iterator[VideoFrame]:
        """The last frames, one by one.

        Where several are decoded at once and one of the last fails, FFmpeg's way to the good ones behind it is
        closed.
        """
        av = pyav()
        codec: Any = av.CodecContext.create(self._stream.codec_context.codec, "r")
        codec.extradata, codec.options = self._stream.codec_context.extradata, self._stream.codec_context.options
        for packet in (*self._kept, None):
            try:
                found = codec.decode(packet)
            except av.error.FFmpegError:
                continue
            yield from (frame for frame in found if frame.pts in self._due)

    def _matched(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame | Lost]:
        for frame in self._ordered(frames):
            lost = 0
            if frame.pts is None:
                if self._undated:
                    self._undated -= 1
                elif self._due:
                    heappop(self._due)
            else:
                while self._due and self._due[0] < frame.pts:
                    self._given_up.add(heappop(self._due))
                    lost += 1
                if frame.pts in self._given_up:
                    continue  # too late: others that follow it have been given
                if self._due:  # its own, or that of a decoder which makes up times
                    heappop(self._due)
            second_field = lost == 1 and self._fields and frame.interlaced_frame and not self._why
            if lost and not second_field:
                yield Lost(lost, self._why or "it holds no picture")
            self._why = ""
            yield frame

    def _ordered(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """As they come; once one has failed, decoders lose count, and the next few are sorted by their times."""
        for frame in frames:
            if not self._failures or frame.pts is None:
                yield frame
                continue
            heappush(self._sorted, (frame.pts, next(self._number), frame))
            if len(self._sorted) > SORTED:
                yield heappop(self._sorted)[2]

    def _rest(self) -> Iterator[VideoFrame | Lost]:
        last = [heappop(self._sorted)[2] for _ in range(len(self._sorted))]
        self._failures, failures = 0, self._failures
        yield from self._matched(last)
        self._failures = failures

    def _judge_end(self) -> None:
        """Finds out whether the file is whole, as far as it says how much it should hold: `missing` and `cut`."""
        if self._kind == "avi" and self._expected:
            rate = self._stream.time_base or Fraction(1)
            self.missing = max(0, self._expected - max(self._packets, round(self._ends / rate)))
        else:
            self.missing = max(0, self._expected - self._packets)
        stated = Fraction(self._container.duration or 0, 1_000_000)
        if self.missing:
            self.cut = self.cut or "the file ends early"
        elif self._kind in STATES_DURATION and stated - self._ends > ENDS_WITHIN:
            self.cut = f"the file ends at {float(self._ends):.2f} of {float(stated):.2f} s"


def _goes_on(failure: Any) -> bool:
    """True if the next packet may be a good one."""
    return type(failure).__name__ == "InvalidDataError"
