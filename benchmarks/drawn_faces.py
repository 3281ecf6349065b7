"""Drawn faces that say spoken digits, for ``gensdk train talkinghead``: no footage is needed, and none is here.

    python benchmarks/drawn_faces.py fsdd.tar.gz drawn

writes drawn/train.npz and drawn/test.npz. Each clip is one recording of the Free Spoken Digit Dataset and one
face, drawn with :class:`Face`; speakers and faces of the test are none of the training's. The mouth follows the
sound by rules that :func:`mouth_of` states. All figures that are measured with it are of drawn faces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import click
import numpy as np
from face_drawing import SIZE, Face, Pose
from mouth_rules import mouth_of

from gensdk_runtime.media.sound_windows import check_fps, sound_windows
from gensdk_training.data.load import load_data
from gensdk_training.data.sound_set import SoundDataset

FPS = 25
SECONDS = 0.32
"""Of the window of sound around a frame."""
REST = 0.1
"""Seconds of silence that each clip has before and behind its word, in which the mouth closes."""
TEST_SPEAKERS = ("theo", "yweweler")
CHOOSING_SPEAKERS = ("lucas",)
"""Whose recordings stand in place of the test's while settings are chosen; those of the test are not looked at."""
TAKES = {"train": 25, "test": 10}
"""Of each digit of each speaker."""
_SEEDS = {"train": 0, "test": 1_000_000}
"""Faces and poses of clips are drawn from these on."""


@dataclass(frozen=True)
class Clips:
    """Frames of clips, one after the other.

    `images` uint8 [N, 64, 64, 3]; `stills`: of each the same head at rest or at another moment; `sounds` int16 [N,
    samples] at `sample_rate`, the window around each. `opening` and `width` float32 [N] in [0, 1], what the mouth
    was drawn with; `loudness` float32 [N], in dB below the loudest moment of the recording, smoothed as the mouth
    is. `clip` int64 [N], of which `speaker` is told; clip c has the face and the pose of seed ``seed + c``.
    """

    images: np.ndarray
    stills: np.ndarray
    sounds: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    loudness: np.ndarray
    clip: np.ndarray
    speaker: np.ndarray
    sample_rate: np.ndarray
    seed: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Clips:
        """What :func:`prepare` wrote."""
        with np.load(path, allow_pickle=False) as data:
            return cls(**{field.name: data[field.name] for field in fields(cls)})


def recordings(archive: Path, speakers: Sequence[str] | None, takes: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """(speaker, samples float32 at a peak of 0.9, Hz) of the first takes of each digit; `speakers` None: all that
    are not of the test. Official test takes are read too: speakers, not takes, are what is unheard here."""
    for split in ("train", "test"):
        data = load_data(f"fsdd:{archive}", split=split)
        assert isinstance(data, SoundDataset)
        rate = data.info.require_audio().sample_rate
        for key, sound in zip(data.keys or (), data.sounds, strict=True):
            _, speaker, take = key.split("_")
            wanted = speaker not in TEST_SPEAKERS if speakers is None else speaker in speakers
            if wanted and int(take) < takes:
                yield speaker, 0.9 * sound[:, 0] / max(1e-3, float(np.abs(sound).max())), rate


def clips(found: Sequence[tuple[str, np.ndarray, int]], seed: int) -> Clips:
    """Draws all clips."""
    rows: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Clips)}
    for number, (speaker, sound, rate) in enumerate(found):
        rest = np.zeros(round(REST * rate), np.float32)
        heard = np.concatenate([rest, sound, rest]).astype(np.float32)
        windows = sound_windows(heard, rate=rate, fps=FPS, size=round(SECONDS * rate))
        times = (np.arange(len(windows)) + 0.5) / float(check_fps(FPS))
        mouth = mouth_of(heard, rate).at(times)
        face, pose = Face.of(seed + number), Pose.of(seed + number)
        images = np.stack([face.draw(pose, *each) for each in zip(mouth.opening, mouth.width, strict=True)])
        drawn = np.random.Generator(np.random.Philox(key=[seed + number, 9]))
        others = images[drawn.permutation(len(images))]
        count = len(images)
        made = {
            "images": images,
            "stills": others,
            "sounds": np.rint(windows * 32767).astype(np.int16),
            "opening": mouth.opening,
            "width": mouth.width,
            "loudness": mouth.loudness,
            "clip": np.full(count, number),
            "speaker": np.full(count, speaker),
        }
        for name, values in made.items():
            rows[name].append(values)
    rows |= {"sample_rate": [np.array([found[0][2]])], "seed": [np.array([seed])]}
    return Clips(**{name: np.concatenate(values) for name, values in rows.items()})


def prepare(archive: Path, out: Path, *, choosing: bool = False) -> dict[str, Clips]:
    """Writes both parts into the folder `out`, and gives them."""
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Clips] = {}
    unheard = CHOOSING_SPEAKERS if choosing else TEST_SPEAKERS
    for part, takes in TAKES.items():
        found = list(recordings(archive, unheard if part == "test" else None, takes))
        kept = [each for each in found if part == "test" or each[0] not in unheard]
        parts[part] = clips(kept, _SEEDS[part])
        arrays = {field.name: getattr(parts[part], field.name) for field in fields(Clips)}
        np.savez_compressed(out / f"{part}.npz", allow_pickle=False, **arrays)
    return parts


@click.command(help=__doc__)
@click.argument("archive", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--choosing", is_flag=True, help="Another speaker in place of the test's, to choose settings by.")
def main(archive: Path, out: Path, *, choosing: bool) -> None:
    """Writes OUT/train.npz and OUT/test.npz."""
    for part, made in prepare(archive, out, choosing=choosing).items():
        speakers = ", ".join(sorted(set(made.speaker.tolist())))
        click.echo(f"{out / part}.npz: {len(made.images)} frames of {SIZE} x {SIZE}, said by {speakers}")


if __name__ == "__main__":
    main()
