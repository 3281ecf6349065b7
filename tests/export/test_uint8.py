"""Images as bytes from inside the graph equal those converted outside, and NaN stays an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.rewrites.uint8 import with_uint8
from gensdk_runtime.errors import BackendError, ExportError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.value_range import to_uint8
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.model import FeedforwardSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.torch_backend import torch_sessions
from support.plans import family_plan
from support.tiny import FAMILIES, IMAGE_FAMILIES, given

FEEDFORWARD = [name for name in IMAGE_FAMILIES if isinstance(family_plan(name).model.program, FeedforwardSpec)]
EXPORTED = ("dcgan", "gmm", "srgan", "stargan")
"""What is exported with bytes here, one of each kind: a label, two noises, another size, a source with a label.
That all families can is held on live networks below, and those that translate are exported so anyway."""
OTHERS = sorted(set(IMAGE_FAMILIES) - set(FEEDFORWARD))


@pytest.mark.parametrize("family", EXPORTED)
def test_bytes_equal_the_conversion_outside(family: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bytes.gsdk"
    export_plan(family_plan(family), Provenance(), bundle, ExportOptions(uint8=True, fp16=True))
    assert verify_bundle(bundle).ok
    for precision in ("fp32", "fp16"):
        with Generator.load(bundle, precision=precision) as generator:
            arguments = given(generator.model, 5)
            floats = generator.sample(5, seed=0, **arguments)
            drawn = generator.sample(5, seed=0, output_type="uint8", **arguments)
        assert drawn.data.dtype == np.uint8
        np.testing.assert_array_equal(drawn.images, to_uint8(floats.array, floats.value_range))
        half_level = (floats.value_range[1] - floats.value_range[0]) / 510 + 1e-6
        np.testing.assert_allclose(drawn.array, np.clip(floats.array, *floats.value_range), atol=half_level)


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_any_model_draws_bytes_on_request(family: str) -> None:
    plan = family_plan(family)
    few = {"num_inference_steps": 2} if plan.model.program.kind == "diffusion" else {}
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    arguments = {**given(plan.model, 2), **few}
    drawn = generator.sample(2, seed=0, output_type="uint8", **arguments)
    np.testing.assert_array_equal(drawn.data, generator.sample(2, seed=0, **arguments).images)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(IMAGE_FAMILIES)))
def test_what_has_no_bytes_says_so(family: str) -> None:
    plan = family_plan(family)
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    with pytest.raises(InputError, match="which have no bytes; leave output_type out"):
        generator.sample(2, seed=0, output_type="uint8", **given(plan.model, 2))


@pytest.mark.parametrize("family", FEEDFORWARD)
def test_nan_is_an_error_in_bytes_too(family: str) -> None:
    plan = with_uint8(family_plan(family))
    name = plan.model.graphs[0].name
    floats = (tensor for tensor in plan.modules[name].state_dict().values() if tensor.is_floating_point())
    max(floats, key=torch.Tensor.numel).fill_(float("nan"))
    generator = Generator.from_sessions(plan.model, torch_sessions(plan))
    with pytest.raises(BackendError, match="2 of 2 samples"):
        generator.sample(2, seed=0, output_type="uint8", **given(plan.model, 2))


@pytest.mark.parametrize("family", OTHERS)
def test_other_programs_are_refused(family: str) -> None:
    with pytest.raises(ExportError, match="uint8 in the graph is for feedforward models"):
        with_uint8(family_plan(family))
