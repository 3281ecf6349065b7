"""Why a GAN's discriminator can say nothing useful, and a Wasserstein critic still does.

Two uniform segments side by side, a distance theta apart (Arjovsky, Chintala & Bottou 2017, example 1). For every
theta but 0 a discriminator tells them apart perfectly, so the Jensen-Shannon divergence is log 2 however near they
are, and a generator that follows it gets no gradient. The Wasserstein distance is theta itself, and falls with it.

    python examples/disjoint_supports.py --out disjoint_supports.png
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from gensdk_runtime.errors import GensdkError, InputError, UnavailableError
from gensdk_runtime.media.images import write_atomically
from gensdk_training.metrics.distribution_distances import jensen_shannon_estimate, wasserstein_distance

THETAS = (-1.0, -0.75, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def measure(theta: float, *, count: int, steps: int, seed: int = 0) -> tuple[float, float]:
    """(JS estimate in nats, W_1) between `count` samples of each segment."""
    heights = np.random.default_rng(seed).random((2, count))
    real = np.stack((np.zeros(count), heights[0]), axis=1)
    fake = np.stack((np.full(count, theta), heights[1]), axis=1)
    return jensen_shannon_estimate(real, fake, steps=steps), wasserstein_distance(real, fake)


def draw(rows: list[tuple[float, float, float]], path: Path) -> None:
    """A PNG of both curves. Raises UnavailableError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnavailableError('matplotlib is missing; pip install "gensdk[plot]"') from None
    import io

    thetas, js, w = zip(*rows, strict=True)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(thetas, js, "o-")
    left.axhline(math.log(2), color="0.6", linestyle="--", label="log 2")
    left.set(title="Jensen-Shannon, by a discriminator", xlabel="theta", ylabel="nats", ylim=(-0.05, 0.8))
    left.legend()
    right.plot(thetas, w, "o-", color="tab:orange")
    right.plot(thetas, np.abs(thetas), "--", color="0.6", label="|theta|")
    right.set(title="Wasserstein", xlabel="theta", ylabel="distance", ylim=(-0.05, 1.1))
    right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def main() -> None:
    """Measures, prints a table and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("disjoint_supports.png"), help="the picture, a .png")
    parser.add_argument("--count", type=int, default=500, help="samples of each segment")
    parser.add_argument("--steps", type=int, default=400, help="training steps of each discriminator")
    given = parser.parse_args()
    try:
        if given.out.suffix.lower() != ".png":
            raise InputError(f"expected a .png path for --out, got {str(given.out)[-60:]!r}")
        rows = [(theta, *measure(theta, count=given.count, steps=given.steps)) for theta in THETAS]
        print(f"{'theta':>6}  {'JS, nats':>8}  {'W_1':>6}      (log 2 = {math.log(2):.4f})")
        for theta, js, w in rows:
            print(f"{theta:6.2f}  {js:8.4f}  {w:6.4f}")
        draw(rows, given.out)
    except GensdkError as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)
    print(given.out)


if __name__ == "__main__":
    main()
