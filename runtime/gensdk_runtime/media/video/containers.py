"""Video files and network streams, opened with FFmpeg through PyAV: plain files as what they are, and nothing
else.

Some of FFmpeg's formats are lists of other files and addresses (ffconcat, HLS, DASH, SDP, image sequences), and
some of its protocols read parts of files. A file may therefore only be of a format that holds its own frames, and
lead nowhere; an address leads to what :data:`gensdk_runtime.media.video.address.PROTOCOLS` says.
"""

from __future__ import annotations

import errno
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.video.address import PROTOCOLS, masked

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

FILE_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "gif", "apng", "mxf"),
    *("nut", "ivf", "obu", "h264", "hevc", "m4v", "mjpeg", "yuv4mpegpipe", "dv", "wtv", "rm", "swf", "amv", "gxf"),
)
"""FFmpeg's names for the formats that a file may have."""

STREAM_FORMATS = (*FILE_FORMATS, "rtsp", "hls", "mpjpeg", "live_flv", "rtp", "aac", "mp3")
"""Those that an address may lead to; a list (HLS) there leads to addresses again."""

ZERO_BASED = ("mov", "matroska", "avi", "gif", "nut", "ogg", "apng", "yuv4mpegpipe", "ivf")
"""Formats in which a stream begins at 0 unless it means to begin later; elsewhere clocks begin anywhere."""

LATEST_BEGIN = 60
"""Seconds: a later begin is a clock's, not a delay's."""

BACK, AHEAD = Fraction(1), Fraction(10)
"""Seconds by which a clock that means to go on may be off."""

OLDEST_PYAV = 18
"""Earlier ones crash on files that are opened with limits."""

MAX_PIXELS = 1 << 26
"""Of a frame; FFmpeg refuses larger ones before it takes memory for them."""


def pyav() -> Any:
    """PyAV's module; :class:`UnavailableError` where it is not installed."""
    try:
        import av
    except ImportError as failure:
        raise UnavailableError(
            f'videos and network streams need PyAV ({failure}): pip install "gensdk[video]"'
        ) from None
    if int(av.__version__.partition(".")[0]) < OLDEST_PYAV:
        raise UnavailableError(
            f"videos and network streams need PyAV {OLDEST_PYAV} or later, this is {av.__version__}: "
            'pip install --upgrade "gensdk[video]"'
        )
    return av


def open_file(path: str | Path) -> InputContainer:
    """The opened video file; :class:`InputError` for a file that is not a video."""
    av, place = pyav(), Path(path)
    if place.is_dir():
        raise InputError(f"can't open {place}: it is a folder; expected a video")
    options = {
        "format_whitelist": ",".join(FILE_FORMATS),
        "protocol_whitelist": "file",
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        # "file:" keeps a name that begins with "-", or holds ":" or "%d", from being anything but a name.
        return av.open(f"file:{place.absolute()}", "r", options=options, metadata_errors="replace")  # type: ignore[no-any-return]
    except av.error.FFmpegError as failure:
        expected = "expected a video that FFmpeg can decode, such as .mp4, .mkv or .avi"
        raise InputError(f"can't open {place}: {reason(failure)}; {expected}") from None
    except ValueError:  # a name with a zero byte
        raise InputError(f"can't open {str(place)!r}: expected the name of a file") from None


def open_wav(data: bytes) -> InputContainer:
    """The bytes of a WAV file that gensdk wrote, opened; those of strangers are read by
    :mod:`gensdk_runtime.media.wav`."""
    return pyav().open(BytesIO(data), "r", format="wav")  # type: ignore[no-any-return]


def open_address(address: str, timeout: float) -> InputContainer:
    """The network stream, open; :class:`InputError` where nothing answers as one within `timeout` seconds."""
    av, scheme = pyav(), address.partition("://")[0]
    options = {
        "format_whitelist": ",".join(STREAM_FORMATS),
        "protocol_whitelist": ",".join(PROTOCOLS[scheme]),
        "max_pixels": str(MAX_PIXELS),
    }
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_flags"] = "prefer_tcp"  # over UDP a frame that loses a packet is broken
    try:
        return av.open(address, "r", options=options, metadata_errors="replace", timeout=timeout)  # type: ignore[no-any-return]
    except av.error.FFmpegError as failure:
        expected = "expected an address that answers with a video; check it, the password and the network"
        raise InputError(f"can't open {masked(address)}: {reason(failure)}; {expected}") from None


def reason(failure: Any, *, writing: bool = False) -> str:
    """What FFmpeg says, without the name of the file or the address, which may hold a password."""
    if type(failure).__name__ == "ExitError":
        return "no answer in time"
    if failure.errno == errno.EINVAL:
        if writing:
            return (
                "its encoders don't take this size, these channels of sound or this rate; choose others, or .mkv"
            )
        return "it is of a format that is not taken, such as a list of other files"
    return str(failure.strerror or type(failure).__name__)


def video_of(container: InputContainer, name: str) -> VideoStream:
    """The video among the streams: the first that is no cover picture, with the most pixels.

    Raises :class:`InputError` where there is none, or no decoder for it.
    """
    av = pyav()
    videos = [
        each for each in container.streams.video if not each.disposition & av.stream.Disposition.attached_pic
    ]
    if not videos:
        raise InputError(f"{name} holds no video; give a source with at least one")
    known = [each for each in videos if each.codec_context is not None]
    if not known:
        raise InputError(f"{name}: this FFmpeg has no decoder for its video; convert it to H.264 first")
    video = max(known, key=lambda each: each.width * each.height)
    video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # PyAV does not pass on the container's
    return video


class Clock:
    """Seconds since a film's begin, from what the packets of one of its streams say.

    The film begins at 0, or with its first stream where a format has no zero of its own. Such formats may also
    hold several recordings, whose clocks jump: then it goes on where it was.
    """

    def __init__(self, container: InputContainer) -> None:
        self.jumps = 0
        self._zero_based = container.format.name.split(",")[0] in ZERO_BASED
        self._origin = _origin(container, self._zero_based)
        self._moved = 0
        self._next: int | None = None

    def go_on(self, packet: Packet[Any]) -> None:
        """Moves the times of a packet, the next in the file, where its clock jumps, and of all after it."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if self._zero_based or stamp is None:
            return
        apart = (stamp + self._moved - (self._next if self._next is not None else stamp)) * packet.time_base
        if not -BACK <= apart <= AHEAD and self._next is not None:
            self._moved = self._next - stamp
            self.jumps += 1
        self._next = stamp + self._moved + (packet.duration or 0)
        packet.dts = None if packet.dts is None else packet.dts + self._moved
        packet.pts = None if packet.pts is None else packet.pts + self._moved

    def time(self, stamp: int, unit: Fraction) -> Fraction:
        """The seconds that a moved `stamp` in units of so many seconds means."""
        return stamp * unit - self._origin


def _origin(container: InputContainer, zero_based: bool) -> Fraction:
    begins = [
        each.start_time * each.time_base
        for each in (*container.streams.video, *container.streams.audio)
        if each.start_time is not None and each.time_base is not None
    ]
    first = min(begins, default=Fraction(0))
    return Fraction(0) if zero_based and 0 <= first <= LATEST_BEGIN else first
