"""A still face and a sound as a source of frames: the face again and again, and what is heard around each
frame."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gensdk_runtime.arguments import check_path
from gensdk_runtime.conditions.audio import face_and_window, talks
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.audio_files import read_audio
from gensdk_runtime.media.image_pixels import fit_size
from gensdk_runtime.media.sound_windows import check_fps, frame_count, window_of
from gensdk_runtime.media.sounds import Float32, Sound
from gensdk_runtime.media.video.film_formats import FILMS
from gensdk_runtime.spec.audio import AudioConditionSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.stream.frame import FileFacts, Presentation, Uint8
from gensdk_runtime.stream.options import StreamOptions
from gensdk_runtime.stream.places import open_source
from gensdk_runtime.stream.sink import Sink
from gensdk_runtime.stream.source import Capture, CorruptFrameError, ImageSource, Source, check_frame

DEFAULT_FPS = 25.0
Spoken = str | Path | Sound


class TalkingFace(Source):
    """The frames of a film in which a face says a sound.

    `face`: an image file, an :class:`ImageSource` of one, or uint8 [H, W, 3] in RGB; one of another size than the
    model's is cut to its shape from the centre, resized, and told. `audio`: a .wav or .flac file, or a
    :class:`Sound`; it is resampled for the model, and goes into the film as it is. `fps`: frames per second.
    `told`: what is said of it beside what it finds itself.

    A frame's window reaches beyond its moment, for which a microphone has to be waited for: of frames in real time
    that counts for their age.
    """

    def __init__(
        self, face: Any, audio: Spoken, model: ModelSpec, *, fps: float = DEFAULT_FPS, told: Iterable[str] = ()
    ) -> None:
        self._told = tuple(told)
        self.fps = check_fps(fps)
        self.model = model
        self._audio = audio
        self._face: Source | Uint8
        if isinstance(face, np.ndarray):
            self._face, self.name, self.path = check_frame(face, "face"), "face", None
        else:
            self._face = open_source(face)
            self.name, self.path = self._face.name, getattr(self._face, "path", None)

    def open(self) -> Capture:
        """Reads both. Raises :class:`InputError` for a face that is no still image, and for a sound that can't be
        read."""
        _, spec = face_and_window(self.model)
        sound = self._audio if isinstance(self._audio, Sound) else read_audio(check_path(self._audio, "audio"))
        if np.ndim(sound.samples) != 2 or not np.size(sound.samples):
            raise InputError(
                f"expected a sound [samples, channels] of one sample or more, got {list(np.shape(sound.samples))}"
            )
        made, told = sound.in_form(sample_rate=spec.sample_rate, channels=1)
        remarks = [*self._told, *(f"{self.spoken}: {each}" for each in told)]
        face = self._fitted(self._still(), remarks)
        facts = FileFacts(time_base=1 / self.fps, rate=self.fps, grid=self.fps, sound=sound)
        return _TalkingCapture(face, made.samples[:, 0], spec, facts, remarks=remarks)

    @property
    def spoken(self) -> str:
        """What the sound is called in messages."""
        return "the sound" if isinstance(self._audio, Sound) else str(self._audio)

    def _still(self) -> Uint8:
        if isinstance(self._face, np.ndarray):
            return self._face
        if not isinstance(self._face, ImageSource):
            raise InputError(f"expected a still face as an image file, got {self.name}; a video moves by itself")
        capture = self._face.open()
        try:
            if capture.frames != 1:
                raise InputError(f"expected one still face, got {capture.frames} images in {self.name}")
            image = capture.read()
        except CorruptFrameError as failure:
            raise InputError(str(failure)) from None
        finally:
            capture.close()
        if image is None:
            raise InputError(f"{self.name} holds no image; give a still face")
        return image

    def _fitted(self, face: Uint8, remarks: list[str]) -> Uint8:
        source, _ = face_and_window(self.model)
        size = (source.height, source.width)
        if face.shape[:2] != size:
            have, want = (f"{width} x {height}" for height, width in (face.shape[:2], size))
            remarks.append(f"{self.name}: {have} pixels were brought to {want}, which the model takes alone")
        return fit_size(face, size, "crop")


class _TalkingCapture(Capture):
    def __init__(
        self,
        face: Uint8,
        sound: Float32,
        spec: AudioConditionSpec,
        facts: FileFacts,
        *,
        remarks: list[str],
    ) -> None:
        self._face, self._sound, self._spec = face, sound, spec
        self._rate = facts.rate or Fraction(DEFAULT_FPS)
        self._remarks, self._next = remarks, 0
        self.fps = float(self._rate)
        self.frames = frame_count(len(sound), spec.sample_rate, self._rate)
        self.file = facts
        self.lag = spec.seconds / 2

    def read(self) -> Uint8 | None:
        if self._next >= self.frames:
            return None
        spec, frame = self._spec, self._next
        self.heard = window_of(self._sound, frame, rate=spec.sample_rate, fps=self._rate, size=spec.samples)
        self.presentation = Presentation(frame / self._rate, 1 / self._rate)
        self._next += 1
        return self._face.copy()

    def take_remarks(self) -> list[str]:
        taken, self._remarks = self._remarks, []
        return taken


def source_with_sound(
    source: Any, sinks: Iterable[Sink], model: ModelSpec, options: StreamOptions
) -> TalkingFace | None:
    """The talking face that `options` ask for; None where they have no audio, and the model needs none.

    Raises :class:`InputError` where only one of both is there, and for a film that can't hold the sound.
    """
    if options.audio is None:
        if talks(model):
            raise InputError(f"model {model.name!r} makes a face talk: pass audio too (--audio speech.wav)")
        return None
    face_and_window(model)
    silent = []
    for sink in sinks:
        path = getattr(sink, "path", None)
        if not isinstance(path, Path):
            continue
        kind = FILMS.get(path.suffix.lower())
        if kind is None:
            silent.append(f"{path} takes the frames without the sound; .mp4, .webm and .mkv hold both")
        elif not kind.sound:
            raise InputError(f"{path}: a {path.suffix.lower()} holds no sound; write .mp4, .webm or .mkv")
    return TalkingFace(source, options.audio, model, fps=options.fps or DEFAULT_FPS, told=silent)
