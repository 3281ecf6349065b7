"""The law of tiles, over every family that translates images: the same up to a rounding, or not cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gensdk_export import receptive_proof
from gensdk_export.graphs import multiples
from gensdk_export.onnx_export import export_onnx
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_export.receptive_proof import with_proved_field
from gensdk_runtime.backends import create_backend
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.generator import Generator
from gensdk_runtime.methods import translate
from gensdk_runtime.methods.tiles import Cut
from gensdk_runtime.spec.conditions import ReceptiveField
from gensdk_runtime.spec.model import FeedforwardSpec
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import families
from support.plans import family_plan
from support.translation_graphs import GLOBAL, GRAPH, LOCAL, translation_model, translation_onnx

MOST = 640
"""Pixels of a tile that is tried here."""
SMALL: dict[str, dict[str, Any]] = {
    "cyclegan": {"channels": 4, "blocks": 1},
    "pix2pix": {"channels": 4},
    "srgan": {"channels": 4, "blocks": 1},
    "stargan": {"channels": 4, "blocks": 1},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("pix2pix", {"norm": "batch"}),
    ("pix2pix", {"upsampling": "resize"}),
]


def translating() -> list[tuple[str, dict[str, Any]]]:
    """Every family whose plan has a source, as it is by default."""
    return [*((name, {}) for name, family in families().items() if _translates(name, family)), *VARIANTS]


def _translates(name: str, family: Any) -> bool:
    """Dreams start from an image too, but by gradient steps, which see all of it."""
    return family.starts_from not in ("noise", "sounds", "faces") and name != "deepdream"


def opened(plan: ExportPlan) -> Generator:
    graph = plan.model.graphs[0]
    images = required_examples(plan.model, 1)["image"]
    feeds: dict[str, Any] = {"source": (images.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)}
    if plan.model.num_classes:
        feeds["label"] = np.zeros(1, np.int64)
    data = export_onnx(graph, plan.modules[graph.name], feeds, multiples(plan.model))
    session = create_backend("onnxruntime", threads=1).open(graph, MemoryGraph(data), precision="fp32")
    return Generator.from_sessions(with_proved_field(plan.model, {graph.name: data}), {graph.name: session})


@pytest.mark.parametrize(("name", "config"), translating(), ids=str)
def test_a_family_comes_out_of_tiles_as_it_is_or_is_not_cut(
    name: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = family_plan(name, **SMALL.get(name, {}), **config)
    assert isinstance(plan.model.program, FeedforwardSpec)
    monkeypatch.setattr(translate, "TILED_FROM", 64 * 64)
    label = 1 if plan.model.num_classes else None
    with opened(plan) as generator:
        source = generator.model.source
        assert source is not None
        field = source.receptive_field
        assert field is not None
        tile = None if field.whole else min(Cut.of(source).smallest, MOST)
        side = 3 * source.multiple + (160 if tile is None else 2 * tile) // source.multiple * source.multiple
        given = np.random.default_rng(0).integers(0, 256, (side, side + 37, source.channels), dtype=np.uint8)
        given[: side // 2] = 200
        whole = generator.translate(given, label=label, tile=0).astype(int)
        default = generator.translate(given, label=label)
        assert np.abs(default - whole).max() <= (0 if field.whole else 1), field.reason
        if tile is not None:
            assert np.abs(generator.translate(given, label=label, tile=tile) - whole).max() <= 1


def test_a_trial_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rules took a graph for local that is not, the run finds out."""
    claimed = ReceptiveField(whole=False, margin=1)
    model = translation_model(1)
    assert model.source is not None
    source = model.source.model_copy(update={"receptive_field": claimed})
    monkeypatch.setattr(receptive_proof, "with_field", lambda *_: model.with_condition(source))
    for draw, whole in ((GLOBAL["instance_norm"][0], True), (LOCAL["convolution"][0], False)):
        found = with_proved_field(model, {GRAPH: translation_onnx(model, draw)}).source
        assert found is not None
        assert found.receptive_field is not None
        assert found.receptive_field.whole is whole
