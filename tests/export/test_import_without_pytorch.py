"""A plain ONNX file needs onnx and ONNX Runtime to become a bundle, and nothing of PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gensdk_runtime.proof.verify import verify_bundle
from support.onnx_models import FLOAT, conv, convolution, write_onnx

BLOCKED = ("torch", "torchvision", "onnxscript", "onnx_ir", "diffusers", "safetensors", "sklearn", "tensorboard")
CHILD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from gensdk.cli.main import main
main({arguments!r})
"""


def test_a_plain_file_becomes_a_bundle(tmp_path: Path) -> None:
    axes = ["n", 3, "h", "w"]
    path = write_onnx(
        tmp_path / "style.onnx", [conv("x", "y")], [("x", FLOAT, axes)], [("y", FLOAT, axes)], convolution()
    )
    arguments = ["import", str(path), "-o", str(tmp_path / "style.gsdk"), "--size", "16x16"]
    code = CHILD.format(blocked=BLOCKED, arguments=arguments)
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verify_bundle(tmp_path / "style.gsdk", backend="onnxruntime").ok
    (tmp_path / "net.pth").write_bytes(b"PK")
    code = CHILD.format(blocked=BLOCKED, arguments=["import", str(tmp_path / "net.pth"), "-o", "x.gsdk"])
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert 'pip install "gensdk[training]"' in done.stderr
