"""From what callers pass to tokens: texts through the vocabulary of a model, and arrays of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import any_array
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.errors import InputError, ManifestError, tell
from gensdk_runtime.printable import printable
from gensdk_runtime.text.vocabulary import MAX_BYTES, NAMED, Encoded, Vocabulary, read_vocabulary

Int64 = NDArray[np.int64]


def vocabulary_in(files: ModelFiles, file: str, size: int) -> Vocabulary:
    """The vocabulary in a `file` of a model whose manifest promises `size` tokens; :class:`ManifestError` where it
    has others, and BundleError or :class:`InputError` where there is none."""
    vocabulary = read_vocabulary(files.read(file, limit=MAX_BYTES), what=f"{files.path}: {file!r}")
    if vocabulary.size != size:
        raise ManifestError(
            f"{files.path}: {file!r} has {vocabulary.size} tokens, the manifest says {size}; export the bundle "
            "again"
        )
    return vocabulary


def at_hand(vocabulary: Vocabulary | None, file: str) -> Vocabulary:
    """`vocabulary` itself; :class:`InputError` where the generator was made without its `file`."""
    if vocabulary is None:
        raise InputError(
            f"this model has no {file!r} at hand, so its tokens say nothing; load its bundle, or give "
            "Generator.from_sessions the file"
        )
    return vocabulary


def tell_unknown(encoded: Sequence[Encoded]) -> None:
    """Warns of pieces of texts that the vocabulary does not know, by their number and the first of them."""
    unknown = [piece for each in encoded for piece in each.unknown]
    if unknown:
        count = sum(len(each.tokens) for each in encoded)
        named = ", ".join(repr(printable(piece)[:40]) for piece in list(dict.fromkeys(unknown))[:NAMED])
        more = ", ..." if len(set(unknown)) > NAMED else ""
        tell(f"{len(unknown)} of {count} tokens are unknown to the model ({named}{more}); they all count as one")


def entries_of(given: Any, wanted: str) -> Sequence[Any] | NDArray[Any]:
    """A text or a row of tokens for each sample, not yet looked at, or all tokens as one array of two axes.

    From a str, a list, or an array of either. :class:`InputError` for what is none, in which `wanted` says what
    is expected.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, list | tuple):
        return given
    if not hasattr(type(given), "__array__"):
        raise none_such(given, wanted)
    array = any_array(given, "texts")
    if array.ndim == 1 and array.dtype.kind in "UTO":
        return list(array.tolist())
    if array.ndim != 2:
        raise none_such(array, wanted)
    return array


def none_such(got: Any, wanted: str) -> InputError:
    """What is said of neither texts nor tokens."""
    kind = f"{got.dtype} {list(got.shape)}" if isinstance(got, np.ndarray) else type(got).__name__
    return InputError(f"expected {wanted}, got {kind}")


def check_range(tokens: NDArray[np.integer], size: int) -> None:
    """:class:`InputError` for tokens that are none of `size`."""
    if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) >= size):
        raise InputError(f"expected tokens from 0 to {size - 1}, got others")


def filled(rows: Sequence[Sequence[int] | Int64], length: int, fill: int) -> Int64:
    """Rows of tokens as int64 [n, `length`], with `fill` behind the shorter ones."""
    tokens = np.full((len(rows), length), fill, np.int64)
    for place, row in zip(tokens, rows, strict=True):
        place[: len(row)] = row
    return tokens
