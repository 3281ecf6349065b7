"""What a measurement depends on: the bundle, the machine and the versions. Cheap to find out, nothing imported."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from functools import lru_cache
from pathlib import Path

from gensdk_runtime.host.control_groups import file_text
from gensdk_runtime.host.processor import cores_to_fill, cpu_model, usable_cores
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.version import __version__

_PACKAGES = ("cuda_bindings", "numpy", "nvidia_", "onnxruntime", "openvino", "tensorrt")
_NVIDIA = Path("/proc/driver/nvidia")
_DRIVERS = (  # where /proc does not tell: Linux in a sandbox, WSL, Windows
    ("/usr/lib/x86_64-linux-gnu", "libcuda.so.*"),
    ("/usr/lib64", "libcuda.so.*"),
    ("/usr/lib/wsl/lib", "libcuda.so*"),
    ("C:/Windows/System32", "nvcuda.dll"),
)


def measurement_key(manifest: Manifest, precision: Precision, threads: int | None) -> dict[str, str]:
    """All that a measurement depends on, in words; two equal keys may share what was measured."""
    return {
        "bundle": bundle_identity(manifest),
        "precision": precision,
        "threads": "any" if threads is None else str(threads),
        **_machine(),
    }


def bundle_identity(manifest: Manifest) -> str:
    """A hash of the model and of the checksums of all files."""
    files = {path: entry.sha256 for path, entry in sorted(manifest.files.items())}
    text = manifest.model.model_dump_json() + json.dumps(files)
    return hashlib.sha256(text.encode()).hexdigest()


def has_nvidia_gpu() -> bool:
    """True if there are signs of an NVIDIA GPU; asking its driver would take long."""
    return bool(_gpus())


@lru_cache(maxsize=1)
def installed_packages() -> tuple[str, ...]:
    """The packages that decide about speed, as ``name-version``, from the names of their metadata folders."""
    found = set()
    for folder in dict.fromkeys(sys.path):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a fraction of iterdir's time
        except OSError:
            continue
        for name in names:
            stem, dot, kind = name.rpartition(".")
            if dot and kind in ("dist-info", "egg-info") and stem.lower().startswith(_PACKAGES):
                found.add(stem.lower())
    return tuple(sorted(found))


@lru_cache(maxsize=1)
def _fixed() -> dict[str, str]:
    """What does not change while a process lives."""
    return {
        "gensdk": __version__,
        "python": platform.python_version(),
        "packages": " ".join(installed_packages()),
        "system": f"{sys.platform} {platform.machine()}",
        "cpu": cpu_model(),
        "gpus": "; ".join(_gpus()),
    }


def _machine() -> dict[str, str]:
    return {
        **_fixed(),
        "cores": f"{cores_to_fill()} of {usable_cores()}",
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
    }


@lru_cache(maxsize=1)
def _gpus() -> tuple[str, ...]:
    """The driver and the GPUs in words; empty where there is none."""
    if (_NVIDIA / "version").exists():
        driver = file_text(_NVIDIA / "version").splitlines()[:1]
        infos = [file_text(path / "information") for path in sorted((_NVIDIA / "gpus").glob("*"))[:64]]
        models = [
            line.partition(":")[2].strip() for info in infos for line in info.splitlines() if "Model" in line
        ]
        return (*driver, *models)
    devices = [path.name for path in sorted(Path("/dev").glob("nvidia[0-9]*"))] if os.name == "posix" else []
    if not devices and sys.platform != "win32" and not Path("/dev/dxg").exists():
        return ()
    drivers = [path for folder, name in _DRIVERS for path in sorted(Path(folder).glob(name))]
    return (*devices, *(f"{path.name} {path.stat().st_size}" for path in drivers))
