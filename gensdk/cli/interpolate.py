"""``gensdk interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gensdk.cli.output import print_json, say
from gensdk.cli.program_options import program_options
from gensdk.cli.sample import parse_seed
from gensdk_runtime.errors import InputError

EXAMPLES = """
\b
Examples:
  gensdk interpolate digits-ddpm --from 3 --to 9 -n 16 -o walk.png
  gensdk interpolate digits-vae --seeds 3,9,12 --loop --label 7 -n 12 -o walk.gif --fps 20
  gensdk interpolate digits-dcgan --from 0:17 --to 4 -o walk.mp4
  gensdk interpolate digits-vae --from 3 --traverse 5 -n 13 -o axis.png       (value 5 of z, from -3 to 3)
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option("--from", "first", help="The seed to start from: an int, or as in 0:17.")
@click.option("--to", "last", help="The seed to end at.")
@click.option("--seeds", help="Two seeds or more to walk through, with commas; in place of --from and --to.")
@click.option("--loop", is_flag=True, help="Walk back to the first seed, for an animation without a seam.")
@click.option(
    "--traverse", "axis", type=int, help="Change one value of the latent of --from, the one of this number."
)
@click.option("--low", type=float, help="--traverse: the first value. [default: -3]")
@click.option("--high", type=float, help="--traverse: the last value. [default: 3]")
@click.option(
    "-n", "n", type=int, default=16, show_default=True, help="Samples from a seed to the next, both counted."
)
@click.option("--method", type=click.Choice(["slerp", "lerp"]), help="[default: slerp for normal latents]")
@click.option(
    "-o", "--output", default="walk.png", show_default=True, help=".png (grid), .gif, .mp4, .npz, a folder."
)
@click.option("--fps", type=float, default=12.0, show_default=True, help="Frames a second of a .gif or .mp4.")
@click.option("--label", help="A class number or name for all, or one for each sample, with commas.")
@program_options()
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "auto"]), default="fp32", show_default=True)
@click.option("--threads", type=int, help="CPU threads in one graph. [default: the backend's choice]")
@click.option("--batch-size", type=int, help="Samples in one run of the graphs. [default: the bundle's max_batch]")
@click.option("--columns", type=click.IntRange(1, 10000), help="Columns of a grid. [default: about square]")
@click.option("--scale", type=click.IntRange(1, 64), help="Enlarge images so many times.")
@click.option("--progress/--no-progress", default=None, help="[default: on a terminal]")
@click.option("--json", "as_json", is_flag=True, help="Print settings, seeds and timings as JSON.")
def interpolate(
    *,
    bundle: str,
    first: str | None,
    last: str | None,
    seeds: str | None,
    loop: bool,
    axis: int | None,
    low: float | None,
    high: float | None,
    n: int,
    method: Any,
    output: str,
    fps: float,
    label: str | None,
    backend: str,
    precision: Any,
    threads: int | None,
    columns: int | None,
    scale: int | None,
    as_json: bool,
    options: dict[str, Any],
    **given: Any,
) -> None:
    """Walk through the latent space of BUNDLE, from seed to seed or along one axis."""
    from gensdk_runtime.conditions.label import parse_label
    from gensdk_runtime.generator import Generator
    from gensdk_runtime.outputs.base import output_of
    from gensdk_runtime.outputs.image import check_target
    from gensdk_runtime.spec.options import check_options
    from gensdk_runtime.stream.animation import SUFFIXES, check_animation, save_animation

    target = Path(output)
    moving = target.suffix.lower() in SUFFIXES
    if not output.strip():
        raise InputError("expected a path for --output, got an empty one")
    if moving:
        check_animation(target, fps)
        check_target(target.with_suffix(".png"))
    points = _points(first, last, seeds, axis)
    if axis is None and (low is not None or high is not None):
        raise InputError("--low and --high go with --traverse; leave them out")
    with Generator.load(bundle, backend=backend, precision=precision, threads=threads) as generator:
        check_options(generator.model.program.kind, options)
        if not moving:
            output_of(generator.model.output).check_target(target, others=SUFFIXES)
        given |= {"label": None if label is None else parse_label(label), "settings": options}
        if axis is not None:
            samples = generator.traverse(points[0], axis, n, low=low, high=high, **given)
        else:
            samples = generator.walk(points, n, method=method, loop=loop, **given)
    if moving:
        path = save_animation(samples.images, target, fps=fps, scale=scale)
    else:
        path = samples.save(target, columns=columns, scale=scale)
    if as_json:
        print_json({"output": str(path), "settings": dict(samples.settings), "seconds": vars(samples.timings)})
        return
    model, seconds = samples.settings["model"], samples.timings.total
    way = f"along axis {axis}" if axis is not None else f"through {len(points)} seeds"
    say(f"{len(samples)} samples of {model} {way} in {seconds:.3f} s: {path}")


def _points(start: str | None, end: str | None, seeds: str | None, axis: int | None) -> list[Any]:
    """The seeds to walk through."""
    if seeds is not None and (start is not None or end is not None):
        raise InputError("expected --seeds, or --from and --to, got both")
    if axis is not None:
        if start is None or end is not None or seeds is not None:
            raise InputError("--traverse starts from one seed; give it with --from, and no other")
        return _seeds(start)[:1]
    if seeds is not None:
        return _seeds(seeds)
    if start is None or end is None:
        raise InputError("expected --from and --to, or --seeds with two seeds or more")
    return [*_seeds(start), *_seeds(end)]


def _seeds(text: str) -> list[Any]:
    parsed = parse_seed(text)
    return parsed if isinstance(parsed, list) else [parsed]
