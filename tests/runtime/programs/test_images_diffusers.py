"""Samples that start from images are those of diffusers' schedulers, by the law of its pipelines, step by step.

The pipelines themselves need packages that nothing here needs else; what they do with a scheduler stands below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.programs.solvers import solver_table
from runtime.programs.test_solvers_diffusers import BETAS, MODULES, Case, double_precision, follow_the_list, scales
from support.solver_steps import step as one_step

__all__ = ["double_precision"]  # a fixture of this module too
STEPS = 10


def cases() -> Iterator[Case]:
    """Each solver with a spacing that diffusers has for it, on a noise schedule and on a flow."""
    for solver in ("ddim", "ddpm", "dpmsolver++", "euler", "euler_ancestral"):
        for kind in ("linear", "cosine"):
            for spacing in ("trailing", "leading"):
                yield Case(solver, spacing, kind, "epsilon", steps=STEPS)
    yield Case("lcm", "skipping", "scaled_linear", "epsilon", steps=STEPS)
    yield Case("ddim", "trailing", "linear", "v_prediction", options={"eta": 0.5}, steps=STEPS)
    for solver in ("euler", "dpmsolver++"):
        yield Case(solver, "linspace", "flow, shift 3", "flow", steps=STEPS)


def ours(case: Case, strength: float) -> Any:
    """The table of the steps that are left."""
    how = {"timestep_spacing": case.spacing, "clip_range": case.clip, "prediction_type": case.prediction}
    return solver_table(case.schedule, case.solver, case.steps, strength=strength, **how, **case.options)


def begun(theirs: Any, strength: float) -> Any:
    """``get_timesteps`` of diffusers' image-to-image pipelines: the time steps that are left."""
    first = max(STEPS - min(int(STEPS * strength), STEPS), 0)
    if hasattr(theirs, "set_begin_index"):
        theirs.set_begin_index(first)
    return first, theirs.timesteps[first:]


def noised(theirs: Any, image: Any, eps: Any, timestep: Any) -> Any:
    """The image with the noise of a time step."""
    if hasattr(theirs, "scale_noise"):
        return theirs.scale_noise(image, timestep[None], eps)
    return theirs.add_noise(image, eps, timestep[None])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
@pytest.mark.parametrize("strength", [0.1, 0.35, 0.8, 0.99])
@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_equals_diffusers_step_by_step(
    case: Case, strength: float, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the image with the noise of the first step that is made; with a mask, what is kept again after each."""
    theirs, table = case.theirs(), ours(case, strength)
    first, times = begun(theirs, strength)
    np.testing.assert_allclose(times.numpy(), table.timesteps, atol=1e-9)
    rng = np.random.default_rng(1)
    image, eps, *fresh = rng.normal(size=(2 + len(table), 3, 4, 4))
    told = rng.normal(size=(len(table), 3, 4, 4))
    mask = rng.integers(0, 2, (3, 4, 4)) if masked else np.ones((3, 4, 4))
    for name in MODULES:
        monkeypatch.setattr(f"{name}.randn_tensor", lambda *_, **__: torch.from_numpy(noise))
    before, after = scales_since(case, first)
    state = noised(theirs, torch.from_numpy(image), torch.from_numpy(eps), times[0])
    mine, previous = table.alpha[0] * image + table.sigma[0] * eps, np.zeros_like(image)
    np.testing.assert_allclose(mine, state.double().numpy() * before, atol=1e-9)
    for i, (row, noise) in enumerate(zip(table.coefficients, fresh, strict=True)):
        mine, previous = one_step(row, mine, told[i], previous, noise)
        last = i + 1 == len(table)
        alpha, sigma = (1.0, 0.0) if last else (table.alpha[i + 1], table.sigma[i + 1])
        mine = (1 - mask) * (alpha * image + sigma * eps) + mask * mine
        follow_the_list(theirs, first + i)
        if hasattr(theirs, "is_scale_input_called"):
            theirs.scale_model_input(state, times[i])
        extra = {**case.options, "variance_noise": torch.from_numpy(noise)} if case.solver == "ddim" else {}
        now = times[i] if times[i].is_floating_point() else int(times[i])
        state = theirs.step(torch.from_numpy(told[i]), now, state, **extra).prev_sample
        if masked:
            known = torch.from_numpy(image)
            if not last:
                known = noised(theirs, known, torch.from_numpy(eps), times[i + 1])
            state = torch.from_numpy(1 - mask) * known + torch.from_numpy(mask) * state
        scale = max(1.0, float(np.abs(mine).max()))
        np.testing.assert_allclose(mine / scale, state.double().numpy() * after[i] / scale, atol=1e-9)


def scales_since(case: Case, first: int) -> tuple[float, Any]:
    """What diffusers divides a state by, before the first step that is made and after each."""
    before, after = scales(replace(case, steps=STEPS))
    if case.kind in BETAS and case.solver.startswith("euler"):
        return float(after[first - 1]) if first else before, after[first:]
    return 1.0, after[first:]
