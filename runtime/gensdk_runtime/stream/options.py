"""The options of a stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gensdk_runtime.arguments import check_callback, check_flag, check_number, check_path, check_whole
from gensdk_runtime.conditions.given_images import check_size
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.media.sound_windows import check_fps
from gensdk_runtime.media.sounds import Sound
from gensdk_runtime.stream.figures import StreamFigures

MAX_SECONDS = 100_000_000
"""Three years: what no stream needs, and every clock can wait for."""


@dataclass(frozen=True)
class StreamOptions:
    """How :func:`gensdk_runtime.stream.translate_stream` goes about it.

    - `label`: the class, for a model with classes; `tile`: as in :meth:`Generator.translate`.
    - `audio`: for a model that makes a still face talk, what it says: a .wav or .flac file, or a
      :class:`gensdk_runtime.media.sounds.Sound`; `fps`: frames of its film in a second, 25 by default. With `live`
      the sound comes at its own speed, as from a microphone.
    - `size`: (height, width) that frames are resized to before they are translated; None leaves them.
    - `side_by_side`: the view shows the source, enlarged to the result's size, left of the result.
    - `mix`: the source's share in the view, 0 (the result alone) to 1.
    - `skip_similar`: where no part of a frame (a sixteenth of its height and width) differs by more grey levels,
      0 to 255, on average, from the last one that was translated, that one's result is taken. None: never.
    - `live`: True drops frames that there is no time for, so that what is shown is always fresh; a file then
      plays at its own speed. False keeps every frame. None: True for cameras and network streams.
    - `max_frames` and `max_seconds` end the stream.
    - `stall_seconds`: a live source that gives no frame for so long counts as lost. It is then opened again, with
      pauses that double, `reconnects` times in a row before the stream ends with an error.
    - `on_second` is called with the figures of each second that passed, `on_event` with a line of text where a
      frame is corrupt or a source lost or back; the latter from several threads.

    Raises :class:`InputError` for values out of range.
    """

    label: int | str | None = None
    tile: int | None = None
    audio: str | Path | Sound | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    side_by_side: bool = False
    mix: float = 0.0
    skip_similar: float | None = None
    live: bool | None = None
    max_frames: int | None = None
    max_seconds: float | None = None
    stall_seconds: float = 10.0
    reconnects: int = 5
    on_second: Callable[[StreamFigures], None] | None = None
    on_event: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        check_number(self.mix, "mix", least=0, most=1)
        check_number(self.stall_seconds, "stall_seconds", least=0.05, most=3600)
        check_whole(self.reconnects, "reconnects", least=0, most=1_000_000)
        check_flag(self.side_by_side, "side_by_side")
        check_callback(self.on_second, "on_second")
        check_callback(self.on_event, "on_event")
        if self.live is not None:
            check_flag(self.live, "live")
        if self.tile is not None:
            check_whole(self.tile, "tile", least=0, most=MAX_SIDE)
        if self.skip_similar is not None:
            check_number(self.skip_similar, "skip_similar", least=0, most=255)
        if self.max_frames is not None:
            check_whole(self.max_frames, "max_frames", least=1, most=2**31 - 1)
        if self.max_seconds is not None and not check_number(
            self.max_seconds, "max_seconds", least=0, most=MAX_SECONDS
        ):
            raise InputError("expected max_seconds above 0, got 0; None is for no limit")
        object.__setattr__(self, "size", check_size(self.size, "size"))
        self._check_audio()

    def _check_audio(self) -> None:
        """What goes with a sound, and what does not."""
        if self.audio is None:
            if self.fps is not None:
                raise InputError("fps is for the film of a talking face; pass audio too, or leave fps out")
            return
        given: object = self.audio  # callers without a type checker pass anything
        if not isinstance(given, Sound | str | os.PathLike):
            kind = type(given).__name__
            raise InputError(f"expected audio as a Sound, or as the path of a .wav or .flac file, got {kind}")
        if not isinstance(given, Sound):
            check_path(given, "audio")
        if self.fps is not None:
            check_fps(self.fps)
        for name in ("size", "tile", "skip_similar"):
            if getattr(self, name) is not None:
                raise InputError(f"{name} is for moving pictures, and a talking face is a still one; leave it out")
