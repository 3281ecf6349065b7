"""Images from texts: the game is as written, parts take turns, texts decide, and the empty one is one too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_training.diagnosis import Monitor
from gensdk_training.families.text2image import Text2Image, Text2ImageConfig, ToldGenerator
from gensdk_training.family import LOG_MEANINGS, Batch
from gensdk_training.losses.gradient_penalty import r1_penalty
from gensdk_training.torch_backend import torch_sessions
from support.captions import captioned_digits
from support.plans import DIGITS, family_plan
from support.tiny import SETTINGS, with_source

INFO = with_source("text2image", DIGITS)


def family(**config: Any) -> Text2Image:
    return Text2Image(Text2ImageConfig.from_dict({**SETTINGS["text2image"], **config}, what="config"), INFO)


def batch(count: int = 16) -> Batch:
    data = captioned_digits().batch(np.arange(count))
    assert data.prompts is not None
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Batch(images, prompts=torch.from_numpy(data.prompts))


class Told(nn.Module):
    """A judge that gives 0.5 for images above 0 with words that begin above 0, and -0.5 where one is not so."""

    def forward(self, images: torch.Tensor, *embeddings: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bright = images.mean(dim=(1, 2, 3)) > 0
        return tuple((bright & (each[:, 0] > 0)).float() - 0.5 for each in embeddings)


def test_the_game_is_as_written() -> None:
    images = torch.cat((torch.ones(3, 1, 8, 8), -torch.ones(1, 1, 8, 8)))
    words = torch.tensor([[1.0], [1.0], [-1.0], [1.0]])
    wrong = torch.tensor([False, True, True, True])
    loss = family(shift=0.0).judge({"discriminator": Told()}, images, -images, words, wrong)
    real, fake, other = [0.5, 0.5, -0.5, -0.5], [-0.5, -0.5, -0.5, 0.5], [0.5, 0.5, 0.5, -0.5]
    total = np.mean([1 - v for v in real]) + np.mean([1 + v for v in fake]) / 2
    total += np.mean([(1 + v) * w for v, w in zip(other, wrong.tolist(), strict=True)]) / 2
    assert loss.total.item() == pytest.approx(total)
    assert loss.logs["right_conditions"] == 0.0
    assert loss.logs["distance"].item() == pytest.approx(np.mean(real) - np.mean(fake))


def test_right_conditions_are_counted_among_those_that_differ() -> None:
    images, words = torch.ones(4, 1, 8, 8), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    loss = family().judge(
        {"discriminator": Told()}, images, -images, words, torch.tensor([True, True, True, False])
    )
    assert loss.logs["right_conditions"].item() == pytest.approx(2 / 3)


def test_words_that_count_for_nothing_are_diagnosed() -> None:
    monitor = Monitor(LOG_MEANINGS)
    for number in range(12):
        value = 0.5 if number > 4 else 0.9
        monitor.look_at_logs(
            200 + 25 * (number + 1), {"discriminator/right_conditions": value}, {}, since=200 + 25 * number
        )
    (warning,) = monitor.diagnosis.warnings
    assert warning.kind == "condition_ignored"
    assert "prefers what goes with them 50% of the time" in warning.message
    listening = Monitor(LOG_MEANINGS)
    for number in range(12):
        listening.look_at_logs(
            200 + 25 * (number + 1), {"discriminator/right_conditions": 0.6}, {}, since=200 + 25 * number
        )
    assert listening.diagnosis.warnings == ()


def test_r1_is_half_the_squared_gradient() -> None:
    x = torch.randn(5, 1, 4, 4, requires_grad=True)
    weight = torch.arange(16.0).reshape(1, 1, 4, 4)
    penalty = r1_penalty((weight * x).sum(dim=(1, 2, 3)), x)
    assert penalty.item() == pytest.approx(weight.square().sum().item() / 2)


def test_parts_of_a_run_take_turns() -> None:
    whole = family(matching_steps=3, steps=4)
    active = [[phase.name for phase in whole.phases() if not whole.rests(phase.name, step)] for step in range(5)]
    assert active == [["matching"]] * 3 + [["discriminator", "generator"]] * 2
    assert whole.notes() == ()
    assert "the generator stays as it began" in family(matching_steps=4, steps=4).notes()[0]


def test_a_batch_of_one_caption_has_no_wrong_words() -> None:
    torch.manual_seed(0)
    one, told = batch(), family()
    assert one.prompts is not None
    alike = Batch(one.images, prompts=one.prompts[:1].expand(16, -1))
    loss = told.loss("discriminator", told.build_networks(), alike)
    assert loss.total.isfinite()
    assert loss.logs["right_conditions"] == 0


def test_some_captions_of_a_batch_always_stay() -> None:
    torch.manual_seed(0)
    told = family(empty_share=0.99)
    loss = told.loss("generator", told.build_networks(), batch(2))
    assert loss.total.isfinite()


def test_augmented_conditions_are_drawn_from_the_noise() -> None:
    torch.manual_seed(0)
    generator = ToldGenerator(4, 6, [8, 8], (1, 8, 8), augmented=True).eval()
    embedding = nn.functional.normalize(torch.randn(3, 6))
    first = torch.randn(3, 10)
    second = torch.cat((first[:, :4], torch.randn(3, 6)), dim=1)
    with torch.no_grad():
        assert (generator(first, embedding) != generator(second, embedding)).any()
        assert generator.divergence(embedding) > 0
        assert generator.spread is not None
        for parameter in generator.spread.parameters():
            parameter.zero_()
        assert generator.divergence(embedding) == 0
    assert ToldGenerator(4, 6, [8, 8], (1, 8, 8), augmented=False).divergence(embedding) == 0
    assert family(condition_augmentation=True).noise == 16


def test_the_text_decides_and_the_empty_one_is_one() -> None:
    plan = family_plan("text2image")
    assert plan.model.program.graphs == ("generator", "text_encoder")
    assert plan.model.num_classes is None
    with Generator.from_sessions(plan.model, torch_sessions(plan), plan.files) as model:
        one, other, none = (
            model.sample(4, seed=0, prompt=text).array for text in ("a bold narrow one", "a light wide two", "")
        )
        both = model.sample(4, seed=0, prompt=["a bold narrow one", "a light wide two"] * 2).array
        np.testing.assert_array_equal(model.sample(4, seed=0).array, none)
        with pytest.warns(GensdkWarning, match="unknown to the model"):
            strange = model.sample(4, seed=0, prompt="a purple one").array
    for first, second in ((one, other), (one, none), (one, strange)):
        assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(both[::2], one[::2], atol=1e-5)
    np.testing.assert_allclose(both[1::2], other[1::2], atol=1e-5)


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_sizes_from_8_to_64(side: int) -> None:
    info = INFO.model_copy(update={"height": side, "width": side, "channels": 3})
    config = Text2ImageConfig.from_dict(SETTINGS["text2image"], what="config")
    networks = Text2Image(config, info).build_networks()
    with torch.no_grad():
        made = networks["generator"].eval()(torch.randn(2, 8), torch.randn(2, 8))
        assert made.shape == (2, 3, side, side)
        assert networks["discriminator"].eval()(made, torch.randn(2, 8))[0].shape == (2,)


def test_what_it_can_not_learn_is_refused() -> None:
    config = Text2ImageConfig()
    with pytest.raises(InputError, match="makes images from texts, but 'digits' has no captions; give --captions"):
        Text2Image(config, DIGITS)
    with pytest.raises(InputError, match="can be halved at least twice"):
        Text2Image(config, INFO.model_copy(update={"height": 30}))
    with pytest.raises(InputError, match="text_features as a multiple of text_heads"):
        family(text_features=9)
