"""A photograph of 4000x3000 through a super-resolution bundle, in tiles: peak memory, time, and the seams.

``gensdk translate`` runs as a user runs it, in a process of its own, whose peak of resident memory is read. Seams:
a smaller photograph in small tiles against the same one as a whole, in levels of 255.

    python benchmarks/tiles.py runs/translation/srgan-x2.gsdk
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from figures import Figure, at_most
from numpy.typing import NDArray
from stream import photographs

from gensdk_runtime.generator import Generator
from gensdk_runtime.host.child_process import start_python
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.image_pixels import resize
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.methods.tiles import Cut

WIDTH, HEIGHT = 4000, 3000
SMALLER = (500, 375)
BYTES = 2.0 * 2**30
"""The bound on memory."""
LEVELS = 1.0
"""The bound on seams: a rounding."""


def large_photograph(width: int, height: int) -> NDArray[np.uint8]:
    """A real photograph, enlarged to [height, width, 3]."""
    photo = photographs(None)[0]
    return resize(photo, height, width)


def measure_memory(bundle: Path, backend: str) -> list[Figure]:
    """Peak and seconds of the command line on the large photograph."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.png", Path(scratch) / "out.png"
        source.write_bytes(encode_image(large_photograph(WIDTH, HEIGHT), ".png", {}))
        command = ["-m", "gensdk.cli.main", "translate", str(bundle.absolute()), "--backend", backend]
        started = time.perf_counter()
        files = ["--source", str(source), "--sink", str(target)]
        with start_python([*command, *files], stdout=None, stderr=None) as process:
            if process.wait():
                raise RuntimeError(f"gensdk translate ended with exit code {process.returncode}")
        seconds = time.perf_counter() - started
        height, width = decode(target.read_bytes(), 3).shape[:2]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024.0
    what = f"{WIDTH} x {HEIGHT} to {width} x {height} in tiles: peak memory over 2 GiB"
    detail = f"{peak / 2**20:.0f} MiB, {seconds:.0f} s on {os.cpu_count()} cores"
    return [Figure("tiles", what, peak / BYTES, bound=at_most(1.0), detail=detail)]


def measure_seams(bundle: Path, backend: str) -> list[Figure]:
    """The largest difference that small tiles make."""
    image = large_photograph(*SMALLER)
    with Generator.load(bundle, backend=backend) as generator:
        spec = generator.model.source
        assert spec is not None
        tile = Cut.of(spec).smallest
        whole = np.asarray(generator.translate(image, tile=0), int)
        tiled = np.asarray(generator.translate(image, tile=tile), int)
    apart = np.abs(whole - tiled)
    what = f"{SMALLER[0]} x {SMALLER[1]} in tiles of {tile} against the whole: largest difference, of 255"
    detail = f"{(apart > 0).mean():.2%} of the values differ at all"
    return [Figure("tiles", what, float(apart.max()), bound=at_most(LEVELS), detail=detail)]


@click.command(help=__doc__)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", default="onnxruntime", show_default=True)
def main(bundle: Path, backend: str) -> None:
    found = measure_seams(bundle, backend) + measure_memory(bundle, backend)
    print(*(figure.line() for figure in found), sep="\n")
    sys.exit(1 if any(figure.verdict == "MISSES" for figure in found) else 0)


if __name__ == "__main__":
    main()
