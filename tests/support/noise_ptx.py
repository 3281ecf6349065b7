"""What ``noise.ptx`` is made of: NVRTC compiles ``noise.cu``; ``python tests/support/noise_ptx.py`` makes it anew.

It takes NVRTC of CUDA 12.0, whose PTX every driver since then knows (no GPU, no toolkit):
``pip install nvidia-cuda-nvrtc-cu12==12.0.140 "cuda-bindings==12.*"`` in an environment of its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "runtime" / "gensdk_runtime" / "backends" / "cuda"
SOURCE, PTX = FOLDER / "noise.cu", FOLDER / "noise.ptx"
VERSION = (12, 0)
OPTIONS = (b"--gpu-architecture=compute_75", b"--fmad=false")


def header() -> str:
    """The first line, so that the source can't be changed without the other file."""
    return f"// noise.cu, SHA-256 {hashlib.sha256(SOURCE.read_text().encode()).hexdigest()}\n"


def compiled(nvrtc: Any) -> str:
    """The file as this NVRTC makes it; RuntimeError with the compiler's words where it refuses."""
    _, program = nvrtc.nvrtcCreateProgram(SOURCE.read_text().encode(), b"noise.cu", 0, [], [])
    (failed,) = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), list(OPTIONS))
    if int(failed):
        raise RuntimeError(_taken(nvrtc, program, "ProgramLog"))
    return header() + _taken(nvrtc, program, "PTX")


def _taken(nvrtc: Any, program: Any, what: str) -> str:
    _, size = getattr(nvrtc, f"nvrtcGet{what}Size")(program)
    text = b" " * size
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    return text.rstrip(b"\0").decode()


def version(nvrtc: Any) -> tuple[int, int] | None:
    """Of NVRTC; None where its library is missing."""
    try:
        _, major, minor = nvrtc.nvrtcVersion()
    except RuntimeError:
        return None
    return int(major), int(minor)


if __name__ == "__main__":
    from cuda.bindings import nvrtc as here

    if version(here) != VERSION:
        raise SystemExit(
            f"expected NVRTC {VERSION[0]}.{VERSION[1]}, got {version(here)}; see the top of this file"
        )
    PTX.write_text(compiled(here))
