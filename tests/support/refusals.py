"""What a reader of hostile input may do: go through, or refuse in one line by an error that it documents."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def refusal_of(call: Callable[[], object], *errors: type[Exception], what: str = "it") -> str:
    """The printable line in which `call` refuses by one of `errors`; empty where it goes through.

    Whatever else it raises fails the test, and so does an error that says nothing; `what` tells where.
    """
    said = None
    try:
        call()
    except errors as refused:
        said = str(refused)
    except Exception as raw:
        pytest.fail(f"{what}: {type(raw).__name__}: {raw}")
    assert said != "", f"{what} is refused without a word"
    assert said is None or said.isprintable(), f"{what}: {said!r}"
    return said or ""
