"""Samples as frames: a GIF or a video, complete or not there."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np

from gensdk_runtime.arguments import check_whole
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.atomic import put_in_place, sibling
from gensdk_runtime.media.gif import MAX_SIDE, encode_gif
from gensdk_runtime.media.images import GRID_CELL, Uint8, write_atomically

VIDEOS = (".mp4", ".avi")
SUFFIXES = (".gif", *VIDEOS)
MIN_FPS, MAX_FPS = 0.01, 120.0
"""A GIF can show a frame for eleven minutes at most."""
MAX_PIXELS = 2**28
"""Of all frames together."""


def save_animation(images: Uint8, path: str | Path, *, fps: float = 12.0, scale: int | None = None) -> Path:
    """Writes `images` [n, H, W, C] as the frames of a ``.gif``, which plays for ever, or an ``.mp4`` or ``.avi``.

    `fps` frames a second, from 0.01 to 120; a GIF shows 50 at most. `scale` enlarges each pixel so many
    times; None: to 48 pixels a side at least. Raises :class:`InputError` for another suffix, for images that are
    neither grey nor RGB, for too many pixels, and where the disk refuses; then what stood at `path` stays.
    """
    target = Path(path)
    check_animation(target, fps)
    if images.ndim != 4 or not images.size or images.shape[3] not in (1, 3):
        raise InputError(f"expected frames uint8 [n, H, W, 1 or 3], got {list(images.shape)}; save as .npz")
    least = max(1, ceil(GRID_CELL / min(images.shape[1:3])))
    scale = least if scale is None else check_whole(scale, "scale", least=1, most=MAX_SIDE)
    pixels = len(images) * scale**2 * images.shape[1] * images.shape[2]
    if pixels > MAX_PIXELS or scale * max(images.shape[1:3]) > MAX_SIDE:
        raise InputError(f"expected at most {MAX_PIXELS:,} pixels in all frames, got {pixels:,}; lower scale or n")
    frames = images.repeat(scale, axis=1).repeat(scale, axis=2)
    if target.suffix.lower() in VIDEOS:
        _write_video(frames, target, fps)
    else:
        write_atomically(target, encode_gif(frames, fps=fps))
    return target


def check_animation(target: Path, fps: float) -> None:
    """Raises :class:`InputError` for a suffix or frame rate that can't be written; ask before drawing for long."""
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"can't write {target.suffix or 'that'} as frames; use one of {', '.join(SUFFIXES)}")
    if not MIN_FPS <= fps <= MAX_FPS:  # NaN neither
        raise InputError(f"expected fps from {MIN_FPS:g} to {MAX_FPS:g}, got {fps}")


def _write_video(frames: Uint8, target: Path, fps: float) -> None:
    """Through the sink of streams, into a folder beside the target: stopped half-way, nothing of it is left."""
    from gensdk_runtime.stream.frame import StreamFacts, TranslatedFrame
    from gensdk_runtime.stream.video_sink import VideoSink

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with sibling(target.absolute(), folder=True) as folder:
            finished = folder / f"frames{target.suffix.lower()}"
            sink = VideoSink(finished, fps=fps, partial=False)
            try:
                sink.open(StreamFacts(model="", source="", live=False, fps=fps, frames=len(frames)))
                for index, frame in enumerate(frames):
                    view = np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))
                    sink.write(TranslatedFrame(index, index / fps, view, view, view, False, 0.0, 0.0))
            finally:
                sink.close()
            put_in_place(finished, target.absolute())
    except OSError as failure:
        raise InputError(f"can't write {target}: {failure.strerror or failure}") from None
