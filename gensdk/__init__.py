"""gensdk: generative models in applications, without PyTorch.

::

    from gensdk import Generator

    with Generator.load("digits-ddpm") as generator:
        generator.sample(64, seed=0, label=7).save("grid.png")
"""

from gensdk_runtime.bundle import Bundle
from gensdk_runtime.errors import (
    BackendError,
    BundleError,
    CheckFailed,
    ExportError,
    GensdkError,
    InputError,
    IntegrityError,
    ManifestError,
    TrainingError,
    UnavailableError,
)
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.programs.base import StepEnd
from gensdk_runtime.samples import Samples, Timings
from gensdk_runtime.version import __version__

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckFailed",
    "ExportError",
    "Generator",
    "GensdkError",
    "InputError",
    "IntegrityError",
    "ManifestError",
    "SampleKey",
    "Samples",
    "StepEnd",
    "Timings",
    "TrainingError",
    "UnavailableError",
    "__version__",
]
