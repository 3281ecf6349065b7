"""Images from sounds: of how many spoken digits that training never heard a classifier reads the right digit.

The sounds are the official test takes of the Free Spoken Digit Dataset; and, harder, all takes of a speaker whom
training never heard. The classifier is trained on real images of MNIST, whose test images it is tried on beside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from quality_subject import Entry, Subject, against, sample_and_judge
from recipes import SPOKEN_DIGITS, Recipe
from rows import Row, at_least
from spoken_digits import part

RIGHT = 0.9
"""Share of the official test takes; the gate."""
UNHEARD = "theo"
PICTURES = 8
"""Of each digit in the picture that is saved."""

HEARD_RECIPES: dict[str, Recipe] = {
    "mnist-sound2image": Recipe("sound2image", "mnist", inputs=SPOKEN_DIGITS, loading={"seconds": 1.0}),
    f"mnist-sound2image-without-{UNHEARD}": Recipe(
        "sound2image", "mnist", inputs=SPOKEN_DIGITS, loading={"seconds": 1.0, "unheard": UNHEARD}
    ),
}


def measure_heard(subject: Subject) -> Iterator[Row]:
    """The share of right digits, all together and of each speaker; the same of real images; and the distance of
    samples. Digits in turn, each from sounds of the test, are saved as a picture."""
    data = subject.config.data
    unheard, source = data.unheard, str(data.inputs)
    splits = ("test",) if unheard is None else ("train", "test")
    found = [part(source, split, "digit") for split in splits]
    names = [key.split("_") for sounds in found for key in sounds.keys or ()]
    chosen = [at for at, (_, speaker, _) in enumerate(names) if unheard in (None, speaker)]
    heard = [sound[:, 0] for sounds in found for sound in sounds.sounds]
    audio = ([heard[at] for at in chosen], found[0].info.require_audio().sample_rate)
    digits = np.array([int(names[at][0]) for at in chosen])
    speakers = np.array([names[at][1] for at in chosen])
    judge = subject.judge
    with subject.generator() as generator:
        images = generator.sample(seed=0, audio=audio, progress=False).images
        shown = np.concatenate([np.flatnonzero(digits == digit)[:PICTURES] for digit in range(10)])
        pictured = ([audio[0][at] for at in shown.tolist()], audio[1])
        picture = generator.sample(seed=1, audio=pictured, progress=False)
        picture.save(subject.run.with_name(subject.run.name + ".png"), layout="grid", columns=PICTURES)
        report = sample_and_judge(subject, generator)
    right = judge.classifier.predict(images) == digits
    each = ", ".join(f"{name} {right[speakers == name].mean():.3f}" for name in sorted(set(speakers.tolist())))
    gate = at_least(RIGHT) if unheard is None else None
    yield subject.row("right digit, share of test sounds", right.mean(), gate, f"{len(right)} sounds: {each}")
    yield subject.row("right digit, share of real test images", judge.classifier_accuracy)
    yield subject.row("classifier-FID", report.fid, detail=f"floor {report.floor:.3g}; {against(report)}")


ENTRIES = {
    name: Entry(recipe, measure_heard, (0,) if "unheard" in recipe.loading else (0, 1, 2))
    for name, recipe in HEARD_RECIPES.items()
}
