"""How fast a model draws a sequence, element after element: seconds for one second of sound at 8 kHz.

Four ways over the same weights and the same noise, all in this process, on one thread and asked in turn:

- naive PyTorch runs the network over the whole receptive field for each sample, as published code does; a few
  hundred samples are measured, and a second is extrapolated from them;
- PyTorch step by step keeps the past of each layer; a few thousand samples are measured, and extrapolated;
- gensdk step by step, and gensdk in one call, draw the whole second, as ``sample()`` does.

Seconds are those of the processor that this process takes: all ways run on one thread, so on an idle machine they
are those of the clock, and on a busy one others do not count.

The WaveNet has the family's default width and untrained weights: speed does not depend on them. `--stacks 1` is
the family's default, ten layers that see back 0.13 s; 3 is the paper's depth, thirty layers that see back 0.38 s.
What naive PyTorch computes anew for each sample grows with how far back the layers see, so the ratio does too. The
code that ends a sound gets a probability of zero, so that no sound is shorter than the second. What the ways draw
is compared, code by code, before anything is measured. A figure is the median of the ratios within rounds, with
its 95 % interval. Ends with 1 where a figure is surely missed.

    python benchmarks/sequences.py
    python benchmarks/sequences.py --rounds 15 --batch 1 --stacks 3 --json
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import process_time

import click
import numpy as np
import torch
from figures import Figure, at_least, at_most, ratio_figure
from numpy.typing import NDArray

from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime import noise
from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.mu_law import decoding_table
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.plan.costs import Choice, Form
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.families.wavenet import END, WaveNetConfig, WaveNetFamily
from gensdk_training.family import AudioInfo, DataInfo
from gensdk_training.graphs.sequence_steps import draw_token
from gensdk_training.graphs.wavenet_steps import WaveNetStep
from gensdk_training.networks.wavenet import WaveNet
from gensdk_training.plan import ExportPlan

RATE = 8000
CLASSES = 60
NAIVE, CACHED, STEPS, WHOLE = "naive PyTorch", "PyTorch step by step", "gensdk step by step", "gensdk in one call"
NAIVE_SAMPLES, CACHED_SAMPLES = 20, 1000
"""Samples that are measured in a round; a second is extrapolated from them."""
FASTER = at_least(300.0)
REAL_TIME = at_most(1.0)
Int64 = NDArray[np.int64]


@dataclass
class Network:
    """A WaveNet of the family's default size, `plan`, and what draws from it in PyTorch."""

    network: WaveNet
    plan: ExportPlan

    def naive(self, batch: int, count: int, first: int, begun: Int64) -> Int64:
        """Codes [B, count] from sample `first` on, after the codes `begun` [B, first]."""
        network, label = self.network, torch.zeros(batch, dtype=torch.int64)
        uniforms = torch.from_numpy(noise.uniform(sample_keys(batch, 0), noise.LATENT_STREAM, (RATE, 1)))
        tokens = torch.cat([torch.full((batch, 1), END + 1), torch.from_numpy(begun)], dim=1)
        for place in range(first, first + count):
            start = max(0, place + 1 - network.layers.receptive_field)
            start -= start % network.frame  # what layers are told changes from frame to frame
            window = tokens[:, start:]
            frames = -(-window.shape[1] // network.frame)
            padded = torch.nn.functional.pad(window, (0, frames * network.frame - window.shape[1]))
            told = network.teller(torch.arange(frames) + start // network.frame, label)
            (hidden,) = network.layers("all", network.embed(padded).transpose(1, 2).contiguous(), told)
            logits = network.head(hidden[:, :, window.shape[1] - 1])
            drawn = draw_token(logits, uniforms[:, place], torch.ones(batch))
            tokens = torch.cat([tokens, drawn], dim=1)
        return tokens[:, first + 1 :].numpy()

    def cached(self, batch: int, count: int) -> Int64:
        """Codes [B, count] from the beginning on."""
        step, layers = WaveNetStep(self.network).eval(), self.network.layers
        uniforms = torch.from_numpy(noise.uniform(sample_keys(batch, 0), noise.LATENT_STREAM, (RATE, 1)))
        token, kept = torch.full((batch, 1), END + 1), torch.zeros(layers.kept, batch, layers.channels)
        label, heat, drawn = torch.zeros(batch, dtype=torch.int64), torch.ones(batch), []
        for place in range(count):
            token, kept = step(token, torch.tensor([place]), uniforms[:, place], heat, kept, label)
            drawn.append(token)
        return torch.cat(drawn, dim=1).numpy()


@dataclass
class Way:
    """One way to draw: `call` draws a part of a second, and `share` says which; `seconds` for a whole one, each
    round."""

    name: str
    call: Callable[[], object]
    share: float = 1.0
    seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Asks it once."""
        start = process_time()
        self.call()
        self.seconds.append((process_time() - start) / self.share)

    @property
    def rounds(self) -> list[NDArray[np.float64]]:
        """The seconds, as ratios of rounds take them."""
        return [np.array([each]) for each in self.seconds]


def make_network(stacks: int) -> Network:
    """Untrained, with weights of a size that makes codes vary, and no chance of an end."""
    info = DataInfo(
        name="second",
        channels=1,
        height=RATE,
        width=1,
        count=1,
        num_classes=CLASSES,
        class_names=tuple(f"c{number}" for number in range(CLASSES)),
        audio=AudioInfo(sample_rate=RATE),
    )
    family = WaveNetFamily(WaveNetConfig(stacks=stacks), info)
    torch.manual_seed(0)
    networks = family.build_networks()
    network = networks["wavenet"]
    assert isinstance(network, WaveNet)
    last = network.head[-1]
    with torch.no_grad():
        last.weight *= 4.0
        last.bias[END] = -1e4  # the softmax of which is zero
    return Network(network.eval(), family.export_plan(networks))


def open_form(bundle: Bundle, form: Form) -> Generator:
    """The model in ONNX Runtime on one thread, run in one form."""
    runner = open_runner(bundle, create_backend("onnxruntime", threads=1), "fp32", form=form)
    return Generator(bundle.manifest.model, Runners({Choice(threads=1, form=form): runner}))


def codes_of(generator: Generator, batch: int) -> Int64:
    """The codes of a second, [B, samples]."""
    made = generator.sample(batch, seed=0, label=0, batch_size=batch, progress=False)
    assert made.lengths is not None
    assert made.lengths.tolist() == [RATE] * batch, "a sound ended"
    return np.searchsorted(decoding_table(END), made.audio[:, :, 0]).astype(np.int64)


def compare(network: Network, steps: Generator, whole: Generator) -> str:
    """Draws two sounds in each way; what they have in common, in words."""
    expected = codes_of(whole, 2)
    found = {
        STEPS: (codes_of(steps, 2), expected),
        CACHED: (network.cached(2, CACHED_SAMPLES), expected[:, :CACHED_SAMPLES]),
        NAIVE: (network.naive(2, 100, RATE - 100, expected[:, : RATE - 100]), expected[:, RATE - 100 :]),
    }
    same = {name: int((codes == wanted).sum()) for name, (codes, wanted) in found.items()}
    return ", ".join(f"{name} {same[name]} of {found[name][0].size}" for name in found)


def ways(network: Network, steps: Generator, whole: Generator, batch: int) -> dict[str, Way]:
    """The four of them. Naive PyTorch is measured where a whole receptive field lies behind it."""
    begun = np.zeros((batch, RATE - NAIVE_SAMPLES), np.int64)
    calls = (
        Way(NAIVE, lambda: network.naive(batch, NAIVE_SAMPLES, begun.shape[1], begun), NAIVE_SAMPLES / RATE),
        Way(CACHED, lambda: network.cached(batch, CACHED_SAMPLES), CACHED_SAMPLES / RATE),
        Way(STEPS, lambda: codes_of(steps, batch)),
        Way(WHOLE, lambda: codes_of(whole, batch)),
    )
    return {way.name: way for way in calls}


def figures_of(found: dict[str, Way], batch: int) -> list[Figure]:
    """Of one batch size: seconds, and ratios to naive PyTorch."""
    group, made = f"batch {batch}", []
    for name, way in found.items():
        bound = REAL_TIME if (name, batch) == (WHOLE, 1) else None
        low, high = float(np.min(way.seconds)), float(np.max(way.seconds))
        detail = "extrapolated; from the least to the most" if way.share < 1 else "from the least to the most"
        what = f"{group}: seconds for one second of sound, {name}"
        made.append(Figure(group, what, float(np.median(way.seconds)), low, high, bound, detail))
    for name in (CACHED, STEPS, WHOLE):
        bound = FASTER if (name, batch) == (WHOLE, 1) else None
        what = f"{group}: times as fast as {NAIVE}, {name}"
        made.append(ratio_figure(group, what, found[NAIVE].rounds, found[name].rounds, bound))
    what = f"{group}: times as fast as step by step, in one call"
    made.append(ratio_figure(group, what, found[STEPS].rounds, found[WHOLE].rounds, None))
    return made


@click.command()
@click.option(
    "--rounds", default=9, show_default=True, type=click.IntRange(2), help="How often each way is asked."
)
@click.option("--batch", multiple=True, default=(1, 8), show_default=True, type=click.IntRange(1), help="Sounds.")
@click.option("--stacks", default=1, show_default=True, type=click.IntRange(1, 4), help="Of ten layers each.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def main(rounds: int, batch: tuple[int, ...], stacks: int, *, as_json: bool) -> None:
    """Measures how long a second of sound takes."""
    torch.set_num_threads(1)
    network = make_network(stacks)
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened, torch.inference_mode():
        path = Path(folder) / "second.gsdk"
        export_plan(network.plan, Provenance(data="none", steps=0), path, ExportOptions(one_call=True))
        bundle = opened.enter_context(Bundle.open(path))
        steps, whole = (opened.enter_context(open_form(bundle, form)) for form in ("steps", "one_call"))
        same = compare(network, steps, whole)
        for size in batch:
            asked = ways(network, steps, whole, size)
            for way in asked.values():
                way.call()  # warm
            for _ in range(rounds):
                for way in asked.values():
                    way.measure()
            found += figures_of(asked, size)
    if as_json:
        click.echo(json.dumps({"same": same, "figures": [asdict(each) for each in found]}))
    else:
        click.echo(
            f"{platform.machine()}, PyTorch {torch.__version__}, one thread, untrained weights, {rounds} rounds; "
            f"layers see back {network.network.layers.receptive_field} samples"
        )
        click.echo(f"codes as in one call: {same}")
        for each in found:
            click.echo(each.line())
    sys.exit(any(each.verdict == "MISSES" for each in found))


if __name__ == "__main__":
    main()
