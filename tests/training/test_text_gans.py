"""Language models as generators: a step is the whole pass, likelihoods sum to one, rewards rise."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime import noise
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.text.vocabulary import SpecialTokens
from gensdk_runtime.text.words import Words
from gensdk_training.families.scratchgan import ScratchGan, ScratchGanConfig
from gensdk_training.families.seqgan import SeqGan, SeqGanConfig, rollout_rewards
from gensdk_training.family import Batch, DataInfo, TextInfo
from gensdk_training.graphs.sequence_steps import draw_among, draw_token
from gensdk_training.graphs.text_steps import TextLikelihood
from gensdk_training.losses.policy_gradient import against_the_others, returns
from gensdk_training.networks.language_model import Ends, LanguageModel, write_texts
from gensdk_training.optim import make_optimizer
from gensdk_training.text_family import TextFamily
from gensdk_training.torch_backend import torch_sessions
from support.short_texts import short_texts
from support.tiny import STYLE_FAMILIES, TEXT_FAMILIES

SPECIAL = SpecialTokens(pad=0, begin=1, end=2, unknown=3)


def _info(words: str = "a cat sat", length: int = 5, special: SpecialTokens = SPECIAL) -> DataInfo:
    names = list("wxyz")
    for name, token in special.model_dump(exclude_none=True).items():
        names[token] = f"<{name}>"
    vocabulary = Words(tokens=(*names, *words.split()), special=special)
    text = TextInfo(length=length, vocabulary=vocabulary)
    return DataInfo(name="few", channels=1, height=1, width=length, count=8, text=text)


def _random(family: TextFamily[Any], seed: int = 0) -> dict[str, nn.Module]:
    """Networks whose choices differ widely."""
    torch.manual_seed(seed)
    networks = family.build_networks()
    for weight in networks["generator"].parameters():
        nn.init.normal_(weight, std=0.7)
    return networks


def _seqgan(info: DataInfo, **settings: Any) -> SeqGan:
    return SeqGan(SeqGanConfig(**{"embedding": 6, "hidden": 10, "filters": 4, "rollouts": 3, **settings}), info)


OPTIONS: list[tuple[bool, dict[str, Any]]] = [
    (False, {}),
    (False, {"temperature": 0.6}),
    (True, {}),
    (True, {"top_k": 3, "temperature": 1.5}),
    (True, {"top_p": 0.7}),
    (True, {"top_k": 4, "top_p": 0.8}),
]


@pytest.mark.parametrize(("cuts", "options"), OPTIONS)
@pytest.mark.parametrize("layers", [1, 2])
def test_token_by_token_is_the_whole_pass(layers: int, cuts: bool, options: dict[str, Any]) -> None:
    """From the same noise, each text is drawn anew with the whole pass over all before each of its tokens."""
    info = short_texts().info
    family = _seqgan(info, layers=layers, cuts=cuts)
    networks = _random(family)
    plan = family.export_plan(networks)
    generator, unknown = networks["generator"], info.require_text().vocabulary.special.unknown
    assert isinstance(generator, LanguageModel)
    with torch.no_grad():
        generator.head.bias[family.ends.stop] += 2.0  # some end early, some never
    model = Generator.from_sessions(plan.model, torch_sessions(plan), plan.files)
    drawn = model.sample(12, seed=5, batch_size=5, progress=False, **options)
    assert drawn.lengths is not None
    length = info.width
    uniforms = torch.from_numpy(noise.uniform(sample_keys(12, 5), noise.LATENT_STREAM, (length, 1)))
    tokens = torch.full((12, length), family.ends.rest)
    rows = torch.ones(12)
    top_k = torch.full((12,), options.get("top_k", info.require_text().vocabulary.size))
    with torch.no_grad():
        for place in range(length):
            logits = generator(family.ends.before(tokens))[:, place].clone()
            logits[:, unknown] += -1e4
            heat = rows * options.get("temperature", 1.0)
            if cuts:
                share = rows * options.get("top_p", 1.0)
                drawn_now = draw_among(logits, uniforms[:, place], heat, top_k, share)
            else:
                drawn_now = draw_token(logits, uniforms[:, place], heat)
            tokens[:, place] = drawn_now.squeeze(1)
    live = family.ends.live(tokens)
    expected = torch.where(live, tokens, family.ends.rest).numpy()
    np.testing.assert_array_equal(drawn.array, expected)
    ends = (expected == family.ends.stop).any(axis=1)
    np.testing.assert_array_equal(drawn.lengths, live.sum(dim=1).numpy() - ends)
    assert len(set(drawn.lengths.tolist())) > 2


def test_a_token_depends_on_those_before_it_alone() -> None:
    network = LanguageModel(9, 5, 7, 2)
    tokens = torch.randint(0, 9, (1, 6))
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, made: Tensor) -> None:
        made.retain_grad()
        kept.append(made)

    network.embed.register_forward_hook(keep)
    for place in range(6):
        network(tokens)[0, place].square().sum().backward()  # type: ignore[no-untyped-call]
        gradient = kept.pop().grad
        assert gradient is not None
        reached = gradient[0].abs().sum(dim=1) > 0
        assert reached.tolist() == [other <= place for other in range(6)]


@pytest.mark.parametrize("special", [SPECIAL, SpecialTokens(begin=1)])
def test_the_likelihoods_of_all_texts_sum_to_one(special: SpecialTokens) -> None:
    info = _info("a cat", 4, special)
    family = _seqgan(info)
    network = _random(family)["generator"].eval()
    assert isinstance(network, LanguageModel)
    judge, total, texts = TextLikelihood(network, family.ends), 0.0, 0
    never = {special.begin, special.pad} - {None}
    others = [token for token in range(6) if token not in never and token != special.end]
    for length in range(5) if special.end is not None else (4,):
        rows = torch.tensor(list(product(others, repeat=length)) or [()], dtype=torch.int64)
        filled = torch.nn.functional.pad(rows, (0, 4 - length))
        with torch.no_grad():
            total += float(judge(filled, torch.full((len(rows),), length)).exp().sum())
        texts += len(rows)
    assert texts > 100
    assert total == pytest.approx(1.0, abs=1e-4)


def test_what_stands_for_unknown_words_is_learnt_and_never_drawn() -> None:
    family = _seqgan(_info())
    networks = _random(family)
    generator = networks["generator"]
    assert isinstance(generator, LanguageModel)
    with torch.no_grad():
        generator.head.bias[3] += 3.0
    own = write_texts(generator, family.ends, 200, 5).tokens
    assert (own == 3).sum() > 100
    assert not ((own == 0) & family.ends.live(own)).any()
    assert not (own == 1).any()
    plan = family.export_plan(networks)
    drawn = Generator.from_sessions(plan.model, torch_sessions(plan), plan.files).sample(200, seed=0)
    assert not np.isin(drawn.array, (1, 3)).any()
    assert generator.head.never[3] == 0, "the network's own head is as it was"


def test_parts_follow_each_other() -> None:
    family = _seqgan(_info(), likelihood_steps=3, discriminator_steps=2, steps=9)
    turns = [
        "".join(phase.name[0] for phase in family.phases() if not family.rests(phase.name, step))
        for step in range(9)
    ]
    assert turns == ["l", "l", "l", "d", "d", "da", "da", "da", "da"]
    assert not family.notes()
    assert "maximum likelihood is all" in _seqgan(_info(), likelihood_steps=3, steps=3).notes()[0]
    assert not family.depends_on_steps, "a run of likelihood goes on as a GAN"


def test_texts_without_a_begin_are_refused() -> None:
    with pytest.raises(InputError, match="has no begin token"):
        _seqgan(_info(special=SpecialTokens(end=2)))


class Likes(nn.Module):
    """A judge that finds texts the better the more often they say a word; of each token, or of the whole."""

    def __init__(self, word: int, *, dense: bool) -> None:
        super().__init__()
        self.word, self.dense = word, dense
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Tensor) -> Tensor:
        said = (tokens == self.word).float() * self.weight
        return 4 * said - 2 if self.dense else said.sum(dim=1) - 2


@pytest.mark.parametrize("name", [name for name in TEXT_FAMILIES if name not in STYLE_FAMILIES])
def test_what_is_rewarded_is_said_more_often(name: str) -> None:
    family: TextFamily[Any]
    if name == "seqgan":
        family, phase = _seqgan(_info()), "adversarial"
    else:
        family, phase = ScratchGan(ScratchGanConfig(embedding=6, hidden=10, discount=0.5), _info()), "generator"
    networks = _random(family)
    networks["discriminator"] = Likes(5, dense=name != "seqgan")
    generator = networks["generator"]
    assert isinstance(generator, LanguageModel)
    chosen = next(each for each in family.phases() if each.name == phase)
    optimizer = make_optimizer(chosen, networks)
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    batch = Batch(torch.zeros(64, 6, dtype=torch.int64), lengths=torch.full((64,), 6))
    torch.manual_seed(1)
    before = (write_texts(generator, family.ends, 500, 5).tokens == 5).float().mean()
    for _ in range(40):
        loss = family.loss(phase, networks, batch)
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = (write_texts(generator, family.ends, 500, 5).tokens == 5).float().mean()
    assert after > before + 0.25


def test_rollouts_of_a_text_that_has_ended_are_the_text() -> None:
    family = _seqgan(_info())
    networks = _random(family)
    generator, judge = networks["generator"], networks["discriminator"].eval()
    assert isinstance(generator, LanguageModel)
    written = write_texts(generator, family.ends, 60, 5)
    worth = rollout_rewards(generator, judge, family.ends, written, 400)
    own = judge(written.tokens).sigmoid().detach()
    ended = (~family.ends.live(written.tokens)) | (written.tokens == 2)
    assert ended.any(dim=1).sum() > 5
    assert torch.equal(worth[ended], own[:, None].expand_as(worth)[ended])
    assert torch.equal(worth[:, -1], own)
    # What a beginning is worth is the mean over all texts that begin so.
    several = [token for token in range(7) if (written.tokens[:, 0] == token).sum() > 1 and token != 2]
    assert several
    for token in several:
        found = worth[written.tokens[:, 0] == token, 0]
        assert float(found.max() - found.min()) < 0.05


def test_texts_of_one_length_have_no_end() -> None:
    ends = Ends(begin=3, stop=None, rest=0)
    generator = LanguageModel(4, 3, 5, 1, never=(3,))
    written = write_texts(generator, ends, 6, 7)
    assert written.tokens.shape == (6, 7)
    assert len(written.states) == 7
    assert ends.live(written.tokens).all()


def test_a_baseline_of_the_others_leaves_the_gradient_unbiased() -> None:
    rewards = torch.tensor([[1.0, 4.0], [2.0, 9.0], [6.0, 9.0]])
    counts = torch.tensor([[True, True], [True, False], [True, False]])
    found = against_the_others(rewards, counts)
    assert found[:, 0].tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]
    assert found[:, 1].tolist() == [0, 0, 0], "no other text has come so far"
    assert against_the_others(rewards[:1], counts[:1]).tolist() == [[0, 0]]


def test_returns_are_discounted_sums_of_what_counts() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 8.0]])
    counts = torch.tensor([[True, True, True], [True, True, False]])
    assert returns(rewards, counts, 0.5).tolist() == [[3.0, 4.0, 4.0], [1.5, 1.0, 0.0]]


def test_a_begin_is_never_drawn_where_texts_have_no_end() -> None:
    vocabulary = Words(tokens=("w0", "w1", "<begin>"), special=SpecialTokens(begin=2), joining="spaces")
    text = TextInfo(length=4, vocabulary=vocabulary)
    info = DataInfo(name="x", channels=1, height=1, width=4, count=8, text=text)
    plan = _seqgan(info).export_plan(_random(_seqgan(info)))
    model = Generator.from_sessions(plan.model, torch_sessions(plan), plan.files)
    drawn = model.sample(100, seed=0)
    assert set(np.unique(drawn.array)) == {0, 1}
    assert drawn.lengths is None or set(drawn.lengths.tolist()) == {4}
    assert np.isfinite(model.log_likelihood(drawn.array)).all()
