"""MusicRNN: what depends on what, held notes, ends, and likelihoods beside the steps."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.pianoroll import PianorollSpec, TrackSpec
from gensdk_training.data.load import load_data
from gensdk_training.families.musicrnn import MusicRnn, MusicRnnConfig
from gensdk_training.family import Batch, DataInfo
from gensdk_training.graphs.voice_steps import RollLikelihood, Rolls
from gensdk_training.networks.voices import Voices, log_p_of
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions
from support.music import voices_file
from support.naive_sequences import ends_of, naive_tokens

VOICES, LEVELS, STOP, CYCLE, BARS = 3, 7, 6, 4, 3


def network(*, layers: int = 1, stop: int | None = STOP) -> Voices:
    torch.manual_seed(layers)
    made = Voices(
        *(VOICES, LEVELS, CYCLE, BARS), stop=stop, embedding=4, hidden=8, layers=layers, head=8, dropout=0.5
    ).eval()
    for weight in made.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=1.0)
    return made.requires_grad_(False)


def form(bars: int = 1) -> PianorollSpec:
    tracks = tuple(TrackSpec(name=f"voice {number}") for number in range(2))
    return PianorollSpec(tracks=tracks, lowest_pitch=60, pitches=2, steps_per_beat=1, beats_per_bar=3, bars=bars)


def plan_of(family: MusicRnn, seed: int = 0) -> ExportPlan:
    torch.manual_seed(seed)
    networks = family.build_networks()
    for weight in networks["voices"].parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=1.0)
    return family.export_plan(networks)


def tiny_family(*, ends: bool, bars: int = 1) -> MusicRnn:
    made = form(bars)
    info = DataInfo(
        name="tiny",
        channels=2,
        height=made.steps,
        width=made.pitches,
        count=4,
        form=made,
        ends=ends or None,
    )
    return MusicRnn(MusicRnnConfig(embedding=4, hidden=8, head=8), info)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_token_depends_on_steps_before_and_on_the_voices_before_it_alone(layers: int) -> None:
    made, length = network(layers=layers), 6
    tokens = torch.randint(0, LEVELS, (1, length, VOICES))
    before = made(tokens)
    assert before.shape == (1, length, VOICES, LEVELS)
    for place, voice in product(range(length), range(VOICES)):
        other = tokens.clone()
        other[0, place, voice] = (other[0, place, voice] + 1) % LEVELS
        changed = (made(other) - before).abs().amax(dim=3)[0] > 1e-7
        expected = torch.zeros(length, VOICES, dtype=torch.bool)
        expected[place + 1 :] = True
        expected[place, voice + 1 :] = True
        assert torch.equal(changed, expected), (place, voice)


def test_the_first_voice_alone_ends_a_piece() -> None:
    shares = torch.softmax(network()(torch.randint(0, LEVELS, (2, 5, VOICES))), dim=-1)
    assert float(shares[:, :, 0, STOP].min()) > 0
    assert float(shares[:, :, 1:, STOP].max()) == 0.0
    assert float(torch.softmax(network(stop=None)(torch.zeros(1, 2, VOICES, dtype=torch.int64)), -1).min()) > 0


def test_holding_raises_the_note_before() -> None:
    """One logit more goes to the token before, and before the first step to none."""
    made = network()
    tokens = torch.randint(0, STOP, (3, 5, VOICES))
    plain = made(tokens)
    with torch.no_grad():
        for head in made.heads:
            head.out.bias[-1] += 2.0
    held = made(tokens) - plain
    expected = torch.zeros_like(held)
    expected[:, 1:].scatter_(3, tokens[:, :-1].unsqueeze(3), 2.0)
    torch.testing.assert_close(held, expected, atol=1e-5, rtol=0)


def test_the_place_in_the_bar_and_the_bar_count() -> None:
    made = network()
    same = torch.full((1, 1, VOICES), LEVELS)
    told = [made.given(same, torch.tensor([place])) for place in range((BARS + 2) * CYCLE)]
    for place in range(BARS * CYCLE):
        assert not any(torch.equal(told[place], told[other]) for other in range(place))
    step = told[1] - told[0]
    assert all(torch.allclose(told[bar * CYCLE + 1] - told[bar * CYCLE], step) for bar in range(BARS))
    behind = slice(BARS * CYCLE, (BARS + 1) * CYCLE)
    assert all(map(torch.equal, told[behind], told[(BARS - 1) * CYCLE : BARS * CYCLE])), "as in the last bar"


def test_rolls_and_tokens() -> None:
    rolls = Rolls(5)
    tokens = torch.randint(0, 6, (3, 8, 2))
    made = rolls(tokens)
    assert made.shape == (3, 2, 8, 5)
    assert set(made.sum(dim=3).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(rolls.encode(made), tokens)
    assert rolls(torch.full((1, 1, 1), 6)).sum() == 0, "what ends a piece sounds not"
    chord = torch.tensor([[[[1.0, 0.0, 1.0, 0.0, 0.0]]]])
    assert rolls.encode(chord).item() == 3, "the highest"


@pytest.mark.parametrize("ends", [True, False])
def test_the_likelihoods_of_all_music_add_up_to_one(ends: bool) -> None:
    """Of three steps of two voices with two pitches each: every piece of every length."""
    plan = plan_of(tiny_family(ends=ends))
    steps, total = form().steps, 0.0
    for length in range(steps + 1) if ends else (steps,):
        every = torch.tensor(list(product(range(3), repeat=2 * length))).reshape(3 ** (2 * length), length, 2)
        tokens = torch.zeros(len(every), steps, 2, dtype=torch.int64)
        tokens[:, :length] = every
        with torch.no_grad():
            log_p = plan.modules["likelihood"](Rolls(2)(tokens), torch.full((len(every),), length))
        total += float(log_p.double().exp().sum())
    assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_step_after_step_equals_naive(ends: bool, temperature: float) -> None:
    plan = plan_of(tiny_family(ends=ends, bars=4))
    expected = naive_tokens(plan, 8, seed=3, temperature=temperature)
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        samples = model.sample(8, seed=3, temperature=temperature, progress=False)
    assert samples.lengths is not None
    assert samples.lengths.tolist() == ends_of(plan, expected)
    found = Rolls(2).encode(torch.from_numpy(samples.data)).numpy()
    for own, wanted, length in zip(found, expected, samples.lengths.tolist(), strict=True):
        np.testing.assert_array_equal(own[:length], wanted[:length])
        assert not own[length:].any(), "behind the end is silence"


def test_the_loss_counts_steps_and_ends_and_nothing_behind_them() -> None:
    data = load_data(str(voices_file()), whole=True)
    info = data.info.model_copy(update={"count": 4})
    family = MusicRnn(MusicRnnConfig(embedding=4, hidden=8, head=8, dropout=0.0), info)
    torch.manual_seed(0)
    networks = family.build_networks()
    rolls = torch.from_numpy(data.batch(np.arange(4)).images)
    lengths = torch.tensor([64, 20, 33, 1])
    loss = family.loss("likelihood", networks, Batch(rolls, lengths=lengths)).total
    likelihood = RollLikelihood(networks["voices"], Rolls(info.width), stop=family.stop)  # type: ignore[arg-type]
    counted = lengths + (lengths < rolls.shape[2])
    torch.testing.assert_close(loss, -likelihood(rolls, lengths).sum() / counted.sum(), rtol=1e-5, atol=0)
    behind = rolls.clone()
    behind[1, :, 20:] = 1 - behind[1, :, 20:]
    torch.testing.assert_close(likelihood(behind, lengths), likelihood(rolls, lengths))


def test_dropout_is_for_training_alone() -> None:
    made = network()
    tokens, counts = torch.randint(0, STOP, (2, 5, VOICES)), torch.ones(2, 5, dtype=torch.bool)
    still = log_p_of(made(tokens), tokens).flatten(0, 1)
    torch.testing.assert_close(made.log_probability(tokens, counts, drop=True), still)
    made.train()
    torch.testing.assert_close(made.log_probability(tokens, counts), still)
    assert (made.log_probability(tokens, counts, drop=True) != still).any()


def test_data_of_phrases_have_no_end_and_whole_pieces_have() -> None:
    phrases, pieces = (load_data(str(voices_file()), whole=whole) for whole in (False, True))
    made: dict[str, Any] = {
        name: MusicRnn(MusicRnnConfig(embedding=4, hidden=8, head=8), data.info)
        for name, data in (("phrases", phrases), ("pieces", pieces))
    }
    assert made["phrases"].stop is None
    assert made["pieces"].stop == made["pieces"].levels - 1 == made["phrases"].levels
    for each in made.values():
        assert "one note at a time" in each.notes()[0]
