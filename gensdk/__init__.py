"""gensdk: generative models in applications, without PyTorch.

::

    from gensdk import Generator

    with Generator.load("digits-ddpm") as generator:
        generator.sample(64, seed=0, label=7).save("grid.png")

Names are loaded when they are first used, so that importing gensdk costs an application next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gensdk_runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from gensdk_runtime.bundles.bundle import Bundle as Bundle
    from gensdk_runtime.errors import BackendError as BackendError
    from gensdk_runtime.errors import BundleError as BundleError
    from gensdk_runtime.errors import CheckFailedError as CheckFailedError
    from gensdk_runtime.errors import ExportError as ExportError
    from gensdk_runtime.errors import GensdkError as GensdkError
    from gensdk_runtime.errors import GensdkWarning as GensdkWarning
    from gensdk_runtime.errors import InputError as InputError
    from gensdk_runtime.errors import IntegrityError as IntegrityError
    from gensdk_runtime.errors import ManifestError as ManifestError
    from gensdk_runtime.errors import TrainingError as TrainingError
    from gensdk_runtime.errors import UnavailableError as UnavailableError
    from gensdk_runtime.generator import Generator as Generator
    from gensdk_runtime.media.music.notes import Music as Music
    from gensdk_runtime.media.music.notes import Note as Note
    from gensdk_runtime.methods.inversion import Detection as Detection
    from gensdk_runtime.methods.inversion import Inversion as Inversion
    from gensdk_runtime.noise import SampleKey as SampleKey
    from gensdk_runtime.programs.run import StepEnd as StepEnd
    from gensdk_runtime.samples import Samples as Samples
    from gensdk_runtime.samples import Timings as Timings
    from gensdk_runtime.spec.settings import AscentSettings as AscentSettings
    from gensdk_runtime.spec.settings import DiffusionSettings as DiffusionSettings
    from gensdk_runtime.spec.settings import SampleOptions as SampleOptions
    from gensdk_runtime.stream import StreamOptions as StreamOptions
    from gensdk_runtime.stream import StreamReport as StreamReport
    from gensdk_runtime.stream import translate_stream as translate_stream

_HOMES = {
    "bundles.bundle": ("Bundle",),
    "errors": (
        "BackendError",
        "BundleError",
        "CheckFailedError",
        "ExportError",
        "GensdkError",
        "GensdkWarning",
        "InputError",
        "IntegrityError",
        "ManifestError",
        "TrainingError",
        "UnavailableError",
    ),
    "generator": ("Generator",),
    "media.music.notes": ("Music", "Note"),
    "methods.inversion": ("Detection", "Inversion"),
    "noise": ("SampleKey",),
    "programs.run": ("StepEnd",),
    "samples": ("Samples", "Timings"),
    "spec.settings": ("AscentSettings", "DiffusionSettings", "SampleOptions"),
    "stream": ("StreamOptions", "StreamReport", "translate_stream"),
}
_HOME_OF = {name: f"gensdk_runtime.{module}" for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604 - the names of _HOMES


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gensdk' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
