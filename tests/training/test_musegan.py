"""MuseGAN: whole notes, what each part of z moves, and neurons whose gradients go straight through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.families.musegan import Musegan, MuseganConfig
from gensdk_training.family import DataInfo
from gensdk_training.networks.binary_neurons import BinaryNeurons, OneHotNeurons
from gensdk_training.networks.musegan import MuseCritic, MuseGenerator
from gensdk_training.preview import sample_networks
from gensdk_training.run import load_run, train
from support.music import FORM, phrases
from support.tiny import tiny_run

LATENT = 4
KINDS = [(neurons, stochastic) for neurons in ("binary", "one_hot") for stochastic in (False, True)]


def generator(**changed: Any) -> MuseGenerator:
    torch.manual_seed(0)
    settings = {"latent": LATENT, "channels": 4, "private": True, "one_hot": False, "stochastic": False, **changed}
    return MuseGenerator(FORM, **settings).eval()


def family(**settings: Any) -> Musegan:
    return Musegan(
        MuseganConfig(latent=LATENT, generator_channels=4, discriminator_channels=4, **settings), phrases().info
    )


@pytest.mark.parametrize(("neurons", "stochastic"), KINDS)
def test_what_comes_out_are_ones_and_zeros(neurons: Any, stochastic: bool) -> None:
    made = family(neurons=neurons, stochastic=stochastic)
    samples = sample_networks(made, made.build_networks(), 6)
    assert set(np.unique(samples.array)) == {0.0, 1.0}
    if neurons == "one_hot":
        assert samples.array.sum(axis=3).max() == 1
    assert all(piece.notes for piece in samples.music)


@pytest.mark.parametrize("stochastic", [False, True])
def test_binary_neurons_let_gradients_through(stochastic: bool) -> None:
    logits = torch.linspace(-3, 3, 24).reshape(1, 1, 4, 6).requires_grad_()
    uniform = torch.rand(logits.shape) if stochastic else None
    neurons = BinaryNeurons()
    out = neurons.train()(logits, uniform)
    assert set(out.detach().unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(out, neurons.eval()(logits, uniform))
    (gradient,) = torch.autograd.grad(neurons.train()(logits, uniform).sum(), logits)
    chance = torch.sigmoid(logits.detach())
    torch.testing.assert_close(gradient, chance * (1 - chance))


def test_drawn_neurons_fire_as_often_as_they_should() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[[[-1.0, 0.5, 2.0]]]]).expand(4000, 1, 1, 3)
    often = BinaryNeurons().eval()(logits, torch.rand(logits.shape)).mean(0)
    torch.testing.assert_close(often, torch.sigmoid(logits[0]), atol=0.03, rtol=0)
    often = OneHotNeurons().eval()(logits, torch.rand(logits.shape)).mean(0)
    torch.testing.assert_close(often, torch.softmax(logits[0], -1)[..., :-1], atol=0.03, rtol=0)


def test_one_hot_neurons_sound_one_note_or_none() -> None:
    logits = torch.tensor([[[[0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [3.0, 3.0, 0.0]]]])
    out = OneHotNeurons().eval()(logits)
    assert out[0, 0].tolist() == [[0, 1], [0, 0], [1, 0]], "of two that are equal one sounds"


@pytest.mark.parametrize("private", [True, False])
def test_each_part_of_z_moves_what_it_should(private: bool) -> None:
    """Chord and style are of all tracks, melody and groove of one."""
    made = generator(private=private)
    z = torch.randn(1, MuseGenerator.size(2, LATENT))
    names = ("chord", "style", "melody 0", "melody 1", "groove 0", "groove 1")
    before = made.logits(z)
    for place, name in enumerate(names):
        other = z.clone()
        other[:, place * LATENT : (place + 1) * LATENT] += 1
        moved = (made.logits(other) - before).abs().amax(dim=(0, 2, 3)) > 1e-6
        expected = [True, True] if " " not in name else [name.endswith(str(track)) for track in (0, 1)]
        assert moved.tolist() == expected, name
    chord, style, melody, groove = made.parts(z)
    torch.testing.assert_close(torch.cat((chord, style, melody.flatten(1), groove.flatten(1)), 1), z)


def test_style_and_groove_are_the_same_in_every_bar() -> None:
    """With temporal networks that say the same of each bar, all bars are one."""
    made = generator()
    for network in (made.chord, *made.melody):
        last = network.body[-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()
    bars = made.logits(torch.randn(3, MuseGenerator.size(2, LATENT))).reshape(
        3, 2, FORM.bars, FORM.steps_per_bar, -1
    )
    torch.testing.assert_close(bars[:, :, 0], bars[:, :, 1])


def test_the_critic_judges_each_phrase_alone() -> None:
    critic, rolls = MuseCritic(FORM, channels=4), torch.rand(5, *FORM.shape)
    torch.testing.assert_close(critic(rolls)[1:3], critic(rolls[1:3]))


@pytest.mark.parametrize("change", [{"steps_per_beat": 3}, {"beats_per_bar": 3}, {"bars": 1}, {"pitches": 17}])
def test_any_format_can_be_made(change: dict[str, int]) -> None:
    form = FORM.model_copy(update=change)
    info = phrases().info.model_copy(update={"form": form})
    small = MuseganConfig(latent=LATENT, generator_channels=2, discriminator_channels=2)
    made = Musegan(small, DataInfo.model_validate(dict(info)))
    networks = made.build_networks()
    samples = sample_networks(made, networks, 2)
    assert samples.array.shape == (2, *form.shape)
    assert networks["discriminator"](torch.from_numpy(samples.array)).shape == (2,)


def test_a_checkpoint_loads_and_samples_the_same(tmp_path: Any) -> None:
    run = tiny_run("musegan", steps=2, config={"neurons": "one_hot"})
    train(run, tmp_path, progress=False, tensorboard=False)
    one, two = (load_run(tmp_path) for _ in range(2))
    first, second = (sample_networks(each.family, each.networks, 3).music for each in (one, two))
    assert first == second


def test_images_are_refused_and_one_hot_is_told() -> None:
    with pytest.raises(InputError, match="musegan makes piano rolls, but 'digits' are images"):
        Musegan(MuseganConfig(), DataInfo(name="digits", channels=1, height=8, width=8, count=4))
    assert family().notes() == ()
    assert "one note at a time" in family(neurons="one_hot").notes()[0]
