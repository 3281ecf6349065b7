"""Talking heads: how well the mouth of a drawn face follows a sound, for speakers and faces new to the model.

All faces are drawn (``benchmarks/drawn_faces.py``), and so is the truth: the mouth follows the sound by a rule.
What is measured is how well a model finds a rule of loudness and formants from pictures, not how people speak.

The mouth opening of a generated frame is measured by drawing: of all pictures of the same face with its mouth 0 to
1 open, in steps of 1/20, and of five widths, the one whose mouth region comes nearest (the mean absolute
difference). The same measure of true frames stands beside, which says how far it can be trusted. Two rules are
measured against the truth in the model's place: a mouth that never moves, and one that opens with loudness alone,
along the line that fits the training part best. The second is told how loud the recording becomes, and smoothed as
the true mouth is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from drawn_faces import Clips
from face_drawing import MOUTH_REGION, SIZE, Face, Pose
from PIL import Image
from quality_subject import Entry, Subject
from recipes import DRAWN_FACES, Recipe
from rows import Row, above, at_least, at_most

from gensdk_training.families.talkinghead import EXPERT
from gensdk_training.losses.pairs import pair_loss
from gensdk_training.networks.talking import SyncExpert
from gensdk_training.run import load_run

OPENINGS, WIDTHS = np.linspace(0, 1, 21), np.linspace(0.1, 0.9, 5)
CORRELATION, MARGIN = 0.85, 0.05
"""The gate: the least correlation with the true opening, and by how much it must beat the rule of loudness."""
PAIRS = 64
"""Pairs of sound and mouth that the expert tells at once."""
SHOWN, FRAMES = 6, 12
"""Clips in the picture that is saved, and their frames in a row: below the true ones those of the model."""

TALKING_RECIPES: dict[str, Recipe] = {
    "drawn-faces-talkinghead": Recipe(
        "talkinghead", DRAWN_FACES, loading={"sounds": "sounds"}, inputs=DRAWN_FACES
    ),
}


def measure_talking(subject: Subject) -> Iterator[Row]:
    """The expert's loss first; then mouth openings beside both rules, and the difference of the mouth region."""
    train, test = (Clips.load(subject.drawn_faces / f"{part}.npz") for part in ("train", "test"))
    loss, right = expert_on(subject, test)
    who = f"of {' and '.join(sorted(set(test.speaker.tolist())))}, whom training did not hear; drawn faces"
    yield subject.row("sync expert, nats (ln 2 = 0.693 by guessing)", loss, at_most(0.6), f"test pairs {who}")
    yield subject.row("sync expert, share of pairs told", right, at_least(0.6), "one half by guessing")
    faces = one_still(test)
    with subject.generator() as generator:
        sounds = test.sounds.astype(np.float32) / 32768
        made = generator.sample(seed=0, image=faces, audio=sounds, output_type="uint8", progress=False).images
    save_strip(subject.run.with_name(subject.run.name + ".png"), test, made)
    found, known = opening_of(made, test), opening_of(test.images, test)
    slope, offset = np.polyfit(train.loudness, train.opening, 1)
    rule = np.clip(slope * test.loudness + offset, 0, 1)
    still = np.full(len(made), train.opening.mean())
    by_rule, by_model = correlation(rule, test.opening), correlation(found, test.opening)
    yield subject.row("mouth opening, correlation", by_model, at_least(CORRELATION), f"{len(made)} frames {who}")
    yield subject.row("mouth opening, correlation over the loudness rule's", by_model - by_rule, above(MARGIN))
    yield subject.row("mouth opening, correlation of the loudness rule", by_rule)
    yield subject.row("mouth opening, correlation measured of true frames", correlation(known, test.opening))
    for name in sorted(set(test.speaker.tolist())):
        at = test.speaker == name
        detail = f"loudness rule {correlation(rule[at], test.opening[at]):.3f}"
        yield subject.row(
            f"mouth opening, correlation, {name}", correlation(found[at], test.opening[at]), None, detail
        )
    errors = [float(np.abs(each - test.opening).mean()) for each in (found, rule, still, known)]
    beside = "loudness rule {:.3f}, constant mouth {:.3f}, measured of true frames {:.3f}".format(*errors[1:])
    yield subject.row("mouth opening, mean absolute error", errors[0], at_most(min(errors[1:3])), beside)
    differences = [region_difference(each, test.images) for each in (made, faces)]
    told = f"still face {differences[1]:.4f}"
    yield subject.row("mouth region, mean absolute difference", differences[0], at_most(differences[1]), told)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, of all frames together; 0 for what never changes."""
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 else 0.0


def one_still(test: Clips) -> np.ndarray:
    """For each frame the same still face of its clip: one that was chosen at random, its mouth open or closed."""
    _, first, clip = np.unique(test.clip, return_index=True, return_inverse=True)
    stills: np.ndarray = test.stills[first[clip.reshape(-1)]]
    return stills


def expert_on(subject: Subject, test: Clips) -> tuple[float, float]:
    """The sync expert's loss and the share of pairs that it tells right, of the test in a random order."""
    expert = load_run(subject.run).networks[EXPERT].eval()
    if not isinstance(expert, SyncExpert):
        raise TypeError("a talking head has a sync expert")
    order = np.random.default_rng(0).permutation(len(test.images))
    found = []
    with torch.no_grad():
        for start in range(0, len(order) - PAIRS + 1, PAIRS):
            at = order[start : start + PAIRS]
            images = torch.from_numpy(test.images[at]).permute(0, 3, 1, 2).float() / 127.5 - 1
            sounds = torch.from_numpy(test.sounds[at].astype(np.float32) / 32768)
            found.append([float(value) for value in pair_loss(expert(expert.listener.log_mel(sounds), images))])
    loss, right = np.mean(found, axis=0)
    return float(loss), float(right)


def opening_of(images: np.ndarray, clips: Clips) -> np.ndarray:
    """How far mouths are open, float [N], in pictures uint8 [N, 64, 64, 3] of the faces of `clips`."""
    found = np.zeros(len(images))
    for clip in np.unique(clips.clip).tolist():
        seed = int(clips.seed[0]) + clip
        face, pose = Face.of(seed), Pose.of(seed)
        drawn = np.stack([mouth_region(face.draw(pose, high, wide)) for high in OPENINGS for wide in WIDTHS])
        for at in np.flatnonzero(clips.clip == clip).tolist():
            apart = np.abs(drawn.astype(np.int16) - mouth_region(images[at])).mean(axis=(1, 2, 3))
            found[at] = OPENINGS[int(apart.argmin()) // len(WIDTHS)]
    return found


def mouth_region(images: np.ndarray) -> np.ndarray:
    """What a mouth and a jaw change of pictures [..., 64, 64, 3]."""
    top, bottom, left, right = (round(SIZE * share) for share in MOUTH_REGION)
    return images[..., top:bottom, left:right, :]


def region_difference(images: np.ndarray, truth: np.ndarray) -> float:
    """Of mouth regions, in [0, 1]."""
    return float(np.abs(mouth_region(images).astype(np.int16) - mouth_region(truth)).mean() / 255)


def save_strip(path: Path, test: Clips, made: np.ndarray) -> None:
    """True frames of some clips, below each row those of the model, from the same still face, first in the row."""
    rows = []
    for clip in np.unique(test.clip)[:: max(1, len(np.unique(test.clip)) // SHOWN)][:SHOWN].tolist():
        at = np.flatnonzero(test.clip == clip)[:FRAMES]
        at = np.concatenate([at, np.repeat(at[-1:], FRAMES - len(at))])
        for images in (test.images, made):
            rows.append(np.concatenate([test.stills[at[0]], *images[at]], axis=1))
    picture = np.concatenate(rows)
    Image.fromarray(picture).resize((2 * picture.shape[1], 2 * picture.shape[0]), Image.Resampling.NEAREST).save(
        path
    )


ENTRIES = {name: Entry(recipe, measure_talking, (0, 1, 2)) for name, recipe in TALKING_RECIPES.items()}
