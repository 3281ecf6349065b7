"""What a generator is loaded with: runners of the backend that the caller names, or of what measured fastest."""

from __future__ import annotations

from typing import Literal

from gensdk_runtime.arguments import check_word
from gensdk_runtime.backends import check_threads, create_backend
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.origin import still_open
from gensdk_runtime.plan.runner import Runner, open_runner
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.model import ModelSpec

PRECISIONS = ("fp32", "fp16", "auto")


def open_runners(
    bundle: Bundle, backend: str | Backend, precision: Precision | Literal["auto"], threads: int | None
) -> Runners:
    """Opens the graphs of `bundle`; the arguments, and what is raised, as for :meth:`Generator.load`."""
    check_word(precision, "precision", PRECISIONS)
    threads = check_threads(threads)
    chosen: object = backend  # callers without a type checker pass anything
    if not isinstance(chosen, str | Backend):
        kind = type(chosen).__name__
        raise InputError(f"expected backend as a name, such as 'auto' or 'onnxruntime', or a Backend, got {kind}")
    if backend == "auto":
        from gensdk_runtime.tuning.auto import auto_runners  # here: who names a backend needs none of it

        return auto_runners(bundle, precision, threads)
    if precision == "auto":
        raise InputError("precision='auto' is chosen by measurement; it needs backend='auto'")
    engine = backend if isinstance(backend, Backend) else create_backend(backend, threads=threads)
    if threads is not None and isinstance(backend, Backend):
        raise InputError("threads goes with the name of a backend; a Backend of your own sets its threads itself")

    def again(choice: Choice) -> Runner:
        fresh = create_backend(backend, threads=threads) if isinstance(backend, str) else backend
        with still_open(bundle) as files:
            return open_runner(files, fresh, precision)

    return Runners({Choice(backend=engine.name): open_runner(bundle, engine, precision)}, opener=again)


def described(bundle: Bundle) -> ModelSpec:
    """The bundle's model; one that translates images with what its graph says of tiles."""
    model = bundle.manifest.model
    if model.source is None:
        return model
    from gensdk_runtime.receptive_field.field import seen  # here: other models need none of it

    return seen(bundle)
