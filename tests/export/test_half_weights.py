"""Weights stored in half precision, defaults that a bundle is given, and what its card says of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from gensdk.cli.main import run as gensdk
from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.half.precision import SAFE_VALUE
from gensdk_export.half.stored import LEAST, store_half
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from support.plans import family_plan

FAMILIES = ("musicrnn", "vae", "wavenet")
"""One with an LSTM as an operator, a feedforward one, one with tables beside its weights."""


@pytest.fixture(scope="module", params=FAMILIES)
def bundles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As it is, and with weights in half."""
    plan, folder = family_plan(request.param), tmp_path_factory.mktemp(request.param)
    for half in (False, True):
        options = ExportOptions(half_weights=half, fp16=True, as_zip=True)
        export_plan(plan, Provenance(data="x", steps=0), folder / f"{half}.gsdk", options)
    return folder / "False.gsdk", folder / "True.gsdk"


def test_files_are_half_as_large_and_compute_in_float32(bundles: tuple[Path, Path]) -> None:
    plain, stored = bundles
    sizes = {path: path.stat().st_size for path in bundles}
    assert sizes[stored] < sizes[plain]
    found = 0
    with Bundle.open(plain) as one, Bundle.open(stored) as other:
        for name, files in other.manifest.graph_files.items():
            before = onnx.load_from_string(one.read(one.manifest.graph_files[name]["fp32"]))
            after = onnx.load_from_string(other.read(files["fp32"]))
            large = {each.name for each in before.graph.initializer if _large(each)}
            kept = {each.name.removesuffix(".half"): each for each in after.graph.initializer}
            assert {each.name for each in before.graph.initializer} == set(kept)
            for each in before.graph.initializer:
                own, half = onnx.numpy_helper.to_array(each), onnx.numpy_helper.to_array(kept[each.name])
                assert (half.dtype == np.float16) == (each.name in large)
                np.testing.assert_array_equal(half, own.astype(half.dtype))
            types = {each.type.tensor_type.elem_type for each in after.graph.output}
            assert TensorProto.FLOAT16 not in types
            found += len(large)
    assert found


def _large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= LEAST


def test_they_are_proved_within_the_bound_of_half(bundles: tuple[Path, Path]) -> None:
    for path in bundles:
        report = verify_bundle(path, backend="onnxruntime")
        assert report.ok, report.problems
    allowed = {check.allowed for check in report.graphs if check.precision == "fp32"}
    assert allowed == {0.04}
    with Bundle.open(bundles[1]) as opened:
        card = opened.read("README.md").decode()
    assert "stored in half precision, computed with in float32" in card
    with Bundle.open(bundles[0]) as opened:
        assert "stored in half precision" not in opened.read("README.md").decode()


def test_samples_are_those_of_the_rounded_weights(bundles: tuple[Path, Path]) -> None:
    with Generator.load(bundles[1]) as model:
        asked: dict[str, Any] = {"label": 1} if model.model.num_classes else {}
        first = model.sample(3, seed=0, **asked)
        np.testing.assert_array_equal(model.sample(3, seed=0, **asked).array, first.array)
        head = model.sample(2, seed=0, batch_size=1, **asked).array
    np.testing.assert_allclose(head, first.array[:2], atol=1e-4)


def test_weights_that_half_can_not_hold_stay_as_they_are() -> None:
    plan = family_plan("vae")
    graph = plan.model.graphs[0]
    from gensdk_export.golden_record import record_golden
    from gensdk_export.graphs import export_fp32, prepare_modules
    from gensdk_runtime.proof.golden import Golden

    golden = Golden(record_golden(plan, samples=1, steps=None))
    file = onnx.load_from_string(export_fp32(plan, prepare_modules(plan), golden).files[graph.name])
    large = next(each for each in file.graph.initializer if _large(each))
    values = onnx.numpy_helper.to_array(large).copy()
    values.flat[0] = SAFE_VALUE
    large.CopyFrom(onnx.numpy_helper.from_array(values, large.name))
    made = onnx.load_from_string(store_half(file.SerializeToString(), graph))
    kept = next(each for each in made.graph.initializer if each.name == large.name)
    assert kept.data_type == TensorProto.FLOAT


def test_a_notice_without_end_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a notice of up to 10000 characters, got 10001"):
        export_plan(family_plan("seqgan"), Provenance(), tmp_path / "x.gsdk", ExportOptions(notice="x" * 10_001))
    assert not list(tmp_path.iterdir())


def test_a_bundle_gets_defaults_and_a_notice(tmp_path: Path) -> None:
    plan, path = family_plan("seqgan"), tmp_path / "words.gsdk"
    options = ExportOptions(defaults={"temperature": 0.5, "top_p": 0.9}, notice="Data of *somebody*, CC BY 4.0.")
    export_plan(plan, Provenance(data="x", steps=0), path, options)
    with Generator.load(path) as model:
        mine, other = model.sample(4, seed=0), model.sample(4, seed=0, temperature=0.5, top_p=0.9)
        assert (mine.settings["temperature"], mine.settings["top_p"]) == (0.5, 0.9)
        np.testing.assert_array_equal(mine.array, other.array)
        assert (model.sample(4, seed=0, temperature=1.0, top_p=1.0).array != mine.array).any()
    card = (path / "README.md").read_text()
    assert "## Data\n\nData of \\*somebody\\*, CC BY 4.0." in card
    assert "| temperature | 0.5 |" in card


@pytest.mark.parametrize(
    ("family", "defaults", "message"),
    [
        ("seqgan", {"temperature": 0}, "temperature"),
        ("seqgan", {"temprature": 1}, "did you mean 'temperature'"),
        ("seqgan", {"max_length": 10_000}, "expected max_length up to"),
        ("wavenet", {"top_k": 3}, "draws without top_k"),
        ("vae", {"temperature": 1}, "has no options; leave defaults out"),
    ],
)
def test_defaults_that_a_model_can_not_have_are_refused(
    family: str, defaults: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as failure:
        export_plan(family_plan(family), Provenance(), tmp_path / "x.gsdk", ExportOptions(defaults=defaults))
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "x.gsdk").exists()


def test_the_command_line_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gensdk(["export", "missing", "-o", str(tmp_path / "x.gsdk"), "--default", "temperature"]) == 5
    assert "expected --default KEY=VALUE, got 'temperature'" in capsys.readouterr().err
