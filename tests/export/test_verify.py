"""Replaying the proof: it holds for what was exported, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gensdk_export.export import ExportOptions, export_plan
from gensdk_runtime.backends.base import Session
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BundleError, InputError, IntegrityError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.golden import Golden, GoldenBounds, Recorder
from gensdk_runtime.proof.verify import load_golden, replay, verify_bundle
from gensdk_runtime.spec.provenance import Provenance
from support.plans import family_plan, linear_plan


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "vae.gsdk"
    export_plan(family_plan("vae"), Provenance(), out, ExportOptions(fp16=True))
    return out


def rewritten(
    source: Path, target: Path, change: Callable[[onnx.ModelProto], None], precision: str = "fp32"
) -> Path:
    """The bundle with one graph changed and everything sealed again, so that only the proof can tell."""
    with Bundle.open(source) as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        name = bundle.manifest.graph_files["decoder"][precision]
        model = onnx.load_from_string(files[name])
        change(model)
        files[name] = model.SerializeToString()
        write_bundle(target, bundle.manifest, files).close()
    return target


def scale_weight(factor: float, largest: bool = True) -> Callable[[onnx.ModelProto], None]:
    """Multiplies the largest (or smallest) value of the last weight matrix."""

    def change(model: onnx.ModelProto) -> None:
        weight = next(t for t in reversed(model.graph.initializer) if len(t.dims) == 2)
        values = np.array(numpy_helper.to_array(weight))
        flat = values.reshape(-1)
        index = np.abs(flat.astype(np.float32)).argmax() if largest else np.abs(flat.astype(np.float32)).argmin()
        flat[index] = flat[index] * factor
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    return change


def test_the_proof_holds_where_it_was_made(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert report.ok
    assert report.problems == ()
    assert [check.precision for check in report.checks].count("fp16") == len(report.checks) / 2
    assert all(check.drift.psnr > 40 for check in report.checks)
    assert {check.precision for check in verify_bundle(bundle, precision="fp16").graphs} == {"fp16"}


def test_one_flipped_weight_is_found(bundle: Path, tmp_path: Path) -> None:
    report = verify_bundle(rewritten(bundle, tmp_path / "flipped.gsdk", scale_weight(-1.0)))
    assert not report.ok
    assert {check.what for check in report.checks if not check.ok and check.precision == "fp32"} == {
        "decoder",
        "samples",
    }
    assert all(check.ok for check in report.checks if check.precision == "fp16")
    assert "differs by" in report.problems[0]


def test_nan_is_found_and_told(bundle: Path, tmp_path: Path) -> None:
    report = verify_bundle(rewritten(bundle, tmp_path / "nan.gsdk", scale_weight(np.nan)), precision="fp32")
    assert len(report.problems) == 2
    assert all("NaN" in problem for problem in report.problems)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["graphs"][0]["drift"]["max_abs"] is None


def test_a_constant_graph_is_found(bundle: Path, tmp_path: Path) -> None:
    def silence(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                values = np.zeros_like(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    report = verify_bundle(rewritten(bundle, tmp_path / "silent.gsdk", silence), precision="fp32")
    assert all("constant" in problem for problem in report.problems)
    assert len(report.problems) == 2


def test_a_bundle_without_proof_says_so(bundle: Path, tmp_path: Path) -> None:
    with Bundle.open(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files if not name.startswith("golden")}
        draft = opened.manifest.model_copy(update={"golden": None, "files": {}})
        write_bundle(tmp_path / "bare.gsdk", draft, files).close()
    with pytest.raises(BundleError, match="no golden"):
        verify_bundle(tmp_path / "bare.gsdk")


def test_a_missing_precision_is_named(tmp_path: Path) -> None:
    out = export_plan(linear_plan(), Provenance(), tmp_path / "fp32.gsdk").bundle
    with pytest.raises(InputError, match="fp16"):
        verify_bundle(out, precision="fp16")
    assert verify_bundle(out).ok


def test_a_golden_file_of_another_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    out = export_plan(linear_plan(), Provenance(), tmp_path / "other.gsdk").bundle
    with Bundle.open(out) as other, Generator.load(bundle) as generator:
        golden = load_golden(other)
        with pytest.raises(IntegrityError, match="fits no graph"):
            replay(generator.model, golden, generator.sessions, golden.bounds["fp32"])
        empty = Golden(tuple(type(run)(run.settings, run.samples, ()) for run in golden.trajectories))
        with pytest.raises(IntegrityError, match="no recorded call"):
            replay(generator.model, empty, generator.sessions, GoldenBounds(graph=1, flipped=1))


def test_recorded_calls_are_copies_and_complete(bundle: Path) -> None:
    recorder = Recorder()
    with Generator.load(bundle) as loaded:
        sessions: dict[str, Session] = recorder.wrap(loaded.sessions)
        generator = Generator.from_sessions(loaded.model, sessions)
        samples = generator.sample(3, seed=0, label=[0, 1, 2], batch_size=2)
        calls = recorder.take()
        assert [call.step for call in calls] == [0, 1]
        np.testing.assert_array_equal(np.concatenate([call.outputs["image"] for call in calls]), samples.array)
        again = loaded.sessions["decoder"].run(calls[0].feeds)
        np.testing.assert_array_equal(again["image"], calls[0].outputs["image"])
        assert recorder.take() == ()
        generator.close()
        assert sessions["decoder"]._closed
        assert loaded.sessions["decoder"]._closed


def test_whole_samples_keep_the_psnr_too(bundle: Path) -> None:
    with Bundle.open(bundle) as opened, Generator.load(opened, backend="onnxruntime", threads=1) as generator:
        golden = load_golden(opened)
        moved = tuple(
            replace(run, samples=run.samples + np.float32(0.1), calls=run.calls) for run in golden.trajectories
        )
        loose = GoldenBounds(graph=1.0, flipped=0.01, samples=1.0)
        for psnr, fine in ((None, True), (30.0, False), (20.0, True)):
            bounds = loose.model_copy(update={"psnr": psnr})
            report = replay(generator.model, Golden(moved), generator.sessions, bounds)
            assert all(check.ok for check in report.samples) is fine
