"""WaveNet: what depends on what, rings beside windows, and likelihoods beside the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_training.families.wavenet import END, WaveNetConfig, WaveNetFamily
from gensdk_training.graphs.wavenet_steps import Codes
from gensdk_training.networks.wavenet import CausalLayers, Teller, WaveNet
from gensdk_training.torch_backend import torch_sessions
from support.naive_sequences import naive_tokens
from support.plans import family_plan
from support.short_sounds import short_sounds

DILATIONS = [(1,), (2,), (1, 2, 4), (1, 2, 4, 1, 2, 4), (3, 5), (4, 1)]
dilations = pytest.mark.parametrize("dilations", DILATIONS, ids=str)


def layers_of(dilations: tuple[int, ...], channels: int = 3) -> CausalLayers:
    torch.manual_seed(len(dilations))
    return CausalLayers(channels, 4, dilations)


def told_of(layers: CausalLayers, batch: int, frames: int) -> torch.Tensor:
    return torch.randn(len(layers.dilations), batch, 2 * layers.channels, frames)


@dilations
def test_a_position_depends_on_its_receptive_field_alone_and_on_all_of_it(dilations: tuple[int, ...]) -> None:
    layers, length = layers_of(dilations), 20
    assert layers.receptive_field == 1 + sum(dilations)
    x = torch.randn(1, 3, length, requires_grad=True)
    (made,) = layers("all", x, told_of(layers, 1, 4))
    reached = reach(dilations)
    for place in range(length):
        (gradient,) = torch.autograd.grad(made[0, :, place].sum(), x, retain_graph=True)
        depends = {int(at) for at in gradient[0].abs().sum(dim=0).nonzero()}
        assert depends == {place - back for back in reached if place >= back}, place
    assert max(reached) == layers.receptive_field - 1


def reach(dilations: tuple[int, ...]) -> set[int]:
    """How far back a position sees: through each layer with one tap, or the other."""
    backs = {0}
    for dilation in dilations:
        backs |= {back + dilation for back in backs}
    return backs


@pytest.mark.parametrize("conditional", [True, False])
def test_no_logit_sees_its_own_token_or_a_later_one(conditional: bool) -> None:
    torch.manual_seed(0)
    layers = CausalLayers(4, 8, (1, 2, 4))
    parts = torch.tensor([[0], [1]]) if conditional else None
    network = WaveNet(9, layers, Teller(3, 4, parts=parts, frames=3, hidden=4), skip_channels=8, frame=5)
    label = torch.zeros(1, dtype=torch.int64) if conditional else None
    tokens = torch.randint(0, 9, (1, 13))
    before = network(tokens, label)
    assert before.shape == (1, 13, 9)
    for place in range(13):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 9
        changed = (network(other, label) != before).any(dim=2)[0].nonzero().flatten().tolist()
        seen = [at for at in range(place + 1, 13) if at - place - 1 in reach((1, 2, 4))]
        assert changed == seen


@dilations
@pytest.mark.parametrize("batch", [1, 3])
def test_rings_hold_what_windows_see(dilations: tuple[int, ...], batch: int) -> None:
    """Longer than the largest ring several times over, and from a ring that holds anything else at first."""
    layers, length = layers_of(dilations), 40
    x, told = torch.randn(batch, 3, length), told_of(layers, batch, 8)
    with torch.no_grad():
        (expected,) = layers("all", x, told)
        kept = torch.zeros(layers.kept, batch, 3)
        for place in range(length):
            at = told[..., place // 5].transpose(0, 1).flatten(1)
            made, kept = layers("step", x[:, :, place], at, kept, torch.tensor([place]))
            torch.testing.assert_close(made, expected[:, :, place], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [None, [[0], [1], [2]], [[0, 0], [0, 1], [1, 0]]], ids=str)
def test_layers_are_told_the_same_at_a_frame_and_at_all(parts: Any) -> None:
    torch.manual_seed(1)
    teller = Teller(3, 4, parts=None if parts is None else torch.tensor(parts), frames=5, hidden=6)
    label = None if parts is None else torch.tensor([2, 0, 1, 2])
    whole = teller(torch.arange(5), label)
    assert whole.shape == (3, 1 if label is None else 4, 8, 5)
    for frame in range(5):
        one = teller(torch.tensor([frame]), label, step=True)
        torch.testing.assert_close(one, whole[..., frame].transpose(0, 1).flatten(1))
    assert not torch.equal(whole[..., 0], whole[..., 1])


def test_a_class_of_parts_shares_them_with_others() -> None:
    torch.manual_seed(1)
    teller = Teller(2, 3, parts=torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), frames=1, hidden=4)
    _, classes = teller._tables()
    assert classes is not None
    torch.testing.assert_close(classes[0] + classes[3], classes[1] + classes[2])


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], None])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_element_after_element_equals_naive(labels: list[int] | None, temperature: float) -> None:
    plan = family_plan("wavenet", conditional=labels is not None)
    expected = naive_tokens(plan, 4, seed=9, label=labels, temperature=temperature)[..., 0]
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        samples = model.sample(4, seed=9, label=labels, temperature=temperature, progress=False)
    codes = Codes(END).encode(torch.from_numpy(samples.data[..., 0])).numpy()
    assert samples.lengths is not None
    assert samples.lengths.min() > 3
    for found, wanted, length in zip(codes, expected, samples.lengths.tolist(), strict=True):
        np.testing.assert_array_equal(found[:length], wanted[:length])
        assert length == len(wanted) or wanted[length] == END


def test_the_likelihood_is_that_of_each_step() -> None:
    plan = family_plan("wavenet")
    network: Any = plan.modules["likelihood"].get_submodule("network")
    sounds = torch.from_numpy(short_sounds().batch(np.arange(5)).images)
    lengths, labels = torch.tensor([0, 1, 7, 23, 24]), torch.tensor([0, 1, 2, 0, 1])
    codes = Codes(END).encode(sounds[..., 0])
    assert len(codes) == len(lengths) == 5
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model, torch.no_grad():
        bits = model.log_likelihood(sounds.numpy(), label=labels.tolist(), lengths=lengths.numpy())
        for row, length in enumerate(lengths.tolist()):
            tokens = codes[row, :length].tolist() + [END] * (length < 24)
            nats = 0.0
            for place, token in enumerate(tokens):
                logits = network(torch.tensor([[*tokens[:place], 0]]), labels[row : row + 1])[0, place]
                nats += float(torch.log_softmax(logits, dim=0)[token])
            assert bits[row] == pytest.approx(-nats / np.log(2) / len(tokens), rel=1e-4)


def test_what_lies_behind_the_end_counts_nothing() -> None:
    plan = family_plan("wavenet", conditional=False)
    sound = np.random.default_rng(0).uniform(-1, 1, (1, 24, 1)).astype(np.float32)
    other = sound.copy()
    other[:, 10:] = 0.7
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        assert model.can("log_likelihood")
        first, second = (model.log_likelihood(each, lengths=[10])[0] for each in (sound, other))
        assert first == pytest.approx(second, rel=1e-6)
        assert model.log_likelihood(sound)[0] != pytest.approx(first)


def test_data_that_wavenet_does_not_learn() -> None:
    stereo = short_sounds().info.model_copy(update={"channels": 2})
    with pytest.raises(InputError, match="wavenet makes sounds of one channel, 'short' has 2"):
        WaveNetFamily(WaveNetConfig(), stereo)
    unlabelled = short_sounds().info.model_copy(update={"num_classes": None, "class_names": None})
    with pytest.raises(InputError, match="conditional=true needs labels"):
        WaveNetFamily(WaveNetConfig(), unlabelled)
