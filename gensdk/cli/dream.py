"""``gensdk dream``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import click

from gensdk.cli.output import aside, print_json, say
from gensdk.cli.program_options import program_options

EXAMPLES = """
\b
Examples:
  gensdk dream photo.jpg --bundle deepdream.gsdk -o dream.png
  gensdk import mobilenet.onnx --dream --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o mobilenet.gsdk
  gensdk dream photo.jpg --bundle mobilenet.gsdk --layer logits --channel 207 -o dream.png
  gensdk dream photo.jpg --bundle deepdream.gsdk --layer conv2 --channel 7 --octaves 5 -o dream.png
"""


@click.command(epilog=EXAMPLES)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--bundle", required=True, help="Of the family deepdream, or of gensdk import --dream.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("dream.png"), show_default=True)
@click.option("--octaves", type=int, default=4, show_default=True, help="Sizes, up to the image's own.")
@click.option("--octave-scale", type=float, default=1.4, show_default=True, help="From one size to the next.")
@program_options("ascent")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the jitter: the same gives the same picture."
)
@click.option(
    "--tile",
    type=int,
    metavar="PIXELS",
    help="Cut larger images into tiles; 0: never. [default: where memory is short]",
)
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "auto"]), default="fp32", show_default=True)
@click.option("--threads", type=int, help="CPU threads in one graph. [default: the backend's choice]")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
def dream(
    *,
    image: Path,
    bundle: str,
    output: Path,
    backend: str,
    precision: Any,
    threads: int | None,
    as_json: bool,
    options: dict[str, Any],
    **how: Any,
) -> None:
    """Let a classifier change IMAGE until it sees more of what it knows."""
    from gensdk_runtime.generator import Generator
    from gensdk_runtime.media.image_files import file_header
    from gensdk_runtime.media.image_sets import load_image
    from gensdk_runtime.media.images import encode_image, write_atomically
    from gensdk_runtime.outputs.image import check_target, image_of

    check_target(output)
    started = perf_counter()
    with Generator.load(bundle, backend=backend, precision=precision, threads=threads) as generator:
        channels = image_of(generator.model).channels
        given = load_image(image, channels)
        header = file_header(image)
        if channels == 1 and not header.grey:
            aside(f"model {generator.model.name!r} takes grey images: colours are dropped")
        if header.alpha and channels != 4:
            aside("transparency is laid over white")
        made = generator.dream(given, **how, **options)
        settings = {"model": generator.model.name, **{k: v for k, v in how.items() if v is not None}, **options}
    write_atomically(output, encode_image(made, output.suffix.lower(), settings))
    seconds = perf_counter() - started
    if as_json:
        print_json({"output": str(output), "settings": settings, "seconds": seconds})
        return
    say(f"{made.shape[1]}x{made.shape[0]} pixels of {settings['model']} in {seconds:.1f} s: {output}")
