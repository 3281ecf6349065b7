"""Laws that every family of the registry obeys; a new family arrives tested."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.signature import HEIGHT, RESULT_HEIGHT, RESULT_WIDTH, WIDTH, GraphSpec, TensorSpec
from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.data.load import load_data
from gensdk_training.data.point_set import PointDataset
from gensdk_training.family import Batch, DataInfo, Family, Phase, freeze
from gensdk_training.optim import make_optimizer
from gensdk_training.preview import sample_networks
from gensdk_training.registry import AnyFamily, families, get_family, register
from gensdk_training.torch_backend import torch_sessions
from support.captions import captioned_digits
from support.music import phrases
from support.short_sounds import short_sounds
from support.short_texts import short_texts, styled_texts
from support.talking import talking_digits
from support.tiny import (
    MUSIC_FAMILIES,
    POINT_FAMILIES,
    SOUND_FAMILIES,
    STYLE_FAMILIES,
    TEXT_FAMILIES,
    with_source,
)

CONVOLUTIONS = {"generator_channels": 8, "discriminator_channels": 8, "latent": 8}

SMALL: dict[str, dict[str, Any]] = {
    "ae": {"hidden": [32], "latent": 4},
    "anogan": {"generator_channels": 8, "discriminator_channels": 8, "encoder_channels": 8, "latent": 8},
    "bigan": {"hidden": [32], "latent": 4, "discriminator_hidden": 32},
    "cgan": CONVOLUTIONS,
    "cyclegan": {"channels": 4, "blocks": 1, "patch_layers": 1, "pool": 4},
    "dcgan": {"generator_channels": 8, "discriminator_channels": 8, "latent": 8},
    "ddpm": {"channels": 8},
    "deepdream": {"channels": [8, 8]},
    "fgan": {"hidden": [16], "latent": 4},
    "flow": {"channels": 8},
    "gan": {"hidden": [16], "latent": 4},
    "glo": {"channels": 8, "latent": 8},
    "gmm": {"components": 3},
    "gon": {"hidden": [32], "latent": 8},
    "ldm": {"channels": 8, "autoencoder_channels": 8},
    "musegan": {"latent": 4, "generator_channels": 2, "discriminator_channels": 4},
    "musicrnn": {"embedding": 4, "hidden": 12, "head": 8},
    "pix2pix": {"channels": 8, "patch_layers": 1},
    "pixelcnn": {"layers": 3, "channels": 6, "head_channels": 8},
    "pixelrnn": {"layers": 2, "channels": 4, "head_channels": 8},
    "progan": {"channels": 4, "latent": 4, "hold_steps": 2, "fade_steps": 1},
    "scratchgan": {"embedding": 8, "hidden": 16},
    "seqgan": {"embedding": 8, "hidden": 16, "rollouts": 2, "filters": 4},
    "sgan": {"generator_hidden": [16], "classifier_hidden": [32, 16], "latent": 4, "labels": 20},
    "sngan": CONVOLUTIONS,
    "sound2image": {
        "latent": 8,
        "bands": 8,
        "listener_channels": 4,
        "viewer_channels": 4,
        "features": 8,
        "generator_channels": 8,
        "discriminator_channels": 8,
    },
    "srgan": {"channels": 8, "blocks": 2, "scale": 2, "discriminator_channels": 8, "patch_layers": 1},
    "stargan": {"channels": 4, "blocks": 1},
    "text2image": {
        "latent": 8,
        "text_features": 8,
        "viewer_channels": 4,
        "features": 8,
        "generator_channels": 8,
        "discriminator_channels": 8,
    },
    "textstyle": {"features": 8, "heads": 2, "layers": 1, "discriminator_embedding": 8, "filters": 4},
    "vae": {"hidden": [32], "latent": 4},
    "wavenet": {"layers": 3, "channels": 4, "skip_channels": 8, "condition_channels": 4, "frame": 5},
    "wgan": CONVOLUTIONS,
    "wgan_gp": CONVOLUTIONS,
}
"""Settings that make a family small enough for tests; a family without an entry is tested as it comes."""

POINTS = 0
"""In place of a number of channels: data that are points in the plane."""
MUSIC, SOUNDS, TEXTS, STYLES = -1, -2, -3, -4
"""In place of a number of channels: music of two voices, short sounds of three classes, short texts, and such of
three styles."""

POLICIES = {"scratchgan": ("generator",), "seqgan": ("adversarial",)}
"""Phases whose loss is over texts that the network itself draws: its gradient is that of a reward, but its value
says nothing. tests/training/test_text_gans.py sees rewards rise."""

POINT_SETTINGS: dict[str, Any] = {"architecture": "mlp", "hidden": [16], "latent": 4}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "ae": {"convolutions": {"architecture": "conv", "channels": 8}},
    "bigan": {"convolutions": {"architecture": "conv", "channels": 8, "spectral_norm": False}},
    "cgan": {"least_squares": {"loss": "lsgan"}, "mlp": {"architecture": "mlp", "hidden": [16]}},
    "cyclegan": {"one_way": {"two_way": False, "game": "vanilla"}, "resize": {"upsampling": "resize", "pool": 0}},
    "dcgan": {
        "saturating": {"loss": "saturating"},
        "spectral": {"spectral_norm": True, "discriminator_steps": 2},
    },
    "ddpm": {
        "velocity": {"prediction_type": "v_prediction"},
        "image": {"prediction_type": "sample", "schedule": "scaled_linear"},
    },
    "fgan": {
        name: {"divergence": name, "loss": "saturating" if name == "pearson" else "non_saturating"}
        for name in ("kl", "reverse_kl", "pearson", "squared_hellinger", "total_variation")
    },
    "flow": {"logit_normal": {"time_sampling": "logit_normal", "shift": 2.0}},
    "gan": {
        "packed": {"packing": 2, "discriminator_steps": 2},
        "saturating": {"loss": "saturating"},
        "conv_least_squares": {**CONVOLUTIONS, "architecture": "conv", "loss": "lsgan", "packing": 2},
    },
    "gmm": {"low_rank": {"covariance": "low_rank", "rank": 3}, "diagonal": {"covariance": "diagonal"}},
    "ldm": {"adversarial": {"adversarial_weight": 0.1, "discriminator_channels": 8, "kl_weight": 1e-2}},
    "musegan": {
        "one_hot": {"neurons": "one_hot", "rhythm_weight": 1.0, "harmony_weight": 1.0},
        "one_hot_drawn": {"neurons": "one_hot", "stochastic": True},
        "drawn": {"stochastic": True, "private": False, "loss": "non_saturating"},
    },
    "musicrnn": {"layers": {"layers": 2, "dropout": 0.0}},
    "pix2pix": {
        "l1": {"objective": "l1"},
        "gan": {"objective": "gan", "game": "lsgan"},
        "resize": {"upsampling": "resize", "norm": "batch", "depth": 2},
    },
    "pixelrnn": {
        "binary": {"levels": 2},
        "diagonal": {"lstm": "diagonal"},
        "other_kernels": {"first_kernel": 3, "kernel": 5, "state_kernel": 5},
    },
    "pixelcnn": {"binary": {"levels": 2}, "other_kernels": {"first_kernel": 3, "kernel": 5}},
    "sgan": {
        "non_saturating": {
            "objective": "non_saturating",
            "noise": 0.0,
            "feature_noise": 0.0,
            "weight_norm": False,
        },
        "convolutions": {
            "architecture": "conv",
            "generator_channels": 8,
            "classifier_channels": 8,
            "dropout": 0.3,
        },
    },
    "sngan": {"vanilla": {"loss": "non_saturating"}},
    "srgan": {"gan": {"objective": "gan"}, "four": {"scale": 4}},
    "vae": {
        "convolutions": {"architecture": "conv", "channels": 8},
        "gaussian": {"likelihood": "gaussian", "beta": 4.0},
    },
    "scratchgan": {"plain_draw": {"cuts": False}},
    "seqgan": {"layers": {"layers": 2, "widths": [2, 20], "dropout": 0.0}},
    "text2image": {
        "penalty": {"regularization": "r1", "empty_share": 0.0},
        "augmented": {"condition_augmentation": True, "text_layers": 2},
    },
    "textstyle": {"layers": {"layers": 2, "heads": 4, "frequent": 5, "exchange_share": 0.0}},
    "wavenet": {"stacks": {"layers": 2, "stacks": 2, "frame": 7}},
}
"""Further settings of one family, each a case of its own."""


def _shapes(name: str, variant: str) -> tuple[int, ...]:
    """The channels of the images that a family is tried with; of one that makes none, what it makes."""
    if name in MUSIC_FAMILIES:
        return (MUSIC,)
    if name in SOUND_FAMILIES:
        return (SOUNDS,)
    if name in TEXT_FAMILIES:
        return (STYLES if name in STYLE_FAMILIES else TEXTS,)
    return (1, 3) if variant == "default" else (1,)


def _cases() -> list[Any]:
    cases = []
    for name, family in families().items():
        fields = family.Config.model_fields
        conditional = [False, True] if "conditional" in fields else [False]
        variants = {"default": {}, **VARIANTS.get(name, {})}
        for variant, config in variants.items():
            for channels in _shapes(name, variant):
                for labels in conditional:
                    kinds = {1: "grey", 3: "colour", MUSIC: "music", SOUNDS: "sounds"}
                    kinds |= {TEXTS: "texts", STYLES: "styles"}
                    colour = kinds[channels]
                    label = "labels" if labels else "plain"
                    asked = {"conditional": labels} if "conditional" in fields else {}
                    settings = {**SMALL.get(name, {}), **config, **asked}
                    cases.append(pytest.param(name, channels, settings, id=f"{name}-{variant}-{colour}-{label}"))
        if name in POINT_FAMILIES:
            cases.append(pytest.param(name, POINTS, POINT_SETTINGS, id=f"{name}-points"))
    return cases


every_case = pytest.mark.parametrize(("name", "channels", "settings"), _cases())
labelled_case = pytest.mark.parametrize(
    ("name", "channels", "settings"),
    [case for case in _cases() if case.values[2].get("conditional") or get_family(case.values[0]).needs_labels],
)
every_family = pytest.mark.parametrize("name", families())


@functools.cache
def _digits() -> tuple[DataInfo, Tensor, Tensor]:
    data = load_data("digits")
    assert isinstance(data, ArrayDataset)
    assert data.labels is not None
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return data.info, images, torch.from_numpy(data.labels)


@functools.cache
def _points() -> PointDataset:
    data = load_data("8gaussians")
    assert isinstance(data, PointDataset)
    return data


def _info(channels: int) -> DataInfo:
    if channels == POINTS:
        return _points().info
    if channels == MUSIC:
        return phrases().info
    if channels == SOUNDS:
        return short_sounds().info
    if channels == TEXTS:
        return short_texts().info
    if channels == STYLES:
        return styled_texts().info
    return _digits()[0].model_copy(update={"channels": channels})


def _batch(channels: int, count: int = 16) -> Batch:
    """Digits; in colour with another brightness for each channel, and the digit of another image in blue."""
    if channels == MUSIC:
        return Batch(torch.from_numpy(phrases().batch(np.arange(count)).images))
    if channels == SOUNDS:
        sounds = short_sounds().batch(np.arange(count))
        assert sounds.labels is not None
        assert sounds.lengths is not None
        given = (sounds.images, sounds.labels, sounds.lengths)
        made, labels, lengths = (torch.from_numpy(each) for each in given)
        return Batch(made, labels, lengths=lengths)
    if channels == TEXTS:
        texts = short_texts().batch(np.arange(count))
        assert texts.lengths is not None
        return Batch(torch.from_numpy(texts.images), lengths=torch.from_numpy(texts.lengths))
    if channels == STYLES:
        texts = styled_texts().batch(np.arange(count))
        assert texts.lengths is not None
        assert texts.labels is not None
        lengths = torch.from_numpy(texts.lengths)
        return Batch(torch.from_numpy(texts.images), torch.from_numpy(texts.labels), lengths=lengths)
    if channels == POINTS:
        found = _points().batch(np.linspace(0, len(_points()) - 1, count).astype(np.int64))
        return Batch(torch.from_numpy(found.images), torch.from_numpy(found.labels))
    _, images, labels = _digits()
    grey = images[:count]
    if channels == 1:
        return Batch(grey, labels[:count], -grey, torch.arange(count))
    colour = torch.cat((grey, grey * 0.5, images[count : 2 * count]), dim=1)
    return Batch(colour, labels[:count], -colour, torch.arange(count))


def _batch_for(name: str, channels: int) -> Batch:
    """The same, with sounds for a family that starts from such, and captions for one that needs them."""
    batch = _batch(channels)
    if get_family(name).needs_captions:
        prompts = captioned_digits().prompts_at(np.arange(len(batch.images)))
        assert prompts is not None
        return replace(batch, prompts=torch.from_numpy(prompts))
    if get_family(name).starts_from == "faces":
        heard = talking_digits().batch(np.arange(len(batch.images))).sounds
        assert heard is not None
        return replace(batch, sounds=torch.from_numpy(heard))
    if get_family(name).starts_from != "sounds":
        return batch
    return replace(batch, sources=torch.from_numpy(short_sounds().batch(np.arange(len(batch.images))).images))


def _build(name: str, channels: int, settings: dict[str, Any], seed: int = 0) -> tuple[AnyFamily, Any]:
    family_class = get_family(name)
    info = with_source(name, _info(channels))
    family = family_class(family_class.Config.from_dict(settings, what="config"), info)
    torch.manual_seed(seed)
    return family, family.build_networks()


def _cases_with(part: str) -> Any:
    """The cases of the families that have an encoder, or a classifier, as their settings come; without diffusion
    models, which start at noise and reconstruct nothing."""
    programs = {name: _program(name) for name in families()}
    found = {
        name
        for name, program in programs.items()
        if getattr(program, part, None) is not None and not isinstance(program, DiffusionSpec)
    }
    return pytest.mark.parametrize(
        ("name", "channels", "settings"), [case for case in _cases() if case.values[0] in found]
    )


def _program(name: str) -> Any:
    family, networks = _build(name, 1, SMALL.get(name, {}))
    return family.export_plan(networks).model.program


def _feeds(model: ModelSpec, graph: GraphSpec, batch: int) -> dict[str, Array]:
    """Inputs as the runtime would feed them; the first samples are the same whatever the batch."""
    return {spec.name: _feed(spec, model, batch) for spec in graph.inputs}


def _feed(spec: TensorSpec, model: ModelSpec, batch: int) -> Array:
    shape = _shape(spec, batch)
    largest = tuple(axis if isinstance(axis, int) else 8 for axis in spec.shape)
    random = np.random.default_rng(len(spec.name))
    full: Array
    if spec.role in ("condition", "timestep") or spec.dtype == "int64":
        full = random.integers(0, model.num_classes or 10, largest)
    elif spec.role == "state" or spec.distribution == "normal":
        full = random.standard_normal(largest)
    else:
        full = random.random(largest)
    return np.ascontiguousarray(full[tuple(slice(size) for size in shape)], dtype=spec.dtype)


def _shape(spec: TensorSpec, batch: int, scale: int = 1) -> tuple[int, ...]:
    sizes = {"batch": batch, HEIGHT: 8, WIDTH: 8, RESULT_HEIGHT: 8 * scale, RESULT_WIDTH: 8 * scale}
    return tuple(axis if isinstance(axis, int) else sizes.get(axis, 2) for axis in spec.shape)


def _run(graph: GraphSpec, module: nn.Module, feeds: Mapping[str, Array]) -> list[Array]:
    with torch.no_grad():
        out = module(*(torch.from_numpy(feeds[spec.name]) for spec in graph.inputs))
    return [part.numpy() for part in (out if isinstance(out, tuple) else (out,))]


@every_family
def test_a_family_tells_its_story(name: str) -> None:
    family = get_family(name)
    assert family.name == name
    assert family.title.strip()
    assert any(character.isdigit() for character in family.paper), "a paper has a year"
    story = inspect.getdoc(importlib.import_module(family.__module__)) or ""
    assert all(word in story for word in ("Exports", "not")), "what it exports, what it does not do"


@every_family
def test_config_comes_back_from_json(name: str) -> None:
    config_type = get_family(name).Config
    config = config_type.from_dict({**SMALL.get(name, {}), "batch_size": 7}, what="config")
    assert config_type.from_json(config.to_json(), what="config") == config
    assert config_type.from_json(config_type().to_json(), what="config") == config_type()


@every_family
def test_unknown_keys_name_the_nearest(name: str) -> None:
    assert get_family(name).Config.model_fields
    for key in get_family(name).Config.model_fields:
        with pytest.raises(InputError, match=f"did you mean '{key}'"):
            get_family(name).Config.from_dict({key + "x": 1}, what="config")


@pytest.mark.parametrize(
    "name", [name for name, family in families().items() if "conditional" in family.Config.model_fields]
)
def test_conditional_needs_labels(name: str) -> None:
    family = get_family(name)
    unlabelled = with_source(name, _info(1)).model_copy(update={"num_classes": None, "class_names": None})
    with pytest.raises(InputError, match="labels"):
        family(family.Config.from_dict({"conditional": True}, what="config"), unlabelled)


@every_family
def test_the_same_seed_builds_the_same_networks(name: str) -> None:
    settings = SMALL.get(name, {})
    (_, first), (_, same), (_, other) = (_build(name, 1, settings, seed) for seed in (1, 1, 2))
    assert any(sum(each.numel() for each in network.parameters()) for network in first.values())
    for network in first:
        for key, value in first[network].state_dict().items():
            assert torch.equal(value, same[network].state_dict()[key])
    assert any(
        not torch.equal(value, other[network].state_dict()[key])
        for network in first
        for key, value in first[network].state_dict().items()
    )


@every_case
def test_each_phase_trains_its_networks_alone(name: str, channels: int, settings: dict[str, Any]) -> None:
    family, networks = _build(name, channels, settings)
    phases = family.phases()
    trained = [network for phase in phases for network in phase.trains]
    assert set(trained) == set(networks), "each network is trained"
    assert len({phase.name for phase in phases}) == len(phases)
    assert set(family.ema_networks) <= set(networks)
    for phase in phases:
        for network in networks.values():
            network.train().zero_grad()
        freeze(networks, phase.trains)
        for step in _telling_steps(family):
            family.begin_step(networks, step)
            loss = family.loss(phase.name, networks, _batch_for(name, channels))
            assert loss.total.shape == ()
            assert all(not value.requires_grad and value.isfinite() for value in loss.logs.values())
            torch.autograd.backward(loss.total)
        for network_name, network in networks.items():
            for key, parameter in network.named_parameters():
                where = f"{phase.name}: {network_name}.{key}"
                if network_name in phase.trains:
                    assert parameter.grad is not None, where
                    assert parameter.grad.isfinite().all(), where
                else:
                    assert parameter.grad is None, where


def _telling_steps(family: AnyFamily) -> range:
    """One step, or, of a family whose networks grow, as many as show all of them."""
    grows = type(family).begin_step is not Family.begin_step
    return range(10) if grows else range(1)


@every_case
def test_each_loss_falls_on_a_fixed_batch(name: str, channels: int, settings: dict[str, Any]) -> None:
    """Each phase for itself, with the other networks as they are and the same noise at each step."""
    family, networks = _build(name, channels, settings)
    phases = [phase for phase in family.phases() if phase.name not in POLICIES.get(name, ())]
    if settings.get("stochastic"):  # the gradient through neurons that draw is an estimate
        phases = [phase for phase in phases if phase.name != "generator"]
    assert phases
    for phase in phases:
        freeze(networks, phase.trains)
        before, after = _descend(family, networks, phase, _batch_for(name, channels))
        assert np.isfinite([before, after]).all()
        assert after < before, phase.name


def _descend(
    family: AnyFamily, networks: Mapping[str, nn.Module], phase: Phase, batch: Batch, steps: int = 8
) -> tuple[float, float]:
    optimizer = make_optimizer(phase, networks)
    losses = []
    for _ in range(steps):
        torch.manual_seed(7)
        loss = family.loss(phase.name, networks, batch).total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@every_case
def test_graphs_are_what_the_plan_says(name: str, channels: int, settings: dict[str, Any]) -> None:
    family, networks = _build(name, channels, settings)
    plan = family.export_plan(networks)
    assert {graph.name for graph in plan.model.graphs} == set(plan.modules)
    assert plan.model.family == name
    assert plan.model.output.shape == (channels, 8, 8) if channels > 0 else family.data.output.shape
    classes = family.data.num_classes
    assert plan.model.num_classes == (classes if settings.get("conditional") or family.needs_labels else None)
    assert set(plan.half) <= set(plan.modules)
    for graph in plan.model.graphs:
        module = plan.modules[graph.name]
        assert not any(part.training for part in module.modules())
        assert all(path and module.get_submodule(path) for path in plan.half.get(graph.name, ()))
        for batch in (2, 5):
            outputs = _run(graph, module, _feeds(plan.model, graph, batch))
            assert len(outputs) == len(graph.outputs)
            for spec, output in zip(graph.outputs, outputs, strict=True):
                _check_output(spec, output, batch, plan.model.source.scale if plan.model.source else 1)


def _check_output(spec: TensorSpec, output: Array, batch: int, scale: int) -> None:
    assert output.shape == _shape(spec, batch, scale), spec.name
    assert output.dtype == np.dtype(spec.dtype), spec.name
    assert np.isfinite(output).all(), spec.name
    if spec.value_range is not None and spec.role != "points":  # those are where points are expected
        low, high = spec.value_range
        assert output.min() >= low - 1e-5, spec.name
        assert output.max() <= high + 1e-5, spec.name


@every_case
def test_graphs_draw_nothing_and_mix_no_samples(name: str, channels: int, settings: dict[str, Any]) -> None:
    family, networks = _build(name, channels, settings)
    plan = family.export_plan(networks)
    assert plan.model.graphs
    for graph in plan.model.graphs:
        module = plan.modules[graph.name]
        feeds = _feeds(plan.model, graph, 5)
        state = torch.get_rng_state()
        first, again = _run(graph, module, feeds), _run(graph, module, feeds)
        assert torch.equal(state, torch.get_rng_state())
        fewer = _run(graph, module, _feeds(plan.model, graph, 2))
        for spec, one, two, part in zip(graph.outputs, first, again, fewer, strict=True):
            np.testing.assert_array_equal(one, two)
            axis = next((name for name in ("batch", "labels") if name in spec.shape), None)
            head = one if axis is None else np.take(one, range(2), axis=spec.shape.index(axis))
            np.testing.assert_allclose(head, part, rtol=1e-4, atol=1e-5, err_msg=spec.name)


@labelled_case
def test_the_label_counts(name: str, channels: int, settings: dict[str, Any]) -> None:
    """A norm behind the layer that sees the label may take it out again, and nothing else would tell."""
    family, networks = _build(name, channels, settings)
    for phase in family.phases():
        freeze(networks, phase.trains)
        _descend(family, networks, phase, _batch_for(name, channels))  # last layers may begin at zero
    plan = family.export_plan(networks)
    labelled = [graph for graph in plan.model.graphs if graph.input("label") is not None]
    assert labelled
    for graph in labelled:
        feeds = _feeds(plan.model, graph, 4)
        results = []
        for label in (1, 2):
            feeds["label"] = np.full_like(feeds["label"], label)
            results.append(_run(graph, plan.modules[graph.name], feeds))
        assert max(np.abs(one - two).max() for one, two in zip(*results, strict=True)) > 1e-4, graph.name


@every_case
def test_the_runtime_samples_the_live_networks(name: str, channels: int, settings: dict[str, Any]) -> None:
    family, networks = _build(name, channels, settings)
    samples = sample_networks(family, networks, 3, seed=0)
    assert samples.array.shape == (3, *family.data.output.shape)
    assert np.isfinite(samples.array).all()
    low, high = family.data.output.value_range
    assert channels == POINTS or (low - 1e-5 <= samples.array.min() and samples.array.max() <= high + 1e-5)
    again = sample_networks(family, networks, 3, seed=0)
    np.testing.assert_array_equal(samples.array, again.array)


@_cases_with("classifier")
def test_samples_are_classified_alike_in_any_batch(name: str, channels: int, settings: dict[str, Any]) -> None:
    family, networks = _build(name, channels, settings)
    plan = family.export_plan(networks)
    label = list(range(5)) if plan.model.num_classes else None
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        samples = generator.sample(5, seed=0, label=label)
        whole, parts = (generator.classify(samples.array, batch_size=size) for size in (5, 2))
    np.testing.assert_allclose(whole, parts, atol=1e-5)


@_cases_with("encoder")
def test_samples_are_encoded_and_completed_alike_in_any_batch(
    name: str, channels: int, settings: dict[str, Any]
) -> None:
    family, networks = _build(name, channels, settings)
    plan = family.export_plan(networks)
    label = list(range(5)) if plan.model.num_classes else None
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        samples = generator.sample(5, seed=0, label=label)
        whole, parts = (generator.encode(samples.array, label, batch_size=size) for size in (5, 2))
        np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-5)
        again = generator.sample(5, latents=whole, label=label).array
        np.testing.assert_allclose(generator.reconstruct(samples.array, label).array, again, atol=1e-5)
        mask = np.arange(8) < 4
        done = generator.reconstruct(samples.array, label, mask=np.broadcast_to(mask, (8, 8)), num_iterations=3)
        np.testing.assert_array_equal(done.array[..., mask], samples.array[..., mask])


@every_family
def test_saved_weights_give_the_same_graphs(name: str) -> None:
    settings = SMALL.get(name, {})
    family, networks = _build(name, 1, settings, seed=1)
    _, others = _build(name, 1, settings, seed=2)
    for network in networks:
        others[network].load_state_dict(networks[network].state_dict())
    plan, other = family.export_plan(networks), family.export_plan(others)
    mine, theirs = torch_sessions(plan), torch_sessions(other)
    assert plan.model.graphs
    for graph in plan.model.graphs:
        feeds = _feeds(plan.model, graph, 3)
        expected = mine[graph.name].run(feeds)
        for key, value in theirs[graph.name].run(feeds).items():
            np.testing.assert_array_equal(value, expected[key])


def test_a_second_family_of_one_name_is_refused() -> None:
    taken = next(iter(families()))

    class Second:
        pass

    with pytest.raises(ValueError, match="registered twice"):
        register(taken)(Second)  # type: ignore[type-var]


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'pixelcnn'"):
        get_family("pixelcn")
