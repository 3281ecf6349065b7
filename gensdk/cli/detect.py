"""``gensdk detect``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import aside, print_json, say
from gensdk.cli.program_options import program_options
from gensdk_runtime.errors import InputError

if TYPE_CHECKING:
    from gensdk_runtime.media.image_pixels import Fit
    from gensdk_runtime.media.image_sets import ImageSet, Shaping
    from gensdk_runtime.methods.inversion import Detection
    from gensdk_runtime.spec.outputs import ImageSpec

SHOWN = 20

EXAMPLES = """
\b
Examples:
  gensdk detect anogan.gsdk parts/ --normal good_parts/ -o report/
  gensdk detect anogan.gsdk scan.png --threshold 310 -o report.json
  gensdk detect anogan.gsdk parts.npz --threshold 310 --fast
  gensdk detect anogan.gsdk photos/ --normal good_photos/ --size 64 -o report/

\b
IMAGES and --normal are an image, a folder with all folders in it, FILE.npz, FILE.npz:KEY or FILE.npy.
They are brought to the model's size and values as its training did it; files that can't be read are
named and skipped.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--normal", type=click.Path(path_type=Path), help="Normal images, whose scores give the threshold.")
@click.option("--quantile", type=float, default=0.95, show_default=True, help="The share of them below it.")
@click.option("--threshold", type=float, help="The score above which an image is anomalous.")
@click.option(
    "--size", help="64, or 48x64 (height x width): the model's, for pictures of others. [default: as in training]"
)
@click.option(
    "--fit", type=click.Choice(["crop", "stretch"]), help="How they come to it. [default: as in training]"
)
@click.option("--value-range", help="0,1: what black and white are in an array. [default: as in training]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A .json, or a folder, with heat maps too.")
@click.option("--fast", is_flag=True, help="Take what the encoder gives, and search no further.")
@program_options("ascent")
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
    size: str | None,
    fit: Any,
    value_range: str | None,
    output: Path | None,
    backend: str,
    precision: Any,
    threads: int | None,
    as_json: bool,
    options: dict[str, Any],
    **others: Any,
) -> None:
    """Tell which of IMAGES are unlike those that BUNDLE, a model of normal images, was trained on."""
    from gensdk_runtime.generator import Generator
    from gensdk_runtime.media.image_sets import load_images
    from gensdk_runtime.methods.inversion import check_threshold
    from gensdk_runtime.outputs.image import image_of

    check_threshold(threshold)
    if (normal is None) == (threshold is None):
        raise InputError("expected either --normal DATA, to find a threshold, or --threshold SCORE")
    maps = _holds_maps(output)
    with Generator.load(bundle, backend=backend, precision=precision, threads=threads) as generator:
        if generator.model.inversion is None:  # before its images are read
            raise InputError(
                f"model {generator.model.name!r} can't judge images; train and export the family anogan"
            )
        spec = image_of(generator.model)
        how = _shaping(bundle, spec, size, fit, value_range)
        loaded = load_images(images, spec, how)
        names, given = loaded.names, loaded.images
        _tell(loaded)
        if normal is not None:
            good = load_images(normal, spec, how)
            _tell(good)
            usual = generator.detect(good.images, **others, **options)
            threshold = usual.normal_threshold(quantile)
        found = generator.detect(given, threshold=threshold, **others, **options)
        model = generator.model.name
    rows = _rows(names, found, maps=maps)
    skipped = [{"name": name, "reason": reason} for name, reason in loaded.skipped]
    report = {"model": model, "threshold": threshold, "images": rows, "skipped": skipped}
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


def _shaping(bundle: str, spec: ImageSpec, size: str | None, fit: Fit | None, value_range: str | None) -> Shaping:
    """How pictures come to the model's size and values: as in its training, but for what was given."""
    from gensdk.cli.train import parse_size, parse_value_range
    from gensdk_runtime.bundles.bundle import Bundle
    from gensdk_runtime.media.image_sets import Shaping

    wanted = parse_size(size)
    if wanted not in (None, (spec.height, spec.width)):
        raise InputError(f"the model takes images of {spec.height}x{spec.width} (height x width), not {size}")
    with Bundle.open(bundle) as opened:
        known = opened.manifest.provenance.config.get("data")
    data = known if isinstance(known, dict) else {}
    own: Fit = "stretch" if data.get("fit") == "stretch" else "crop"
    resized = fit is not None or wanted is not None or data.get("size") is not None
    given = parse_value_range(value_range)
    bits, values = data.get("depth"), data.get("value_range")
    numbers = isinstance(values, list) and len(values) == 2 and all(isinstance(v, int | float) for v in values)
    return Shaping(
        fit=(fit or own) if resized else None,
        value_range=given or ((float(values[0]), float(values[1])) if numbers and values else None),
        depth=bits if isinstance(bits, int) and 8 <= bits <= 16 else None,
    )


def _tell(loaded: ImageSet) -> None:
    """Lists on stderr what could not be used."""
    for name, reason in loaded.skipped[:SHOWN]:
        aside(f"skipped {name}: {reason}")
    if len(loaded.skipped) > SHOWN:
        click.echo(f"skipped {len(loaded.skipped) - SHOWN} more", err=True)
    if loaded.left_out:
        click.echo(f"left out {loaded.left_out} files that are no images by their suffix", err=True)


def _rows(names: list[str], found: Detection, *, maps: bool) -> list[dict[str, Any]]:
    """The row of each image in the report; with `maps` also the file that has its heat map."""
    rows = []
    for i, (name, score, odd) in enumerate(zip(names, found.scores, found.anomalous, strict=True)):
        row: dict[str, Any] = {"name": name, "score": float(score), "anomalous": bool(odd)}
        if maps:
            row["heat_map"] = f"{i:05d}-{re.sub('[^A-Za-z0-9_]+', '-', Path(name).stem)[:60]}.png"
        rows.append(row)
    return rows


def _holds_maps(output: Path | None) -> bool:
    """True if `output` is a folder. Raises :class:`InputError` for a file that is no .json."""
    if output is None or output.suffix.lower() == ".json":
        return False
    if output.suffix and not output.is_dir():
        raise InputError(f"expected a .json file or a folder for --output, got {str(output)!r}")
    return True


def _write(output: Path, report: dict[str, Any], found: Detection) -> None:
    """The report; in a folder the heat maps beside it, white where a residual is as large as the image's range."""
    import numpy as np

    from gensdk_runtime.media.images import encode_image, write_atomically
    from gensdk_runtime.media.value_range import to_uint8

    text = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    if not _holds_maps(output):
        write_atomically(output, text)
        return
    for row, heat in zip(report["images"], found.heat_maps, strict=True):
        picture = to_uint8(np.asarray(heat[None, None]), (0.0, 2.0))[0]
        write_atomically(output / row["heat_map"], encode_image(picture, ".png", row))
    write_atomically(output / "report.json", text)
