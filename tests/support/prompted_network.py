"""A small encoder and decoder of PyTorch that make texts from texts, for exports that are real."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.graphs.sequence_steps import draw_among, likelihood_graph, step_graph, tensor
from gensdk_training.plan import ExportPlan
from support.prompted import CLASSES, LENGTH, PROMPT, SOURCE, prompt_spec
from support.texts import WORDS, files_of

FEATURES = 16
PAD, BEGIN, END, UNKNOWN = range(4)


class Network(nn.Module):
    """Attention from each token that is written, and all before it, to the tokens of the source."""

    never: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS.size, FEATURES)
        self.style = nn.Embedding(CLASSES, FEATURES)
        self.place = nn.Parameter(torch.empty(SOURCE, FEATURES))
        self.read = nn.Linear(FEATURES, 2 * FEATURES)
        self.cell = nn.Linear(2 * FEATURES, FEATURES)
        self.choose = nn.Linear(2 * FEATURES, WORDS.size)
        never = torch.zeros(WORDS.size)
        never[[PAD, BEGIN, UNKNOWN]] = -1e4
        self.register_buffer("never", never, persistent=False)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.7)

    def source(self, prompt: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`prompt` int64 [B, S] and `label` [B]: keys and values [B, S, D], and what hides the padding, [B, S]."""
        x = self.embed(prompt) + self.style(label).unsqueeze(1) + self.place
        keys, values = self.read(torch.tanh(x)).chunk(2, dim=-1)
        return keys, values, torch.where(prompt == PAD, -1e4, 0.0)

    def step(self, source: tuple[Tensor, Tensor, Tensor], token: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """`token` int64 [B] and `hidden` [B, D]: the logits [B, V] of the next one, and the next hidden."""
        keys, values, hiding = source
        hidden = torch.tanh(self.cell(torch.cat((self.embed(token), hidden), dim=1)))
        scores = (keys * hidden.unsqueeze(1)).sum(dim=-1) + hiding
        seen = (torch.softmax(scores, dim=1).unsqueeze(-1) * values).sum(dim=1)
        return self.choose(torch.cat((hidden, seen), dim=1)) + self.never, hidden


class Source(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, prompt: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.source(prompt, label)


class Step(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        token: Tensor,
        position: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        hiding: Tensor,
    ) -> tuple[Tensor, Tensor]:
        logits, written = self.network.step((keys, values, hiding), token.squeeze(1), hidden)
        return draw_among(logits, uniform, temperature, top_k, top_p), written


class Likelihood(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, text: Tensor, lengths: Tensor, prompt: Tensor, label: Tensor) -> Tensor:
        source = self.network.source(prompt, label)
        place = torch.arange(LENGTH).unsqueeze(0)
        text = torch.where(place == lengths.unsqueeze(1), END, text)
        hidden, token = torch.zeros(text.shape[0], FEATURES), torch.full_like(lengths, BEGIN)
        total = torch.zeros(text.shape[0])
        for at in range(LENGTH):
            logits, hidden = self.network.step(source, token, hidden)
            token = text[:, at]
            log_p = torch.log_softmax(logits, dim=1).gather(1, token.unsqueeze(1)).squeeze(1)
            total = total + torch.where(at <= lengths, log_p, 0.0)
        return total


def prompted_plan(seed: int = 0) -> ExportPlan:
    """A source that becomes keys and values once, a step that looks at them, and the likelihood."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network().eval()
    output = TextSpec.of(LENGTH, WORDS.size)
    spec = SequenceSpec(
        step_graph="step",
        likelihood_graph="likelihood",
        context_graph="source",
        length=LENGTH,
        levels=WORDS.size,
        begin=BEGIN,
        stop=END,
        rest=PAD,
    )
    contexts = [tensor(name, "batch", SOURCE, FEATURES, role="context") for name in ("keys", "values")]
    contexts.append(tensor("hiding", "batch", SOURCE, role="context"))
    asked = (PROMPT, tensor("label", "batch", role="condition", dtype="int64"))
    graphs = (
        step_graph(spec, [tensor("hidden", "batch", FEATURES, role="state")], conditions=contexts, cuts=True),
        likelihood_graph(spec, output, conditions=asked),
        GraphSpec(name="source", inputs=asked, outputs=tuple(contexts)),
    )
    model = ModelSpec(
        name="prompted",
        family="test",
        program=spec,
        graphs=graphs,
        output=output,
        conditions=(prompt_spec(), *label_conditions(CLASSES)),
        max_batch=8,
    )
    modules = {"step": Step(network), "likelihood": Likelihood(network), "source": Source(network)}
    maps = {"step": ("cell", "choose"), "likelihood": ("read", "cell", "choose"), "source": ("read",)}
    return ExportPlan(
        model,
        {name: module.eval() for name, module in modules.items()},
        half={name: tuple(f"network.{part}" for part in parts) for name, parts in maps.items()},
        files=files_of(WORDS),
    )


def naive_texts(
    plan: ExportPlan, uniforms: Tensor, prompts: list[list[int]], labels: list[int]
) -> list[list[int]]:
    """The tokens of each text before its end, drawn one text at a time, the source read anew for each token."""
    step: Step = plan.modules["step"]  # type: ignore[assignment]
    network, found = step.network, []
    for row, prompt, label in zip(uniforms, prompts, labels, strict=True):
        padded = torch.tensor([prompt + [PAD] * (SOURCE - len(prompt))])
        tokens, token, hidden = list[int](), torch.tensor([BEGIN]), torch.zeros(1, FEATURES)
        with torch.no_grad():
            for u in row:
                source = network.source(padded, torch.tensor([label]))
                logits, hidden = network.step(source, token, hidden)
                upto = torch.cumsum(torch.softmax(logits, dim=1), dim=1)[0]
                token = (upto <= upto[-1] * u).sum().reshape(1)
                if int(token) == END:
                    break
                tokens.append(int(token))
        found.append(tokens)
    return found
