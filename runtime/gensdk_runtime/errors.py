"""Every error that gensdk raises on purpose.

::

    GensdkError                    exit code 1
    ├── InputError (ValueError)    5   an argument, a label, an image or a data file is not what is needed
    ├── BundleError                3   a bundle can't be opened or written
    │   ├── ManifestError          3   its manifest is not what this version understands
    │   └── IntegrityError         3   a file of it is missing, altered, or reaches outside
    ├── BackendError               4   a backend failed while it loaded or ran a graph
    │   ├── UnavailableError       4   a backend, package or device is missing here (the remedy is in the text)
    │   └── OutOfMemoryError       4   memory does not suffice for a run
    ├── TrainingError              6   training can't start or go on
    ├── ExportError                7   a model can't be exported
    └── CheckFailedError           1   a check that was asked for did not hold (verify, bench --fail-on)

Each message says in one line what was expected, what came, and what to do. `exit_code` is what the command
line returns. Click's own usage errors return 2.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from typing import ClassVar

from gensdk_runtime.printable import printable

_OWN = (
    "gensdk",
    "gensdk_runtime",
    "gensdk_training",
    "gensdk_export",
    "contextlib",
)  # contextlib: between a ``with`` of ours and its body
MAX_LISTED = 20
"""Names that an error message lists; a model may have a thousand classes."""


class GensdkError(Exception):
    """Root of all errors raised on purpose; catch it to catch them all.

    A message is one printable line, whatever names of files it quotes.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(each) if isinstance(each, str) else each for each in args))


class GensdkWarning(UserWarning):
    """Something was done otherwise than asked, or than a caller would expect, and went on; the text says what.

    The one way in which gensdk says such things in Python (``warnings.filterwarnings`` turns them off, or into
    errors); on the command line each is a line on stderr.
    """


class InputError(GensdkError, ValueError):
    """A value that the caller passed can't be used."""

    exit_code = 5


class BundleError(GensdkError):
    """A bundle can't be opened or written."""

    exit_code = 3


class ManifestError(BundleError):
    """The manifest is not valid, or of a newer schema than this version reads."""


class IntegrityError(BundleError):
    """A file of the bundle is missing, altered, too large, or reaches outside the bundle."""


class BackendError(GensdkError):
    """A backend failed to load or run a graph."""

    exit_code = 4


class UnavailableError(BackendError):
    """A package, execution provider or device is missing; the message names the remedy."""


class OutOfMemoryError(BackendError):
    """A run takes more memory than there is, or than was allowed; smaller batches may fit."""


class TrainingError(GensdkError):
    """Training can't start or go on."""

    exit_code = 6


class ExportError(GensdkError):
    """A model can't be exported, or the export does not equal the original."""

    exit_code = 7


class CheckFailedError(GensdkError):
    """A check that the caller asked for did not hold."""

    exit_code = 1


def not_finite(what: str, backend: str, precision: str) -> BackendError:
    """The error of results that came out NaN or infinite; `what`: how many of which."""
    remedy = "look at what it was given" if precision == "fp32" else "use precision='fp32' meanwhile"
    return BackendError(
        f"{what} came out NaN or infinite ({backend}, {precision}); run gensdk verify, and {remedy}"
    )


def tell(message: str, category: type[UserWarning] = GensdkWarning) -> None:
    """Warns with a :class:`GensdkWarning`, or another `category`, that points to the line outside of gensdk that
    called."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def did_you_mean(given: str, known: Iterable[str], *, listed: Iterable[str] | None = None) -> str:
    """Ends an error message: ``; did you mean 'x'?``, or the list of what is known when nothing is near; `listed`:
    in its place, where not all of it belongs there."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    if near:
        swapped = (name for name in near if sorted(name) == sorted(given))
        return f"; did you mean '{next(swapped, near[0])}'?"
    names = names if listed is None else sorted(listed)
    if len(names) > MAX_LISTED:
        names = [*names[:MAX_LISTED], f"and {len(names) - MAX_LISTED} more"]
    return f"; known: {', '.join(names)}" if names else "; none is known"
