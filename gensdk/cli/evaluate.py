"""``gensdk evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gensdk.cli.output import aside, needs_extra, print_json, print_table, say
from gensdk.cli.program_options import program_options
from gensdk_runtime.errors import InputError

EXAMPLES = """
\b
Examples:
  gensdk evaluate digits-ddpm --data digits -o report.html --json report.json
  gensdk evaluate my.gsdk --data mnist:FOLDER -n 10000 --metrics fid,precision,recall,memorization
  gensdk evaluate heard.gsdk --data mnist:FOLDER --inputs fsdd:PATH
  gensdk evaluate told.gsdk --data sprites.npz --captions captions --metrics fid,r_precision
  gensdk evaluate photos.gsdk --data photos/ --holdout 0.1 --extractor inception.onnx --extractor-size 299 \\
    --extractor-range -1,1 --extractor-output pool3

\b
Every measure comes with its floor: what training images get in the samples' place.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option(
    "--data", "source", required=True, help="digits, mnist:FOLDER, a folder of images, FILE.npz, music, or texts."
)
@click.option(
    "--inputs", help="Sounds of the same classes, of a model that makes images from such: fsdd:PATH, ..."
)
@click.option(
    "--captions",
    help="Texts beside images: a key of an .npz, names for those of files, or none. [default: as in training]",
)
@click.option("-n", "--count", type=int, default=5000, show_default=True, help="Samples to draw.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--metrics", help="Names with commas: fid, kid, is, bleu, ... [default: all that are possible]")
@click.option("--extractor", help="An ONNX file. [default: a classifier trained here on the data's labels]")
@click.option("--extractor-size", help="Pixels, 299 or 64x96. [default: the file's, or as the images are]")
@click.option("--extractor-layout", type=click.Choice(["auto", "nchw", "nhwc"]), default="auto", show_default=True)
@click.option("--extractor-range", default="0,1", show_default=True, help="What black and white become.")
@click.option("--extractor-mean", default="0", show_default=True, help="Taken off, one or one a channel.")
@click.option("--extractor-std", default="1", show_default=True, help="Then divided by, one or one a channel.")
@click.option("--extractor-output", help="The features' output. [default: the first]")
@click.option("--extractor-logits", help="The output of a classifier, for is, modes and labels.")
@click.option("--holdout", type=float, help="Share of the data that is the test. [default: as in training]")
@click.option("--labels", help="auto, none, or a key of an .npz file. [default: as in training]")
@click.option("--only", help="0,3 or cat,dog: the classes to compare with. [default: as in training]")
@click.option(
    "--layout",
    type=click.Choice(["auto", "splits", "classes"]),
    help="What a folder's sub-folders are. [default: as in training]",
)
@click.option("--value-range", help="0,1: what black and white are in an array. [default: as in training]")
@click.option("--fit", type=click.Choice(["crop", "stretch"]), help="[default: as in training]")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@program_options()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A page with pictures, .html.")
@click.option("--json", "json_file", help="A file for the report as JSON, or - for stdout.")
@click.option("--progress/--no-progress", default=None, help="[default: on a terminal]")
def evaluate(
    *,
    bundle: str,
    source: str,
    output: Path | None,
    json_file: str | None,
    metrics: str | None,
    progress: bool | None,
    options: dict[str, Any],
    **given: Any,
) -> None:
    """Measure BUNDLE's samples against data: quality, diversity, copies, each with its floor."""
    _check_targets(output, json_file)
    with needs_extra("evaluate"):
        from gensdk_training.evaluation.evaluate import evaluate as run_evaluation
        from gensdk_training.evaluation.evaluation_page import page
    from gensdk_runtime.media.images import write_atomically

    found = run_evaluation(
        bundle,
        source,
        count=given["count"],
        seed=given["seed"],
        metrics=None if metrics is None else [name.strip() for name in metrics.split(",")],
        extractor=given["extractor"],
        onnx=_onnx_options(given),
        data=_data(bundle, source, given),
        backend=given["backend"],
        options=options,
        progress=progress,
        say=lambda line: aside(line) if progress is not False else None,
    )
    if output is not None:
        write_atomically(output, page(found).encode())
    if json_file == "-":
        print_json(found.report.model_dump(mode="json"))
        return
    if json_file is not None:
        write_atomically(Path(json_file), found.report.to_json().encode())
    _print(found.report)
    for path in (output, json_file):
        if path is not None:
            say(str(path))


def _print(report: Any) -> None:
    """The table, and above it what was compared with what."""
    from gensdk_training.evaluation.evaluation_page import extractor_line, number, with_error

    say(
        f"{report.model}: {report.samples} samples ({report.size}, seed {report.seed}) against "
        f"{report.data}: {report.train_count} for training and {report.test_count} for the test"
    )
    if report.labels:
        say(f"classes of the samples: {report.labels}")
    say(f"extractor: {extractor_line(report)}")
    for note in report.notes:
        say(f"note: {note}")
    rows = [(m.title, with_error(m), number(m.floor), m.better, m.detail) for m in report.measures]
    print_table(("measure", "value", "floor", "better", "detail"), rows)


def _check_targets(output: Path | None, json_file: str | None) -> None:
    """Checks before long work that the files can be written."""
    from gensdk_runtime.outputs.base import check_folder

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"expected a .html path for --output, got {str(output)[-60:]!r}")
    for path in (output, None if json_file in (None, "-") else Path(str(json_file))):
        if path is not None:
            check_folder(path)


def _data(bundle: str, source: str, options: dict[str, Any]) -> Any:
    """How the data is split and cut: the model's own way, but for what was given."""
    from gensdk.cli.train import parse_value_range
    from gensdk_runtime.bundles.bundle import Bundle
    from gensdk_training.evaluation.subject import data_of
    from gensdk_training.run_config import DataConfig

    with Bundle.open(bundle) as opened:
        known = data_of(opened.manifest, source).model_dump()
    names = ("holdout", "labels", "fit", "layout", "inputs")
    given = {name: options[name] for name in names if options[name] is not None}
    if options["captions"] is not None:
        given["captions"] = None if options["captions"] == "none" else options["captions"]
    if options["only"] is not None:
        given["only"] = [part.strip() for part in options["only"].split(",") if part.strip()]
    if options["value_range"] is not None:
        given["value_range"] = parse_value_range(options["value_range"])
    return DataConfig.from_dict({**known, **given}, what="options")


def _onnx_options(options: dict[str, Any]) -> Any:
    from gensdk.cli.train import parse_size
    from gensdk_training.metrics.extractor import ExtractorOptions

    low_high = _numbers("--extractor-range", options["extractor_range"])
    if len(low_high) != 2:
        raise InputError(f"expected --extractor-range LOW,HIGH, got {options['extractor_range'][:40]!r}")
    return ExtractorOptions(
        size=parse_size(options["extractor_size"], option="--extractor-size"),
        layout=options["extractor_layout"],
        value_range=(low_high[0], low_high[1]),
        mean=_numbers("--extractor-mean", options["extractor_mean"]),
        std=_numbers("--extractor-std", options["extractor_std"]),
        output=options["extractor_output"],
        logits=options["extractor_logits"],
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"expected {option} as numbers with commas, got {text[:40]!r}") from None
