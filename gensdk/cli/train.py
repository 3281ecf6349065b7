"""``gensdk train``."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import click

from gensdk.cli.output import aside, needs_extra, print_json, say
from gensdk_runtime.errors import InputError

EXAMPLES = """
\b
Examples:
  gensdk train ddpm --data digits --out runs/ddpm
  gensdk train vae --data mnist:FOLDER --out runs/vae --set latent=32 --steps 5000
  gensdk train dcgan --data photos/ --size 64 --channels 3 --out runs/photos --max-seconds 3600
  gensdk train dcgan --data photos/ --size 64 --dry-run                  (what are these data taken for?)
  gensdk train pix2pix --data emoji.npz:color --inputs emoji.npz:outline --augment flip --out runs/emoji
  gensdk train sound2image --data mnist:FOLDER --inputs fsdd:PATH --seconds 1 --out runs/heard
  gensdk train talkinghead --data faces.npz --inputs faces.npz:stills --sounds sounds --out runs/talk
  gensdk train wgan_gp --data 25gaussians --out runs/points
  gensdk train anogan --data mnist:FOLDER --only 0 --out runs/zeros
  gensdk train ddpm --out runs/ddpm --resume                             (--data where they moved)
  accelerate launch --num_processes 2 -m gensdk train ddpm --data digits --out runs/two       (two GPUs)
  ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m gensdk train ddpm --data digits --out runs/two
"""

_DATA_OPTIONS = (
    *("labels", "size", "channels", "fit", "holdout", "only", "value_range", "layout", "depth"),
    *("sample_rate", "seconds"),
    *("inputs", "input_channels", "input_value_range", "paired", "augment", "text"),
    *("bars", "steps_per_beat", "transpose", "whole", "captions", "unheard", "sounds"),
)
_RUN_OPTIONS = ("seed", "precision", "log_every", "checkpoint_every", "preview_every")


@click.command(epilog=EXAMPLES)
@click.argument("family")
@click.option(
    "--data",
    help="digits, mnist:FOLDER, a folder of images, FILE.npz, FILE.npz:KEY or FILE.npy, NAME=DATA,NAME=DATA for "
    "domains; of points 25gaussians, 8gaussians, FILE.csv or FILE.npz; of sounds fsdd:PATH, a folder or a "
    ".tar.gz; of texts FILE.txt, .tsv or .jsonl; of music a folder or .tar.gz of MIDI, FILE.mid or FILE.json.gz. "
    "With --resume only where the data moved.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. Needed but for --dry-run.")
@click.option("--dry-run", is_flag=True, help="Say what the data are taken for, and stop; nothing is written.")
@click.option("--resume", is_flag=True, help="Go on from the newest whole checkpoint, bit for bit.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the family; may repeat.")
@click.option("--steps", type=int, help="Steps in all. [default: the family's]")
@click.option("--batch-size", type=int, help="[default: the family's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Weights, noise and order of the data.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@click.option("--size", help="Bring images to this size: 64, or 48x64 (height x width). [default: as they are]")
@click.option("--channels", type=click.Choice(["1", "3", "4"]), help="Grey, RGB or RGBA. [default: as the data]")
@click.option("--fit", type=click.Choice(["crop", "stretch"]), default="crop", show_default=True)
@click.option(
    "--labels", default="auto", show_default=True, help="auto, none, a key of an .npz or a column of a .csv."
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "splits", "classes"]),
    default="auto",
    show_default=True,
    help="What a folder's sub-folders are: train/ and test/ or val/, or classes.",
)
@click.option("--value-range", help="0,1: what black and white are in an array. [default: found by its values]")
@click.option(
    "--depth",
    type=click.IntRange(8, 16),
    help="Bits that image files of 16 bits use: 12 where white is 4095. [default: as they say]",
)
@click.option("--sample-rate", type=int, help="Hz that sounds are resampled to. [default: that of most files]")
@click.option("--seconds", type=float, help="What a batch holds of each sound. [default: the longest]")
@click.option("--holdout", type=float, default=0.0, show_default=True, help="Share of the data kept for tests.")
@click.option(
    "--inputs",
    help="For translation: the data that --data is made from, named like it; or sounds of the same classes.",
)
@click.option(
    "--unheard", metavar="VALUE", help="Of --inputs that are sounds, such as a speaker: kept for the test alone."
)
@click.option("--input-channels", type=click.Choice(["1", "3", "4"]), help="Of the inputs. [default: as they are]")
@click.option("--input-value-range", help="As --value-range, of the inputs.")
@click.option(
    "--paired/--unpaired",
    default=True,
    show_default=True,
    help="Whether inputs and data are pairs: files by their names, arrays by their places.",
)
@click.option(
    "--captions", help="Texts beside images: a key of an .npz, or names for the words in the names of files."
)
@click.option(
    "--sounds", help="The sound around each image: a key of an .npz, [N, samples], whose rate is its sample_rate."
)
@click.option("--augment", help="flip,shift: random changes, the same to both images of a pair.")
@click.option(
    "--text",
    multiple=True,
    metavar="KEY=VALUE",
    help="How texts become tokens: min_count=2, vocabulary=characters, length=20, threshold=0.5, valid=0.1; may "
    "repeat.",
)
@click.option(
    "--bars",
    type=click.IntRange(1, 256),
    help="Of music: bars of a phrase. [default: 2; with --whole the longest]",
)
@click.option("--steps-per-beat", type=click.IntRange(1, 96), help="Of music: the grid. [default: 4]")
@click.option(
    "--transpose", type=click.IntRange(0, 11), help="Of music: semitones up and down that phrases are moved, too."
)
@click.option("--whole", is_flag=True, help="Of music: pieces with their ends, of at most --bars, not phrases.")
@click.option("--only", help="0,3 or cat,dog: the classes to train on, by number or name. [default: all]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where named data sets lie.")
@click.option("--max-seconds", type=float, help="Stop in time, with a checkpoint that --resume takes up.")
@click.option("--log-every", type=int, default=50, show_default=True, help="Steps.")
@click.option("--checkpoint-every", type=int, default=500, show_default=True, help="Steps.")
@click.option("--preview-every", type=int, default=500, show_default=True, help="Steps; 0 draws none.")
@click.option("--tensorboard/--no-tensorboard", default=True, show_default=True, help="Logs under OUT/logs.")
@click.option("--progress/--no-progress", default=None, help="[default: a bar on a terminal, lines elsewhere]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    *,
    family: str,
    out: Path | None,
    dry_run: bool,
    resume: bool,
    device: str,
    data_dir: Path | None,
    max_seconds: float | None,
    tensorboard: bool,
    progress: bool | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train FAMILY (see gensdk list) on data, into the folder OUT."""
    with needs_extra("training"):
        from gensdk_training.run import describe_data
        from gensdk_training.run import train as train_run

        if out is None and (resume or not dry_run):
            raise InputError("--out is missing: the run's folder")
        config = _run_config(family, out, resume, options)
    if out is None or dry_run:
        _say_data(describe_data(config, out=out if resume else None, data_dir=data_dir), as_json=as_json)
        return
    result = train_run(
        config,
        out,
        resume=resume,
        max_seconds=max_seconds,
        device=device,
        data_dir=data_dir,
        progress=False if as_json and progress is None else progress,
        tensorboard=tensorboard,
        on_data=None if as_json else _say_data,
    )
    if as_json:
        warnings = [warning.model_dump(mode="json") for warning in result.warnings]
        data = None if result.data is None else result.data.model_dump(mode="json")
        print_json({**asdict(result), "run_dir": str(result.run_dir), "warnings": warnings, "data": data})
        return
    for warning in result.warnings:  # again at the end: during a long run they scroll away
        aside(str(warning))
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
    skipped = f"; {result.skipped} files skipped" if result.skipped else ""
    say(
        f"{family}: step {result.step} after {result.seconds:.0f} s "
        f"({result.steps_per_second:.1f} steps per second; {losses}){skipped}: {out}"
    )
    if result.stopped != "steps":
        why = "at --max-seconds" if result.stopped == "seconds" else "when asked"
        say(f"stopped {why}; to go on: gensdk train {family} --out {shlex.quote(str(out))} --resume")


def _say_data(description: Any, *, as_json: bool = False) -> None:
    """Prints the description of the data."""
    if as_json:
        print_json(description.model_dump(mode="json"))
        return
    for line in description.lines():
        say(line)


def _run_config(family: str, out: Path | None, resume: bool, options: dict[str, Any]) -> Any:
    """The run that the options describe; with --resume the run that was begun, with the user's changes."""
    from gensdk_training.run import DataConfig, RunConfig, read_run_config

    settings = parse_settings(options["settings"])
    for name in ("steps", "batch_size"):
        if options[name] is not None:
            settings[name] = options[name]
    if resume and out is not None and (options["data"] is None or (out / "run.json").exists()):
        begun = read_run_config(out)
        if begun.family != family:
            raise InputError(
                f"{out} is a run of {begun.family!r}, not of {family!r}; name its family, or choose another folder"
            )
        known = begun.model_dump()
        chosen = _chosen()
        if options["data"] is not None:  # the same data in another place
            known["data"]["source"] = absolute_source(options["data"])
        for name, option in (("source", "data"), ("inputs", "inputs")):
            if options[option] is None:
                _check_place(known["data"][name], out, option)
    elif options["data"] is None:
        raise InputError("--data is missing: digits, mnist:FOLDER, a folder of images or sounds, or FILE.npz")
    else:
        known = {"family": family, "config": {}, "data": {"source": absolute_source(options["data"])}}
        chosen = set(options)
    converted = {**options, "size": parse_size(options["size"])}
    for name in ("channels", "input_channels"):
        converted[name] = None if options[name] is None else int(options[name])
    for name in ("value_range", "input_value_range"):
        converted[name] = parse_value_range(options[name], option=f"--{name.replace('_', '-')}")
    converted["inputs"] = None if options["inputs"] is None else absolute_source(options["inputs"])
    converted["text"] = parse_text_options(options["text"])
    for name in ("augment", "only"):
        converted[name] = [part.strip() for part in (options[name] or "").split(",") if part.strip()]
    if options["only"] is not None and not converted["only"]:
        raise InputError(f"expected classes as in --only 0,3, got {options['only'][:40]!r}; for all leave it out")
    data = {**known["data"], **{name: converted[name] for name in _DATA_OPTIONS if name in chosen}}
    known["data"] = DataConfig.from_dict(data, what="options").model_dump()
    known["config"] = {**known["config"], **settings}
    return RunConfig.from_dict({**known, **{n: options[n] for n in _RUN_OPTIONS if n in chosen}}, what="options")


def _check_place(source: str | None, run: Path, option: str) -> None:
    """Refuses to go on with data that are no longer where `run` had them."""
    file, dot, _ = (source or "").partition(".npz:")
    path = Path(file + ".npz" if dot else file)
    if path.is_absolute() and not os.path.lexists(path):
        raise InputError(
            f"{run}: the {option} of this run are no longer at {str(path)!r}; say where they are with --{option}"
        )


def absolute_source(source: str) -> str:
    """The same data by an absolute path, where a path is in it: the run may be resumed from another folder."""
    from gensdk_training.data.domains import domains_of
    from gensdk_training.data.load import DATASET_NAMES

    if parts := domains_of(source):
        return ",".join(f"{name}={absolute_source(part)}" for name, part in parts)
    if source in DATASET_NAMES:
        return source
    name, colon, rest = source.partition(":")
    for path, before, after in ((source, "", ""), (name, "", colon + rest), (rest, name + colon, "")):
        if path and Path(path).exists():
            return f"{before}{Path(path).resolve()}{after}"
    return source


def _chosen() -> set[str]:
    """The options that the user wrote: a resumed run must not fall back to defaults in the others."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {name for name in context.params if context.get_parameter_source(name) is not default}


def parse_settings(pairs: tuple[str, ...], *, option: str = "--set") -> dict[str, Any]:
    """``key=value`` pairs; a value is read as JSON where it is JSON, as text otherwise."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"expected {option} KEY=VALUE, got {pair[:80]!r}")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings


def parse_text_options(pairs: tuple[str, ...]) -> dict[str, Any] | None:
    """``key=value`` pairs of how texts become tokens; a tokenizer's path becomes an absolute one."""
    if not pairs:
        return None
    found = parse_settings(pairs, option="--text")
    if isinstance(found.get("tokenizer"), str):
        found["tokenizer"] = str(Path(found["tokenizer"]).resolve())
    return found


def parse_value_range(text: str | None, *, option: str = "--value-range") -> tuple[float, float] | None:
    """(black, white) from ``0,255``."""
    try:
        values = None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if values is None:
        return None
    if len(values) != 2 or not all(isfinite(value) for value in values) or values[0] == values[1]:
        raise InputError(f"expected {option} BLACK,WHITE as in 0,255, got {(text or '')[:40]!r}")
    return values[0], values[1]


def parse_size(text: str | None, *, option: str = "--size") -> tuple[int, int] | None:
    """(height, width) from ``64`` or ``48x64``."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise InputError(f"expected {option} 64 or 48x64 (height x width), got {text[:40]!r}")
    return int(parts[0]), int(parts[-1])
