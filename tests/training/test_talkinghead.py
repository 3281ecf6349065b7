"""Talking heads: images with sound around them, the sync expert first, and what stays of a face."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.conditions.audio import AudioCondition
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.sounds import FULL_SCALE
from gensdk_runtime.spec.audio import AudioConditionSpec
from gensdk_training.data import load_data
from gensdk_training.diagnosis import Monitor
from gensdk_training.families.talkinghead import EXPERT, GENERATOR, SYNC, TalkingHead, TalkingHeadConfig
from gensdk_training.families.vae import Vae, VaeConfig
from gensdk_training.family import DataInfo
from gensdk_training.losses.pairs import pair_loss
from gensdk_training.networks.log_mel import LogMel
from gensdk_training.networks.talking import WindowEncoder, beside_mouth, lower_half
from gensdk_training.run import load_run, train
from gensdk_training.torch_backend import torch_sessions
from support.plans import DIGITS, family_plan
from support.talking import COUNT, RATE, SAMPLES, talking_digits, talking_digits_file
from support.tiny import tiny_run, with_source


def test_images_come_with_the_sound_around_them() -> None:
    data = talking_digits()
    with np.load(talking_digits_file()) as file:
        sounds, stills = file["sounds"], file["stills"]
    places = np.array([7, 0, 7])
    heard = data.batch(places).sounds
    assert heard is not None
    np.testing.assert_array_equal(heard, sounds[places].astype(np.float32) / FULL_SCALE)
    assert data.sources is not None
    np.testing.assert_array_equal(data.sources.batch(places).images[..., 0], stills[places][..., 0])
    assert data.info.require_window() == AudioConditionSpec(samples=SAMPLES, sample_rate=RATE, window=True)
    assert DataInfo.from_json(data.info.to_json(), what="data") == data.info


def test_parts_of_the_data_keep_images_faces_and_sounds_together() -> None:
    path = str(talking_digits_file())
    parts = [
        load_data(path, inputs=f"{path}:stills", sounds="sounds", holdout=0.25, split=split)
        for split in ("train", "test")
    ]
    assert [len(part) for part in parts] == [3 * COUNT // 4, COUNT // 4]
    whole = talking_digits()
    known = {row.tobytes(): at for at, row in enumerate(whole.batch(np.arange(COUNT)).images)}
    for part in parts:
        batch = part.batch(np.arange(len(part)))
        places = np.array([known[row.tobytes()] for row in batch.images])
        expected = whole.batch(places)
        assert batch.sounds is not None
        assert expected.sounds is not None
        np.testing.assert_array_equal(batch.sounds, expected.sounds)
    assert len({part.fingerprint for part in (*parts, whole)}) == 3


def _file(folder: Path, **changed: Any) -> str:
    arrays = {
        "images": np.zeros((6, 8, 8, 1), np.uint8),
        "stills": np.zeros((6, 8, 8, 1), np.uint8),
        "sounds": np.zeros((6, 40), np.int16),
        "sample_rate": np.array(8000),
    }
    kept = {name: array for name, array in {**arrays, **changed}.items() if array is not None}
    np.savez(folder / "x.npz", allow_pickle=False, **kept)
    return str(folder / "x.npz")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sounds": None}, "has no sounds 'sounds'; it has images"),
        ({"sample_rate": None}, "has no sample rate beside its sounds"),
        (
            {"sounds": np.zeros((5, 40), np.int16)},
            r"expected sounds \[6, samples\], one for each image, got \[5, 40\]",
        ),
        ({"sounds": np.zeros((6, 40), np.int32)}, "expected sounds as int16 or floats"),
        ({"sounds": np.full((6, 40), 1000.0)}, "scale them"),
        ({"sounds": np.full((6, 40), np.nan)}, r"x\.npz: its sounds have NaN"),
        ({"sample_rate": np.array(3)}, "expected sample_rate as one whole number of 1000"),
    ],
)
def test_sounds_that_go_with_no_images(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(_file(tmp_path, **changed), sounds="sounds")


def test_floats_are_sounds_too(tmp_path: Path) -> None:
    wave = np.linspace(-1, 1, 240).reshape(6, 40)
    found = load_data(_file(tmp_path, sounds=wave), sounds="sounds").batch(np.arange(6)).sounds
    np.testing.assert_allclose(found, wave, atol=1 / FULL_SCALE)


def test_sounds_beyond_full_scale_are_told(tmp_path: Path) -> None:
    data = load_data(_file(tmp_path, sounds=np.full((6, 40), 1.5)), sounds="sounds")
    assert "sound: 240 samples were beyond full scale, and clipped" in data.findings.notes


def test_families_get_what_they_start_from() -> None:
    info = with_source("talkinghead", DIGITS)
    with pytest.raises(InputError, match="talkinghead needs the sound around each image: give --sounds"):
        TalkingHead(TalkingHeadConfig(), info.model_copy(update={"window": None}))
    with pytest.raises(InputError, match="vae hears no sound: leave --sounds out"):
        Vae(VaeConfig(), DIGITS.model_copy(update={"window": info.window}))
    with pytest.raises(InputError, match="needs a still face for each image"):
        TalkingHead(TalkingHeadConfig(), info.model_copy(update={"source": None}))
    with pytest.raises(InputError, match="no sounds around images are read from 'digits'"):
        load_data("digits", sounds="sounds")


def test_the_expert_comes_first() -> None:
    family = TalkingHead(TalkingHeadConfig(sync_steps=3, steps=5), with_source("talkinghead", DIGITS))
    active = [[phase.name for phase in family.phases() if not family.rests(phase.name, step)] for step in range(5)]
    assert active == [[SYNC]] * 3 + [[GENERATOR]] * 2
    assert family.averages_from == 3
    assert family.notes() == ()
    short = TalkingHead(TalkingHeadConfig(sync_steps=5, steps=5), with_source("talkinghead", DIGITS))
    assert "before the generator learns" in short.notes()[0]
    untaught = TalkingHead(TalkingHeadConfig(sync_steps=0), with_source("talkinghead", DIGITS))
    assert "its judgement is noise" in untaught.notes()[0]


def test_the_loss_of_pairs_is_as_written_and_guessing_has_ln_2() -> None:
    logits = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = torch.sigmoid(logits)
    right = [-math.log(p[i, i]) for i in range(5)]
    false = [-math.log(1 - p[i, j]) for i in range(5) for j in range(5) if i != j]
    loss, told = pair_loss(logits)
    assert loss.item() == pytest.approx((np.mean(right) + np.mean(false)) / 2)
    assert 0 <= told <= 1
    loss, _ = pair_loss(torch.zeros(4, 4))
    assert loss.item() == pytest.approx(math.log(2))
    loss, told = pair_loss(40 * torch.eye(4) - 20)
    assert loss < 1e-6
    assert told == 1


def test_an_expert_that_guesses_is_diagnosed() -> None:
    def kinds(loss: float) -> list[str]:
        monitor = Monitor(TalkingHead.log_meanings)
        for step in range(10, 500, 10):
            monitor.look_at_logs(step, {"sync/loss": loss, "sync/pair_loss": loss}, {}, since=step - 10)
        return [warning.kind for warning in monitor.diagnosis.warnings]

    assert kinds(math.log(2)) == ["pairs_not_told"]
    assert kinds(0.6) == []


def test_the_expert_stays_as_it_is_while_the_generator_learns(tmp_path: Path) -> None:
    states = []
    for steps in (3, 6):
        folder = tmp_path / str(steps)
        config = tiny_run("talkinghead", steps=steps, preview_every=steps, config={"lr_schedule": "constant"})
        train(config, folder, progress=False, tensorboard=False)
        run = load_run(folder, ema=False)
        states.append({name: tensor.clone() for name, tensor in run.networks[EXPERT].state_dict().items()})
        assert run.examples is not None
        assert run.examples.heard is not None
        assert run.examples.heard.shape == (16, SAMPLES)
        assert list((folder / "previews").iterdir())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=0, atol=0)


def test_what_is_painted() -> None:
    plan = family_plan("talkinghead")
    face = talking_digits().images[:1]
    one, other = talking_digits().batch(np.array([3, 90])).sounds
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        first, second = model.sample(image=face, audio=np.stack([one, other]), output_type="uint8").images
    np.testing.assert_array_equal(first[:4], face[0, :4])
    np.testing.assert_array_equal(second[:4], face[0, :4])
    assert (first[4:] != second[4:]).any()
    images = torch.arange(2.0 * 8 * 8).reshape(2, 1, 8, 8)
    assert torch.equal(lower_half(images), images[:, :, 4:])
    assert torch.equal(beside_mouth(images), images[:, :, 4:][..., [0, 1, 6, 7]])


def test_a_window_says_how_loud_it_is_and_when() -> None:
    sound = torch.sin(torch.arange(960) * 0.6)[None] * 0.5
    levelled, plain = LogMel(8000, 8), LogMel(8000, 8, levelled=False)
    torch.testing.assert_close(levelled(sound), levelled(sound / 8), atol=1e-3, rtol=0)
    assert (plain(sound).amax() - plain(sound / 8).amax()).item() == pytest.approx(2 * math.log(8), abs=0.05)
    torch.manual_seed(0)
    encoder = WindowEncoder(8000, 960, bands=8, channels=4, features=8).eval()
    early, late = (torch.nn.functional.pad(sound[:, :480], padding) for padding in ((0, 480), (480, 0)))
    assert (encoder(early) - encoder(late)).abs().max() > 1e-3


def test_a_window_may_be_silent_where_a_sound_may_not() -> None:
    model = family_plan("talkinghead").model
    spec = model.condition("audio")
    assert isinstance(spec, AudioConditionSpec)
    silence = np.zeros(SAMPLES, np.float32)
    assert AudioCondition(spec, model).check(silence, 1).shape == (1, SAMPLES)
    assert "around the moment of a sample" in AudioCondition(spec, model).notes[0]
    whole = spec.model_copy(update={"window": False})
    assert "window" not in whole.to_json()
    with pytest.raises(InputError, match="is silent"):
        AudioCondition(whole, model).check(silence, 1)
