"""``gensdk import``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.export import print_export
from gensdk.cli.output import aside, needs_extra, print_json, print_table
from gensdk_runtime.errors import InputError
from gensdk_runtime.programs.solvers import SOLVERS

if TYPE_CHECKING:
    from gensdk_export.export import ExportOptions
    from gensdk_export.importers.import_report import ImportReport

CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
FP16 = "half precision is made from PyTorch modules, not from an ONNX file; leave --fp16 out"
MAX_CONSTANT_BYTES = 2**28
NOT_OF_DREAMS = {
    "kind": "--kind",
    "roles": "--input",
    "output_range": "--output-range",
    "ranges": "--input-range",
    "scale": "--scale",
    "multiple": "--multiple",
    "constants": "--constant",
    "label": "--label",
    "classes": "--classes",
    "null_class": "--null-class",
    "styles": "--style",
    "style_encoder": "--style-encoder",
    "solver": "--solver",
    "fp16": "--fp16",
    "uint8": "--uint8",
    "lora": "--lora",
}
OF_ONNX = {
    "kind": "--kind",
    "roles": "--input",
    "result": "--result",
    "source_range": "--range",
    "ranges": "--input-range",
    "output_range": "--output-range",
    "layout": "--layout",
    "channels": "--channels",
    "scale": "--scale",
    "multiple": "--multiple",
    "constants": "--constant",
    "label": "--label",
    "styles": "--style",
    "style_encoder": "--style-encoder",
}
OF_CLASSES = {"classes": "--classes"}
OF_CHECKPOINTS = {"network": "--network"}
OF_DIFFUSERS = {"solver": "--solver", "null_class": "--null-class", "lora": "--lora"}

EXAMPLES = """
\b
Examples:
  gensdk import style.onnx -o style.gsdk
  gensdk import esrgan.onnx -o esrgan.gsdk --range 0,255 --uint8
  gensdk import multistyle.onnx -o styles.gsdk --label style_weights
  gensdk import transform.onnx -o coffee.gsdk --style coffee.png --style-encoder predict.onnx
  gensdk import mobilenet.onnx --dream --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o dream.gsdk
  gensdk import caffe.onnx --dream --range 0,255 --mean 123,117,104 --bgr --layer conv4 -o dream.gsdk
  gensdk import latest_net_G.pth -o horse2zebra.gsdk --fp16
  gensdk import ddpm-celebahq-256/ -o faces.gsdk
  gensdk import stable-diffusion-v1-5/ -o knitted.gsdk --lora knitting.safetensors:0.8

\b
Exit code: 7 when the bundle would not be equal to the original within its bounds, or the model is none that a
bundle can hold; then nothing is written, and a bundle that stood there stays.
"""


def _pair(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, float] | None:
    """LOW,HIGH."""
    return None if text is None else low_high(text)


def low_high(text: str) -> tuple[float, float]:
    """The two numbers of LOW,HIGH; a usage error for other texts."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected LOW,HIGH as in -1,1, got {text[:40]!r}") from None
    if not low < high or not high - low < 1e6:
        raise click.BadParameter(f"expected the lower value first, got {text[:40]!r}")
    return low, high


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """One number, or R,G,B."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers as in 123,117,104, got {text[:40]!r}") from None


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """HxW."""
    if text is None:
        return None
    height, _x, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and len(text) < 12):
        raise click.BadParameter(f"expected HEIGHTxWIDTH as in 256x256, got {text[:40]!r}")
    return int(height), int(width)


@click.command("import", epilog=EXAMPLES)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle to write.")
@click.option(
    "--kind", type=click.Choice(["translation", "generator"]), help="ONNX: from images, or from noise, to images."
)
@click.option(
    "--input",
    "roles",
    multiple=True,
    metavar="NAME=ROLE",
    help="ONNX: what an input is: image, noise, uniform, label or constant.",
)
@click.option("--result", "result", metavar="NAME", help="ONNX: the output that holds images.")
@click.option("--range", "source_range", callback=_pair, metavar="LOW,HIGH", help="ONNX: range of what goes in.")
@click.option(
    "--input-range", "ranges", multiple=True, metavar="NAME=LOW,HIGH", help="ONNX: range of a further image input."
)
@click.option("--output-range", callback=_pair, metavar="LOW,HIGH", help="ONNX: range of what comes out.")
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="ONNX: the order of an image's axes.")
@click.option("--channels", type=click.IntRange(1, 64), help="ONNX: channels of what goes in.")
@click.option("--scale", type=click.IntRange(1, 16), help="ONNX: how many times as large the result is.")
@click.option("--multiple", type=click.IntRange(1, 1024), help="ONNX: what height and width are multiples of.")
@click.option(
    "--margin", type=click.IntRange(0, 1024), default=32, show_default=True, help="Pixels that tiles overlap by."
)
@click.option("--size", callback=_size, metavar="HxW", help="The size to prove a model of any size at.")
@click.option("--constant", "constants", multiple=True, metavar="NAME=FILE.npy", help="ONNX: an input's value.")
@click.option("--label", metavar="NAME", help="ONNX: the input that a class chooses.")
@click.option(
    "--classes", type=click.IntRange(1, 100_000), help="How many classes --label has, or a diffusers model."
)
@click.option(
    "--null-class",
    is_flag=True,
    help="diffusers: the last class means none, which guidance needs. [default: all are classes]",
)
@click.option(
    "--style",
    "styles",
    multiple=True,
    type=click.Path(path_type=Path),
    help="ONNX: a picture to take the style of; several become classes.",
)
@click.option(
    "--style-encoder",
    type=click.Path(path_type=Path),
    metavar="FILE.onnx",
    help="ONNX: finds the style of a picture.",
)
@click.option(
    "--norm-statistics",
    type=click.Choice(["stored", "image"]),
    default="stored",
    show_default=True,
    help="Checkpoints with batch norm: stored, as test.py --eval; image, as test.py without it.",
)
@click.option("--network", metavar="NAME", help="Checkpoints of several networks: which one, as netG_A.")
@click.option("--solver", type=click.Choice(SOLVERS), help="diffusers: the solver. [default: the pipeline's]")
@click.option(
    "--lora",
    multiple=True,
    metavar="FILE.safetensors[:WEIGHT]",
    help="diffusers, with texts: a LoRA to merge, of diffusers, PEFT or kohya; several. [default: weight 1]",
)
@click.option("--dream", is_flag=True, help="ONNX: a classifier; the bundle is for gensdk dream.")
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME",
    help="--dream: a layer; several. [default: a choice of them]",
)
@click.option(
    "--mean", callback=_numbers, metavar="R,G,B", help="--dream: what is subtracted, in the unit of --range."
)
@click.option("--std", callback=_numbers, metavar="R,G,B", help="--dream: what is then divided by.")
@click.option("--bgr", is_flag=True, help="--dream: the model takes blue first.")
@click.option("--fp16", is_flag=True, help="Add graphs in half precision; not for ONNX files.")
@click.option(
    "--uint8/--no-uint8",
    default=None,
    help="Let images go in and come out of the graph as bytes. [default: of checkpoints, not of ONNX files]",
)
@click.option(
    "--atol",
    type=click.FloatRange(0, 0.02, min_open=True),
    default=1e-4,
    show_default=True,
    help="Largest drift, for [-1, 1].",
)
@click.option("--zip", "as_zip", is_flag=True, help="Write one .gsdk file instead of a folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def import_command(*, model: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Make a bundle of MODEL, a third-party model: an .onnx file, a pytorch-CycleGAN-and-pix2pix generator
    (latest_net_G.pth, .safetensors), or a diffusers folder: with a UNet2DModel, of classes or none, or of Stable
    Diffusion or SANA, which are told texts.

    With --dream MODEL is an .onnx classifier of images, for gensdk dream: its gradients become graphs, one for
    each layer. Layers are called as its nodes or tensors are, in letters, digits, "_", "-" and "."; what takes one
    size alone, behind a Flatten of a map, is left out.

    What the model does not say is guessed, and told.
    """

    def tell(stage: str) -> None:
        aside(f"  {stage} ...")

    plain = model.suffix.lower() == ".onnx" and not options["dream"]
    with needs_extra("import", "import" if plain else "training"):
        report = _import(model, output, options, None if as_json else tell)
    if as_json:
        print_json(report.to_dict())
        return
    if report.guesses:
        rows = [(guess.what, guess.value, guess.reason, guess.option) for guess in report.guesses]
        print_table(("taken for granted", "as", "because", "or say"), rows)
    print_export(report.export, kept=True)


def _import(
    model: Path, output: Path, options: Mapping[str, Any], tell: Callable[[str], None] | None
) -> ImportReport:
    """The importer for what `model` is."""
    if not options["dream"] and any(options[name] for name in ("layers", "mean", "std", "bgr")):
        raise InputError(
            "--layer, --mean, --std and --bgr are of classifiers; give --dream too, or leave them out"
        )
    if model.suffix.lower() == ".onnx":
        _refuse(options, OF_CHECKPOINTS, "checkpoints")
        _refuse(options, OF_DIFFUSERS, "diffusers folders")
        importer = _import_classifier if options["dream"] else _import_onnx
        return importer(model, output, options, tell)
    if options["dream"]:
        raise InputError(f"--dream takes a classifier in an .onnx file, got {str(model)!r}; export it to ONNX")
    _refuse(options, OF_ONNX, "ONNX files")
    if model.suffix.lower() in CHECKPOINTS:
        _refuse(options, OF_DIFFUSERS, "diffusers folders")
        _refuse(options, OF_CLASSES, "ONNX files and diffusers folders")
        return _import_checkpoint(model, output, options, tell)
    if model.is_dir():
        _refuse(options, OF_CHECKPOINTS, "checkpoints")
        return _import_diffusers(model, output, options, tell)
    raise InputError(f"expected an .onnx file, a {CHECKPOINTS[0]} file or a diffusers folder, got {str(model)!r}")


def _refuse(options: Mapping[str, Any], flags: Mapping[str, str], whose: str) -> None:
    """Raises :class:`InputError` for an option of other models, which would have no effect."""
    for name, flag in flags.items():
        if options[name]:
            raise InputError(f"{flag} is for {whose}; leave it out")


def _import_checkpoint(
    model: Path, output: Path, options: Mapping[str, Any], tell: Callable[[str], None] | None
) -> ImportReport:
    from gensdk_export.importers.checkpoints.translation_checkpoint import import_checkpoint

    statistics = options["norm_statistics"]
    return import_checkpoint(
        model,
        output,
        _export_options(options),
        size=options["size"],
        statistics=statistics,
        network=options["network"],
        on_stage=tell,
    )


def _import_diffusers(
    model: Path, output: Path, options: Mapping[str, Any], tell: Callable[[str], None] | None
) -> ImportReport:
    from gensdk_export.importers.diffusers.folder import import_diffusers
    from gensdk_export.importers.diffusers.lora_files import LoraFile

    return import_diffusers(
        model,
        output,
        _export_options(options),
        solver=options["solver"],
        size=options["size"],
        classes=options["classes"],
        null_class=options["null_class"],
        lora=[LoraFile.parse(text) for text in options["lora"]],
        on_stage=tell,
    )


def _export_options(options: Mapping[str, Any]) -> ExportOptions:
    from gensdk_export.export import ExportOptions

    given = {name: options[name] for name in ("fp16", "uint8", "atol", "as_zip")}
    return ExportOptions(**given)


def _import_onnx(
    model: Path, output: Path, options: Mapping[str, Any], tell: Callable[[str], None] | None
) -> ImportReport:
    from gensdk_export.importers.onnx.import_onnx import import_onnx
    from gensdk_export.importers.onnx.meaning import OnnxOptions
    from gensdk_export.importers.onnx.style_vector import Style

    if options["fp16"]:
        raise InputError(FP16)
    if bool(options["styles"]) != (options["style_encoder"] is not None):
        raise InputError("--style and --style-encoder go together: a picture, and what makes a style of it")
    said = OnnxOptions(
        kind=options["kind"],
        roles=_named(options["roles"], "--input NAME=ROLE"),
        output=options["result"],
        source_range=options["source_range"],
        result_range=options["output_range"],
        ranges={
            name: low_high(text) for name, text in _named(options["ranges"], "--input-range NAME=LOW,HIGH").items()
        },
        layout=options["layout"],
        channels=options["channels"],
        size=options["size"],
        multiple=options["multiple"],
        scale=options["scale"],
        margin=options["margin"],
        constants={
            name: _load_constant(file)
            for name, file in _named(options["constants"], "--constant NAME=FILE").items()
        },
        label=options["label"],
        classes=options["classes"],
        uint8=bool(options["uint8"]),
    )
    style = None if options["style_encoder"] is None else Style(options["styles"], options["style_encoder"])
    return import_onnx(
        model, output, said, style=style, atol=options["atol"], as_zip=options["as_zip"], on_stage=tell
    )


def _import_classifier(
    model: Path, output: Path, options: Mapping[str, Any], tell: Callable[[str], None] | None
) -> ImportReport:
    from gensdk_export.importers.classifier.dream_plan import DreamOptions
    from gensdk_export.importers.classifier.import_classifier import import_classifier
    from gensdk_export.importers.onnx.meaning import OnnxOptions

    for name, flag in NOT_OF_DREAMS.items():
        if options[name]:
            raise InputError(f"{flag} says nothing about a classifier that dreams; leave it out")
    said = OnnxOptions(
        output=options["result"],
        source_range=options["source_range"],
        layout=options["layout"],
        channels=options["channels"],
        size=options["size"],
        margin=options["margin"],
    )
    given = {name: options[name] for name in ("layers", "mean", "std", "bgr")}
    return import_classifier(
        model,
        output,
        said,
        DreamOptions(**given),
        atol=options["atol"],
        as_zip=options["as_zip"],
        on_stage=tell,
    )


def _named(given: tuple[str, ...], form: str) -> dict[str, Any]:
    """NAME=VALUE, several of them; a name may hold ``=`` where no value does."""
    named = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        if not (equals and name and value):
            raise InputError(f"expected {form}, got {text[:60]!r}")
        named[name] = value
    return named


def _load_constant(file: str) -> Any:
    """The array in a ``.npy`` file."""
    import numpy as np

    path = Path(file)
    try:
        if not path.is_file() or path.stat().st_size > MAX_CONSTANT_BYTES:
            raise InputError(f"expected a .npy file of at most {MAX_CONSTANT_BYTES} bytes, got {file!r}")
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as failure:
        raise InputError(f"{file}: not readable as .npy ({str(failure)[:120]})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: expected one array (.npy), got an archive of several")
    return array
