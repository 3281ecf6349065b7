"""Faces drawn from a few numbers, with a mouth that opens and widens; for models that must be told what is
true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE, FINER = 64, 4
"""Pixels a side, and how much larger a picture is drawn before it is averaged down: edges are smooth."""
MOUTH_REGION = (0.55, 0.98, 0.22, 0.78)
"""(top, bottom, left, right) as shares of the sides: all that a mouth and a jaw change, in any pose."""
INSIDE, TEETH, TONGUE = (58, 16, 22), (244, 240, 232), (176, 72, 80)

Colour = tuple[int, int, int]
Points = np.ndarray
Fill = Callable[[Points, Colour], None]


@dataclass(frozen=True)
class Pose:
    """How a head is held: moved by `right` and `down` (shares of the side), turned by `tilt` radians, `scale`
    times as large. It holds still while it speaks."""

    right: float = 0.0
    down: float = 0.0
    tilt: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, seed: int) -> Pose:
        """The pose of a seed."""
        right, down, tilt, scale = np.random.Generator(np.random.Philox(key=[seed, 1])).uniform(-1, 1, 4)
        return cls(0.03 * right, 0.025 * down, 0.09 * tilt, 1 + 0.05 * scale)

    def place(self, points: Points) -> list[tuple[float, float]]:
        """Points [n, 2], (x, y) in [-1, 1] of a head held straight, in pixels of the finer picture."""
        turn = np.array([[np.cos(self.tilt), np.sin(self.tilt)], [-np.sin(self.tilt), np.cos(self.tilt)]])
        moved = (points * self.scale) @ turn / 2 + 0.5 + np.array([self.right, self.down])
        return [(float(x), float(y)) for x, y in moved * SIZE * FINER]


@dataclass(frozen=True)
class Face:
    """One person, in colours and sizes."""

    skin: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    ground: Colour
    shirt: Colour
    wide: float
    long: float
    apart: float
    eye: float
    brow: float
    nose: float
    mouth: float
    lip: float
    style: int
    glasses: bool

    @classmethod
    def of(cls, seed: int) -> Face:
        """The face of a seed."""
        drawn = np.random.Generator(np.random.Philox(key=[seed, 0]))
        tone = drawn.uniform(0, 1)
        skin = np.array([255, 224, 196]) * (1 - tone) + np.array([112, 72, 50]) * tone + drawn.uniform(-10, 10, 3)
        hair = HAIR[drawn.integers(len(HAIR))] + drawn.uniform(-14, 14, 3)
        red = np.array([skin[0] * 0.86, skin[1] * 0.55, skin[2] * 0.58]) + drawn.uniform(-14, 14, 3)
        sizes = drawn.uniform(0, 1, 8)
        return cls(
            skin=_colour(skin),
            hair=_colour(hair),
            eyes=_colour(EYES[drawn.integers(len(EYES))]),
            lips=_colour(red),
            ground=_colour(drawn.uniform(90, 235, 3)),
            shirt=_colour(drawn.uniform(40, 220, 3)),
            wide=0.50 + 0.12 * sizes[0],
            long=0.70 + 0.10 * sizes[1],
            apart=0.21 + 0.06 * sizes[2],
            eye=0.075 + 0.03 * sizes[3],
            brow=0.02 + 0.03 * sizes[4],
            nose=0.10 + 0.08 * sizes[5],
            mouth=0.19 + 0.06 * sizes[6],
            lip=0.035 + 0.025 * sizes[7],
            style=int(drawn.integers(4)),
            glasses=bool(drawn.uniform() < 0.2),
        )

    def draw(self, pose: Pose, opening: float, width: float) -> np.ndarray:
        """uint8 [64, 64, 3]: `opening` 0 (closed) to 1 (wide open), `width` 0 (rounded) to 1 (spread)."""
        picture = Image.new("RGB", (SIZE * FINER, SIZE * FINER), self.ground)
        pen = ImageDraw.Draw(picture)
        jaw = 0.07 * opening

        def fill(points: Points, colour: Colour) -> None:
            pen.polygon(pose.place(points), fill=colour)

        self._behind(fill)
        head = _oval(0, 0, self.wide, self.long)
        head[:, 1] += jaw * np.clip(head[:, 1] / self.long, 0, 1)
        fill(head, self.skin)
        self._hair(fill)
        self._eyes(fill)
        half = self.nose / 2
        fill(np.array([(-0.02, -0.05), (0.02, -0.05), (half, 0.17), (-half, 0.17)]), _darker(self.skin))
        self._mouth(fill, opening, width, jaw)
        return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))

    def _behind(self, fill: Fill) -> None:
        if self.style == 2:  # long hair
            fill(_oval(0, -0.02, self.wide * 1.28, self.long * 1.12), self.hair)
        fill(_oval(0, 1.18, 0.85, 0.4), self.shirt)
        fill(np.array([(-0.2, 0.5), (0.2, 0.5), (0.24, 0.95), (-0.24, 0.95)]), _darker(self.skin))
        for side in (-1, 1):
            fill(_oval(side * self.wide, 0.0, 0.08, 0.13), _darker(self.skin))

    def _hair(self, fill: Fill) -> None:
        if self.style == 3:  # none
            return
        line = -0.42 if self.style == 1 else -0.52
        cap = _oval(0, 0, self.wide * 1.06, self.long * 1.06)
        cap = cap[cap[:, 1] < line + 0.12]
        fill(cap, self.hair)

    def _eyes(self, fill: Fill) -> None:
        for side in (-1, 1):
            x, y = side * self.apart, -0.14
            fill(_oval(x, y, self.eye * 1.35, self.eye * 0.85), (250, 250, 250))
            fill(_oval(x, y, self.eye * 0.62, self.eye * 0.72), self.eyes)
            fill(_oval(x, y, self.eye * 0.3, self.eye * 0.34), (20, 20, 24))
            fill(_oval(x, y - 0.17, self.eye * 1.7, self.brow), self.hair)
            if self.glasses:
                ring = np.concatenate([_oval(x, y, 0.16, 0.15), _oval(x, y, 0.135, 0.125)[::-1]])
                fill(ring, (30, 30, 34))

    def _mouth(self, fill: Fill, opening: float, width: float, jaw: float) -> None:
        y = 0.38 + jaw * 0.35
        half = self.mouth * (0.72 + 0.56 * width) * (1 - 0.12 * opening)
        high = 0.16 * opening
        fill(_oval(0, y, half + 0.02, high + self.lip), self.lips)
        if high < 0.006:
            fill(_oval(0, y, half * 0.9, 0.008), _darker(self.lips))
            return
        fill(_oval(0, y, half * 0.9, high), INSIDE)
        inner = _oval(0, y, half * 0.9, high)
        if opening > 0.12:
            fill(inner[inner[:, 1] < y - 0.45 * high], TEETH)
        if opening > 0.35:
            fill(inner[inner[:, 1] > y + 0.5 * high], TONGUE)


HAIR = np.array([(36, 28, 24), (88, 56, 32), (150, 102, 54), (214, 178, 108), (150, 60, 30), (150, 150, 150)])
EYES = np.array([(70, 46, 28), (60, 100, 150), (70, 120, 80), (110, 110, 110)])


def _oval(x: float, y: float, wide: float, high: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + wide * np.cos(angles), y + high * np.sin(angles)], axis=1)


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(np.rint(values), 0, 255).astype(int).tolist()
    return red, green, blue


def _darker(colour: Colour) -> Colour:
    return _colour(np.array(colour) * 0.86)
