"""Class-conditional U-Nets of diffusers, and such as tell their variance: the images of diffusers' own loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from gensdk_export.export import ExportOptions
from gensdk_export.importers.diffusers.folder import diffusers_plan, import_diffusers
from gensdk_runtime import noise
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.conditions import LabelSpec, label_conditions
from gensdk_runtime.spec.model import DiffusionSpec
from gensdk_training.torch_backend import torch_sessions
from support.diffusers_loops import SEED, SIZE, STABLE_DIFFUSION, Case, N, by_diffusers, make_unet, measure, save

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
STEPS = 4
DDIM = Case("DDIMScheduler")
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a table": ({"num_class_embeds": 5}, {}),
    "a time": ({"class_embed_type": "timestep"}, {"classes": 5}),
    "a time in a table": (
        {"class_embed_type": "timestep", "time_embedding_type": "learned", "num_train_timesteps": 1000},
        {"classes": 5},
    ),
}


@pytest.mark.parametrize("case", [DDIM, Case("DDPMScheduler"), Case("DPMSolverMultistepScheduler")], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_class_gives_the_images_of_diffusers(kind: str, case: Case, tmp_path: Path) -> None:
    settings, how = KINDS[kind]
    made = [
        measure(case, make_unet(**settings), tmp_path / str(label), STEPS, label=label, **how) for label in (0, 4)
    ]
    for apart in made:
        assert apart.steps < 1e-3
        assert apart.image < 1e-3
    assert np.abs(made[0].images - made[1].images).max() > 0.01


def generator(folder: Path, unet: Any, **how: Any) -> Generator:
    save(folder, unet, diffusers.DDIMScheduler())
    plan, _, _ = diffusers_plan(folder, **how)
    return Generator.from_sessions(plan.model, torch_sessions(plan))


def test_a_model_without_a_null_class_draws_a_class_and_takes_no_guidance(tmp_path: Path) -> None:
    with generator(tmp_path / "model", make_unet(num_class_embeds=5)) as model:
        drawn = model.sample(8, seed=SEED, num_inference_steps=2)
        labels = drawn.conditions["label"].tolist()
        assert set(labels) <= set(range(5))
        assert len(set(labels)) > 1
        said = model.sample(8, seed=SEED, num_inference_steps=2, label=labels)
        np.testing.assert_array_equal(drawn.array, said.array)
        for options in ({"guidance_scale": 2.0}, {"guidance_scale": 2.0, "label": 1}):
            with pytest.raises(InputError, match=r"expected guidance_scale=1, got 2: .* a class that means none"):
                model.sample(1, **options)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="from 0 to 4, got 5"):
            model.sample(1, label=5)


def test_the_last_class_may_mean_none(tmp_path: Path) -> None:
    """Then guidance mixes both predictions, and a label that is left out is that class."""
    unet, folder = make_unet(num_class_embeds=5), tmp_path / "model"
    with generator(folder, unet, null_class=True) as model:
        guided = model.sample(N, seed=SEED, num_inference_steps=STEPS, label=2, guidance_scale=3.0).array
        free = model.sample(N, seed=SEED, num_inference_steps=STEPS).array
        with pytest.raises(InputError, match="from 0 to 3, got 4"):
            model.sample(1, label=4)
    keys = noise.sample_keys(N, SEED)
    latents = noise.normal(keys, noise.LATENT_STREAM, (3, SIZE, SIZE))
    expected, _ = by_diffusers(DDIM.read(folder), unet, latents, STEPS, keys, label=4)
    np.testing.assert_allclose(free, expected, atol=1e-4)

    def mixed(x: Any, t: Any, *, class_labels: Any, return_dict: bool) -> Any:
        none = torch.full_like(class_labels, 4)
        label, without = (
            unet(x, t, class_labels=each, return_dict=return_dict)[0] for each in (class_labels, none)
        )
        return (without + 3.0 * (label - without),)

    expected, _ = by_diffusers(DDIM.read(folder), mixed, latents, STEPS, keys, label=2)
    np.testing.assert_allclose(guided, expected, atol=1e-4)


def test_the_bundle_verifies_and_samples_as_pytorch_does(tmp_path: Path) -> None:
    """Of a scheduler with all that older bundles don't know: no signal at first, some noise left at last."""
    folder, out = tmp_path / "digits", tmp_path / "digits.gsdk"
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **STABLE_DIFFUSION,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        final_sigmas_type="sigma_min",
        steps_offset=1,
    )
    save(folder, make_unet(num_class_embeds=5), scheduler)
    report = import_diffusers(folder, out, ExportOptions(one_call=True))
    assert {guess.what: guess.value for guess in report.guesses}["classes"] == "5, none of which means none"
    assert verify_bundle(out, backend="onnxruntime").ok
    with Bundle.open(out) as bundle:
        model = bundle.manifest.model
    assert model.condition("label") == LabelSpec(num_classes=5, null_class=False)
    schedule = model.program_of(DiffusionSpec).schedule
    assert (schedule.rescale_betas_zero_snr, schedule.final_sigmas_type) == (True, "sigma_min")
    plan, _, _ = diffusers_plan(folder)
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as live:
        expected = live.sample(3, seed=SEED, label=[0, 1, 2]).array
    with Generator.load(out, backend="onnxruntime", threads=1) as bundled:
        made = bundled.sample(3, seed=SEED, label=[0, 1, 2]).array
        assert len(bundled.sample(2, seed=SEED)) == 2
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.ptp(expected))


def test_older_versions_read_labels_with_a_null_class() -> None:
    assert "null_class" not in LabelSpec(num_classes=3).model_dump()
    (label,) = label_conditions(3, null_class=False)
    assert label.model_dump()["null_class"] is False
    assert LabelSpec.model_validate_json(label.model_dump_json()) == label


@pytest.mark.parametrize(
    ("case", "solver"),
    [
        (Case("DDIMScheduler", {"variance_type": "learned_range"}, "DDPMScheduler"), "ddim"),
        (Case("EulerDiscreteScheduler", {"variance_type": "learned"}, "DDPMScheduler"), "euler"),
        (Case("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}), None),
    ],
    ids=str,
)
def test_a_learned_variance_is_dropped_where_the_solver_needs_none(
    case: Case, solver: Any, tmp_path: Path
) -> None:
    apart = measure(case, make_unet(out_channels=6), tmp_path / "model", STEPS)
    assert apart.steps < 1e-3
    assert apart.image < 1e-3
    _, _, guesses = diffusers_plan(tmp_path / "model", solver=solver)
    assert {guess.what: guess.value for guess in guesses}["variance"] == "dropped"


def test_a_learned_variance_is_refused_where_the_solver_needs_it(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "model", make_unet(out_channels=6), diffusers.DDPMScheduler(variance_type="learned_range")
    )
    with pytest.raises(ExportError, match=r"variance_type fixed_small, got 'learned_range'; give --solver ddim"):
        diffusers_plan(folder)


@pytest.mark.parametrize(
    ("settings", "how", "message"),
    [
        ({}, {"classes": 3}, "has no classes; leave --classes and --null-class out"),
        ({}, {"null_class": True}, "has no classes; leave --classes and --null-class out"),
        ({"num_class_embeds": 5}, {"classes": 4}, "expected --classes 5, as the model has, got 4"),
        ({"num_class_embeds": 1}, {"null_class": True}, "--null-class needs a class beside"),
        ({"class_embed_type": "timestep"}, {}, "give --classes N"),
        ({"class_embed_type": "identity"}, {}, "got 'identity': its classes are no numbers"),
        (
            {"class_embed_type": "timestep", "time_embedding_type": "learned", "num_train_timesteps": 1000},
            {"classes": 1001},
            "expected --classes of 1 to 1000",
        ),
    ],
)
def test_classes_that_do_not_fit(
    settings: dict[str, Any], how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", make_unet(**settings), diffusers.DDPMScheduler())
    with pytest.raises(GensdkError) as caught:
        import_diffusers(folder, tmp_path / "out.gsdk", **how)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out.gsdk").exists()
