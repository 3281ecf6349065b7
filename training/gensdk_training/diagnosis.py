"""Recognizes failing trainings: reports each failure once, in words, with the remedy.

A :class:`Monitor` reads what a run logs anyway (:data:`gensdk_training.family.LOG_MEANINGS` says which value means
what), the size of its gradients, and the samples of its previews. It draws no random numbers and changes nothing,
so a run is the same bit for bit with it. Its findings are kept in ``RUN/diagnosis.json``.

It does not: judge quality (``gensdk evaluate`` does), or say anything in the first 200 steps, where most losses
are still on their way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.spec.strict import StrictModel
from gensdk_training.family import LogMeaning
from gensdk_training.metrics.diversity import Diversity

FILE = "diagnosis.json"

Kind = Literal[
    "mode_collapse",
    "discriminator_wins",
    "generator_wins",
    "condition_ignored",
    "pairs_not_told",
    "oscillation",
    "vanishing_gradient",
    "not_finite",
]

FIRST_STEP = 200
"""Nothing but NaN is a failure before."""
WINDOW = 25
"""Steps that one look at the averages covers, at least."""
PATIENCE = 5
"""Windows in a row, or for samples two previews, that must all say the same."""
KEPT = 24
"""Windows that are remembered, over which swings are counted."""

SURE = 0.98
"""A D that is so sure of what is real and what is fake teaches G nothing more."""
RIGHT = 0.995
"""So is one that tells so many right, where only that is known, and for twice as long: being right is healthy
early on, as long as D is not sure of it."""
FOOLED = 0.35
"""A D that is right less often than this is worse than guessing."""
CONVINCED = 0.05
"""A fooled D gives fakes a probability of being real that is higher by so much than that of real samples."""
IGNORED = 0.55
"""A D that prefers what goes with a sample less often than this hardly looks at it; one half is guessing."""
GUESSING = 0.98 * math.log(2)
"""Nats: who tells pairs with a cross entropy that is not below has learnt nothing of them; ln 2 is a coin."""
ADAM_EPSILON = 1e-8
"""Where a gradient's root mean square is below, Adam's epsilon makes its steps vanish too."""
FALLEN = 1e-4
"""The share of its largest size to which a gradient falls where nothing is left of it."""
SWINGS = 4
"""Turns of a loss, each as large as its typical size, that are an oscillation."""
FEW_PAIRS, FEW_NEAREST = 0.1, 0.05
"""Diversity below these shares of the data's is a collapse: onto one picture, or onto a few."""

REMEDIES: dict[Kind, str] = {
    "mode_collapse": "lower the generator's learning rate, use spectral_norm or another loss, or train less long",
    "discriminator_wins": "fewer discriminator_steps, a lower discriminator learning rate, spectral_norm, or the "
    "non-saturating loss",
    "generator_wins": "more discriminator_steps, a higher discriminator learning rate or a larger discriminator",
    "condition_ignored": "a higher discriminator learning rate, a larger discriminator, a higher match_weight, or "
    "more steps of the part that learns what belongs together",
    "pairs_not_told": "a lower or higher rate of that part, a larger batch_size, or more of its steps; look at "
    "the data, whether sounds and images belong together and are not shifted against each other",
    "oscillation": "lower the learning rates, set beta1 to 0 or 0.5, or let lr_schedule fall",
    "vanishing_gradient": "the non-saturating loss, fewer discriminator_steps, or a gradient penalty",
    "not_finite": "lower the learning rate, set grad_clip, or use precision fp32",
}


class TrainingWarning(StrictModel):
    """One failure: of which `kind`, at which `step` it was noticed, in words, and what mends it."""

    kind: Kind
    step: int
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"warning at step {self.step}: {self.message}; try: {self.remedy}"


class Curves(StrictModel):
    """Points (step, value). `accuracy`: how often D is right, 1/2 at the equilibrium. `diversity_pairs`,
    `diversity_nearest`: of the previews against the data, about 1 for the data itself."""

    accuracy: tuple[tuple[int, float], ...] = ()
    diversity_pairs: tuple[tuple[int, float], ...] = ()
    diversity_nearest: tuple[tuple[int, float], ...] = ()


class Diagnosis(StrictModel):
    """``RUN/diagnosis.json``: the warnings of a run so far, and the curves behind them."""

    warnings: tuple[TrainingWarning, ...] = ()
    curves: Curves = Curves()

    def until(self, step: int) -> Diagnosis:
        """Without what came after `step`: a run that was cut off after its last checkpoint goes through it
        again."""
        curves = {
            name: tuple(point for point in getattr(self.curves, name) if point[0] <= step)
            for name in Curves.model_fields
        }
        return Diagnosis(
            warnings=tuple(warning for warning in self.warnings if warning.step <= step), curves=Curves(**curves)
        )


class Monitor:
    """Looks at a run from the outside. `meanings`: of logged values, by their name without the phase."""

    def __init__(self, meanings: Mapping[str, LogMeaning], begun: Diagnosis | None = None) -> None:
        self._meanings = meanings
        self._warnings = list(begun.warnings) if begun else []
        curves = (begun or Diagnosis()).curves
        self._accuracy = list(curves.accuracy)
        self._pairs = list(curves.diversity_pairs)
        self._nearest = list(curves.diversity_nearest)
        self._open: list[Mapping[str, float]] = []
        self._since: int | None = None
        self._windows: list[dict[str, float]] = []
        self._sizes: dict[str, list[float]] = {}
        self._largest: dict[str, float] = {}

    @property
    def diagnosis(self) -> Diagnosis:
        """All that was seen so far."""
        return Diagnosis(
            warnings=tuple(self._warnings),
            curves=Curves(
                accuracy=tuple(self._accuracy),
                diversity_pairs=tuple(self._pairs),
                diversity_nearest=tuple(self._nearest),
            ),
        )

    def look_at_logs(
        self, step: int, means: Mapping[str, float], gradients: Mapping[str, Sequence[float]], *, since: int
    ) -> tuple[TrainingWarning, ...]:
        """New warnings from the mean logs of the steps from `since` to `step`.

        `means` by name, as ``PHASE/NAME`` where there are several phases; `gradients`: the root mean
        squares of each phase's gradient, as they were measured in these steps.
        """
        before = len(self._warnings)
        for name, value in means.items():
            if not math.isfinite(value):
                self._warn("not_finite", step, f"the logged value {name!r} became {value}")
        finite = {name: value for name, value in means.items() if math.isfinite(value)}
        if accuracy := self._of("accuracy", finite):
            self._accuracy.append((step, sum(accuracy) / len(accuracy)))
        self._open.append(finite)
        for phase, measured in gradients.items():
            sizes = [size for size in measured if math.isfinite(size)]
            self._sizes[phase] = [*self._sizes.get(phase, ()), *sizes][-PATIENCE:]
            self._largest[phase] = max((*sizes, self._largest.get(phase, 0.0)))
        self._since = since if self._since is None else self._since
        if step - self._since >= WINDOW:
            self._close_window()
            if step >= FIRST_STEP:
                self._judge(step)
        return tuple(self._warnings[before:])

    def look_at_samples(self, step: int, seen: Diversity) -> tuple[TrainingWarning, ...]:
        """A new warning, if there is one, from the diversity of a preview."""
        before = len(self._warnings)
        self._pairs.append((step, seen.pairs))
        self._nearest.append((step, seen.nearest))
        recent = [(p, n) for (at, p), (_, n) in zip(self._pairs, self._nearest, strict=True) if at >= FIRST_STEP]
        if len(recent) >= 2 and all(p < FEW_PAIRS or n < FEW_NEAREST for p, n in recent[-2:]):
            onto = "nearly the same picture" if seen.pairs < FEW_PAIRS else "a few pictures over and over"
            self._warn(
                "mode_collapse",
                step,
                f"the generator gives {onto}: samples differ {seen.pairs:.2f} times as much as the data, the "
                f"nearest ones {seen.nearest:.2f} times",
            )
        return tuple(self._warnings[before:])

    def fail(self, step: int, message: str) -> None:
        """Notes that training ended because something was not finite."""
        self._warn("not_finite", step, message)

    def _close_window(self) -> None:
        names = {name for means in self._open for name in means}
        window = {}
        for name in names:
            values = [means[name] for means in self._open if name in means]
            window[name] = sum(values) / len(values)
        self._windows = [*self._windows, window][-KEPT:]
        self._open, self._since = [], None

    def _judge(self, step: int) -> None:
        recent = self._windows[-PATIENCE:]
        if len(recent) < PATIENCE:
            return
        self._judge_game(step, recent)
        self._judge_gradients(step)
        for name in recent[-1]:
            if name.rpartition("/")[2] == "loss":
                turns = swings([window[name] for window in self._windows if name in window])
                if turns >= SWINGS:
                    text = f"{name!r} swings to and fro: it turned {turns} times, each time by more than its size"
                    self._warn("oscillation", step, text)

    def _judge_game(self, step: int, recent: list[dict[str, float]]) -> None:
        right = [self._of("accuracy", window) for window in recent]
        real = [self._of("real_probability", window) for window in recent]
        fake = [self._of("fake_probability", window) for window in recent]
        apart = [self._of("critic_distance", window) for window in recent]
        sure = _all(real, lambda v: v >= SURE) and _all(fake, lambda v: v <= 1 - SURE)
        longer = [self._of("accuracy", window) for window in self._windows[-2 * PATIENCE :]]
        known = any(real) and any(fake)
        if sure or (not known and len(longer) == 2 * PATIENCE and _all(longer, lambda v: v >= RIGHT)):
            what = f"gives fakes {_last(fake):.1g} of being real" if sure else f"tells {_last(right):.1%} right"
            self._warn("discriminator_wins", step, f"the discriminator wins outright: it {what}")
        matched = [self._of("matching_accuracy", window) for window in recent]
        if _all(matched, lambda v: v <= IGNORED):
            text = (
                "the discriminator ignores what samples are asked for: it prefers what goes with them "
                f"{_last(matched):.0%} of the time, guessing would half of it"
            )
            self._warn("condition_ignored", step, text)
        told = [self._of("pair_loss", window) for window in recent]
        if _all(told, lambda v: v >= GUESSING):
            text = (
                f"pairs are told from false ones with a loss of {_last(told):.3f}, and guessing has ln 2 = 0.693: "
                "nothing can be learnt from who does not know"
            )
            self._warn("pairs_not_told", step, text)
        if _all(right, lambda v: v <= FOOLED):
            text = f"the discriminator is right {_last(right):.0%} of the time, less than by guessing"
            self._warn("generator_wins", step, text)
        elif known and all(_mean(f) - _mean(r) >= CONVINCED for r, f in zip(real, fake, strict=True)):
            text = f"the discriminator takes fakes for real: it gives them {_last(fake):.2f}, real samples less"
            self._warn("generator_wins", step, text)
        elif _all(apart, lambda v: v < 0):
            text = f"the critic puts fakes above real samples: their distance is {_last(apart):.3g}"
            self._warn("generator_wins", step, text)

    def _judge_gradients(self, step: int) -> None:
        for phase, largest in self._largest.items():
            sizes = self._sizes[phase]
            if len(sizes) == PATIENCE and max(sizes) < max(ADAM_EPSILON, FALLEN * largest):
                text = f"the gradient of phase {phase!r} has vanished: {max(sizes):.1e}, it was {largest:.1e}"
                self._warn("vanishing_gradient", step, text)

    def _of(self, meaning: LogMeaning, means: Mapping[str, float]) -> list[float]:
        """The values with that meaning, of every phase."""
        return [value for name, value in means.items() if self._meanings.get(name.rpartition("/")[2]) == meaning]

    def _warn(self, kind: Kind, step: int, message: str) -> None:
        if all(known.kind != kind for known in self._warnings):
            self._warnings.append(TrainingWarning(kind=kind, step=step, message=message, remedy=REMEDIES[kind]))


def swings(values: list[float]) -> int:
    """How often a curve turns around after moving as far as its typical size (the median of its magnitude).

    Moves are counted between extremes, so that the ripples in between don't matter, and neither do those of a
    curve that has come down from far above: a move is a third of the whole range at least. A loss that changes
    its sign, as a critic's does, has no size to measure it by: 0.
    """
    if len(values) < 2 * SWINGS or min(values) < 0 < max(values):
        return 0
    curve: NDArray[np.float64] = np.asarray(values, np.float64)
    far = max(float(np.median(np.abs(curve))), float(np.ptp(curve)) / 3, 1e-12)
    low = high = curve[0]
    direction = turns = 0
    for value in curve[1:]:
        low, high = min(low, value), max(high, value)
        if direction >= 0 and high - value > far:
            turns += direction != 0
            direction, low, high = -1, value, value
        elif direction <= 0 and value - low > far:
            turns += direction != 0
            direction, low, high = 1, value, value
    return turns


def _all(windows: list[list[float]], holds: Callable[[float], bool]) -> bool:
    return all(values and all(holds(value) for value in values) for values in windows)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _last(windows: list[list[float]]) -> float:
    return windows[-1][0]
