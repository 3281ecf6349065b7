"""The sound of a film, taken over from its source: copied as it is where the new file can hold it, else encoded
anew."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.video.containers import Clock, open_file, open_wav, pyav
from gensdk_runtime.media.video.film_formats import FilmFormat

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

AAC_RATES = (7350, 8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
"""Hz: of ISO/IEC 14496-3, table 1.18, the only ones that it knows."""
BIT_RATES = {"aac": 192_000, "libopus": 128_000, "opus": 128_000, "libmp3lame": 192_000}


class _Track:
    """One stream of sound, from the source's to the film's."""

    def __init__(self, source: AudioStream, target: AudioStream, clock: Clock, *, encoded: bool) -> None:
        self.source, self.target, self.clock = source, target, clock
        self._resampler: Any = None
        self._encodes = encoded

    def packets(self, packet: Packet[Any] | None) -> Iterator[Packet[Any]]:
        """What goes into the film for a packet of the source, whose times are the film's; for None what is
        left."""
        if not self._encodes:
            if packet is not None:
                packet.stream = self.target
                yield packet
            return
        av = pyav()
        try:
            frames = self.source.codec_context.decode(packet)
        except (av.error.FFmpegError, EOFError):
            return  # a click in the sound; the next packet carries its own time
        for frame in frames:
            for ready in self._resampled(frame):
                yield from self.target.encode(ready)
        if packet is None:
            for ready in self._resampled(None):
                yield from self.target.encode(ready)
            yield from self.target.encode(None)

    def _resampled(self, frame: Any) -> Any:
        if self._resampler is None:
            if frame is None:
                return []
            codec = self.target.codec_context
            self._resampler = pyav().AudioResampler(
                format=codec.format, layout=codec.layout, rate=codec.sample_rate, frame_size=codec.frame_size
            )
        return self._resampler.resample(frame)


class Sound:
    """The streams of sound of the video at `path`, or of a WAV file's bytes, added to `film` before its first
    packet is written.

    `remarks` says what could not be copied.
    """

    def __init__(self, path: Path | bytes, film: OutputContainer, kind: FilmFormat) -> None:
        self.remarks: list[str] = []
        self._tracks: dict[int, _Track] = {}
        self._waiting: tuple[Fraction, Packet[Any]] | None = None
        self._source = open_wav(path) if isinstance(path, bytes) else open_file(path)
        try:
            for stream in self._source.streams.audio:
                self._add(stream, film, kind)
            self._packets = self._demuxed(self._source)
        except BaseException:
            self._source.close()
            raise

    def until(self, seconds: Fraction | None) -> Iterator[Packet[Any]]:
        """The packets that begin before that time and have not come yet; all that are left for None."""
        while (timed := self._waiting or next(self._packets, None)) is not None:
            self._waiting = timed
            begin, packet = timed
            if seconds is not None and begin >= seconds:
                return
            self._waiting = None
            yield from self._tracks[packet.stream_index].packets(packet)

    def rest(self) -> Iterator[Packet[Any]]:
        """What encoders hold back; the last of all."""
        for track in self._tracks.values():
            yield from track.packets(None)

    def close(self) -> None:
        """Frees the source."""
        self._source.close()

    def _demuxed(self, source: InputContainer) -> Iterator[tuple[Fraction, Packet[Any]]]:
        """Packets and when they begin, in seconds from 0 on: an earlier one only readies the decoder, and would
        delay the film."""
        if not self._tracks:
            return
        packets = source.demux(*(track.source for track in self._tracks.values()))
        while True:
            try:
                packet = next(packets, None)
            except pyav().error.FFmpegError:
                return
            if packet is None:
                return
            if packet.size and packet.pts is not None:
                clock = self._tracks[packet.stream_index].clock
                clock.go_on(packet)
                time = clock.time(packet.pts, packet.time_base)
                packet.pts = packet.dts = ticks = round(time / packet.time_base)  # decoded when it is played
                if time >= 0:
                    yield ticks * packet.time_base, packet

    def _add(self, stream: AudioStream, film: OutputContainer, kind: FilmFormat) -> None:
        codec: Any = stream.codec_context
        if codec is None:
            self.remarks.append("sound of an unknown kind is left out")
            return
        name = codec.codec.canonical_name
        if kind.copied is None or name in kind.copied:
            try:
                self._tracks[stream.index] = _Track(
                    stream, film.add_stream_from_template(stream), Clock(self._source), encoded=False
                )
                return
            except ValueError:
                pass  # the container does not hold it after all
        for encoder in kind.sound:
            try:
                target: Any = film.add_stream(encoder, rate=_rate(encoder, codec.sample_rate))
            except (ValueError, pyav().error.FFmpegError):
                continue
            target.layout = "mono" if codec.layout.nb_channels == 1 else "stereo"  # a WAV file names none
            target.bit_rate = BIT_RATES.get(encoder, 0)
            self._tracks[stream.index] = _Track(stream, target, Clock(self._source), encoded=True)
            self.remarks.append(
                f"sound is encoded anew, from {name} to {target.codec_context.codec.canonical_name}"
            )
            return
        self.remarks.append(f"sound ({name}) is left out: {kind.container} holds none of it")


def _rate(encoder: str, rate: int) -> int:
    """The sample rate that an encoder takes, next to the source's."""
    if encoder in ("libopus", "opus"):
        return 48_000
    if encoder == "libmp3lame":
        return rate if rate in (32_000, 44_100, 48_000) else 44_100
    if encoder == "aac":
        return next((known for known in AAC_RATES if known >= rate), AAC_RATES[-1])
    return rate


def sound_of(path: Path | bytes | None, film: OutputContainer, kind: FilmFormat) -> Sound | None:
    """The sound of the video at `path`, or in the bytes of a WAV file; None where there is no such file any
    more."""
    if path is None:
        return None
    try:
        return Sound(path, film, kind)
    except InputError:
        return None
