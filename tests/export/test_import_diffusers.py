"""diffusers' own pipelines with random weights, imported: the same images from the same noise."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_export.importers.diffusers.folder import diffusers_plan, import_diffusers
from gensdk_export.importers.diffusers.known_schedulers import OTHERS, SCHEDULERS
from gensdk_export.importers.diffusers.scheduler import read_sampling
from gensdk_runtime import noise
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.model import ScheduleSpec
from gensdk_training.torch_backend import torch_sessions
from support.diffusers_loops import SEED, SIZE, STABLE_DIFFUSION, N, make_unet, save

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 10


def ddpm(**settings: Any) -> Any:
    return diffusers.DDPMPipeline(make_unet(), diffusers.DDPMScheduler(**settings))


def ddim(**settings: Any) -> Any:
    return diffusers.DDIMPipeline(make_unet(), diffusers.DDIMScheduler(**settings))


PIPELINES: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "ddpm": (ddpm, {}, {}),
    "ddpm, x_0": (ddpm, {"prediction_type": "sample"}, {}),
    "ddpm, cosine, v": (ddpm, {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}, {}),
    "ddim": (ddim, {}, {}),
    "ddim, scaled": (ddim, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, {}),
    "ddpm, sigmoid": (ddpm, {"beta_schedule": "sigmoid"}, {}),
    "ddpm, laplace": (ddpm, {"beta_schedule": "laplace", "prediction_type": "v_prediction"}, {}),
    "ddim, trained betas": (
        ddim,
        {"trained_betas": np.linspace(1e-4, 0.03, 500).tolist(), "num_train_timesteps": 500},
        {},
    ),
    "ddim, noisy": (ddim, {"beta_end": 0.015}, {"eta": 0.7, "use_clipped_model_output": True}),
    "ddim, trailing, not clipped": (
        ddim,
        {"timestep_spacing": "trailing", "clip_sample": False, "prediction_type": "v_prediction"},
        {},
    ),
}


def save_pipeline(pipeline: Any, folder: Path) -> Path:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return folder


def by_diffusers(pipeline: Any, steps: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> np.ndarray:
    """The pipeline's images, [n, H, W, C] in [0, 1], drawing our noise: x_T first, then one for each step."""
    keys = noise.sample_keys(N, SEED)
    streams = iter([noise.LATENT_STREAM, *range(1, steps + 1)])

    def drawn(shape: Any, **_: Any) -> torch.Tensor:
        return torch.from_numpy(noise.normal(keys, next(streams), tuple(shape)[1:]))

    for module in ("pipelines.ddpm.pipeline_ddpm", "pipelines.ddim.pipeline_ddim"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", drawn)
    for module in ("schedulers.scheduling_ddpm", "schedulers.scheduling_ddim"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", drawn)
    result: np.ndarray = pipeline(batch_size=N, num_inference_steps=steps, output_type="np", **options).images
    return result


def unit(samples: np.ndarray) -> np.ndarray:
    return np.clip(samples / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_same_noise_gives_the_same_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, settings, options = PIPELINES[name]
    pipeline = make(**settings)
    plan, _, _ = diffusers_plan(save_pipeline(pipeline, tmp_path / "faces"))
    expected = by_diffusers(pipeline, STEPS, monkeypatch, **options)
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    samples = generator.sample(N, seed=SEED, num_inference_steps=STEPS, **options)
    assert samples.settings["solver"] == name[:4]
    np.testing.assert_allclose(unit(samples.array), expected, atol=1e-4)
    assert np.ptp(expected) > 0.5


def test_times_that_are_looked_up_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = make_unet(time_embedding_type="learned", num_train_timesteps=1000)
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
    plan, _, _ = diffusers_plan(save_pipeline(pipeline, tmp_path / "faces"))
    expected = by_diffusers(pipeline, STEPS, monkeypatch)
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    np.testing.assert_allclose(
        unit(generator.sample(N, seed=SEED, num_inference_steps=STEPS).array), expected, atol=1e-4
    )


ALONE: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler, leading": (diffusers.EulerDiscreteScheduler, {"timestep_spacing": "leading"}),
    "euler, v, scaled": (
        diffusers.EulerDiscreteScheduler,
        {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"},
    ),
    "euler, linspace": (diffusers.EulerDiscreteScheduler, {}),
    "euler, karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "lcm": (diffusers.LCMScheduler, {}),
    "euler, flow": (diffusers.FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
    "euler, flow, karras": (diffusers.FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "lcm, flow": (diffusers.FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}),
    "lcm, clipped, of 20": (diffusers.LCMScheduler, {"clip_sample": True, "original_inference_steps": 20}),
}
"""Schedulers that lie beside a U-Net, without a pipeline."""


def by_scheduler(unet: Any, scheduler: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the scheduler makes of our noise, [n, C, H, W], starting from noise of variance 1."""
    keys = noise.sample_keys(N, SEED)
    streams = iter(range(1, steps + 1))

    def drawn(shape: Any, **_: Any) -> torch.Tensor:
        return torch.from_numpy(noise.normal(keys, next(streams), tuple(shape)[1:]))

    for name in ("euler_ancestral_discrete", "lcm", "flow_match_euler_discrete"):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{name}.randn_tensor", drawn)
    scheduler.set_timesteps(steps)
    state = torch.from_numpy(noise.normal(keys, noise.LATENT_STREAM, (3, SIZE, SIZE)))
    scales = hasattr(scheduler, "is_scale_input_called")  # Euler's methods divide x_t by alpha
    state = state * (scheduler.sigmas[0] ** 2 + 1) ** 0.5 if scales else state
    with torch.inference_mode():
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(state, t) if scales else state
            state = scheduler.step(unet(given, t, return_dict=False)[0], t, state).prev_sample
    result: np.ndarray = state.numpy()
    return result


@pytest.mark.parametrize("name", ALONE)
def test_a_scheduler_beside_a_network_gives_the_same_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, settings = ALONE[name]
    unet, scheduler = make_unet(), make(**settings)
    plan, _, _ = diffusers_plan(save(tmp_path / "faces", unet, scheduler))
    expected = by_scheduler(unet, scheduler, STEPS, monkeypatch)
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    samples = generator.sample(N, seed=SEED, num_inference_steps=STEPS)
    assert samples.settings["solver"] == name.split(",", maxsplit=1)[0]
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(samples.array / scale, expected / scale, atol=1e-4)
    assert np.ptp(expected) > 0.5


@pytest.mark.parametrize("make", [ddpm, ddim])
@pytest.mark.parametrize("steps", [50, 250])
def test_many_steps(make: Any, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights make DDIM chaotic: after 50 steps diffusers differs by 0.1 from itself with its schedule in
    float64. A last layer that is a tenth as strong is as random, and leaves rounding what it is."""
    pipeline = make()
    with torch.no_grad():
        pipeline.unet.conv_out.weight.mul_(0.1)
    plan, _, _ = diffusers_plan(save_pipeline(pipeline, tmp_path / "faces"))
    expected = by_diffusers(pipeline, steps, monkeypatch)
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    samples = generator.sample(N, seed=SEED, num_inference_steps=steps)
    np.testing.assert_allclose(unit(samples.array), expected, atol=1e-4)
    assert np.ptp(expected) > 0.5


@pytest.fixture(scope="module", params=[ddpm, ddim], ids=["ddpm", "ddim"])
def imported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("diffusers")
    pipeline = request.param()
    import_diffusers(save_pipeline(pipeline, folder / "faces"), folder / "out.gsdk")
    return pipeline, folder / "out.gsdk"


def test_the_bundle_gives_the_same_images(imported: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, bundle = imported
    expected = by_diffusers(pipeline, STEPS, monkeypatch)
    with Generator.load(bundle, backend="onnxruntime", threads=1) as generator:
        samples = generator.sample(N, seed=SEED, num_inference_steps=STEPS)
    np.testing.assert_allclose(unit(samples.array), expected, atol=1e-4)


def test_it_verifies(imported: tuple[Any, Path]) -> None:
    assert verify_bundle(imported[1], backend="onnxruntime").ok


def test_the_older_layout_and_another_solver(tmp_path: Path) -> None:
    make_unet().save_pretrained(tmp_path / "flat")
    diffusers.DDPMScheduler(variance_type="fixed_large").save_pretrained(tmp_path / "flat")
    with pytest.raises(ExportError, match="--solver ddim"):
        diffusers_plan(tmp_path / "flat")
    plan, _, guesses = diffusers_plan(tmp_path / "flat", solver="ddim")
    assert plan.model.name == "flat"
    assert guesses[0].value == "ddim, 50 steps"


@pytest.mark.parametrize(
    ("unet", "scheduler", "message"),
    [
        (
            {"class_embed_type": "timestep"},
            diffusers.DDPMScheduler,
            "does not say how many there are; give --classes N",
        ),
        ({"class_embed_type": "identity"}, diffusers.DDPMScheduler, "got 'identity': its classes are no numbers"),
        ({"out_channels": 6}, diffusers.DDPMScheduler, "3 in and 6 out"),
        ({}, diffusers.PNDMScheduler, "got 'PNDMScheduler', which takes other steps"),
        ({}, diffusers.PNDMScheduler, "give --solver dpmsolver++ or --solver ddim"),
        ({}, lambda: diffusers.DDPMScheduler(trained_betas=[0.1] * 1000), "schedule abar"),
        ({}, lambda: diffusers.EulerAncestralDiscreteScheduler(prediction_type="sample"), "epsilon or v_pred"),
        ({}, lambda: diffusers.EulerDiscreteScheduler(use_beta_sigmas=True), "use_beta_sigmas=False, got True"),
        ({}, lambda: diffusers.EulerDiscreteScheduler(sigma_max=80.0), "sigma_max=None, got 80.0"),
        (
            {},
            lambda: diffusers.EulerDiscreteScheduler(interpolation_type="log_linear"),
            "interpolation_type=linear",
        ),
        (
            {},
            lambda: diffusers.EulerDiscreteScheduler(use_karras_sigmas=True, timestep_spacing="leading"),
            "timestep_spacing linspace with use_karras_sigmas, got 'leading'",
        ),
        ({}, lambda: diffusers.LCMScheduler(timestep_scaling=1.0), "timestep_scaling=10.0, got 1.0"),
        (
            {},
            lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            "use_dynamic_shifting=False",
        ),
        ({}, lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift_terminal=0.1), "shift_terminal=None"),
        ({}, diffusers.UniPCMultistepScheduler, "which takes other steps"),
        ({}, lambda: diffusers.DDPMScheduler(thresholding=True), "thresholding=False"),
        ({}, lambda: diffusers.DDIMScheduler(steps_offset=2), "steps_offset"),
        ({}, lambda: diffusers.DDIMScheduler(clip_sample_range=2.0), "clip_sample_range=1.0, got 2.0"),
        (
            {},
            lambda: diffusers.DDIMScheduler(rescale_betas_zero_snr=True),
            "with rescale_betas_zero_snr, got epsilon",
        ),
        *[
            ({}, partial(diffusers.DPMSolverMultistepScheduler, **settings), message)
            for settings, message in (
                ({"solver_order": 3}, "expected solver_order 1 or 2, got 3: a step knows one earlier x_0"),
                ({"algorithm_type": "sde-dpmsolver++"}, "algorithm_type=dpmsolver++, got sde-dpmsolver++"),
                ({"solver_type": "heun"}, "solver_type=midpoint, got heun"),
                ({"use_lu_lambdas": True}, "use_lu_lambdas=False, got True"),
                ({"thresholding": True}, "thresholding=False"),
                ({"lambda_min_clipped": -5.1}, "lambda_min_clipped=-inf, got -5.1"),
                (
                    {"final_sigmas_type": "sigma_min", "euler_at_final": True},
                    "expected euler_at_final=False with final_sigmas_type=sigma_min, got True",
                ),
                (
                    {"final_sigmas_type": "sigma_min", "lower_order_final": False},
                    "expected lower_order_final=True with final_sigmas_type=sigma_min, got False",
                ),
                (
                    {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
                    "another beta_schedule than squaredcos_cap_v2 with use_karras_sigmas",
                ),
            )
        ],
        ({"sample_size": None}, diffusers.DDIMScheduler, "--size HxW"),
        ({"time_embedding_type": "fourier"}, diffusers.DDPMScheduler, "positional or learned, got 'fourier'"),
        (
            {"time_embedding_type": "learned", "num_train_timesteps": 100},
            diffusers.DDPMScheduler,
            "num_train_timesteps of 1000 or more in unet/config.json",
        ),
    ],
)
def test_what_does_not_fit(unet: dict[str, Any], scheduler: Any, message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", make_unet(**unet), scheduler())
    with pytest.raises(GensdkError) as caught:
        import_diffusers(folder, tmp_path / "out.gsdk")
    assert message in str(caught.value)
    assert "did you mean" not in str(caught.value)  # what is near in letters would sample otherwise
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out.gsdk").exists()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet", {"sample_size": "8"}, "sample_size as a whole number or two, got '8'"),
        ("unet", {"sample_size": [8, 8, 8]}, "sample_size"),
        ("unet", {"sample_size": {"a": 1}}, "sample_size"),
        ("unet", {"sample_size": True}, "sample_size"),
        ("unet", {"in_channels": "3", "out_channels": "3"}, "channels"),
        ("scheduler", {"beta_schedule": "scaled"}, "can't make its betas"),
        ("scheduler", {"beta_schedule": None}, "can't make its betas"),
        ("scheduler", {"beta_schedule": ["linear"]}, "can't make its betas"),
        ("scheduler", {"trained_betas": "abc"}, "betas"),
        ("scheduler", {"trained_betas": [0.1, "x"]}, "betas"),
        ("scheduler", {"trained_betas": []}, "0 trained_betas for num_train_timesteps 1000"),
        ("scheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ("scheduler", {"num_train_timesteps": 2**40, "beta_schedule": "sigmoid"}, "num_train_timesteps"),
        ("scheduler", {"clip_sample": "false"}, "clip_sample as true or false"),
        ("scheduler", {"thresholding": "False"}, "thresholding=False"),
        ("scheduler", {"timestep_spacing": "quadratic"}, "timestep_spacing leading or trailing"),
        ("scheduler", {"prediction_type": ["epsilon"]}, "prediction_type epsilon or v_prediction or sample"),
        ("scheduler", {"variance_type": "fixed_small_x"}, "variance_type"),
        ("scheduler", {"_class_name": "DDPMWuerstchenScheduler"}, "which takes other steps"),
        ("scheduler", {"beta_start": "1e-4"}, "beta_start"),
    ],
)
def test_settings_of_other_types(file: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", make_unet(), diffusers.DDPMScheduler())
    path = folder / file / ("config.json" if file == "unet" else "scheduler_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(GensdkError) as caught:
        import_diffusers(folder, tmp_path / "out.gsdk")
    assert message in str(caught.value)
    assert "did you mean" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_that_diffusers_does_not_know_are_told(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", make_unet(), diffusers.DDPMScheduler())
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "skip_prk_steps": True}))
    _, _, guesses = diffusers_plan(folder)
    assert {guess.what: guess.value for guess in guesses}["left out"] == "skip_prk_steps"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_setting_of_a_scheduler_is_known(name: str) -> None:
    """A version of diffusers with a new setting fails here, not in somebody's samples."""
    scheduler, known = getattr(diffusers, name), SCHEDULERS[name]
    names = set(inspect.signature(scheduler.__init__).parameters) - {"self"}
    assert names <= {*known.taken, *known.plain}
    assert read_sampling({"_class_name": name}, "", None) == read_sampling(
        {**scheduler().config, "_class_name": name}, "", None
    ), "what a configuration leaves out is as diffusers has it"


@pytest.mark.parametrize(
    ("make", "settings", "pipeline", "solver", "expected"),
    [
        (diffusers.EulerDiscreteScheduler, {}, "", None, {"solver": "euler", "timestep_spacing": "linspace"}),
        (
            diffusers.EulerDiscreteScheduler,
            {"use_karras_sigmas": True},
            "",
            None,
            {"solver": "euler", "timestep_spacing": "karras"},
        ),
        (diffusers.EulerDiscreteScheduler, {}, "DDIMPipeline", None, {"solver": "ddim"}),
        (diffusers.EulerDiscreteScheduler, {}, "", "dpmsolver++", {"solver": "dpmsolver++"}),
        (diffusers.LCMScheduler, {}, "", None, {"timestep_spacing": "skipping", "num_inference_steps": 4}),
        (diffusers.LCMScheduler, {"original_inference_steps": 2}, "", None, {"num_inference_steps": 2}),
        (
            diffusers.EulerDiscreteScheduler,
            {"num_train_timesteps": 9},
            "",
            "dpmsolver++",
            {"num_inference_steps": 8},
        ),
        (diffusers.LCMScheduler, {}, "", "ddim", {"solver": "ddim", "timestep_spacing": "leading"}),
        (diffusers.DDPMScheduler, {}, "", "lcm", {"solver": "lcm", "timestep_spacing": "skipping"}),
        (diffusers.FlowMatchEulerDiscreteScheduler, {}, "", None, {"timestep_spacing": "linspace"}),
        (
            diffusers.FlowMatchEulerDiscreteScheduler,
            {"use_karras_sigmas": True, "stochastic_sampling": True},
            "",
            None,
            {"solver": "lcm", "timestep_spacing": "karras"},
        ),
    ],
)
def test_a_scheduler_gives_the_defaults(
    make: Any, settings: dict[str, Any], pipeline: str, solver: Any, expected: dict[str, Any]
) -> None:
    config = {**make(**settings).config, "_class_name": make.__name__}
    defaults = read_sampling(config, pipeline, solver).defaults.model_dump()
    assert {name: defaults[name] for name in expected} == expected


STABLE = {**STABLE_DIFFUSION, "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True}


@pytest.mark.parametrize("name", OTHERS)
def test_other_schedulers_are_taken_with_a_solver_of_ours(name: str) -> None:
    usual = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    config = {each.name: each.default for each in usual if each.default is not inspect.Parameter.empty}
    config["_class_name"] = name
    with pytest.raises(ExportError, match=f"got '{name}', .* give --solver dpmsolver.. or --solver ddim"):
        read_sampling(config, "", None)
    for solver in ("ddim", "dpmsolver++", "euler"):
        sampling = read_sampling(config, "", solver)  # type: ignore[arg-type]
        assert sampling.defaults.solver == solver
        assert {guess.what: guess.value for guess in sampling.guesses}["scheduler"] == f"that of {solver}"


def test_a_scheduler_is_read_as_the_solvers_own_class_reads_it() -> None:
    """Stable Diffusion's configuration is PNDM's; a DDIMPipeline reads any as DDIM's."""
    config = {**diffusers.PNDMScheduler(**STABLE).config, "_class_name": "PNDMScheduler"}
    ddim, dpm = (read_sampling(config, "", solver) for solver in ("ddim", "dpmsolver++"))  # type: ignore[arg-type]
    assert (ddim.schedule.set_alpha_to_one, dpm.schedule.set_alpha_to_one) == (False, True)
    assert ddim.schedule.steps_offset == dpm.schedule.steps_offset == 1
    assert (ddim.defaults.timestep_spacing, dpm.defaults.timestep_spacing) == ("leading", "leading")
    told = {guess.what: guess.value for guess in ddim.guesses}
    assert told["left out"] == "skip_prk_steps"
    assert (ddim.defaults.clip_sample, told["estimates of x_0"]) == (True, "clipped")
    assert not read_sampling({**config, "clip_sample": False}, "", "ddim").defaults.clip_sample
    assert read_sampling(config, "DDIMPipeline", None).defaults == ddim.defaults


def test_what_settings_would_need_an_older_version_no_more() -> None:
    """A schedule that is as it always was is written as it always was."""
    schedule = read_sampling({"_class_name": "DDIMScheduler"}, "", None).schedule
    assert schedule.model_dump().keys() == {"kind", "num_train_timesteps"} | {"beta_start", "beta_end"}


def test_noise_to_start_from_is_told_by_its_measure() -> None:
    for name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"):
        config = {"_class_name": name, **STABLE_DIFFUSION}
        told = {guess.what: guess.value for guess in read_sampling(config, "", None).guesses}
        abar = make_schedule(ScheduleSpec(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)).alphas_cumprod
        assert told["noise to start from"] == f"{(1 - abar[-1]) ** -0.5:.6g} times as much"
        leading = read_sampling({**config, "timestep_spacing": "leading", "steps_offset": 1}, "", None)
        assert "noise to start from" not in {guess.what for guess in leading.guesses}


def test_another_solver_must_suit_a_flow() -> None:
    with pytest.raises(ExportError, match=r"expected --solver euler or .* with FlowMatch.*, got 'ddim'"):
        read_sampling({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "", "ddim")


def test_folders_that_are_none(tmp_path: Path) -> None:
    folder, out = save(tmp_path / "model", make_unet(), diffusers.DDPMScheduler()), tmp_path / "out.gsdk"
    with pytest.raises(InputError, match="which is none"):
        import_diffusers(tmp_path / "nothing", out)
    weights = next((folder / "unet").glob("*.safetensors"))
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(ExportError, match="can't load"):
        import_diffusers(folder, out)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"no \.safetensors"):
        import_diffusers(folder, out)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ExportError, match="UNet2DConditionModel"):
        import_diffusers(folder, out)
    config.write_text("[1]")
    with pytest.raises(InputError, match="expected an object"):
        import_diffusers(folder, out)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ExportError, match="StableDiffusionXLPipeline"):
        import_diffusers(folder, out)
    assert not out.exists()
