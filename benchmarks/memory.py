"""Peak memory of sampling a workload with gensdk, against a peer; each in a fresh process.

python benchmarks/memory.py                     # the CIFAR-10 U-Net at batch 8 against diffusers
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from figures import Figure, at_most
from peers import SEED
from peers.child import start_peer
from workloads import WORKLOADS, Case
from workloads.noise import draw_noise
from workloads.prepare import Prepared, prepare

SECONDS = 600.0
STEPS = 2
"""The peak of a diffusion model comes with its second step at the latest."""


def peak_of(name: str, prepared: Prepared, case: Case, root: Path) -> float:
    """Peak of resident memory in bytes of a fresh process that opens the workload and samples twice."""
    with tempfile.TemporaryDirectory() as scratch, start_peer(name, prepared, root=root) as child:
        noise = Path(scratch) / "noise.npy"
        np.save(noise, draw_noise(prepared.describe(), case.batch, seed=SEED), allow_pickle=False)
        child.ask("open", timeout=SECONDS, batch=case.batch, steps=case.steps, noise=str(noise))
        child.ask("run", timeout=SECONDS, calls=1, discard=0)
        return float(child.ask("memory", timeout=SECONDS)["bytes"])


def measure(prepared: Prepared, root: Path, *, batch: int = 8, against: str = "diffusers") -> list[Figure]:
    """Ours over theirs, the median of three each, in turn."""
    case = Case(batch, STEPS if WORKLOADS[prepared.name].cases[0].steps else None)
    names = ("gensdk", against)
    peaks = np.array([[peak_of(name, prepared, case, root) for name in names] for _ in range(3)])
    ratios = peaks[:, 0] / peaks[:, 1]
    ours, theirs = np.median(peaks, axis=0) / 1e6
    middle, low, high = (float(find(ratios)) for find in (np.median, np.min, np.max))
    what = f"{prepared.name}, batch {batch}: gensdk / {against}, peak memory"
    detail = f"{ours:.0f} MB and {theirs:.0f} MB, whole processes"
    return [Figure("memory", what, middle, low, high, at_most(0.6), detail)]


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
@click.option("--workload", default="cifar10-unet", show_default=True, type=click.Choice(list(WORKLOADS)))
@click.option("--batch", default=8, show_default=True)
@click.option("--against", default="diffusers", show_default=True)
def main(root: Path, workload: str, batch: int, against: str) -> None:
    found = measure(prepare(WORKLOADS[workload], root), root, batch=batch, against=against)
    for figure in found:
        print(figure.line())
    sys.exit(1 if any(figure.verdict == "MISSES" for figure in found) else 0)


if __name__ == "__main__":
    main()
