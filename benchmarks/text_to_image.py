"""Texts to images, on a model of Stable Diffusion's shape: gensdk against other ways to run a diffusers folder.

    python benchmarks/text_to_image.py                                   # diffusers eager and compiled; 15 minutes
    python benchmarks/text_to_image.py --optimum ENV/bin/python --openvino-genai ENV/bin/python
    python benchmarks/text_to_image.py --width 32 --steps 2 --rounds 3   # smaller, to try it

The model is made by diffusers' and transformers' own classes with random weights: Stable Diffusion 1.5's layers,
all widths by --width (320 is the original). It is imported once, tuned as ``gensdk tune`` does, and then all peers
get the same latents and prompts, each in a process of its own, asked in turn. Peak memory is of fresh processes.
Peers that live in another environment are given its Python, with optimum-onnx or with openvino-genai and
optimum-intel in it. Ends with 1 where a figure is surely missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
from figures import Figure, at_most, ratio_figure
from numpy.typing import NDArray
from peers.child import BENCHMARKS, Child, PeerFailed, child_environment

from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.host.child_process import run_module, start_python

OURS, EAGER = "gensdk", "diffusers"
SECONDS = 1800.0
SAME_PICTURES = at_most(0.01)
"""Of the range of values; bytes are rounded, by half of one."""
NO_SLOWER = at_most(1.03)
SMALLER = at_most(0.6)
WORDS = ("a red fox in the snow", "two boats", "portrait of an old robot, oil on canvas", "")
EXPORTERS = {
    "optimum-onnx": ("optimum", "from optimum.exporters.onnx import main_export", ""),
    "openvino-genai": (
        "openvino",
        "from optimum.exporters.openvino import main_export",
        ", convert_tokenizer=True",
    ),
}


def build(folder: Path, width: int) -> None:
    """Writes the pipeline into `folder`, as diffusers does."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    sys.path.insert(0, str(BENCHMARKS.parent / "tests"))
    from support.stable_diffusion import default_scheduler, tokenizer

    torch.manual_seed(0)
    words, features = tokenizer(77), 64 * max(1, width * 768 // 320 // 64)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=features,
            intermediate_size=4 * features,
            num_hidden_layers=12,
            num_attention_heads=features // 64,
            max_position_embeddings=77,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=features,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    coder = max(16, width * 128 // 320 // 16 * 16)
    vae = AutoencoderKL(
        block_out_channels=(coder, 2 * coder, 4 * coder, 4 * coder),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=256,
    )
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=default_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder, safe_serialization=True)
    saved = json.loads((folder / "tokenizer" / "tokenizer.json").read_bytes())["model"]
    merges = [each if isinstance(each, str) else " ".join(each) for each in saved["merges"]]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(saved["vocab"]))  # older transformers read these
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    sizes = {
        part: sum(p.numel() for p in getattr(made, part).parameters()) for part in ("text_encoder", "unet", "vae")
    }
    click.echo(f"{folder}: images 256x256; " + ", ".join(f"{n} {size / 1e6:.1f} M" for n, size in sizes.items()))


def ours(*arguments: str, root: Path) -> None:
    """A ``gensdk`` command in a process of its own. Raises ClickException where it fails."""
    done = run_module("gensdk", *arguments, timeout=SECONDS, environment=child_environment(root))
    if done.code:
        raise click.ClickException(f"gensdk {arguments[0]}: {done.errors.strip()[-400:]}")


def prepare(root: Path, width: int, batches: Sequence[int], elsewhere: Mapping[str, Path]) -> dict[str, Any]:
    """Everything on disk that peers open, made once."""
    folder = root / f"pipeline-{width}"
    first = {"folder": str(folder), "bundle": f"{folder}.gsdk", "backend": "auto", "side": 256}
    if not (folder / "model_index.json").exists():
        build(folder, width)
    if not Path(first["bundle"]).exists():
        ours("import", str(folder), "-o", str(first["bundle"]), root=root)
    ours("tune", str(first["bundle"]), "--precision", "fp32", "--batch", ",".join(map(str, batches)), root=root)
    for name, python in elsewhere.items():
        key, imported, options = EXPORTERS[name]
        out = root / f"{key}-{width}"
        first[key] = str(out)
        if not out.exists():
            call = f"main_export({str(folder)!r}, pathlib.Path({str(out)!r}), task='text-to-image'{options})"
            with start_python(
                ["-c", f"import pathlib; {imported}; {call}"], stderr=subprocess.PIPE, text=True, python=python
            ) as process:
                _, errors = process.communicate(timeout=SECONDS)
            if process.returncode:
                click.echo(f"{name}: can't export: {errors.strip().splitlines()[-1][:300]}", err=True)
    return first


class Race:
    """Processes of all peers, opened for one batch of prompts."""

    def __init__(self, root: Path, first: Mapping[str, Any], elsewhere: Mapping[str, Path], asked: Any) -> None:
        self.root, self.first, self.elsewhere, self.asked = root, first, elsewhere, asked

    def start(self, name: str) -> Child:
        """A process that has not opened anything."""
        first = {**self.first, "peer": name, "compiled": name.endswith("-compile")}
        python = self.elsewhere.get(name)
        return Child(name, ["-m", "peers.prompted"], first, root=self.root, python=python)

    def peak(self, name: str) -> float:
        """Bytes, of a fresh process that opens it and makes images twice."""
        with self.start(name) as child:
            child.ask("open", timeout=SECONDS, **self.asked)
            child.ask("run", timeout=SECONDS, calls=1, discard=0)
            return float(child.ask("memory", timeout=SECONDS)["bytes"])

    def run(
        self, names: Sequence[str], rounds: int
    ) -> tuple[dict[str, Any], dict[str, list[NDArray[np.float64]]]]:
        """Of each peer that holds out: its images, and milliseconds in each round."""
        rng, times, images = np.random.default_rng(0), {}, {}
        with ExitStack() as stack:
            children = {name: stack.enter_context(self.start(name)) for name in names}
            for name, child in list(children.items()):
                try:
                    child.ask("open", timeout=SECONDS, **self.asked)
                    child.ask("run", timeout=SECONDS, calls=1, discard=0)
                    out = self.root / f"{name}.npy"
                    child.ask("save", timeout=SECONDS, to=str(out))
                    images[name], times[name] = np.load(out, allow_pickle=False), []
                except PeerFailed as failure:
                    click.echo(f"{name}: {failure}", err=True)
                    children.pop(name).close()
            for _ in range(rounds):
                for name in rng.permutation(list(children)).tolist():
                    answer = children[name].ask("run", timeout=SECONDS, calls=1, discard=0)
                    times[name].append(np.array(answer["ns"], np.float64) / 1e6)
        return images, times


def figures(case: str, images: Mapping[str, Any], times: Mapping[str, Any]) -> list[Figure]:
    """The largest difference of pictures, and gensdk's time beside each other's."""
    found = []
    ours_in = images[OURS].astype(np.float64) / 255
    for name in (name for name in images if name != OURS):
        difference = float(np.abs(ours_in - images[name] / 255).max())
        what = f"{case}: largest difference from {name}, of the range"
        found.append(Figure("same pictures", what, difference, bound=SAME_PICTURES))
        middle = float(np.median(np.concatenate(times[name])))
        detail = f"{np.median(np.concatenate(times[OURS])):.0f} ms beside {middle:.0f} ms"
        what = f"{case}: gensdk / {name}, time of a call"
        found.append(ratio_figure("time", what, times[OURS], times[name], NO_SLOWER, detail=detail))
    return found


def memory(case: str, race: Race) -> Figure:
    """Ours over diffusers', the median of three each, in turn."""
    peaks = np.array([[race.peak(name) for name in (OURS, EAGER)] for _ in range(3)])
    ratios = peaks[:, 0] / peaks[:, 1]
    detail = "{:.0f} MB beside {:.0f} MB, whole processes".format(*np.median(peaks, axis=0) / 1e6)
    what = f"{case}: gensdk / {EAGER}, peak memory"
    return Figure("memory", what, float(np.median(ratios)), ratios.min(), ratios.max(), SMALLER, detail)


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs/text_to_image"), show_default=True)
@click.option("--width", default=80, show_default=True, help="Features of the first layers; a multiple of 16.")
@click.option("--steps", default=4, show_default=True)
@click.option("--guidance", default=7.5, show_default=True)
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 4), show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--optimum", type=click.Path(path_type=Path, exists=True), help="A Python with optimum-onnx.")
@click.option("--openvino-genai", type=click.Path(path_type=Path, exists=True), help="A Python with it.")
def main(
    *,
    root: Path,
    width: int,
    steps: int,
    guidance: float,
    batches: tuple[int, ...],
    rounds: int,
    optimum: Path | None,
    openvino_genai: Path | None,
) -> None:
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    given = {"optimum-onnx": optimum, "openvino-genai": openvino_genai}
    elsewhere = {name: path.absolute() for name, path in given.items() if path is not None}
    first, found = prepare(root, width, batches, elsewhere), []
    for batch in batches:
        latents, case = root / "latents.npy", f"width {width}, {steps} steps, batch {batch}"
        np.save(latents, np.random.default_rng(batch).standard_normal((batch, 4, 32, 32)).astype(np.float32))
        prompts = [WORDS[number % len(WORDS)] for number in range(batch)]
        asked = {"latents": str(latents), "prompts": prompts, "steps": steps, "guidance": guidance}
        race = Race(root, first, elsewhere, asked)
        found += figures(case, *race.run((OURS, EAGER, f"{EAGER}-compile", *elsewhere), rounds))
        found.append(memory(case, race))
    for figure in found:
        click.echo(figure.line())
    click.echo(str(this_machine()))
    sys.exit(1 if any(figure.verdict == "MISSES" for figure in found) else 0)


if __name__ == "__main__":
    main()
