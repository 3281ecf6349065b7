"""How much of the processor a process may use, over a faked /proc and /sys."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gensdk_runtime.host import control_groups, processor
from gensdk_runtime.tuning.candidates import Processor

V2 = "32 31 0:29 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    monkeypatch.setattr(processor, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> None:
    written = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    written |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


NESTED = {"a/cpu.max": "max 100000\n", "a/b/cpu.max": "250000 100000\n", "a/b/c/cpu.max": "400000 100000\n"}


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        ("0::/\n", V2.format(root="/"), {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", V2.format(root="/"), {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b/c\n", V2.format(root="/"), NESTED, 2.5),
        ("0::/a/b/c\n", V2.format(root="/"), NESTED | {"a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", V2.format(root="/a/b"), {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/pod/box/inner\n", V2.format(root="/pod/box"), {"inner/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/../other\n", V2.format(root="/"), {"cpu.max": "100000 100000\n"}, 1.0),
        ("0::/elsewhere\n", V2.format(root="/pod/box"), {"cpu.max": "100000 100000\n"}, 1.0),
        (
            "5:memory:/m\n4:cpu,cpuacct:/jobs/one\n0::/\n",
            MEMORY + V1.format(root="/"),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/jobs/cpu.cfs_quota_us": "350000\n",
                "cpu,cpuacct/jobs/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/jobs/one/cpu.cfs_period_us": "100000\n",
            },
            3.5,
        ),
        ("0::/\n", V2.format(root="/"), {"cpu.max": "rubbish\n"}, None),
        ("0::/\n", V2.format(root="/"), {"cpu.max": "0 0\n"}, None),
        ("", "", {"cpu.max": "100000 100000\n"}, None),
        ("0::/a b\n", V2.format(root=r"/a\040b"), {"cpu.max": "200000 100000\n"}, 2.0),
    ],
)
def test_the_lowest_limit_of_all_groups_around(groups, mounts, files, quota, tmp_path) -> None:
    machine(tmp_path, groups, mounts, files)
    assert processor.cpu_quota() == quota


@pytest.mark.parametrize(
    ("omp", "quota", "cores"),
    [
        (None, None, 8), ("3", None, 3), ("3", "150000", 2), ("1", "600000", 1), ("64", None, 8), ("4,2", None, 4),
        ("0", None, 8), ("-2", None, 8), ("many", None, 8), ("", None, 8), (" 2 ", None, 2),
    ],
)  # fmt: skip
def test_threads_that_may_run(omp, quota, cores, tmp_path, monkeypatch) -> None:
    machine(tmp_path, "0::/\n", V2.format(root="/"), {} if quota is None else {"cpu.max": f"{quota} 100000"})
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert processor.cores_to_fill() == cores
    assert processor.thread_limit() == (None if cores == 8 else cores)
    assert max(Processor.here().thread_counts(thorough=True)) == cores
    assert Processor.here(5).cores == 5, "what the caller says counts"


LIMITS = pytest.mark.parametrize(("threads", "used"), [(None, 2), (3, 3)])


@LIMITS
def test_onnx_runtime_keeps_to_the_limit(threads, used, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    from gensdk_runtime.backends import create_backend

    made = create_backend("onnxruntime", threads=threads)
    assert made._options().intra_op_num_threads == used  # type: ignore[attr-defined]


@LIMITS
def test_openvino_keeps_to_the_limit(threads, used, monkeypatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    from openvino import Model, opset8

    from gensdk_runtime.backends.openvino.compiler import Compiler

    node = opset8.parameter([1, 3, 8, 8], dtype=np.float32)
    compiler = Compiler(openvino, None, "CPU", threads, SimpleNamespace(inputs=()))  # type: ignore[arg-type]
    settings = compiler._settings(Model([opset8.relu(node)], [node], "m"), streams=1)
    assert settings["INFERENCE_NUM_THREADS"] == used
