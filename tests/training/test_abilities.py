"""What a model of any family says that it can do is what it does, before it is exported too."""

from __future__ import annotations

import pytest

from gensdk_runtime.conditions.base import conditions_of
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs import ABILITIES
from gensdk_training.torch_backend import torch_sessions
from support.abilities import arguments
from support.plans import family_plan, points_plan
from support.tiny import FAMILIES, POINT_FAMILIES

CASES = (*FAMILIES, *(f"{name}:points" for name in POINT_FAMILIES))
WITH_OPTIONS = ("interpolate", "walk", "traverse", "arithmetic", "dream")


@pytest.mark.parametrize("case", CASES)
def test_what_a_family_can_do_is_what_it_does(case: str) -> None:
    family, _, points = case.partition(":")
    plan = points_plan(family) if points else family_plan(family)
    with Generator.from_sessions(plan.model, torch_sessions(plan)) as model:
        works = {ability for ability in ABILITIES if does(model, ability)}
        assert works == {ability for ability in ABILITIES if model.can(ability)}
    taken = {spec.name for graph in plan.model.graphs for spec in graph.inputs}
    asked = {condition.tensor for condition in conditions_of(plan.model)}
    assert "variable" in taken or asked <= taken  # gradient steps change the image that is given


def does(model: Generator, ability: str) -> bool:
    given, named = arguments(model.model, ability)
    program = type(model._sampling.program.defaults).model_fields
    if ability in ("invert", "detect") or (ability in WITH_OPTIONS and "num_inference_steps" in program):
        named["num_inference_steps"] = 2
    try:
        getattr(model, ability)(*given, **named)
    except InputError:
        return False
    return True
