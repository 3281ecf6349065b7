"""What a reader of hostile input may do: go through, or refuse in one line by an error that it documents."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def refusal_of(call: Callable[[], object], *errors: type[Exception]) -> str:
    """The printable line in which `call` refuses by one of `errors`; empty where it goes through.

    Whatever else it raises fails the test.
    """
    said = ""
    try:
        call()
    except errors as refused:
        said = str(refused)
        assert said
    except Exception as raw:
        pytest.fail(f"{type(raw).__name__} instead of a refusal: {raw}")
    assert said.isprintable()
    return said
