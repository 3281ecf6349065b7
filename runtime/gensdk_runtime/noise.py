"""Counter-based noise: sample i of seed s takes its numbers from Philox keyed by (s, i), one stream a step.

So a sample is the same whatever the batch split, the thread, the backend or the machine. The numbers are made
from the raw 64-bit words of Philox4x64-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"),
not by NumPy's distributions, whose streams may change between releases. Each word gives two numbers, from its
upper and from its lower 32 bits:

- uniform: the upper 24 of the 32 bits, divided by 2^24: exact in float32, in [0, 1).
- normal: Box & Muller (1958) over the two halves (u, v): sqrt(-2 ln((u + 1) / 2^32)) times the cosine and the
  sine of 2 pi v / 2^32, in float64, then rounded to float32; |z| < 6.67.
"""

from __future__ import annotations

import operator
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from threading import local
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import shown
from gensdk_runtime.errors import InputError

Float32 = NDArray[np.float32]
Distribution = Literal["normal", "uniform"]

LATENT_STREAM = 0
"""Stream of the first latent; step k of a solver draws from stream k + 1."""

LABEL_STREAM = 2**64 - 1
"""Stream of a label that the caller left open."""

MAX_WORD = 2**64 - 1

_UPPER, _LOWER = (1, 0) if sys.byteorder == "little" else (0, 1)
"""Where the halves of a 64-bit word lie among 32-bit ones."""

_FORTY, _EIGHT, _LOWER_24 = np.uint64(40), np.uint64(8), np.uint64(0xFFFFFF)
_STEP = np.float32(2.0**-24)


class SampleKey(NamedTuple):
    """What a sample's noise depends on: the seed, and the sample's place under that seed."""

    seed: int
    position: int

    def __str__(self) -> str:
        return f"{self.seed}:{self.position}"


Seed = int | np.integer | SampleKey | tuple[int, int]


Seeds = int | np.integer | Sequence[Seed] | NDArray[np.integer]


def sample_keys(n: int, seed: Seeds | None) -> tuple[SampleKey, ...]:
    """The keys of `n` samples.

    One int: samples 0 .. n - 1 of that seed. A list (or an integer array [n] or [n, 2]): one entry for each
    sample, an int (its sample 0) or a (seed, position) pair, as :attr:`Samples.seeds`, saved settings and
    ``.npz`` files report them. None: a seed drawn from the system's entropy.
    Raises :class:`InputError` for negative or too large seeds, lists of another length, and a tuple of two ints,
    which may be two seeds or a pair.
    """
    if type(seed) is int and 0 <= seed <= MAX_WORD:  # as most calls have it
        return tuple([SampleKey(seed, i) for i in range(n)])
    if isinstance(seed, SampleKey):
        seed = [seed]
    elif isinstance(seed, tuple) and len(seed) == 2 and all(isinstance(entry, int | np.integer) for entry in seed):
        pair = f"{seed[0]}, {seed[1]}"
        raise InputError(f"seed=({pair}) may be two seeds or one pair; pass [{pair}] or [({pair})]")
    if isinstance(seed, np.ndarray) and seed.ndim:
        if seed.dtype.kind not in "iu":
            raise InputError(f"expected seeds as an array of integers, got {seed.dtype}")
        seed = seed.tolist()
    if seed is None:
        seed = secrets.randbits(32)
    if isinstance(seed, str | bytes) or not isinstance(seed, Sequence):
        first = _word(seed, "seed")
        return tuple(SampleKey(first, i) for i in range(n))
    if len(seed) != n:
        raise InputError(f"expected one seed for each of the {n} samples, got {len(seed)}")
    return tuple(_key(entry) for entry in seed)


def _key(entry: Seed) -> SampleKey:
    if isinstance(entry, tuple | list):  # a list: as JSON gives a pair back
        if len(entry) != 2:
            raise InputError(f"expected a seed or a (seed, position) pair, got {shown(entry)}")
        return SampleKey(_word(entry[0], "seed"), _word(entry[1], "position"))
    return SampleKey(_word(entry, "seed"), 0)


def _word(value: object, what: str) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"expected {what} as an int, got {type(value).__name__}") from None
    if isinstance(value, bool | np.bool_) or not 0 <= number <= MAX_WORD:
        raise InputError(f"expected {what} from 0 to 2^64 - 1, got {shown(value)}")
    return number


def normal(keys: Sequence[SampleKey], stream: int, shape: Sequence[int], *, out: Float32 | None = None) -> Float32:
    """Standard normal noise, float32 [len(keys), *shape]; row i depends on keys[i] and `stream` alone.

    `out`: the array of that shape to draw into, and to return.
    """
    words, rows, noise = _draw(keys, stream, shape, out)
    halves = words.view(np.uint32)
    # In place where it can be: for one small image the calls cost more than the numbers.
    radius = np.add(halves[:, _UPPER::2], 1.0)
    radius *= 2.0**-32
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle = np.multiply(halves[:, _LOWER::2], 2.0 * np.pi * 2.0**-32)
    odd = rows.shape[1] // 2
    np.multiply(radius, np.cos(angle), out=rows[:, 0::2], casting="same_kind")
    np.sin(angle, out=angle)
    np.multiply(radius[:, :odd], angle[:, :odd], out=rows[:, 1::2], casting="same_kind")
    return noise


def uniform(
    keys: Sequence[SampleKey], stream: int, shape: Sequence[int], *, out: Float32 | None = None
) -> Float32:
    """Uniform noise on [0, 1), float32 [len(keys), *shape]; row i depends on keys[i] and `stream` alone.

    `out`: the array of that shape to draw into, and to return.
    """
    words, rows, noise = _draw(keys, stream, shape, out)
    rows[:, 0::2] = words >> _FORTY
    if odd := rows.shape[1] // 2:  # a label, of one number, has none
        rows[:, 1::2] = (words[:, :odd] >> _EIGHT) & _LOWER_24
    rows *= _STEP
    return noise


DRAWS: Mapping[Distribution, Callable[..., Float32]] = {"normal": normal, "uniform": uniform}
"""What draws each distribution."""


def _draw(
    keys: Sequence[SampleKey], stream: int, shape: Sequence[int], out: Float32 | None
) -> tuple[NDArray[np.uint64], Float32, Float32]:
    """Raw words [len(keys), ceil(count / 2)], the noise to fill as rows [len(keys), count], and as it is."""
    noise = np.empty((len(keys), *shape), np.float32) if out is None else out
    if noise.shape != (len(keys), *shape) or not noise.flags.c_contiguous:
        raise ValueError(f"expected out as contiguous {[len(keys), *shape]}, got {list(noise.shape)}")
    rows = noise.reshape(len(keys), -1)
    words = np.empty((len(keys), (rows.shape[1] + 1) // 2), np.uint64)
    generator, state, start = _philox.generator, _philox.state, _philox.start
    start["counter"] = (0, 0, 0, stream)
    for row, key in zip(words, keys, strict=True):
        start["key"] = key
        generator.state = state  # type: ignore[assignment]  # much faster than a new generator
        row[:] = generator.random_raw(len(row))
    return words, rows, noise


class _Philox(local):
    """Each thread's generator, and the state that starts it: at counter 0 of some stream, nothing buffered.

    Numbers of Python, which the generator reads twice as fast as arrays.
    """

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)
        self.start: dict[str, tuple[int, ...]] = {}
        self.state: dict[str, Any] = {
            **self.generator.state,
            "state": self.start,
            "buffer": (0, 0, 0, 0),
        }


_philox = _Philox()
