"""``gensdk sample``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import aside, print_json, say
from gensdk.cli.program_options import program_options
from gensdk_runtime.errors import InputError

if TYPE_CHECKING:
    from gensdk_runtime.conditions.base import Condition
    from gensdk_runtime.spec.model import ModelSpec

EXAMPLES = """
\b
Examples:
  gensdk sample digits-ddpm -n 64 --seed 0 -o grid.png
  gensdk sample digits-ddpm -n 8 --label 7 --guidance-scale 2 --solver dpmsolver++ --num-inference-steps 10
  gensdk sample digits-vae -n 1000 --seed 1 -o samples.npz
  gensdk sample digits-dcgan --seed 0:17 -o one.png       (sample 17 of seed 0)
  gensdk sample captions -n 5                                    (a model of text: printed)
  gensdk sample styles.gsdk -n 4 --label positive --prompt "the food was cold"    (a text made from a text)
  gensdk sample sprites.gsdk -n 16 --prompt "green dragon" --guidance-scale 3 -o dragons.png
  gensdk sample heard.gsdk -n 8 --audio seven.wav -o sevens.png           (images made from a sound)
  gensdk sample gaussians.gsdk -n 2500 --seed 0 -o points.csv    (a model of points)
  gensdk sample chorales -n 4 -o tunes/           (a model of music: a MIDI file each; or tunes.wav, tunes.png)
  gensdk sample digits-pixelcnn -n 10 --label 0,1,2,3,4,5,6,7,8,9 -o digits/
  gensdk sample digits-pixelcnn -n 16 --prefix digits/00007.png -o sevens.png    (other lower halves)
  gensdk sample digits-ddpm -n 16 --image digits/00007.png --strength 0.5 -o near.png    (like this image)
  gensdk sample digits-ddpm -n 16 --image seven.png --mask-image mask.png -o repaired.png  (white is painted anew)
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option(
    "-n",
    "n",
    type=int,
    help="Number of samples. [default: as many as beginnings, images, seeds, labels, prompts or sounds are "
    "listed, or 16]",
)
@click.option(
    "-o",
    "--output",
    help="A .png, .npz, or a folder; of points also .csv, of sounds .wav and .flac, of text .txt or .jsonl, of "
    "music .mid and .wav. [default: samples.png; texts are printed]",
)
@click.option(
    "--seed", help="An int, or one entry for each sample with commas, as in 3,4 or 0:17. [default: drawn]"
)
@click.option("--label", help="A class number or name for all, or one for each sample, with commas.")
@click.option("--prompt", metavar="TEXT", help="The text that samples are made from.")
@click.option(
    "--negative-prompt", metavar="TEXT", help="The text that guidance leads away from. [default: the empty one]"
)
@click.option("--prompts", metavar="FILE", help="Such texts, one a line: for each sample, or one for all.")
@click.option(
    "--audio",
    "sounds",
    multiple=True,
    metavar="FILE",
    help="A .wav or .flac file that samples are made from; may be repeated, one for each sample.",
)
@click.option(
    "--image",
    metavar="FILE",
    help="What samples start from, of diffusion models: an image, a folder or an .npz, with one for all or one "
    "for each, of the size of the model's images. See --strength.",
)
@click.option(
    "--mask-image",
    metavar="FILE",
    help="Where --image is painted anew: a picture in grey of the same size, white where it is, black where it is "
    "kept; or a folder or an .npz of them.",
)
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="KIND=VALUE",
    help="What samples are asked to be, of kinds that have no option of their own.",
)
@click.option(
    "--prefix",
    metavar="FILE",
    help="How samples begin, of models that draw part after part: an image, a folder or an .npz, with one for all "
    "or one for each, of which the upper rows are kept; a sound; a MIDI file; or a text, one beginning a line.",
)
@click.option(
    "--prefix-length",
    type=int,
    metavar="ROWS",
    help="Rows, samples of a sound, or steps of music, that are kept. [default: half; of a sound all]",
)
@program_options()
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "auto"]), default="fp32", show_default=True)
@click.option("--threads", type=int, help="CPU threads in one graph. [default: the backend's choice]")
@click.option("--batch-size", type=int, help="Samples in one run of the graphs. [default: the bundle's max_batch]")
@click.option(
    "--layout", type=click.Choice(["auto", "image", "grid", "folder"]), default="auto", show_default=True
)
@click.option("--columns", type=click.IntRange(1, 10000), help="Columns of a grid. [default: about square]")
@click.option("--scale", type=click.IntRange(1, 64), help="Enlarge images so many times.")
@click.option("--progress/--no-progress", default=None, help="[default: on a terminal]")
@click.option("--json", "as_json", is_flag=True, help="Print settings, seeds and timings as JSON.")
def sample(
    *,
    bundle: str,
    n: int | None,
    output: str | None,
    seed: str | None,
    label: str | None,
    prompt: str | None,
    negative_prompt: str | None,
    prompts: str | None,
    sounds: tuple[str, ...],
    image: str | None,
    mask_image: str | None,
    conditions: tuple[str, ...],
    prefix: str | None,
    prefix_length: int | None,
    backend: str,
    precision: Any,
    threads: int | None,
    layout: Any,
    columns: int | None,
    scale: int | None,
    as_json: bool,
    options: dict[str, Any],
    **given: Any,
) -> None:
    """Draw samples from BUNDLE: a folder, a .gsdk file, or an embedded name (see gensdk list)."""
    from gensdk_runtime.arguments import check_path
    from gensdk_runtime.generator import Generator
    from gensdk_runtime.outputs.base import Arrangement, output_of
    from gensdk_runtime.spec.options import check_options

    if output is not None and not output.strip():
        raise InputError("expected a path for --output, got an empty one")
    for name, file in (("--prefix", prefix), ("--prompts", prompts)):
        if file is not None:
            check_path(file, name)
    if prefix is None and prefix_length is not None:
        raise InputError("expected --prefix FILE with --prefix-length; leave it out, or name the file")
    arrangement = Arrangement(layout, columns, scale)
    seeds = parse_seed(seed)
    with Generator.load(bundle, backend=backend, precision=precision, threads=threads) as generator:
        if generator.can("translate"):
            raise InputError(
                f"{bundle} translates images; use gensdk translate BUNDLE --source IMAGE --sink RESULT"
            )
        check_options(generator.model.program.kind, options)
        kind = output_of(generator.model.output)
        target = kind.default_file if output is None else output
        if target is None:
            kind.check_printed(arrangement)
        else:
            kind.check_target(target, arrangement)
        named = {"label": label, "prompt": prompt, "negative_prompt": negative_prompt}
        pairs = [f"{name}={text}" for name, text in named.items() if text is not None]
        asked = parse_conditions([*conditions, *pairs], generator.model)
        if prompts is not None:
            asked |= _prompts_of(prompts, generator.model, asked)
        if sounds:
            asked |= _sounds_of(sounds, generator.model, asked)
        asked |= _starts_of({"image": image, "mask_image": mask_image}, generator.model)
        begun = None if prefix is None else kind.prefix_of(prefix, prefix_length)
        if n is None:
            listed = [len(each) for each in (seeds, *asked.values()) if isinstance(each, list)]
            starts = [len(asked[name]) for name in ("image", "mask_image") if name in asked]
            begins = max(1 if begun is None else len(begun), *starts, 1)
            n = begins if begins > 1 else next(iter(listed), 16)
        samples = generator.sample(n, seed=seeds, prefix=begun, settings=options, **asked, **given)
    lines = samples.output.lines(samples) if target is None else []
    path = None if target is None else samples.save(Path(target), layout=layout, columns=columns, scale=scale)
    timings = samples.timings
    if "fallback" in samples.settings:
        aside(f"warning: {samples.settings['fallback']}; gensdk tune measures anew")
    if as_json:
        printed = {"output": str(path)} if path is not None else {"output": None, "samples": lines}
        print_json({**printed, "settings": dict(samples.settings), "seconds": vars(timings)})
        return
    first = samples.seeds[0]
    rate = len(samples) / timings.total
    drawn = f"{len(samples)} sample" + ("" if len(samples) == 1 else "s")
    for line in lines:
        say(line)
    told = say if path is not None else aside  # what is printed may be read by another program
    told(
        f"{drawn} of {samples.settings['model']} from seed {first.seed} in {timings.total:.3f} s "
        f"({rate:.1f} per second, {samples.settings['backend']}, {samples.settings['precision']})"
        + ("" if path is None else f": {path}")
    )


def parse_seed(text: str | None) -> Any:
    """An int, or a list of ints and (seed, position) pairs, from ``3``, ``0:17`` or ``3,4,0:17``."""
    if text is None:
        return None
    entries = [_seed_entry(part.strip()) for part in text.split(",")]
    return entries[0] if len(entries) == 1 and isinstance(entries[0], int) else entries


def _seed_entry(text: str) -> int | tuple[int, int]:
    seed, colon, position = text.partition(":")
    try:
        return (int(seed), int(position)) if colon else int(seed)
    except ValueError:
        raise InputError(f"expected a seed as 3, 0:17 or a list with commas, got {text[:60]!r}") from None


def _prompts_of(path: str, model: ModelSpec, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of a file as the condition "prompt": one alone is for all samples."""
    from gensdk_runtime.arguments import check_path
    from gensdk_runtime.conditions.base import check_known
    from gensdk_runtime.text.lines import lines_of

    if "prompt" in asked:
        raise InputError("the prompt is given twice, as a text and as a file; give it once")
    check_known({"prompt": path}, model)
    texts = lines_of(check_path(path, "--prompts"))
    return {"prompt": texts if len(texts) > 1 else texts[0]}


def _sounds_of(paths: Sequence[str], model: ModelSpec, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The files as the condition "audio": one alone is for all samples."""
    from gensdk_runtime.conditions.base import check_known

    if "audio" in asked:
        raise InputError("audio is given twice, by --audio and by --condition; give it once")
    check_known({"audio": paths}, model)
    return {"audio": list(paths) if len(paths) > 1 else paths[0]}


def _starts_of(paths: Mapping[str, str | None], model: ModelSpec) -> dict[str, Any]:
    """The images of files, and masks in grey, that samples start from, by the arguments that take them."""
    from gensdk_runtime.arguments import check_path
    from gensdk_runtime.conditions.base import check_known
    from gensdk_runtime.outputs.base import output_of
    from gensdk_runtime.programs import program_type

    given = {name: check_path(path, name) for name, path in paths.items() if path is not None}
    if given and not program_type(model).starts:
        check_known(given, model)
    kind = output_of(model.output)
    return {name: kind.start_of(path, mask=name == "mask_image") for name, path in given.items()}


def parse_conditions(pairs: Sequence[str], model: ModelSpec) -> dict[str, Any]:
    """Conditions by kind from ``KIND=VALUE``, as the model's own understand their values."""
    from gensdk_runtime.conditions.base import check_known, conditions_of

    given: dict[str, str] = {}
    for pair in pairs:
        kind, equals, text = pair.partition("=")
        if not equals or not kind:
            raise InputError(f"expected KIND=VALUE, such as label=3, got {pair[:60]!r}")
        if kind in given:
            raise InputError(f"{kind[:60]} is given twice; give it once")
        given[kind] = text
    check_known(given, model)
    return {each.kind: _parsed(each, given[each.kind]) for each in conditions_of(model) if each.kind in given}


def _parsed(condition: Condition[Any], text: str) -> Any:
    try:
        return condition.parsed(text)
    except InputError:
        raise
    except ValueError as failure:  # of a number, in a kind of another package
        raise InputError(f"{condition.kind}: can't read {text[:60]!r} ({failure})") from None
