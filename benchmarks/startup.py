"""Process start to first sample of an embedded bundle, against only importing diffusers' DDIMPipeline.

Fresh processes, in turn: gensdk with what was measured for the bundle kept from before (warm), gensdk with an
empty cache (cold: the first ``backend="auto"`` measures for a few seconds), and the import. Time runs from the
start of the process until it says that it is done, memory is its peak then. Bytecode of all packages lies ready,
as an installer leaves it.

    python benchmarks/startup.py
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from figures import Figure, at_least, at_most, ratio_figure
from numpy.typing import NDArray
from peers.child import child_environment

from gensdk_runtime.host.child_process import start_python

BUNDLE = "digits-ddpm"
ROUNDS = 7
GROUP = "start-up"
_SAMPLE = (
    "from gensdk import Generator\n"
    "with Generator.load({bundle!r}) as generator:\n"
    "    generator.sample(1, seed=0)\n"
    "    print('done', flush=True)\n"
)
_IMPORT = "from diffusers import DDIMPipeline\nprint('done', flush=True)\n"


class Fresh(NamedTuple):
    """One process: seconds until it says "done", its peak memory in bytes by then, and the processor time of its
    whole life."""

    wall: float
    peak: float
    cpu: float

    def seconds(self, clock: str) -> float:
        """By "wall" or "cpu"."""
        return self.cpu if clock == "cpu" else self.wall


def first_sample(environment: Mapping[str, str], code: str, paths: Sequence[Path] = ()) -> Fresh:
    """Runs a program that says "done". It imports from `paths` first."""
    measured = code + _peak_code()
    before, start = _children_seconds(), time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        start_python(["-c", measured], stderr=errors, environment=environment, paths=paths) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        peak = process.stdout.read()
        if line.strip() != b"done" or process.wait(timeout=300):
            errors.seek(0)
            words = errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"a fresh process failed: {words[-300:]}")
    return Fresh(seconds, float(peak), _children_seconds() - before)


def _children_seconds() -> float:
    """Processor time of all children that have ended; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:
        return math.nan
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_code() -> str:
    """Reads the peak without importing anything more than it must."""
    return (
        "import re, sys\n"
        "try:\n"
        "    text = open('/proc/self/status').read()\n"
        "    peak = int(re.search(r'VmHWM:\\s+(\\d+)', text)[1]) * 1024\n"
        "except OSError:\n"
        "    import resource\n"
        "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    peak *= 1 if sys.platform == 'darwin' else 1024\n"
        "print(peak, flush=True)\n"
    )


def measure(root: Path, *, rounds: int = ROUNDS) -> list[Figure]:
    """The figures of start-up. `root` holds the caches."""
    # Where Python is told to write no bytecode, packages that run from their sources would be compiled each time.
    warm = {**child_environment(root), "PYTHONDONTWRITEBYTECODE": ""}
    sample, imports = _SAMPLE.format(bundle=BUNDLE), _IMPORT
    first_sample(warm, sample)  # measures for "auto" where nobody did, and fills the file cache
    first_sample(warm, imports)
    with tempfile.TemporaryDirectory() as empty:
        cold = first_sample({**warm, "GENSDK_CACHE": empty}, sample)
    unmeasured = first_sample({**warm, "GENSDK_TUNE": "off"}, sample)
    ours, theirs = [], []
    for number in range(rounds):
        for kind in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            if kind == "ours":
                ours.append(first_sample(warm, sample))
            else:
                theirs.append(first_sample(warm, imports))
    return figures(np.array(ours), np.array(theirs), cold, unmeasured)


def figures(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    cold: Fresh,
    unmeasured: Fresh,
) -> list[Figure]:
    """From rows of :class:`Fresh`, [rounds, 3] each."""
    seconds, memory = ([[row[i : i + 1] for row in side] for side in (ours, theirs)] for i in (0, 1))
    medians = [np.median(side, axis=0) for side in (ours, theirs)]
    return [
        ratio_figure(
            GROUP,
            f"importing DDIMPipeline / first sample of {BUNDLE} (warm), time",
            seconds[1],
            seconds[0],
            at_least(10),
            detail=f"{medians[1][0]:.2f} s and {medians[0][0]:.2f} s",
        ),
        ratio_figure(
            GROUP,
            f"first sample of {BUNDLE} (warm) / importing DDIMPipeline, peak memory",
            memory[0],
            memory[1],
            at_most(1 / 3),
            detail=f"{medians[0][1] / 1e6:.0f} MB and {medians[1][1] / 1e6:.0f} MB",
        ),
        Figure(GROUP, f"first sample of {BUNDLE} (cold: auto measures), s", cold.wall, detail=_mb(cold)),
        Figure(GROUP, f"first sample of {BUNDLE}, GENSDK_TUNE=off, s", unmeasured.wall, detail=_mb(unmeasured)),
    ]


def _mb(found: Fresh) -> str:
    return f"peak {found.peak / 1e6:.0f} MB"


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
@click.option("--rounds", default=ROUNDS, show_default=True)
def main(root: Path, rounds: int) -> None:
    found = measure(root, rounds=rounds)
    for figure in found:
        print(figure.line())
    sys.exit(1 if any(figure.verdict == "MISSES" for figure in found) else 0)


if __name__ == "__main__":
    main()
