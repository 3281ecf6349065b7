"""A live module as a session: the same numbers, copies, threads, refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.data import load_data
from gensdk_training.preview import sample_networks
from gensdk_training.torch_backend import TorchSession, torch_sessions
from support.tiny import FAMILIES, tiny_run


class Two(nn.Module):
    """Gives its input back, and a constant of its own: both would be shared without copies."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("constant", torch.ones(3))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return a, self.linear(a) + b, self.constant


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, role="state")  # type: ignore[arg-type]


GRAPH = GraphSpec(
    name="two",
    inputs=(spec("a", "batch", 3), spec("b", "batch", 3)),
    outputs=(spec("same", "batch", 3), spec("sum", "batch", 3), spec("constant", 3)),
)


def feeds(batch: int = 2) -> dict[str, np.ndarray]:
    return {name: np.full((batch, 3), value, np.float32) for name, value in (("a", 1), ("b", 2))}


def test_outputs_come_by_name_and_share_no_memory() -> None:
    module = Two().eval()
    with TorchSession(GRAPH, module) as session:
        given = feeds()
        given["a"].flags.writeable = False
        result = session.run(given)
        expected = module.linear(torch.ones(2, 3)) + 2
        np.testing.assert_array_equal(result["sum"], expected.detach().numpy())
        for array in result.values():
            array.fill(5)
        assert (given["a"] == 1).all()
        assert (module.constant == 1).all()
    with pytest.raises(BackendError, match="closed"):
        session.run(feeds())


def test_refusals() -> None:
    with pytest.raises(BackendError, match="training mode"):
        TorchSession(GRAPH, Two())
    session = TorchSession(GRAPH, Two().eval())
    with pytest.raises(InputError, match="expected dtype float32"):
        session.run({"a": np.ones((1, 3)), "b": np.ones((1, 3))})
    short = GRAPH.model_copy(update={"outputs": GRAPH.outputs[:2]})
    with pytest.raises(BackendError, match="expected 2 outputs, got 3"):
        TorchSession(short, Two().eval()).run(feeds())
    whole = GRAPH.model_copy(update={"outputs": (*GRAPH.outputs[:2], spec("constant", 3, dtype="int64"))})
    with pytest.raises(BackendError, match="expected int64, got float32"):
        TorchSession(whole, Two().eval()).run(feeds())
    broken = Two().eval()
    broken.linear = nn.Linear(4, 3).eval()
    with pytest.raises(BackendError, match="failed in torch: mat1"):
        TorchSession(GRAPH, broken).run(feeds())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_previews_the_same_in_one_thread_and_in_eight(family: str) -> None:
    config = tiny_run(family).resolved()
    built = config.build_family(config.data.load().info)
    networks = built.build_networks()
    plan = built.export_plan(networks)
    sessions = torch_sessions(plan)
    assert set(sessions) == {graph.name for graph in plan.model.graphs}
    with Generator.from_sessions(plan.model, sessions) as generator:
        images = required_examples(plan.model, 4)
        alone = generator.sample(4, seed=1, progress=False, **images).array
        with ThreadPoolExecutor(8) as pool:
            for together in pool.map(
                lambda _: generator.sample(4, seed=1, progress=False, **images).array, range(8)
            ):
                np.testing.assert_array_equal(together, alone)
    assert alone.shape == (4, *built.data.output.shape)
    assert np.isfinite(alone).all()


def test_previews_take_turns_through_the_classes() -> None:
    config = tiny_run("vae", config={"conditional": True}).resolved()
    family = config.build_family(load_data("digits").info)
    samples = sample_networks(family, family.build_networks(), 12)
    assert samples.labels is not None
    assert list(samples.labels) == [*range(10), 0, 1]
