"""What other packages add, each in one class or two, is found by its name everywhere: a backend, a family."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk import Generator, GensdkWarning, InputError, UnavailableError
from gensdk_runtime import backends
from gensdk_runtime.backends import get_backend, register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training import registry
from support.embedded import FEW_STEPS, IMAGES

MOST = 40
"""Lines that an addition may take."""


class ReferenceSession(Session):
    """Runs a graph node by node, by the onnx package's own implementation."""

    def __init__(self, graph: GraphSpec, model: bytes, precision: Precision) -> None:
        from onnx import load_from_string
        from onnx.reference import ReferenceEvaluator

        super().__init__(graph, backend="reference", precision=precision)
        self._evaluator = ReferenceEvaluator(load_from_string(model))

    def _run(self, feeds: Feeds) -> dict[str, Any]:
        names = [spec.name for spec in self.graph.outputs]
        return dict(zip(names, self._evaluator.run(names, dict(feeds)), strict=True))


class ReferenceBackend(Backend):
    """A backend that another package could bring."""

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, devices=("cpu",))

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        return ReferenceSession(graph, source.read(), precision)


def lines_of(*added: Any) -> int:
    return sum(len(inspect.getsource(each).splitlines()) for each in added)


@pytest.fixture
def reference_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    register_backend("reference")(ReferenceBackend)
    yield "reference"
    monkeypatch.delitem(backends._BACKENDS, "reference")


@pytest.mark.parametrize("bundle", IMAGES)
def test_a_backend_of_another_package(bundle: str, reference_backend: str) -> None:
    """It is called by its name, and gives what ONNX Runtime gives."""
    pytest.importorskip("onnx")
    assert lines_of(ReferenceSession, ReferenceBackend) <= MOST
    assert get_backend(reference_backend) is ReferenceBackend
    with (
        Generator.load(bundle, backend=reference_backend) as added,
        Generator.load(bundle, backend="onnxruntime") as own,
    ):
        options: dict[str, Any] = dict(FEW_STEPS.get(own.model.program.kind, {}))
        options |= {} if own.model.num_classes is None else {"label": 5}
        found, expected = (model.sample(2, seed=3, **options) for model in (added, own))
    assert found.settings["backend"] == "reference"
    assert (np.abs(found.array - expected.array) > 1e-4).mean() < 0.05  # a pixel on the edge of its CDF may change


def test_a_name_that_is_taken_is_an_error(reference_backend: str) -> None:
    class Other(ReferenceBackend):
        pass

    with pytest.raises(ValueError, match="registered twice"):
        register_backend(reference_backend)(Other)
    with pytest.raises(InputError, match="'reference'"):
        get_backend("referense")


PACKAGE = """
from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.fake import FakeBackend

@register_backend("installed-elsewhere")
class Elsewhere(FakeBackend):
    pass
"""


FAMILY = """
from gensdk_training.families.vae import Vae
from gensdk_training.registry import register

@register("moments")
class Elsewhere(Vae):
    pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with an entry point, as pip lays it out."""
    (tmp_path / "gensdk_elsewhere.py").write_text(PACKAGE)
    information = tmp_path / "gensdk_elsewhere-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: gensdk-elsewhere\nVersion: 1.0\n")
    points = "[gensdk.backends]\ninstalled-elsewhere = gensdk_elsewhere\nempty-handed = json\n"
    points += "broken = gensdk_no_such_module\n"
    (information / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    backends._BACKENDS.pop("installed-elsewhere", None)
    sys.modules.pop("gensdk_elsewhere", None)


def test_an_installed_package_is_found_by_its_entry_point(installed: Path) -> None:
    with Generator.load("digits-dcgan", backend="installed-elsewhere") as model:
        assert model.sample(1, seed=0).settings["backend"] == "installed-elsewhere"
    with pytest.raises(InputError, match="registers none of this name"):
        get_backend("empty-handed")
    with pytest.raises(
        UnavailableError,
        match=r"package gensdk-elsewhere, which brings 'broken' \(gensdk.backends\), can't be loaded",
    ):
        get_backend("broken")
    with pytest.raises(InputError, match="did you mean 'installed-elsewhere'"), pytest.warns(GensdkWarning):
        get_backend("installed-elswhere")


def test_an_installed_package_is_listed_and_a_broken_one_is_named(installed: Path) -> None:
    with pytest.warns(GensdkWarning, match=r"which brings 'broken' \(gensdk.backends\), can't be loaded"):
        assert backends.availabilities()["installed-elsewhere"].available
    (installed / "gensdk_elsewhere-1.0.dist-info" / "entry_points.txt").write_text(
        "[gensdk.families]\nmoments = gensdk_moments\n"
    )
    (installed / "gensdk_moments.py").write_text(FAMILY)
    try:
        assert "moments" in registry.families()
        with pytest.raises(InputError, match="did you mean 'moments'"):
            registry.get_family("momments")
    finally:
        registry._FAMILIES.pop("moments", None)
        sys.modules.pop("gensdk_moments", None)


def test_what_lies_in_the_working_directory_is_not_installed(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(installed)
    with pytest.raises(InputError, match="no backend 'installed-elsewhere'"):
        get_backend("installed-elsewhere")
