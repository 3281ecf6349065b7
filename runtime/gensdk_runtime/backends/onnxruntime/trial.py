"""Tries an execution provider in a process of its own: what it lists and its libraries promise may not be so.

``python -m gensdk_runtime.backends.onnxruntime.trial PROVIDER`` opens the smallest graph there is and runs it, as
it is and over buffers that stay, as samplers do.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gensdk_runtime.backends.chain import Link
from gensdk_runtime.backends.onnxruntime.memory import IDENTITY
from gensdk_runtime.backends.onnxruntime.package import one_line
from gensdk_runtime.errors import BackendError, GensdkError, UnavailableError
from gensdk_runtime.host.child_process import Limits, death, run_module
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

MODULE = "gensdk_runtime.backends.onnxruntime.trial"
SECONDS = 120.0
"""The first start of CUDA may compile kernels for a new GPU."""
_RAN = "ran"


@dataclass(frozen=True)
class _Bytes:
    data: bytes
    path: Path | None = None

    def read(self) -> bytes:
        return self.data


def trial_link(provider: str) -> Link:
    """Whether a session really runs on `provider`, and if not, why."""
    again = "try it alone, and read what it prints: python -m " + f"{MODULE} {provider}"
    try:
        done = run_module(MODULE, provider, timeout=SECONDS, limits=Limits(memory=None))
    except UnavailableError as failure:
        return Link("session", None, str(failure))
    except TimeoutError:
        return Link("session", False, f"it did not start within {SECONDS:.0f} s", again)
    if done.output.strip().endswith(_RAN):
        return Link("session", True, "a graph ran")
    said = [line for line in done.errors.splitlines() if line.strip()]
    causes = [line for line in said if "with error: " in line] or said[-1:]
    return Link("session", False, one_line(Exception(causes[0])) if causes else death(done.code), again)


def run_trial(provider: str) -> None:
    """Opens and runs the graph; :class:`GensdkError` where that fails."""
    from gensdk_runtime.backends import create_backend

    tensors = [TensorSpec(name=name, dtype="float32", shape=(1,), role="state") for name in ("x", "y")]
    graph = GraphSpec(name="g", inputs=(tensors[0],), outputs=(tensors[1],))
    with create_backend(f"onnxruntime:{provider}").open(graph, _Bytes(IDENTITY), precision="fp32") as session:
        session.run({"x": np.zeros(1, np.float32)})
        with session.bound({}) as bound:
            bound.overwrite("x")[...] = 1.0
            bound.run()
            if bound.output("y")[0] != 1.0:
                raise BackendError(f"expected 1 from a graph over its own buffers, got {bound.output('y')[0]}")


def main(provider: str) -> None:
    """The child: says that it ran, or why not."""
    try:
        run_trial(provider)
    except GensdkError as failure:
        sys.exit(f"{failure}")
    print(_RAN)


if __name__ == "__main__":
    main(*sys.argv[1:])
