"""OpenVINO's own matters: graphs that crash its compiler, weights in a mapped file, sizes and streams."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper

from gensdk_runtime.backends import availabilities, create_backend
from gensdk_runtime.backends.openvino import compiler as openvino_compiler
from gensdk_runtime.backends.openvino import snippets
from gensdk_runtime.backends.openvino.backend import OpenVinoSession
from gensdk_runtime.backends.openvino.importing import shared_core
from gensdk_runtime.backends.openvino.norms import fuse_group_norms
from gensdk_runtime.onnx_files import mapped_weights as onnx_weights
from gensdk_runtime.onnx_files.mapped_weights import map_weights
from support.onnx_graphs import OnnxBytes, graph_spec, onnx_bytes, spec

node = helper.make_node
pytestmark = pytest.mark.skipif(not availabilities()["openvino"].available, reason="OpenVINO is missing")

CRASHES = """
import sys
import numpy as np
import openvino as ov
from openvino import opset13 as op
from gensdk_runtime.backends.openvino.snippets import separate_snippets

rng = np.random.default_rng(0)
C = 16

def weights(*shape):
    return op.constant(rng.standard_normal(shape).astype(np.float32) * 0.2)

def norm(x):
    return op.group_normalization(x, weights(C), weights(C), 4, 1e-5)

def dense(x, bias=True):
    y = op.matmul(x, weights(C, C), False, True)
    return op.add(y, weights(1, C)) if bias else y

def attention(x):
    def part(order):
        return op.transpose(x, op.constant(np.array(order)))
    scores = op.softmax(op.matmul(part([0, 2, 1, 3]), part([0, 2, 3, 1]), False, False), -1)
    return op.transpose(op.matmul(scores, part([0, 2, 1, 3]), False, False), op.constant(np.array([0, 2, 1, 3])))

one = op.constant(np.float32(1))
flat, small, image, heads = [2, C], [2, C, 1, 1], [2, C, 8, 8], [2, 64, 4, 4]
GRAPHS = {
    "scaled norm": (lambda x, s: op.multiply(norm(x), op.add(s, one)), image, small),
    "norm + sigmoid": (lambda x, s: op.add(op.sigmoid(s), norm(x)), image, image),
    "norm - x": (lambda x, s: op.subtract(norm(x), s), image, image),
    "x / norm": (lambda x, s: op.divide(op.add(op.abs(s), one), op.add(op.exp(norm(x)), norm(s))), image, image),
    "norm - norm": (lambda x, s: op.subtract(norm(x), norm(s)), image, image),
    "max of norm and relu": (lambda x, s: op.maximum(norm(x), op.relu(s)), image, image),
    "attention + relu": (lambda x, s: op.add(attention(x), op.relu(s)), heads, heads),
    "two layers + sigmoid": (lambda x, s: op.add(dense(op.relu(dense(x))), op.sigmoid(s)), flat, flat),
    "two layers * two layers": (lambda x, s: op.multiply(dense(op.relu(dense(x))), dense(dense(s))), flat, flat),
    "swish of norm": (lambda x, s: op.multiply(norm(x), op.sigmoid(norm(s))), image, image),
}
core, settings = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
separate = sys.argv[1] == "separated"
for name, (build, *shapes) in GRAPHS.items():
    inputs = [op.parameter(shape, np.float32) for shape in shapes]
    model = ov.Model([build(*inputs)], inputs, "graph")
    feeds = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    wanted = core.compile_model(model.clone(), "CPU", settings | {"SNIPPETS_MODE": "DISABLE"})(feeds)[0]
    print(name, flush=True)
    if separate:
        separate_snippets(model)
    found = core.compile_model(model, "CPU", settings)(feeds)[0]
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4), name
"""


def test_graphs_that_crash_the_compiler_are_made_safe() -> None:
    """In a process of its own, which would die otherwise."""
    done = compile_all("separated")
    assert done.returncode == 0, f"after {done.stdout!r}: {done.stderr}"


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="where the fault was seen")
def test_the_installed_release_crashes_if_it_is_said_to_have_the_fault() -> None:
    import openvino

    crashed = compile_all("as they are").returncode < 0
    assert crashed == snippets.has_fault(openvino.__version__), (
        f"OpenVINO {openvino.__version__} {'crashes' if crashed else 'is sound'}: set FIRST_SOUND accordingly"
    )


INTERRUPTED = """
import signal
from gensdk_runtime.generator import Generator

first, second = (Generator.load("digits-dcgan", backend="openvino") for _ in range(2))
for model in (first, second):
    model.sample(1, seed=0)
    model.close()
del first, second, model
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_interrupts_after_models_were_closed_in_the_order_of_their_loading() -> None:
    """Where a model is closed, no signal stack is given back that another one has freed."""
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def compile_all(how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CRASHES, how]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("version", "fault"),
    [("2026.4.1-22982-e213-releases/2026/4", True), ("2027.0.9", True), ("2027.1.0", False), ("2031.0", False)],
)
def test_releases_below_the_first_sound_one_have_the_fault(version: str, fault: bool, monkeypatch) -> None:
    assert snippets.has_fault(version), "as long as there is none"
    monkeypatch.setattr(snippets, "FIRST_SOUND", (2027, 1))
    assert snippets.has_fault(version) == fault
    assert snippets.has_fault("custom build")


NORM = graph_spec({"x": spec("batch", 6, 4, 4), "film": spec("batch", 6)}, {"y": spec("batch", 6, 4, 4)})
NORM_CONSTANTS = {
    "grouped": np.array([0, 3, -1]),
    "whole": np.array([0, 6, 4, 4]),
    "axes": np.array([2, 3]),
    "ones": np.ones(3, np.float32),
    "zeros": np.zeros(3, np.float32),
    "twos": np.full(3, 2, np.float32),
    "scale": np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1),
    "shift": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6, 1, 1),
}


@pytest.mark.parametrize(
    ("ending", "scale"), [("constant", "ones"), ("computed", "ones"), ("none", "ones"), ("none", "twos")]
)
def test_group_norms_that_were_written_out_become_one_operation(ending: str, scale: str) -> None:
    import openvino

    last = {"none": "whole_x", "constant": "scaled", "computed": "scaled"}[ending]
    nodes = [
        node("Reshape", ["x", "grouped"], ["groups"]),
        node("InstanceNormalization", ["groups", scale, "zeros"], ["normal"], epsilon=1e-3),
        node("Reshape", ["normal", "whole"], ["whole_x"]),
        node("Unsqueeze", ["film", "axes"], ["film4"]),
        node("Mul", ["whole_x", "scale" if ending == "constant" else "film4"], ["scaled"]),
        node("Add", [last, "shift"], ["shifted"]),
        node("Add", ["shifted", "film4"], ["y"]),
    ]
    data = onnx_bytes(NORM, nodes, NORM_CONSTANTS)
    model = shared_core(openvino).read_model(data)
    model.reshape({"x": [2, 6, 4, 4], "film": [2, 6]})
    fused = fuse_group_norms(model)
    assert fused == (scale == "ones")  # what is scaled by group is left as it is
    assert len([each for each in model.get_ops() if each.get_type_name() == "GroupNormalization"]) == fused
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 6, 4, 4)), "film": rng.standard_normal((2, 6))}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    results = []
    for backend in ("onnxruntime", "openvino"):
        with create_backend(backend, threads=1).open(NORM, OnnxBytes(data), precision="fp32") as session:
            results.append(session.run(feeds)["y"])
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


WIDE = graph_spec({"x": spec("batch", 64)}, {"y": spec("batch", 32)})
WIDE_NODES = [
    node("MatMul", ["x", "w1"], ["h"]),
    node("Add", ["h", "b1"], ["hb"]),
    node("MatMul", ["hb", "w2"], ["y"]),
]


def wide_bytes() -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {"w1": (64, 1024), "b1": (1024,), "w2": (1024, 32)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return onnx_bytes(WIDE, WIDE_NODES, weights), weights


def test_weights_come_back_from_the_mapped_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data, weights = wide_bytes()
    assert map_weights(data).skeleton is data  # too small to be worth a file
    monkeypatch.setattr(onnx_weights, "MIN_FILE_BYTES", 0)
    split = map_weights(data)
    assert len(split.skeleton) < 8192
    assert set(split.arrays) == {"w1", "w2"}
    for _ in range(2):
        for name, array in split.arrays.items():
            np.testing.assert_array_equal(array, weights[name])
            assert array.ctypes.data % 64 == 0
        split.release()


def test_a_graph_over_mapped_weights_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data, weights = wide_bytes()
    monkeypatch.setattr(onnx_weights, "MIN_FILE_BYTES", 0)
    monkeypatch.setattr(onnx_weights, "RELEASE_EVERY", 0.0001)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    wanted = (x @ weights["w1"] + weights["b1"]) @ weights["w2"]
    with create_backend("openvino", threads=1).open(WIDE, OnnxBytes(data), precision="fp32") as session:
        assert isinstance(session, OpenVinoSession)
        for _ in range(3):
            np.testing.assert_allclose(session.run({"x": x})["y"], wanted, rtol=1e-4, atol=1e-3)
            session.compiler._weights.release()


def test_sizes_beyond_the_limit_are_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_compiler, "MAX_COMPILED_BYTES", 0)
    data, weights = wide_bytes()
    with create_backend("openvino", threads=1).open(WIDE, OnnxBytes(data), precision="fp32") as session:
        assert isinstance(session, OpenVinoSession)
        for n in (1, 2, 3, 1, 4, 2):
            x = np.full((n, 64), n, np.float32)
            wanted = (x @ weights["w1"] + weights["b1"]) @ weights["w2"]
            np.testing.assert_allclose(session.run({"x": x})["y"], wanted, rtol=1e-3, atol=1e-2)
            assert len(session.compiler._compiled) <= openvino_compiler.MIN_COMPILED


def test_streams_grow_with_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensdk_runtime.backends.openvino.compiler.cores_to_fill", lambda: 4)
    data, weights = wide_bytes()
    x = np.ones((2, 64), np.float32)
    wanted = (x @ weights["w1"] + weights["b1"]) @ weights["w2"]
    for threads, streams in ((None, 1), (1, 4), (2, 2)):
        with create_backend("openvino", threads=threads).open(WIDE, OnnxBytes(data), precision="fp32") as session:
            assert isinstance(session, OpenVinoSession)

            def draw(_: int, session: OpenVinoSession = session) -> None:
                with session.bound({"batch": 2}) as bound:
                    for _ in range(20):
                        bound.input("x")[...] = x
                        bound.run()
                        np.testing.assert_allclose(bound.output("y"), wanted, rtol=1e-3, atol=1e-2)

            with ThreadPoolExecutor(3) as pool:
                list(pool.map(draw, range(9)))
            with session.bound({"batch": 2}), session.bound({"batch": 2}), session.bound({"batch": 2}) as third:
                third.run()
                (compiled,) = session.compiler._compiled.values()
                assert compiled.streams == streams


IMAGES = graph_spec({"x": spec("batch", 3, "height", "width")}, {"y": spec("batch", 3, "height", "width")})
IMAGE_NODES = [
    node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
    node("InstanceNormalization", ["c", "ones", "zeros"], ["n"], epsilon=1e-3),
    node("Relu", ["n"], ["r"]),
    node("Add", ["r", "x"], ["y"]),
]


def image_session() -> OpenVinoSession:
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)
    constants = {"kernel": kernel, "ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32)}
    data = onnx_bytes(IMAGES, IMAGE_NODES, constants)
    session = create_backend("openvino", threads=1).open(IMAGES, OnnxBytes(data), precision="fp32")
    assert isinstance(session, OpenVinoSession)
    return session


def image(height: int, width: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(height).standard_normal((1, 3, height, width)).astype(np.float32)}


def test_images_of_many_sizes_are_not_compiled_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[dict[str, int]] = []
    compile_model = openvino_compiler.Compiler._compile

    def counting(self, sizes, streams):
        compiled.append(dict(sizes))
        return compile_model(self, sizes, streams)

    monkeypatch.setattr(openvino_compiler.Compiler, "_compile", counting)
    sizes = [(8 + 3 * i, 8 + 5 * (i * 7 % 11)) for i in range(12)]
    with image_session() as session:
        for height, width in [*sizes, *reversed(sizes)]:
            found = session.run(image(height, width))["y"]
            with image_session() as alone:
                np.testing.assert_allclose(found, alone.run(image(height, width))["y"], rtol=1e-4, atol=1e-5)
            compiled.pop()  # the lone one's
    assert len(compiled) == openvino_compiler.OWN_SIZES + 1
    assert compiled[-1] == {"batch": 1, "height": openvino_compiler.ANY, "width": openvino_compiler.ANY}


def test_a_size_that_comes_often_is_compiled_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_compiler, "OWN_AFTER", 3)
    with image_session() as session:
        for height in (8, 9, 10):
            session.run(image(height, 8))
        key = (("batch", 1), ("height", 10), ("width", 8))
        assert key not in session.compiler._compiled
        for _ in range(4):
            session.run(image(10, 8))
        assert key in session.compiler._compiled


def test_axes_that_are_no_image_keep_a_graph_for_each_size() -> None:
    data, _ = wide_bytes()
    with create_backend("openvino", threads=1).open(WIDE, OnnxBytes(data), precision="fp32") as session:
        assert isinstance(session, OpenVinoSession)
        for batch in range(1, 6):
            session.run({"x": np.ones((batch, 64), np.float32)})
        assert all(size > 0 for key in session.compiler._compiled for _, size in key)


FIRST_USES = """
import threading
from gensdk_runtime.backends.openvino.backend import _import
ov = _import()
import numpy as np
together = threading.Barrier(8)
def use():
    together.wait()
    ov.Type.i64.to_dtype()
    ov.Tensor(np.zeros(3, np.int64), shared_memory=True).data
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_threads_that_use_openvino_first_at_the_same_time_do_not_wait_for_each_other() -> None:
    """They would, in tables that its Python part makes at the first use; a hang ends in TimeoutExpired."""
    for _ in range(3):
        subprocess.run([sys.executable, "-P", "-c", FIRST_USES], check=True, timeout=120)
