"""The style transformer: a step is the whole pass, words are copied or said, marking words are exchanged."""

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
from gensdk_training.families.textstyle import TextStyle, TextStyleConfig
from gensdk_training.family import DataInfo, TextInfo
from gensdk_training.graphs.sequence_steps import draw_among
from gensdk_training.graphs.style_steps import StyleLikelihood
from gensdk_training.networks.language_model import Ends
from gensdk_training.networks.style_discriminator import StyleDiscriminator
from gensdk_training.networks.style_markers import StyleMarkers
from gensdk_training.networks.style_transformer import Choices, StyleTransformer, rewritten
from gensdk_training.torch_backend import torch_sessions

SPECIAL = SpecialTokens(pad=0, begin=1, end=2, unknown=3)
ENDS = Ends(begin=1, stop=2, rest=0)


def _info(length: int = 6, styles: int | None = 3, special: SpecialTokens = SPECIAL) -> DataInfo:
    names = [f"w{number}" for number in range(12)]
    for name, token in special.model_dump(exclude_none=True).items():
        names[token] = f"<{name}>"
    vocabulary = Words(tokens=tuple(names), special=special)
    text = TextInfo(length=length, vocabulary=vocabulary)
    return DataInfo(name="few", channels=1, height=1, width=length, count=8, text=text, num_classes=styles)


def _network(seed: int = 0, **changes: Any) -> StyleTransformer:
    """A network whose choices differ widely."""
    torch.manual_seed(seed)
    settings = {
        "features": 8,
        "layers": 2,
        "heads": 2,
        "frequent": 9,
        "never": (0, 1),
        "begin": 1,
        "pad": 0,
        **changes,
    }
    network = StyleTransformer(12, 3, 6, **settings).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.45)
    with torch.no_grad():
        network.chooser.copying.zero_()
        network.chooser.bias[2] = 4.0  # some end early, some never
    return network


PROMPTS = torch.tensor([[4, 11, 5, 0, 0], [10, 6, 6, 9, 7], [8, 0, 0, 0, 0], [3, 11, 11, 4, 0]])
LABELS = torch.tensor([0, 1, 2, 1])


def _model(network: StyleTransformer, **settings: Any) -> Generator:
    config = TextStyleConfig(features=8, heads=2, frequent=9, **settings)
    family = TextStyle(config, _info())
    plan = family.export_plan({"translator": network})
    return Generator.from_sessions(plan.model, torch_sessions(plan), plan.files)


OPTIONS = [{}, {"top_k": 12}, {"top_k": 4, "temperature": 1.5}, {"top_k": 12, "top_p": 0.7}]


@pytest.mark.parametrize("options", OPTIONS)
def test_token_by_token_is_the_whole_pass(options: dict[str, Any]) -> None:
    """From the same noise, each text is drawn anew with the whole pass over all before each of its tokens."""
    network = _network()
    prompts, labels = PROMPTS.repeat(4, 1), LABELS.repeat(4)
    drawn = _model(network).sample(
        16, seed=5, batch_size=5, prompt=prompts.numpy(), label=labels.tolist(), progress=False, **options
    )
    count = len(prompts)
    uniforms = torch.from_numpy(noise.uniform(sample_keys(count, 5), noise.LATENT_STREAM, (6, 1)))
    tokens, rows = torch.zeros(count, 6, dtype=torch.int64), torch.ones(count)
    how = {"temperature": 1.0, "top_k": 1, "top_p": 1.0, **options}
    with torch.no_grad():
        for place in range(6):
            source = network.read(prompts, labels)
            shares = network(source, labels, ENDS.before(tokens)).shares(12)[:, place]
            logits = torch.where(shares > 0, shares.log(), -1e4)
            logits[:, 3] += -1e4
            cuts = torch.full((count,), how["top_k"]), rows * how["top_p"]
            tokens[:, place] = draw_among(logits, uniforms[:, place], rows * how["temperature"], *cuts).squeeze(1)
    expected = torch.where(ENDS.live(tokens), tokens, 0).numpy()
    np.testing.assert_array_equal(drawn.array, expected)
    assert drawn.lengths is not None
    live = ENDS.live(tokens)
    assert drawn.lengths.tolist() == (live.sum(dim=1) - (live & (tokens == 2)).any(dim=1).int()).tolist()
    assert len({tuple(row) for row in expected.tolist()}) > 2


def test_the_greedy_draw_of_training_is_that_of_the_bundle() -> None:
    network = _network(1)
    drawn = _model(network).sample(4, prompt=PROMPTS.numpy(), label=LABELS.tolist(), progress=False)
    with torch.no_grad():
        own = rewritten(network, ENDS, network.read(PROMPTS, LABELS), LABELS, never=(0, 1, 3))
    np.testing.assert_array_equal(drawn.array, own.numpy())


def test_a_token_depends_on_those_before_it_and_on_the_whole_source() -> None:
    network = _network()
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, made: Tensor) -> None:
        made.retain_grad()
        kept.append(made)

    network.embed.register_forward_hook(keep)
    written = torch.tensor([[1, 5, 6, 7, 8, 4]])
    for place in range(6):
        choices = network(network.read(PROMPTS[:1], LABELS[:1]), LABELS[:1], written)
        choices.logits[0, place, :9].square().sum().backward()  # type: ignore[no-untyped-call]
        own, source = kept.pop().grad, kept.pop().grad
        assert own is not None
        assert source is not None
        assert (own[0].abs().sum(dim=1) > 0).tolist() == [other <= place for other in range(6)]
        assert (source[0].abs().sum(dim=1) > 0).tolist() == [True, True, True, False, False], "pads are not seen"


def test_how_far_a_source_is_filled_up_does_not_count() -> None:
    network = _network()
    with torch.no_grad():
        short, long = (network.read(PROMPTS[2:3, :size], LABELS[2:3]) for size in (1, 5))
        one, other = (network(source, LABELS[2:3], torch.tensor([[1, 8, 4]])) for source in (short, long))
    torch.testing.assert_close(one.shares(12), other.shares(12))


def test_the_likelihoods_of_all_texts_sum_to_one() -> None:
    """Of all that can be said: frequent words, and rare ones of the source."""
    network, total = _network(), 0.0
    judge = StyleLikelihood(network, ENDS)
    words = [token for token in range(12) if token not in (0, 1, 2)]
    for length in range(4):
        rows = torch.tensor(list(product(words, repeat=length)) or [()], dtype=torch.int64)
        filled = torch.nn.functional.pad(rows, (0, 3 - length))
        count = len(rows)
        with torch.no_grad():
            asked = PROMPTS[:1].expand(count, -1), LABELS[:1].expand(count)
            log_p = judge(filled, torch.full((count,), length), *asked)
            if length == 3:  # longer ones begin so: the end of these is not drawn
                choices = network(network.read(*asked), asked[1], ENDS.before(filled))
                log_p = choices.log_probability(filled).sum(dim=1)
        total += float(log_p.exp().sum())
    assert total == pytest.approx(1.0, abs=1e-4)


def test_rare_words_are_copied_and_never_said() -> None:
    network = _network()
    with torch.no_grad():
        choices = network(network.read(PROMPTS, LABELS), LABELS, torch.full((4, 1), 1))
    shares = choices.shares(12).squeeze(1)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    for row, prompt in zip(shares, PROMPTS, strict=True):
        copied = [token for token in (9, 10, 11) if token in prompt.tolist()]
        assert [token for token in (9, 10, 11) if row[token] > 0] == copied
    assert (shares[:, :2] == 0).all(), "pad and begin are no part of a text"
    tokens = torch.arange(12).expand(4, -1)
    logs = Choices(choices.logits.expand(-1, 12, -1), PROMPTS).log_probability(tokens)
    torch.testing.assert_close(logs.exp(), shares)


def test_the_likeliest_token_is_that_of_the_whole_vocabulary() -> None:
    """Of tokens that are said, copied, both, and copied from several places."""
    torch.manual_seed(0)
    logits = torch.randn(300, 6, 9 + 5)
    source = torch.randint(0, 12, (300, 5))
    choices, never = Choices(logits, source), (0, 1, 3)
    shares = choices.shares(12)
    shares[..., list(never)] = 0.0
    assert torch.equal(choices.likeliest(never), shares.argmax(dim=-1))
    torch.testing.assert_close(choices.shares(12).sum(dim=-1), torch.ones(300, 6))


def test_words_that_mark_a_style_are_found_and_exchanged() -> None:
    markers = StyleMarkers(2, 10, threshold=0.8, least=2)
    texts = torch.tensor([[4, 5, 6, 0], [4, 4, 7, 0], [8, 5, 6, 0], [8, 5, 7, 9], [4, 6, 7, 0], [8, 6, 7, 0]])
    styles = torch.tensor([0, 0, 1, 1, 0, 1])
    markers.learn(texts, styles, silent=(0,))
    assert markers.counts[0, 4] == 3, "a word counts once a text"
    assert markers.counts[:, 0].tolist() == [0, 0]
    assert [row.nonzero().squeeze(1).tolist() for row in markers.weights] == [[4], [8]]
    torch.manual_seed(0)
    other = markers.exchanged(texts, styles, 1 - styles, 1.0)
    assert torch.equal(other, torch.where(texts == 4, 8, torch.where(texts == 8, 4, texts)))
    assert torch.equal(markers.exchanged(texts, styles, 1 - styles, 0.0), texts)
    markers.learn(texts[:2], styles[:2])
    assert torch.equal(markers.exchanged(texts, styles, 1 - styles, 1.0), texts), "style 1 has no words to give"


def test_the_discriminator_and_the_text_that_comes_back_reach_the_first_pass() -> None:
    torch.manual_seed(0)
    network = _network()
    source = network.read(PROMPTS, LABELS)
    tokens = rewritten(network, ENDS, source, LABELS, never=(0, 1))
    choices = network(source, LABELS, ENDS.before(tokens))
    judge = StyleDiscriminator(
        StyleMarkers(3, 12, threshold=1.0, least=1),
        embedding=5,
        filters=4,
        widths=(1, 2, 3),
        silent=(0, 1, 2),
        dropout=0.0,
    )
    blended = choices.blended(tokens, judge.embed.weight)
    torch.testing.assert_close(judge(tokens, blended), judge(tokens), msg="forward they are the tokens")
    judge(tokens, blended).sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in network.chooser.parameters())
    assert float(network.style.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_what_fills_texts_up_is_nothing_to_the_discriminator() -> None:
    markers = StyleMarkers(3, 12, threshold=1.0, least=1)
    torch.manual_seed(0)
    judge = StyleDiscriminator(markers, embedding=5, filters=4, widths=(1, 2, 3), silent=(0, 1, 2), dropout=0.0)
    torch.testing.assert_close(judge(torch.tensor([[5, 6, 2, 0]])), judge(torch.tensor([[5, 6, 0, 0, 0, 0]])))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"styles": None}, "labels of two styles or more"),
        ({"styles": 1}, "labels of two styles or more"),
        ({"special": SpecialTokens(begin=1, end=2)}, "no pad token"),
        ({"special": SpecialTokens(pad=0, end=2)}, "no begin token"),
        ({"special": SpecialTokens(pad=0, begin=1)}, "no end token"),
    ],
)
def test_data_that_no_style_can_be_learnt_from_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TextStyle(TextStyleConfig(), _info(**changes))


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="choose a multiple"):
        TextStyle(TextStyleConfig(features=10, heads=4), _info())


def test_parts_follow_each_other() -> None:
    family = TextStyle(TextStyleConfig(rewriting_steps=3, steps=5), _info())
    turns = [
        "".join(phase.name[0] for phase in family.phases() if not family.rests(phase.name, step))
        for step in range(5)
    ]
    assert turns == ["rd", "rd", "rd", "dg", "dg"]
    assert not family.notes()
    assert "end before the game" in TextStyle(TextStyleConfig(rewriting_steps=3, steps=3), _info()).notes()[0]
