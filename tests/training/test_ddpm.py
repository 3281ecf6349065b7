"""The DDPM family against its formulas; what every family must do is in test_families.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gensdk_export.half.halving import halve
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.proving import proving_options
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.spec.model import ScheduleSpec
from gensdk_training.families.ddpm import Ddpm, DdpmConfig
from gensdk_training.family import Batch, DataInfo
from gensdk_training.graphs.diffusion_step import DiffusionStep
from gensdk_training.networks.unet import SelfAttention, Sinusoid
from gensdk_training.torch_backend import torch_sessions


def build(height: int = 8, width: int = 8, *, channels: int = 1, classes: int | None = 3, **config: Any) -> Ddpm:
    data = DataInfo(name="toy", channels=channels, height=height, width=width, count=10, num_classes=classes)
    return Ddpm(DdpmConfig.from_dict({"channels": 8, "blocks": 1, **config}, what="config"), data)


def images(family: Ddpm, count: int) -> Tensor:
    data = family.data
    return torch.rand(count, data.channels, data.height, data.width) * 2 - 1


class Oracle(nn.Module):
    """Knows x_0, so it tells the noise exactly by solving eq. 4 for eps; keeps the labels that it was given."""

    def __init__(self, x0: Tensor, schedule: ScheduleSpec) -> None:
        super().__init__()
        self.x0 = x0.double()
        self.abar = torch.from_numpy(make_schedule(schedule).alphas_cumprod)
        self.label: Tensor | None = None
        self.error = 0.0

    def forward(self, x: Tensor, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        self.label = label
        abar = self.abar[timestep].reshape(-1, 1, 1, 1)
        return ((x - abar.sqrt() * self.x0) / (1 - abar).sqrt()).float() + self.error


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("weighting", ["plain", "min_snr"])
def test_the_loss_of_an_oracle_is_zero(schedule: str, weighting: str) -> None:
    family = build(classes=None, schedule=schedule, loss_weighting=weighting)
    x0 = images(family, 256)
    oracle = Oracle(x0, ScheduleSpec(kind=schedule))  # type: ignore[arg-type]
    torch.manual_seed(0)
    assert family.loss("denoiser", {"denoiser": oracle}, Batch(x0)).total < 1e-6


def test_the_loss_of_a_network_that_tells_v_is_zero() -> None:
    """Salimans & Ho (2022), appendix D: v = alpha eps - sigma x_0."""
    family = build(classes=None, prediction_type="v_prediction")
    x0 = images(family, 256)
    oracle = Oracle(x0, ScheduleSpec())

    class Velocity(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            abar = oracle.abar[timestep].reshape(-1, 1, 1, 1)
            return abar.sqrt() * oracle(x, timestep) - (1 - abar).sqrt() * x0

    assert family.loss("denoiser", {"denoiser": Velocity()}, Batch(x0)).total < 1e-6


def test_the_plain_loss_weighs_all_time_steps_alike() -> None:
    family = build(classes=None)
    x0 = images(family, 64)
    oracle = Oracle(x0, ScheduleSpec())
    oracle.error = 0.5
    loss = family.loss("denoiser", {"denoiser": oracle}, Batch(x0))
    assert loss.total.item() == pytest.approx(0.25, rel=1e-3)
    assert loss.logs["mse"].item() == pytest.approx(0.25, rel=1e-3)


def test_min_snr_caps_the_weight_of_clean_images() -> None:
    abar = torch.tensor([0.999, 0.9, 5 / 6, 0.5, 0.001], dtype=torch.float64)
    snr = abar / (1 - abar)
    weights = build(loss_weighting="min_snr")._weights(abar)
    assert torch.allclose(weights * snr, snr.clamp(max=5.0)), "the weight of the x_0 error is min(SNR, 5)"
    assert weights[2:].tolist() == pytest.approx([1.0, 1.0, 1.0])
    of_v = build(loss_weighting="min_snr", prediction_type="v_prediction")._weights(abar)
    assert torch.allclose(of_v * (snr + 1), snr.clamp(max=5.0)), "an error of v is sqrt(SNR + 1) times that of x_0"


def test_guidance_dropout_replaces_its_share_of_labels_by_none() -> None:
    family = build(conditional=True, guidance_dropout=0.25)
    x0 = images(family, 4000)
    labels = torch.randint(3, (4000,))
    oracle = Oracle(x0, ScheduleSpec())
    torch.manual_seed(0)
    family.loss("denoiser", {"denoiser": oracle}, Batch(x0, labels))
    assert oracle.label is not None
    dropped = oracle.label == 3
    assert torch.equal(oracle.label[~dropped], labels[~dropped])
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)


def test_without_guidance_dropout_every_label_stays() -> None:
    family = build(conditional=True, guidance_dropout=0.0)
    x0, labels = images(family, 500), torch.randint(3, (500,))
    oracle = Oracle(x0, ScheduleSpec())
    family.loss("denoiser", {"denoiser": oracle}, Batch(x0, labels))
    assert oracle.label is not None
    assert torch.equal(oracle.label, labels)


@pytest.mark.parametrize(
    ("data", "config", "message"),
    [
        ({"height": 9}, {}, "divisible by 2, got 9x8"),
        ({"width": 10}, {"multipliers": [1, 2, 2]}, "divisible by 4, got 8x10"),
        ({}, {"attention_resolutions": [16]}, r"attention_resolutions has 16, but the levels are \[8, 4\]"),
        ({}, {"norm_groups": 3}, "divisible by norm_groups, got 8 and 3"),
        ({}, {"attention_heads": 3}, "divisible by attention_heads"),
        ({"classes": None}, {"conditional": True}, "needs labels"),
        ({}, {"beta_start": 0.5}, "beta_start <= beta_end"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(data: Any, config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**data, **config)


@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    channels=st.sampled_from([1, 3]),
    multipliers=st.sampled_from([(1,), (1, 2), (1, 1, 2)]),
    blocks=st.integers(1, 2),
    heads=st.sampled_from([1, 2]),
    conditional=st.booleans(),
)
def test_one_time_step_for_all_equals_one_for_each(
    size: tuple[int, int], channels: int, multipliers: Any, blocks: int, heads: int, conditional: bool
) -> None:
    """Any size that the levels divide works, and sampling's timestep [1] means training's [N]."""
    factor = 2 ** (len(multipliers) - 1)
    height, width = size[0] * factor, size[1] * factor
    family = build(
        height,
        width,
        channels=channels,
        multipliers=list(multipliers),
        blocks=blocks,
        attention_heads=heads,
        attention_resolutions=[height],
        conditional=conditional,
    )
    denoiser = family.build_networks()["denoiser"].eval()
    x = images(family, 3)
    labels = (torch.tensor([0, 2, 3]),) if conditional else ()
    with torch.no_grad():
        once = denoiser(x, torch.tensor([41]), *labels)
        each = denoiser(x, torch.tensor([41, 41, 41]), *labels)
        other = denoiser(x, torch.tensor([42, 500, 41]), *labels)
    assert once.shape == x.shape
    assert torch.allclose(once, each, atol=1e-6)
    assert torch.allclose(once[2], other[2], atol=1e-6)
    assert not torch.allclose(once[1], other[1], atol=1e-6), "the time step must matter"


@pytest.mark.parametrize(("total", "steps"), [(3, 3), (1000, 20)])
def test_a_model_is_sampled_in_no_more_steps_than_it_has(total: int, steps: int) -> None:
    family = build(num_train_timesteps=total)
    plan = family.export_plan({name: network.eval() for name, network in family.build_networks().items()})
    assert [options["num_inference_steps"] for options in proving_options(plan.model, None)] == [
        steps,
        *[min(5, total)] * 2,
    ]
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as generator:
        assert generator.sample(1, seed=0).settings["num_inference_steps"] == steps


def test_guidance_is_the_weighted_sum_of_both_answers() -> None:
    family = build(conditional=True)
    denoiser = family.build_networks()["denoiser"].eval()
    step = DiffusionStep(denoiser, conditional=True)
    x, zero = images(family, 4), torch.zeros(4, 1, 8, 8)
    label, none = torch.tensor([0, 1, 2, 0]), torch.full((4,), 3)
    timestep = torch.tensor([700.0, 3.0, 0.0, 700.0])
    only_eps = torch.tensor([0.0, 0, 1, 0, 0, 1, 0, 0]).expand(4, 8)
    weights = torch.tensor([3.0, 1.0, 3.0, 0.5])
    with torch.no_grad():
        guided, _ = step(
            x, zero, timestep, zero, only_eps, torch.stack([none, label]), torch.stack([1 - weights, weights])
        )
        scale = weights.reshape(-1, 1, 1, 1)
        expected = scale * denoiser(x, timestep, label) + (1 - scale) * denoiser(x, timestep, none)
    assert torch.allclose(guided, expected, atol=1e-5)
    assert not torch.allclose(denoiser(x, timestep, label), denoiser(x, timestep, none), atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_the_fused_operator(heads: int) -> None:
    attention = SelfAttention(8, heads=heads, groups=2)
    x = torch.randn(2, 8, 3, 5)
    with torch.no_grad():
        out = attention(x)
        parts = attention.query_key_value(attention.norm(x)).flatten(2).unflatten(1, (3, heads, 8 // heads))
        query, key, value = parts.transpose(3, 4).unbind(1)
        fused = functional.scaled_dot_product_attention(query, key, value)
        expected = x + attention.project(fused.transpose(2, 3).reshape(x.shape))
    assert torch.allclose(out, expected, atol=1e-6)


def test_the_sinusoid_is_that_of_diffusers() -> None:
    timesteps = torch.tensor([0, 1, 41, 999])
    expected = get_timestep_embedding(timesteps, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.allclose(Sinusoid(32)(timesteps), expected, atol=2e-4)


def test_whole_time_steps_are_the_same_as_integers_and_as_floats() -> None:
    """Training gives int64, sampling float32: to the bit."""
    whole = torch.arange(1000)
    assert torch.equal(Sinusoid(32)(whole), Sinusoid(32)(whole.float()))
    denoiser = build(conditional=True).build_networks()["denoiser"].eval()
    with torch.no_grad():
        rows = denoiser.embed(whole, torch.arange(1000) % 4)
        assert torch.equal(rows, denoiser.embed(whole.float(), torch.arange(1000) % 4))


def test_half_precision_does_not_round_time_steps() -> None:
    """Beyond 2048 half knows even numbers alone."""
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            seen.extend((x, timestep))
            return x

    x, rows = torch.randn(2, 1, 4, 4), torch.tensor([[1.0, 0, 1, 1, 0, 0, 0, 0]] * 2)
    half = halve(DiffusionStep(Watching(), conditional=False), ["denoiser"])
    half(x, x, torch.tensor([4001.0, 0.1]), x, rows)
    assert [tensor.dtype for tensor in seen] == [torch.float16, torch.float32]
    assert seen[1].tolist() == pytest.approx([4001.0, 0.1])


def test_half_precision_keeps_the_time_embedding() -> None:
    """At t = 999 a half-precision sinusoid is noise; computed apart, it keeps the whole step near float32's."""
    family = build(conditional=True, channels=16)
    torch.manual_seed(0)
    plan = family.export_plan(family.build_networks())
    half = halve(plan.modules["step"], plan.half["step"])
    x, zero = images(family, 4), torch.zeros(4, 1, 8, 8)
    coefficients = torch.tensor([0.0, 0, 1, 0, 0, 1, 0, 0]).expand(4, 8)
    with torch.no_grad():
        embedding = plan.modules["embedding"](torch.full((4,), 999.0), torch.tensor([0, 1, 2, 3]))
        feeds = (x, zero, embedding[None], zero, coefficients, torch.ones(1, 4))
        expected, got = plan.modules["step"](*feeds)[0], half(*feeds)[0]
    assert "embedding" not in plan.half
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 0.01 * expected.abs().max()


def test_attention_and_odd_sizes_export_with_dynamic_batch_and_guidance() -> None:
    family = build(
        6, 5, channels=3, multipliers=[1], conditional=True, attention_resolutions=[6], attention_heads=2
    )
    plan = family.export_plan(family.build_networks())
    graph, module = plan.model.graphs[0], plan.modules["step"]
    random = np.random.default_rng(0)

    def feeds(batch: int, guidance: int) -> dict[str, Any]:
        sizes = {"batch": batch, "guidance": guidance}
        shapes = {spec.name: [sizes.get(str(axis), axis) for axis in spec.shape] for spec in graph.inputs}
        return {
            spec.name: random.integers(0, 4, shapes[spec.name])
            if spec.dtype == "int64"
            else random.standard_normal(shapes[spec.name]).astype(np.float32)
            for spec in graph.inputs
        }

    data = export_onnx(graph, module, feeds(2, 2))

    with OnnxRuntimeBackend(threads=1).open(graph, MemoryGraph(data), precision="fp32") as session:
        for batch, guidance in ((1, 1), (1, 2), (5, 2), (3, 1)):
            given_feeds = feeds(batch, guidance)
            got = session.run(given_feeds)
            with torch.no_grad():
                expected = module(*(torch.from_numpy(given_feeds[spec.name]) for spec in graph.inputs))
            assert graph.outputs
            for spec, array in zip(graph.outputs, expected, strict=True):
                np.testing.assert_allclose(got[spec.name], array.numpy(), atol=2e-5)
