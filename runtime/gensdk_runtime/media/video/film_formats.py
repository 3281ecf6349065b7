"""The kinds of video file that can be written, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.media.video.containers import pyav


@dataclass(frozen=True)
class VideoCodec:
    """An encoder of FFmpeg's, its pixel format, and its options for a film that waits, and for one that can't."""

    name: str
    pixels: str
    options: Mapping[str, str]
    live: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FilmFormat:
    """A container: its name in FFmpeg, what may encode its video (the first that this FFmpeg has), and its sound.

    `copied`: kinds of sound that stay as they are; None: all. `sound`: what encodes the others. `times`: frames
    keep theirs, else they stand in a grid of the frame rate. `aspect`: it keeps the shape of pixels.
    """

    container: str
    codecs: tuple[VideoCodec, ...]
    copied: frozenset[str] | None = frozenset()
    sound: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    times: bool = True
    aspect: bool = True

    def codec(self) -> VideoCodec:
        """The first that is there; :class:`UnavailableError` for none."""
        av = pyav()
        for each in self.codecs:
            try:
                av.Codec(each.name, "w")
            except (av.error.FFmpegError, ValueError):
                continue
            return each
        names = ", ".join(each.name for each in self.codecs)
        raise UnavailableError(f"this PyAV has no encoder {names}: pip install --force-reinstall av")


# Constant quality, at which differences are hard to see; the faster presets make larger files, not worse ones.
H264 = (
    VideoCodec(
        "libx264",
        "yuv420p",
        {"preset": "superfast", "crf": "20"},
        {"preset": "ultrafast", "crf": "21", "tune": "zerolatency"},
    ),
    VideoCodec("libopenh264", "yuv420p", {"allow_skip_frames": "0"}),
    VideoCodec("mpeg4", "yuv420p", {"qmin": "2", "qmax": "5"}),
)
VP9 = (
    VideoCodec(
        "libvpx-vp9",
        "yuv420p",
        {"deadline": "good", "cpu-used": "5", "row-mt": "1", "crf": "28", "b": "0"},
        {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "32", "b": "0"},
    ),
)
MJPEG = (VideoCodec("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "3"}),)
GIF = (VideoCodec("gif", "pal8", {}),)

_MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_FASTSTART = {"movflags": "+faststart"}
"""The index stands first, so that a browser plays a film before it has all of it."""
_CLUSTERS = {"cluster_time_limit": "1000"}
"""Milliseconds of packets that are written at once: so much may be lost where the disk is full."""

FILMS = {
    ".mp4": FilmFormat("mp4", H264, _MP4_SOUND, ("aac",), _FASTSTART),
    ".m4v": FilmFormat("mp4", H264, _MP4_SOUND, ("aac",), _FASTSTART),
    ".mov": FilmFormat("mov", H264, _MP4_SOUND - {"opus", "flac"} | {"pcm_s16le"}, ("aac",), _FASTSTART),
    ".mkv": FilmFormat("matroska", H264, None, ("aac",), _CLUSTERS),
    ".webm": FilmFormat("webm", VP9, frozenset({"opus", "vorbis"}), ("libopus", "opus"), _CLUSTERS, aspect=False),
    ".avi": FilmFormat(
        "avi",
        MJPEG,
        frozenset({"mp3", "ac3", "pcm_s16le"}),
        ("libmp3lame", "pcm_s16le"),
        times=False,
        aspect=False,
    ),
    ".gif": FilmFormat("gif", GIF, aspect=False),
}
"""By suffix. .mp4, .m4v and .mov hold H.264, which browsers and phones play; .webm VP9; .avi motion JPEG."""


def film_format(suffix: str) -> FilmFormat:
    """That of a file's suffix; :class:`InputError` for another one."""
    try:
        return FILMS[suffix.lower()]
    except KeyError:
        raise InputError(f"can't write videos as {suffix or 'that'}; use one of {', '.join(FILMS)}") from None
