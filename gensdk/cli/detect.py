"""``gensdk detect``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import print_json, say
from gensdk_runtime.errors import InputError

if TYPE_CHECKING:
    from gensdk_runtime.inversion import Detection

SHOWN = 20

EXAMPLES = """
\b
Examples:
  gensdk detect anogan.gsdk parts/ --normal good_parts/ -o report/
  gensdk detect anogan.gsdk scan.png --threshold 310 -o report.json
  gensdk detect anogan.gsdk parts.npz --threshold 310 --fast

\b
IMAGES and --normal are an image, a folder of images, or an .npz with an array "images", of the model's size.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--normal", type=click.Path(path_type=Path), help="Normal images, whose scores give the threshold.")
@click.option("--quantile", type=float, default=0.95, show_default=True, help="The share of them below it.")
@click.option("--threshold", type=float, help="The score above which an image is anomalous.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A .json, or a folder, with heat maps too.")
@click.option("--fast", is_flag=True, help="Take what the encoder gives, and search no further.")
@click.option("--num-inference-steps", "--steps", type=int, help="Steps of the search.")
@click.option("--seed", type=int, default=0, show_default=True, help="Where the search starts without an encoder.")
@click.option("--batch-size", type=int, help="Images in one run of the graphs. [default: the bundle's max_batch]")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "auto"]), default="fp32", show_default=True)
@click.option("--threads", type=int, help="CPU threads in one graph. [default: the backend's choice]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def detect(
    *,
    bundle: str,
    images: Path,
    normal: Path | None,
    quantile: float,
    threshold: float | None,
    output: Path | None,
    backend: str,
    precision: Any,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Tell which of IMAGES are unlike those that BUNDLE, a model of normal images, was trained on."""
    from gensdk_runtime.generator import Generator
    from gensdk_runtime.media.image_sets import load_images

    if (normal is None) == (threshold is None):
        raise InputError("expected either --normal DATA, to find a threshold, or --threshold SCORE")
    maps = _holds_maps(output)
    with Generator.load(bundle, backend=backend, precision=precision, threads=threads) as generator:
        if generator.model.inversion is None:  # before its images are read
            raise InputError(
                f"model {generator.model.name!r} can't judge images; train and export the family anogan"
            )
        names, given = load_images(images, generator.model.require_image())
        if normal is not None:
            usual = generator.detect(load_images(normal, generator.model.require_image())[1], **options)
            threshold = usual.normal_threshold(quantile)
        found = generator.detect(given, threshold=threshold, **options)
        model = generator.model.name
    rows = _rows(names, found, maps=maps)
    report = {"model": model, "threshold": threshold, "images": rows}
    if output is not None:
        _write(output, report, found)
    if as_json:
        print_json(report)
        return
    anomalous = [row for row in rows if row["anomalous"]]
    say(
        f"{len(anomalous)} of {len(names)} images above {threshold:.4g} by {model}"
        + (f": {output}" if output else "")
    )
    for row in anomalous[:SHOWN]:
        say(f"  {row['name']}: {row['score']:.4g}")
    if len(anomalous) > SHOWN:
        say(f"  and {len(anomalous) - SHOWN} more" + ("" if output else "; -o writes all of them"))


def _rows(names: list[str], found: Detection, *, maps: bool) -> list[dict[str, Any]]:
    """What is told of each image; with `maps` also the file that has its heat map."""
    rows = []
    for i, (name, score, odd) in enumerate(zip(names, found.scores, found.anomalous, strict=True)):
        row: dict[str, Any] = {"name": name, "score": float(score), "anomalous": bool(odd)}
        if maps:
            row["heat_map"] = f"{i:05d}-{re.sub('[^A-Za-z0-9_]+', '-', Path(name).stem)[:60]}.png"
        rows.append(row)
    return rows


def _holds_maps(output: Path | None) -> bool:
    """Whether `output` is a folder. Raises :class:`InputError` for a file that is no .json."""
    if output is None or output.suffix.lower() == ".json":
        return False
    if output.suffix and not output.is_dir():
        raise InputError(f"expected a .json file or a folder for --output, got {str(output)!r}")
    return True


def _write(output: Path, report: dict[str, Any], found: Detection) -> None:
    """The report; in a folder the heat maps beside it, white where a residual is as large as the image's range."""
    import numpy as np

    from gensdk_runtime.media.images import encode_image, to_uint8, write_atomically

    text = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    if not _holds_maps(output):
        write_atomically(output, text)
        return
    for row, heat in zip(report["images"], found.heat_maps, strict=True):
        picture = to_uint8(np.asarray(heat[None, None]), (0.0, 2.0))[0]
        write_atomically(output / row["heat_map"], encode_image(picture, ".png", row))
    write_atomically(output / "report.json", text)
