"""How many tokens a second a language model draws: gensdk beside PyTorch's loop with a cached state.

The loop is what published code does: ``nn.LSTM`` with its states, a linear head, softmax and
``torch.multinomial`` for each token; with `top_p` the usual sort, cumulative sum and mask. gensdk draws from the
same weights, by its own noise, step by step and in one call; both models, with and without the cuts of `top_k`
and `top_p` in their graphs. All in this process, on one thread and asked in turn; seconds are those of the
processor. The vocabulary has no end, so that all texts have all their tokens; weights are untrained, which
changes no speed. Before anything is measured the loop's logits are compared with the model's, and both forms of
gensdk with each other, token by token.

A figure is the median of the ratios within rounds, with its 95 % interval.

    python benchmarks/sequences_text.py
    python benchmarks/sequences_text.py --hidden 512 --vocabulary 10000 --rounds 15
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
from typing import Any

import click
import numpy as np
import torch
from figures import Figure, at_least, ratio_figure
from numpy.typing import NDArray
from torch import Tensor, nn

from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice, Form
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.text.vocabulary import SpecialTokens
from gensdk_runtime.text.words import Words
from gensdk_training.families.seqgan import SeqGan, SeqGanConfig
from gensdk_training.family import DataInfo, TextInfo
from gensdk_training.networks.language_model import LanguageModel

LOOP, STEPS, WHOLE = "PyTorch's loop", "gensdk step by step", "gensdk in one call"
FASTER = at_least(3.0)
TOP_P = 0.9


class Loop:
    """A language model as most code has it: ``nn.LSTM``, one token at a time, its states kept."""

    def __init__(self, model: LanguageModel) -> None:
        sizes = model.embed.embedding_dim, model.hidden
        self.embed, self.head, self.lstm = model.embed, model.head, nn.LSTM(*sizes, len(model.gates))
        for layer, gate in enumerate(model.gates):
            weight, bias = gate.get_parameter("weight"), gate.get_parameter("bias")
            inputs = weight.shape[1] - model.hidden
            with torch.no_grad():
                self.lstm.get_parameter(f"weight_ih_l{layer}").copy_(weight[:, :inputs])
                self.lstm.get_parameter(f"weight_hh_l{layer}").copy_(weight[:, inputs:])
                self.lstm.get_parameter(f"bias_ih_l{layer}").copy_(bias)
                self.lstm.get_parameter(f"bias_hh_l{layer}").zero_()

    def logits(self, token: Tensor, states: Any) -> tuple[Tensor, Any]:
        """After `token` [B], [B, V], and the next states."""
        hidden, states = self.lstm(self.embed(token).unsqueeze(0), states)
        return self.head(hidden[0]), states

    def draw(self, batch: int, length: int, begin: int, top_p: float | None = None) -> Tensor:
        """Tokens [B, length]."""
        token, states, drawn = torch.full((batch,), begin), None, []
        for _ in range(length):
            logits, states = self.logits(token, states)
            shares = torch.softmax(logits, dim=1)
            token = torch.multinomial(shares if top_p is None else nucleus(shares, top_p), 1).squeeze(1)
            drawn.append(token)
        return torch.stack(drawn, dim=1)


def nucleus(shares: Tensor, top_p: float) -> Tensor:
    """`shares` [B, V] without those outside the likeliest that have `top_p` together."""
    best, places = torch.sort(shares, dim=1, descending=True)
    best[best.cumsum(dim=1) - best > top_p] = 0.0
    return torch.zeros_like(shares).scatter_(1, places, best)


@dataclass
class Way:
    """One way to draw `tokens`; the `seconds` of each round."""

    name: str
    call: Callable[[], object]
    tokens: int
    seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """A round."""
        start = process_time()
        self.call()
        self.seconds.append(process_time() - start)

    @property
    def rounds(self) -> list[NDArray[np.float64]]:
        """Of one call each."""
        return [np.array([each]) for each in self.seconds]


def family_of(vocabulary: int, length: int, *, cuts: bool, **sizes: int) -> SeqGan:
    names = (*(f"w{number}" for number in range(vocabulary - 1)), "<begin>")
    words = Words(tokens=names, special=SpecialTokens(begin=vocabulary - 1), joining="spaces")
    text = TextInfo(length=length, vocabulary=words)
    info = DataInfo(name="tokens", channels=1, height=1, width=length, count=1, text=text)
    return SeqGan(SeqGanConfig(cuts=cuts, **sizes), info)


def open_form(bundle: Bundle, form: Form) -> Generator:
    """The model in ONNX Runtime on one thread, run in one form."""
    runner = open_runner(bundle, create_backend("onnxruntime", threads=1), "fp32", form=form)
    return Generator(bundle.manifest.model, Runners({Choice(threads=1, form=form): runner}))


def drawn(generator: Generator, batch: int, **options: Any) -> NDArray[Any]:
    return generator.sample(batch, seed=0, batch_size=batch, progress=False, **options).array


def compare(model: LanguageModel, loop: Loop, forms: dict[str, Generator]) -> str:
    """What the ways have in common, in words."""
    tokens = torch.from_numpy(drawn(forms[STEPS], 4))
    begin = model.embed.num_embeddings - 1
    before = torch.nn.functional.pad(tokens[:, :-1], (1, 0), value=begin)
    states, apart = None, 0.0
    for place, expected in enumerate(model(before).unbind(dim=1)):
        logits, states = loop.logits(before[:, place], states)
        apart = max(apart, float((logits - expected).abs().max()))
    whole = drawn(forms[WHOLE], 4)
    same = int((whole == tokens.numpy()).sum())
    return f"{same} of {whole.size} tokens the same in both forms, logits of the loop at most {apart:.1e} apart"


def figures_of(found: dict[str, Way], group: str, *, gated: bool) -> list[Figure]:
    made = []
    for name, way in found.items():
        rates = way.tokens / np.array(way.seconds)
        what = f"{group}: tokens a second, {name}"
        low, high = float(rates.min()), float(rates.max())
        made.append(Figure(group, what, float(np.median(rates)), low, high, None, "from the least to the most"))
    for name in (STEPS, WHOLE):
        bound = FASTER if gated and name == WHOLE else None
        what = f"{group}: times as fast as {LOOP}, {name}"
        made.append(ratio_figure(group, what, found[LOOP].rounds, found[name].rounds, bound))
    return made


CASES: tuple[tuple[str, bool, dict[str, float]], ...] = (
    ("no cuts in the graph", False, {}),
    ("all tokens", True, {}),
    (f"top_p {TOP_P}", True, {"top_p": TOP_P}),
)


def measure(sizes: dict[str, int], batches: tuple[int, ...], rounds: int) -> tuple[list[str], list[Figure]]:
    """Figures of all cases and batches, and what was compared."""
    length, vocabulary = sizes.pop("length"), sizes.pop("vocabulary")
    told, found = [], []
    for name, cuts, options in CASES:
        family = family_of(vocabulary, length, cuts=cuts, **sizes)
        torch.manual_seed(0)
        networks = family.build_networks()
        model = networks["generator"].eval()
        assert isinstance(model, LanguageModel)
        loop = Loop(model)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as opened, torch.inference_mode():
            path = Path(folder) / "tokens.gsdk"
            plan = family.export_plan(networks)
            export_plan(plan, Provenance(data="none", steps=0), path, ExportOptions(one_call=True))
            bundle = opened.enter_context(Bundle.open(path))
            forms: tuple[tuple[str, Form], ...] = ((STEPS, "steps"), (WHOLE, "one_call"))
            opens = {key: opened.enter_context(open_form(bundle, form)) for key, form in forms}
            told.append(f"{name}: {compare(model, loop, opens)}")
            for batch in batches:
                asked = ways(loop, opens, batch, length, vocabulary - 1, options)
                for way in asked.values():
                    way.call()  # warm
                for _ in range(rounds):
                    for way in asked.values():
                        way.measure()
                found += figures_of(asked, f"{name}, batch {batch}", gated=batch == 1 and not options)
    return told, found


def ways(  # noqa: PLR0917 - what draws, and how much
    loop: Loop, forms: dict[str, Generator], batch: int, length: int, begin: int, options: dict[str, float]
) -> dict[str, Way]:
    """The three of them."""
    top_p = options.get("top_p")
    calls: dict[str, Callable[[], object]] = {
        LOOP: lambda: loop.draw(batch, length, begin, top_p),
        STEPS: lambda: drawn(forms[STEPS], batch, **options),
        WHOLE: lambda: drawn(forms[WHOLE], batch, **options),
    }
    return {name: Way(name, call, batch * length) for name, call in calls.items()}


@click.command(help=__doc__)
@click.option(
    "--rounds", default=9, show_default=True, type=click.IntRange(2), help="How often each way is asked."
)
@click.option("--batch", multiple=True, default=(1, 32), show_default=True, type=click.IntRange(1), help="Texts.")
@click.option("--vocabulary", default=2278, show_default=True, help="Tokens; the default is that of captions.")
@click.option("--length", default=64, show_default=True, help="Tokens of a text.")
@click.option("--embedding", default=96, show_default=True)
@click.option("--hidden", default=192, show_default=True)
@click.option("--layers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def main(*, rounds: int, batch: tuple[int, ...], as_json: bool, **sizes: int) -> None:
    """Measures tokens a second."""
    torch.set_num_threads(1)
    told, found = measure(dict(sizes), batch, rounds)
    if as_json:
        click.echo(json.dumps({"compared": told, "figures": [asdict(each) for each in found]}))
    else:
        machine = f"{platform.machine()}, PyTorch {torch.__version__}, one thread, {rounds} rounds"
        click.echo(f"{machine}; {', '.join(f'{name} {size}' for name, size in sizes.items())}")
        for line in (*told, *(each.line() for each in found)):
            click.echo(line)
    sys.exit(any(each.verdict == "MISSES" for each in found))


if __name__ == "__main__":
    main()
