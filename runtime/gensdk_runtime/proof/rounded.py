"""How far a bundle drifts where its backend may round: what ``verify`` reports beside the exact replay.

TensorRT decides on rounding for a process as a whole, so there the replay is done in another one:
``python -m gensdk_runtime.proof.rounded BUNDLE BACKEND BOUNDS``.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import GensdkError, UnavailableError
from gensdk_runtime.host.child_process import Limits, run_module
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.proof.golden import Golden, GoldenBounds
from gensdk_runtime.proof.verify import Check, load_golden, replay

MODULE = "gensdk_runtime.proof.rounded"
SECONDS = 900.0
"""For another process, which may have to build engines anew."""
ALLOWED = {"NVIDIA_TF32_OVERRIDE": "1"}
"""What the other process is told; this one may have forbidden it to itself."""

_CHECKS = TypeAdapter(tuple[Check, ...])


def replay_rounded(bundle: Bundle, backend: Backend, golden: Golden, bounds: GoldenBounds) -> tuple[Check, ...]:
    """The checks of `golden` on `backend` where it may round; none where it has no such thing, or can't here."""
    less_exact = backend.rounding()
    if less_exact is None:
        return ()
    try:
        return _replay(bundle, less_exact, golden, bounds)
    except UnavailableError:
        return _replay_elsewhere(bundle, less_exact.label, bounds)


def _replay(bundle: Bundle, backend: Backend, golden: Golden, bounds: GoldenBounds) -> tuple[Check, ...]:
    with closing(open_runner(bundle, backend, "fp32")) as runner:
        return replay(bundle.manifest.model, golden, runner.sessions, bounds).checks


def _replay_elsewhere(bundle: Bundle, label: str, bounds: GoldenBounds) -> tuple[Check, ...]:
    path = str(Path(bundle.path).absolute())
    how = {"timeout": SECONDS, "limits": Limits(memory=None), "environment": ALLOWED}
    try:
        done = run_module(MODULE, path, label, bounds.model_dump_json(), **how)  # type: ignore[arg-type]
        return _CHECKS.validate_python(json.loads(done.output.strip().rpartition("\n")[2]))
    except (UnavailableError, TimeoutError, ValidationError, ValueError):
        return ()


def main(path: str, label: str, bounds: str) -> None:
    """The child: prints the checks as one line of JSON."""
    try:
        with Bundle.open(path) as bundle:
            allowed = GoldenBounds.from_json(bounds, what="bounds")
            checks = _replay(bundle, create_backend(label), load_golden(bundle), allowed)
    except GensdkError as failure:
        sys.exit(f"{failure}")
    print(json.dumps([asdict(check) for check in checks]))


if __name__ == "__main__":
    main(*sys.argv[1:])
