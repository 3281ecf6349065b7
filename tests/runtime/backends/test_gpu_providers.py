"""ONNX Runtime's GPU providers on a double of their build: what they are told and keep, why they don't start."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import helper

from gensdk.cli.verify import verify as verify_verb
from gensdk_runtime.backends import availabilities, create_backend
from gensdk_runtime.backends.base import Availability
from gensdk_runtime.backends.onnxruntime import providers, tf32
from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.backends.onnxruntime.device_memory import Memory
from gensdk_runtime.backends.onnxruntime.package import one_line
from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.host.child_process import Finished
from gensdk_runtime.host.elf import needed_libraries
from gensdk_runtime.host.nvidia import Driver, Gpu
from gensdk_runtime.proof import rounded
from gensdk_runtime.proof.verify import verify_bundle
from support.embedded import IMAGES, STORED_IN_HALF
from support.gpu_onnxruntime import ADA, CPU, CUDA, RTX, TENSORRT, GpuOnnxRuntime, put_in
from support.nvidia_stubs import build_library, needs_compiler
from support.onnx_graphs import OnnxBytes, graph_spec, onnx_bytes, spec

NAMES = {"cuda": CUDA, "tensorrt": TENSORRT, "nvtensorrtrtx": RTX}
PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"

PRODUCT = graph_spec({"x": spec("batch", 2), "w": spec(2, 2)}, {"y": spec("batch", 2)})
PRODUCT_BYTES = onnx_bytes(PRODUCT, [helper.make_node("MatMul", ["x", "w"], ["y"])])
FEEDS = {"x": np.array([[1 + 2**-12, 1.0]], np.float32), "w": np.eye(2, dtype=np.float32)}
EXACT, ROUNDED = np.float32(1 + 2**-12), np.float32(1.0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(tf32.VARIABLE, "set by a test")  # so that the end of the test takes it away again
    monkeypatch.delenv(tf32.VARIABLE)
    monkeypatch.setattr(tf32, "_settled", None)
    monkeypatch.setattr(tf32, "_beside_pytorch", lambda: False)


def machine(monkeypatch: pytest.MonkeyPatch, key: str, driver: Driver = ADA, ep_name: str = RTX) -> GpuOnnxRuntime:
    """The double of a machine on which this provider runs; `ep_name`: what the plugin calls it."""
    if key != "nvtensorrtrtx":
        return put_in(monkeypatch, GpuOnnxRuntime(), driver)
    plugin = ModuleType(PLUGIN)
    plugin.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec(PLUGIN, None)
    plugin.get_library_path = lambda: "/plugin.so"  # type: ignore[attr-defined]
    plugin.get_ep_name = lambda: ep_name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PLUGIN, plugin)
    return put_in(monkeypatch, GpuOnnxRuntime(built_in=(), cuda=""), driver)


def product(label: str, data: bytes = PRODUCT_BYTES) -> np.float32:
    with create_backend(label).open(PRODUCT, OnnxBytes(data), precision="fp32") as session:
        return np.float32(session.run(FEEDS)["y"][0, 0])


@pytest.mark.parametrize("key", NAMES)
def test_full_precision_unless_tf32_is_named(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, key)
    assert product(f"onnxruntime:{key}") == EXACT
    first, *others = double.told[-1]
    assert first[0] == NAMES[key]
    assert others[-1][0] == CPU
    assert all(options["use_tf32"] == "0" for name, options in double.told[-1] if name == CUDA)


@pytest.mark.parametrize("key", NAMES)
def test_tf32_where_it_is_named(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, key)
    backend = create_backend(f"onnxruntime:{key}:tf32")
    assert backend.label == f"onnxruntime:{key}:tf32"
    assert backend.rounding() is None
    assert product(backend.label) == ROUNDED


def test_cuda_takes_both_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "cuda")
    values = [product(f"onnxruntime:cuda{end}") for end in ("", ":tf32", "", ":tf32")]
    assert values == [EXACT, ROUNDED, EXACT, ROUNDED]


@pytest.mark.parametrize("key", ["tensorrt", "nvtensorrtrtx"])
@pytest.mark.parametrize(("first", "second"), [("", ":tf32"), (":tf32", "")])
def test_tensorrt_decides_for_the_process(key, first, second, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, key)
    product(f"onnxruntime:{key}{first}")
    with pytest.raises(UnavailableError, match="run it in another"):
        product(f"onnxruntime:{key}{second}")


@pytest.mark.parametrize("key", NAMES)
def test_what_the_user_forbids_is_not_allowed(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, key)
    monkeypatch.setenv(tf32.VARIABLE, "0")
    with pytest.raises(UnavailableError, match=f"{tf32.VARIABLE}=0 forbids it"):
        product(f"onnxruntime:{key}:tf32")
    assert product(f"onnxruntime:{key}") == EXACT


def test_what_the_environment_forces_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "tensorrt")
    monkeypatch.setenv(tf32.VARIABLE, "1")
    with pytest.warns(UserWarning, match="set it to 0"):
        assert product("onnxruntime:tensorrt") == ROUNDED


def test_pytorch_beside_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "tensorrt")
    monkeypatch.setattr(tf32, "_beside_pytorch", lambda: True)
    with pytest.warns(UserWarning, match="PyTorch loses TF32 here too"):
        assert product("onnxruntime:tensorrt") == EXACT


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("onnxruntime:cpu:tf32", "provider 'cpu' has no TF32, only NVIDIA's have: cuda, tensorrt, nvtensorrtrtx"),
        ("onnxruntime:cuda:tf31", "expected nothing, 'tf32' or 'graphs' behind 'cuda', got 'tf31'"),
        ("onnxruntime:cuda:", "expected nothing, 'tf32' or 'graphs' behind 'cuda', got ''"),
    ],
)
def test_other_arithmetic_is_refused(label: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "cuda")
    with pytest.raises(InputError, match=message):
        create_backend(label)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("key", NAMES)
def test_proof_holds_on_each_provider_and_not_in_tf32(name: str, key: str, monkeypatch) -> None:
    """The very arithmetic of TF32, but for the order of sums: what is embedded drifts beyond its bounds in it."""
    machine(monkeypatch, key)
    monkeypatch.setattr(rounded, "run_module", lambda *what, **how: Finished(1, "", ""))
    report = verify_bundle(name, backend=f"onnxruntime:{key}", precision="fp32")
    assert report.ok
    assert {check.backend for check in report.checks} == {f"onnxruntime:{key}"}
    monkeypatch.delenv(tf32.VARIABLE, raising=False)
    monkeypatch.setattr(tf32, "_settled", None)
    less_exact = verify_bundle(name, backend=f"onnxruntime:{key}:tf32", precision="fp32")
    assert less_exact.ok == (name in STORED_IN_HALF), "rounded weights have bounds that TF32 keeps"
    assert max(check.drift.scaled for check in less_exact.graphs) > 2e-4


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets the child of `verify` run here, as if nothing had been decided; the backends that it was asked for."""
    asked: list[str] = []

    def run_module(module: str, path: str, label: str, bounds: str, **how: Any) -> Finished:
        asked.append(label)
        printed = io.StringIO()
        with monkeypatch.context() as another, contextlib.redirect_stdout(printed):
            another.setattr(tf32, "_settled", None)
            for name, value in how["environment"].items():
                another.setenv(name, value)
            rounded.main(path, label, bounds)
        return Finished(0, "printed by a library\n" + printed.getvalue(), "")

    monkeypatch.setattr(rounded, "run_module", run_module)
    return asked


@pytest.mark.parametrize("key", NAMES)
def test_verify_says_how_far_tf32_would_be_off(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, key)
    asked = elsewhere(monkeypatch)
    label = f"onnxruntime:{key}"
    report = verify_bundle("digits-vae", backend=label, precision="fp32")
    assert report.ok
    assert asked == ([] if key == "cuda" else [f"{label}:tf32"]), "only CUDA does both in one process"
    assert {check.backend for check in report.rounded} == {f"{label}:tf32"}
    assert [check.what for check in report.rounded] == [check.what for check in report.checks]
    assert max(check.drift.scaled for check in report.rounded) > 2e-4
    assert not all(check.ok for check in report.rounded)
    assert len(report.to_dict()["rounded"]) == len(report.checks)
    done = CliRunner().invoke(verify_verb, ["digits-vae", "--backend", label], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"{label}:tf32 would differ by " in done.stdout
    assert "beyond the bounds" in done.stdout


def test_a_child_that_fails_costs_the_figure_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "tensorrt")
    monkeypatch.setattr(rounded, "run_module", lambda *what, **how: Finished(1, "", "no GPU left"))
    report = verify_bundle("digits-vae", backend="onnxruntime:tensorrt", precision="fp32")
    assert report.ok
    assert report.rounded == ()


@pytest.mark.parametrize("key", NAMES)
def test_states_stay_in_memory_that_the_build_has(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, key)
    with Generator.load("digits-ddpm", backend="onnxruntime", threads=1) as plain:
        expected = plain.sample(2, seed=0, num_inference_steps=3).array
    double.calls.clear()
    with Generator.load("digits-ddpm", backend=f"onnxruntime:{key}") as generator:
        samples = generator.sample(2, seed=0, num_inference_steps=3)
    np.testing.assert_allclose(samples.array, expected, atol=1e-5)
    assert samples.settings["backend"] == f"onnxruntime:{key}"
    assert double.calls["allocate"] > 0
    assert (double.calls["copy"] > 0) == (key == "nvtensorrtrtx"), "builds without CUDA let the plugin copy"


def kept(double: GpuOnnxRuntime, key: str) -> str:
    names = {"tensorrt": "trt_engine_cache_path", "nvtensorrtrtx": "nv_runtime_cache_path"}
    return double.told[-1][0][1][names[key]]


@pytest.mark.parametrize("key", ["tensorrt", "nvtensorrtrtx"])
def test_what_is_built_is_kept_for_its_graph_alone(key: str, monkeypatch, tmp_path: Path) -> None:
    double = machine(monkeypatch, key)
    other = onnx_bytes(PRODUCT, [helper.make_node("MatMul", ["x", "w"], ["y"], doc_string="other weights")])
    folders = []
    for data in (PRODUCT_BYTES, other, PRODUCT_BYTES):
        product(f"onnxruntime:{key}", data)
        folders.append(kept(double, key))
    assert folders[0] == folders[2] != folders[1]
    assert all(Path(folder).is_relative_to(tmp_path / "cache") and Path(folder).is_dir() for folder in folders)
    hopper = Driver((Gpu("NVIDIA Other", (8, 6), 2**34),), 13020, "580.82.07")
    put_in(monkeypatch, double, hopper)
    product(f"onnxruntime:{key}")
    assert kept(double, key) not in folders, "an engine is bound to the GPU"


def test_what_was_not_used_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "tensorrt")
    monkeypatch.setattr(providers, "MAX_KEPT", 2)
    folders = []
    for number in range(4):
        data = onnx_bytes(PRODUCT, [helper.make_node("MatMul", ["x", "w"], ["y"], doc_string=str(number))])
        product("onnxruntime:tensorrt", data)
        folders.append(Path(kept(double, "tensorrt")))
    assert [folder.is_dir() for folder in folders] == [False, False, True, True]


def test_without_a_cache_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "tensorrt")

    def refused(*parts: str) -> Path:
        raise UnavailableError("no cache")

    monkeypatch.setattr(providers, "cache_folder", refused)
    assert product("onnxruntime:tensorrt") == EXACT
    assert double.told[-1][0] == (TENSORRT, {"trt_context_memory_sharing_enable": "1"})


NONE = Driver(problem="no NVIDIA driver was found (libcuda.so.1)")


def gpu(major: int, minor: int, cuda: int = 13020) -> Driver:
    return Driver((Gpu("NVIDIA Double", (major, minor), 2**34),), cuda, "580")


@pytest.mark.parametrize(
    ("driver", "key", "there"),
    [
        (gpu(8, 9), "cuda", True),
        (gpu(7, 5), "cuda", True),
        (gpu(7, 0), "cuda", False),
        (gpu(8, 9, cuda=12080), "cuda", False),
        (NONE, "cuda", False),
        (gpu(9, 0), "tensorrt", True),
        (gpu(8, 6), "nvtensorrtrtx", True),
        (gpu(12, 0), "nvtensorrtrtx", True),
        (gpu(7, 5), "nvtensorrtrtx", False),
        (gpu(9, 0), "nvtensorrtrtx", False),
        (gpu(10, 3), "nvtensorrtrtx", False),
        (NONE, "nvtensorrtrtx", False),
    ],
)
def test_what_the_gpu_can_decides_what_is_offered(driver, key, there, monkeypatch) -> None:
    machine(monkeypatch, key, driver)
    found = availabilities()["onnxruntime"]
    assert (key in found.devices) == there
    assert (key in found.missing) != there
    assert "cpu" in found.devices
    for reason in found.missing.values():
        assert "; " in reason, "what is missing, and what mends it"
        assert "\n" not in reason


def test_a_build_without_the_provider_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, GpuOnnxRuntime(built_in=()))
    with pytest.raises(UnavailableError, match=r'has no CUDAExecutionProvider; .* pip install "gensdk\[gpu\]"'):
        create_backend("onnxruntime:cuda")


def test_no_driver_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "cuda", NONE)
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider: no NVIDIA"):
        create_backend("onnxruntime:cuda")
    assert not double.calls


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("libcublas.so.13", "libcurand.so.10"),
            r'so.13, libcurand.so.10 not found; pip install "gensdk',
        ),
        (
            ("libnvinfer.so.10", "libcudnn.so.9"),
            r'for TensorRT 10 \(libnvinfer.so.10\).*; pip install "tensorrt<11"',
        ),
        ((), r"did not start here \(ONNX Runtime fell back to CPUExecutionProvider\); see gensdk env --explain"),
    ],
)
def test_a_provider_that_does_not_start_says_why(names, message, monkeypatch, capfd) -> None:
    double = machine(monkeypatch, "tensorrt")
    double.refused |= {CUDA, TENSORRT}
    monkeypatch.setattr(providers, "missing_for", lambda ort, name: names)
    with pytest.raises(UnavailableError, match=message):
        product("onnxruntime:tensorrt")
    assert capfd.readouterr().out == "", "what is missing is told in the error, and nothing on stdout"


def test_libraries_are_loaded_from_their_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "cuda")
    product("onnxruntime:cuda")
    product("onnxruntime:cuda")
    assert double.calls["preload"] == 1
    without = put_in(monkeypatch, GpuOnnxRuntime(cuda=""))
    assert product("onnxruntime:cuda") == EXACT
    assert not without.calls["preload"]


def test_auto_takes_the_gpu_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "cuda")
    with Generator.load("digits-vae") as generator:
        assert generator.sample(1, seed=0).settings["backend"] == "onnxruntime:cuda"
    double.refused.add(CUDA)
    with Generator.load("digits-vae") as generator:
        settings = generator.sample(1, seed=0).settings
    assert settings["backend"] == "onnxruntime"
    assert "onnxruntime:cuda failed: CUDAExecutionProvider did not start here" in settings["fallback"]


def test_auto_without_onnxruntime_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Availability(False, reason="ONNX Runtime is missing", remedy="pip")
    monkeypatch.setattr(OnnxRuntimeBackend, "availability", classmethod(lambda cls: gone))
    with Generator.load("digits-vae") as generator:
        assert generator.sample(1, seed=0).settings["backend"] == "openvino"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[GpuOnnxRuntime, Path]:
    """The double, and a folder where its libraries lie."""
    double = machine(monkeypatch, "cuda")
    folder = tmp_path / "onnxruntime" / "capi"
    folder.mkdir(parents=True)
    double.__file__ = str(folder.parent / "__init__.py")
    build_library(folder / "libonnxruntime_providers_shared.so", "int Provider_GetHost(void) { return 0; }")
    return double, folder


@needs_compiler
def test_all_libraries_that_are_missing_are_named(package, tmp_path: Path) -> None:
    double, folder = package
    there, gone = (
        build_library(tmp_path / name, "int f(void) { return 0; }") for name in ("liba.so.1", "libb.so.2")
    )
    other = build_library(tmp_path / "libc2.so.3", "int h(void) { return 0; }")
    needs = (there, gone, other)
    build_library(folder / "libonnxruntime_providers_cuda.so", "int g(void) { return 0; }", needs=needs)
    assert needed_libraries(folder / "libonnxruntime_providers_cuda.so")[:3] == (
        "liba.so.1",
        "libb.so.2",
        "libc2.so.3",
    )
    ctypes.CDLL(str(there))  # as preload_dlls does
    with pytest.raises(UnavailableError, match=r'libb.so.2, libc2.so.3 not found; pip install "gensdk\[gpu\]"'):
        product("onnxruntime:cuda")
    assert double.told == [], "nothing is tried that can't start"
    for each in needs:
        ctypes.CDLL(str(each))
    assert product("onnxruntime:cuda") == EXACT


@needs_compiler
def test_what_the_loader_says_is_the_cause(package) -> None:
    double, folder = package
    double.refused.add(CUDA)
    code = "extern int of_no_library(void); int (*f)(void) = of_no_library;"
    build_library(folder / "libonnxruntime_providers_cuda.so", code)
    with pytest.raises(UnavailableError, match=r"did not start here \(.*undefined symbol: of_no_library\); see"):
        product("onnxruntime:cuda")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 200, b"MZ" * 400])
def test_other_files_need_no_libraries(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(content)
    assert needed_libraries(tmp_path / "lib.so") == ()
    assert needed_libraries(tmp_path / "no.so") == ()


@pytest.mark.parametrize("name", [RTX, "nv_tensorrt_rtx"])
def test_a_plugin_is_registered_by_its_own_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "nvtensorrtrtx", ep_name=name)
    assert product("onnxruntime:nvtensorrtrtx") == EXACT
    assert double.plugins == {name: "/plugin.so"}
    assert double.told[-1][0][0] == name


def test_a_plugin_without_a_device_and_one_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    double = machine(monkeypatch, "nvtensorrtrtx")
    monkeypatch.setattr(double, "register_execution_provider_library", lambda name, path: None)
    with pytest.raises(UnavailableError, match="finds no GPU that it runs on; use backend='auto', or"):
        product("onnxruntime:nvtensorrtrtx")

    def broken(name: str, path: str) -> None:
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /x.so with error: /x.so: no cuX"
        )

    monkeypatch.setattr(double, "register_execution_provider_library", broken)
    with pytest.raises(
        UnavailableError, match=r"can't be loaded \(/x.so: no cuX\); pip install --force-reinstall"
    ):
        product("onnxruntime:nvtensorrtrtx")
    assert double.told == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[E] cuda_call.cc:154 std::X<T, U> CUDA failure 36: not supported\n ; GPU=-1 ; host",
            "CUDA failure 36: not supported",
        ),
        (
            "Get() : FAIL : Failed to load library /x.so with error: libcudnn.so.9: no such file",
            "libcudnn.so.9: no such file",
        ),
        ("Protobuf\n  parsing failed.", "Protobuf parsing failed."),
    ],
)
def test_the_cause_is_told_alone(text: str, line: str) -> None:
    assert one_line(RuntimeError(text)) == line


@pytest.mark.parametrize("key", NAMES)
def test_no_state_is_brought_that_is_overwritten(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call brings its result alone, also where the buffers hold the states of the call before."""
    options: dict[str, Any] = {"num_inference_steps": 4, "seed": 3}
    with Generator.load("digits-ddpm", backend="onnxruntime") as model:
        expected = model.sample(2, **options).array
    machine(monkeypatch, key)
    brought: list[tuple[int, ...]] = []
    download = Memory.download

    def counting(self: Memory, ort: Any, value: Any, array: Any) -> None:
        brought.append(array.shape)
        download(self, ort, value, array)

    with Generator.load("digits-ddpm", backend=f"onnxruntime:{key}") as model:
        model.sample(2, **options)
        monkeypatch.setattr(Memory, "download", counting)
        found = model.sample(2, **options).array
    np.testing.assert_array_equal(found, expected)
    assert len(brought) == 1
