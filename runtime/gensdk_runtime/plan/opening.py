"""Opens what a :class:`Choice` names."""

from __future__ import annotations

from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, InputError
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.origin import still_open
from gensdk_runtime.plan.runner import Runner, open_runner
from gensdk_runtime.spec.fields import Precision


def open_choice(bundle: Bundle, choice: Choice, precision: Precision) -> Runner:
    """The graphs of `bundle` as `choice` runs them. Raises :class:`BackendError` where that can't be."""
    try:
        backend = create_backend(choice.backend, threads=choice.threads, spinning=choice.spinning)
    except InputError as failure:  # a backend or provider that this version does not know
        raise BackendError(str(failure)) from None
    with still_open(bundle) as files:
        return open_runner(files, backend, precision, form=choice.form)
