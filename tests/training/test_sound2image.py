"""Images from sounds: what is heard is what torch hears, pairs are of one class, and the game is as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.spectrogram import mel_triangles
from gensdk_training.data.load import load_data
from gensdk_training.data.sound_pairs import SoundsOfClasses
from gensdk_training.examples import Examples
from gensdk_training.families.sound2image import Sound2Image, Sound2ImageConfig
from gensdk_training.families.wgan_gp import WganGp, WganGpConfig
from gensdk_training.family import DataInfo
from gensdk_training.losses.matching import matching_loss
from gensdk_training.networks.log_mel import FLOOR, LogMel
from gensdk_training.networks.sound_encoder import SoundEncoder, masked, stretched, tilted
from gensdk_training.run import load_run, train
from gensdk_training.torch_backend import torch_sessions
from support.plans import DIGITS, family_plan
from support.short_sounds import short_sounds_folder
from support.sounds import spoken
from support.tiny import tiny_run, with_source


@pytest.mark.parametrize(("rate", "samples"), [(8000, 8000), (8000, 4001), (1000, 24), (16000, 3000)])
def test_the_spectrogram_is_that_of_torch(rate: int, samples: int) -> None:
    layer = LogMel(rate, 12)
    sounds = torch.randn(3, samples).clamp(-1, 1) * torch.tensor([[1.0], [0.3], [0.01]])
    loudest = sounds.abs().amax(dim=1, keepdim=True)
    window = torch.hann_window(layer.size)
    bins = torch.stft(
        sounds / loudest,
        layer.size,
        layer.hop,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = (bins.abs() / (window.sum() / 2)) ** 2
    weights = torch.tensor(mel_triangles(rate, layer.size, 12), dtype=torch.float32)
    found = layer(sounds)
    assert found.shape == (3, 12, 1 + samples // layer.hop)
    torch.testing.assert_close(found, torch.log(FLOOR + weights @ power), atol=2e-3, rtol=1e-3)


def test_loudness_and_silence() -> None:
    layer, sound = LogMel(1000, 8), torch.randn(1, 300).clamp(-1, 1)
    torch.testing.assert_close(layer(sound * 0.01), layer(sound), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(layer(torch.zeros(1, 300)), torch.full_like(layer(sound), float(np.log(FLOOR))))
    assert not layer.state_dict()
    assert layer.fp32_island


def test_when_something_was_said_hardly_matters() -> None:
    torch.manual_seed(0)
    encoder = SoundEncoder(8000, bands=20, channels=8, features=8).eval()
    said = torch.zeros(2, 8000)
    burst = torch.randn(1600).clamp(-1, 1)
    said[0, 1024:2624], said[1, 4096:5696] = burst, burst  # apart by whole strides of all layers
    with torch.no_grad():
        early, late = encoder(said)
    assert torch.dot(early, late) > 0.999
    torch.testing.assert_close(early.norm(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_what_training_changes_in_a_spectrogram() -> None:
    torch.manual_seed(0)
    given = torch.rand(5, 20, 30)
    torch.testing.assert_close(stretched(given, bands=0.0, time=0.0), given, atol=1e-5, rtol=0)
    assert torch.equal(tilted(given, 0.0), given)
    assert torch.equal(masked(given, bands=0, pieces=0), given)
    hidden = masked(given, bands=4, pieces=6) != given
    assert hidden.any()
    assert hidden.all(dim=2).sum(dim=1).max() <= 4
    assert hidden.all(dim=1).sum(dim=1).max() <= 6
    moved = stretched(given, bands=0.2, time=0.2)
    assert moved.shape == given.shape
    assert (moved != given).flatten(1).any(dim=1).all()
    ramp = torch.arange(30.0).expand(1, 20, 30)
    slopes = {round(stretched(ramp, bands=0.0, time=0.5)[0, 0, 3:12].diff().mean().item(), 3) for _ in range(9)}
    assert len(slopes) > 5
    assert all(1 / 1.5 - 1e-2 <= slope <= 2 + 1e-2 for slope in slopes)


def test_the_matching_loss_is_as_written() -> None:
    torch.manual_seed(1)
    one, other = (torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64)) for _ in range(2))
    labels = torch.tensor([0, 1, 0, 2])
    loss, right = matching_loss(one, other, labels, 0.5)
    total = 0.0
    for first, second in ((one, other), (other, one)):
        p = torch.softmax(first @ second.t() / 0.5, dim=1)
        total += float(-sum(p[i, labels == labels[i]].log().mean() for i in range(4)) / 4)
    assert loss.item() == pytest.approx(total / 2)
    assert right == ((labels[(one @ other.t()).argmax(dim=1)] == labels).double().mean()).item()
    perfect = torch.eye(3)[[0, 1, 0, 2]]
    assert matching_loss(perfect, perfect, labels, 0.01)[1] == 1


def heard(folder: Path, **options: Any) -> Any:
    return load_data("digits", inputs=f"fsdd:{spoken(folder / 'fsdd', takes=9)}", **options)


def test_each_image_goes_with_any_sound_of_its_class(tmp_path: Path) -> None:
    data = heard(tmp_path)
    assert set(data.info.class_names) == {"0", "1", "2"}
    assert "and 0 sounds, of classes that the others don't have" in data.findings.pairs
    source, pairs = data.info.source, data.sources
    assert isinstance(pairs, SoundsOfClasses)
    assert source.audio.sample_rate == pairs.sounds.info.audio.sample_rate
    assert source.audio.parts == ()
    assert (source.count, source.kind, len(pairs)) == (len(pairs.sounds), "sounds", len(data))
    indices = np.arange(60)
    batches = [pairs.training_batch(indices, seed=seed, first=first) for seed, first in ((0, 0), (0, 60), (1, 0))]
    for batch in batches:
        np.testing.assert_array_equal(batch.labels, data.labels[:60])
    again = pairs.training_batch(indices[20:], seed=0, first=20)
    np.testing.assert_array_equal(again.images, batches[0].images[20:])
    assert all((batches[0].images != other.images).any() for other in batches[1:])
    np.testing.assert_array_equal(pairs.batch(indices).images, pairs.batch(indices).images)
    known = {sound.tobytes() for sound in pairs.sounds.batch(np.arange(len(pairs.sounds))).images}
    assert {sound.tobytes() for sound in batches[0].images} <= known


def test_the_test_part_and_a_speaker_that_training_never_heard(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    parts = {
        (split, unheard): {
            tuple(key.split("_")[1:]) for key in heard(folder, split=split, unheard=unheard).sources.sounds.keys
        }
        for split in ("train", "test")
        for unheard in (None, "bo")
    }
    takes = {"train": range(5, 9), "test": range(5)}
    for split, numbers in takes.items():
        assert parts[split, None] == {(who, str(take)) for who in ("ann", "bo") for take in numbers}
    assert parts["train", "bo"] == {("ann", str(take)) for take in takes["train"]}
    assert parts["test", "bo"] == {("bo", str(take)) for take in takes["test"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unheard": "zoe"}, "no 'zoe' among what the classes of 'fsdd' say"),
        ({"only": ["1"]}, "only chooses classes"),
        ({"inputs": None, "unheard": "bo"}, "unheard is for sounds that images are made from"),
        ({"labels": "none"}, "has no classes, by which sounds and images are pairs"),
    ],
)
def test_pairs_that_can_not_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = {"inputs": f"fsdd:{spoken(tmp_path / 'fsdd', takes=6)}", **options}
    with pytest.raises(InputError, match=message):
        load_data("digits", **source)


def test_families_get_what_they_start_from() -> None:
    info = with_source("sound2image", DIGITS)
    with pytest.raises(InputError, match="wgan_gp takes inputs, none that are sounds, got sounds"):
        WganGp(WganGpConfig(), info)
    with pytest.raises(InputError, match="sound2image takes inputs, sounds, got none"):
        Sound2Image(Sound2ImageConfig(), DIGITS)
    with pytest.raises(InputError, match="needs two classes or more, got none"):
        Sound2Image(Sound2ImageConfig(), info.model_copy(update={"num_classes": None}))
    with pytest.raises(InputError, match="augment changes images with what they are made from"):
        train(_augmented(), "nowhere", progress=False)


def _augmented() -> Any:
    run = tiny_run("sound2image")
    return run.model_copy(update={"data": run.data.model_copy(update={"augment": ("shift",)})})


def test_parts_of_a_run_take_turns() -> None:
    family = Sound2Image(Sound2ImageConfig(matching_steps=3, steps=4), with_source("sound2image", DIGITS))
    active = [[phase.name for phase in family.phases() if not family.rests(phase.name, step)] for step in range(5)]
    assert active == [["matching"]] * 3 + [["discriminator", "generator"]] * 2
    assert family.notes() == ()
    short = Sound2Image(Sound2ImageConfig(matching_steps=4, steps=4), with_source("sound2image", DIGITS))
    assert "the generator stays as it began" in short.notes()[0]


def test_a_run_keeps_sounds_for_previews_and_proof(tmp_path: Path) -> None:
    train(tiny_run("sound2image", steps=4, preview_every=4), tmp_path / "run", progress=False, tensorboard=False)
    run = load_run(tmp_path / "run")
    assert run.examples is not None
    assert run.examples.asked == "audio"
    source = run.data_info.source
    assert source is not None
    assert run.examples.sources.shape == (16, source.height)
    assert run.examples.sources.dtype == np.float32
    assert run.examples.targets is not None
    assert run.examples.targets.shape == (16, 8, 8, 1)
    again = Examples.load(tmp_path / "run")
    assert again is not None
    np.testing.assert_array_equal(again.sources, run.examples.sources)
    assert list((tmp_path / "run" / "previews").iterdir())


def test_the_sound_decides_and_a_class_is_never_told() -> None:
    plan = family_plan("sound2image")
    assert plan.model.num_classes is None
    assert plan.model.program.graphs == ("generator", "listener")
    one, other = examples_of(plan.model, 2)["audio"]
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        first, second = (model.sample(4, seed=0, audio=sound).array for sound in (one, other))
        both = model.sample(4, seed=0, audio=[one, other, one, other]).array
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(both[::2], first[::2], atol=1e-5)
    np.testing.assert_allclose(both[1::2], second[1::2], atol=1e-5)


def test_a_source_of_sounds_is_told_apart_from_images() -> None:
    data = load_data("digits", inputs=str(short_sounds_folder()))
    assert isinstance(data.info, DataInfo)
    assert DataInfo.from_json(data.info.to_json(), what="data") == data.info
    assert data.info.source is not None
    assert data.info.source.kind == "sounds"
