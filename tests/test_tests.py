"""Every test asserts something, in each of its cases; and the check that says so finds what doesn't."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from textwrap import dedent, indent

import pytest

from support.assertion_paths import TESTS, Suite, complaints

FILES = sorted((*TESTS.rglob("test_*.py"), *TESTS.rglob("conftest.py")))
suite = functools.cache(Suite)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_each_test_asserts_on_each_of_its_paths(path: Path) -> None:
    assert not complaints(path, suite())


NO_ASSERTION = "may end without an assertion"
MAY_BE_EMPTY = r"may end without an assertion \(the loop at line \d+ may be empty\)"

WRONG = {
    "if case: return\nassert case": "returns at line",
    "assert case\nif case: return\nassert not case": "returns at line",
    "if case: pytest.skip('no such case')\nassert case": "skips at line",
    "if case: assert case": NO_ASSERTION,
    "if case: assert case\nelse: case.close()": NO_ASSERTION,
    "for one in case: assert one": MAY_BE_EMPTY,
    "for one in range(len(case)): assert one": MAY_BE_EMPTY,
    "for one in zip(case, case): assert one": MAY_BE_EMPTY,
    "for one in (1, 2):\n  if case: continue\n  assert one": NO_ASSERTION,
    "for one in (1, 2):\n  if case: break\n  assert one": NO_ASSERTION,
    "for one in [one for one in (1, 2) if case]: assert one": MAY_BE_EMPTY,
    "numbers = [1]\nnumbers = case\nfor one in numbers: assert one": MAY_BE_EMPTY,
    "while case: assert case.pop()": MAY_BE_EMPTY,
    "with suppress(OSError): assert case": NO_ASSERTION,
    "try: assert case\nexcept OSError: pass": NO_ASSERTION,
    "def inner(): assert case": NO_ASSERTION,
    "case.map(lambda one: pytest.fail())": NO_ASSERTION,
    "made = make(case)": NO_ASSERTION,
    "assert isinstance(case, int)": NO_ASSERTION,
    "assert case is not None": NO_ASSERTION,
    "subprocess.run([case])": NO_ASSERTION,
    "match case:\n  case 1: assert case": NO_ASSERTION,
    "opened.read()": NO_ASSERTION,
}
RIGHT = [
    "assert case",
    "if case: assert case\nelse: assert not case",
    "if not case: pytest.fail()",
    "if not case: raise AssertionError('no case')",
    "with pytest.raises(OSError): case()",
    "with open(case) as file: assert file",
    "for one in (1, 2): assert one == case",
    "for one in ONES: assert one",
    "for one, other in enumerate(sorted(ONES)): assert one",
    "for one, other in zip(case, ONES, strict=True): assert one",
    "for name, one in {'a': 1}.items(): assert one",
    "for one in range(COUNT): assert one",
    "for one in [one + 1 for one in ONES]: assert one",
    "first, second = 2, 3\nfor one in range(second): assert one",
    "assert case.items\nfor one in case.items: assert one",
    "while True:\n  assert case\n  break",
    "np.testing.assert_allclose(case, 1)",
    "holds(case)",
    "verb(case)",
    "subprocess.run([case], check=True)",
    "try: case()\nexcept OSError: pass\nexcept Exception: pytest.fail()",
    "try: found = case()\nfinally: case.close()\nassert found",
    "def inner(): assert case\ninner()",
    "match case:\n  case 1: assert case\n  case _: pytest.fail()",
    "data.draw(case)\nassert data",
]
AROUND = """
    ONES, COUNT = [1, 2], 3

    def holds(case):
        if not case:
            raise ValueError
        assert case.holds

    def make(case):
        assert case.fits
        return case

    @pytest.fixture
    def verb():
        def call(case):
            assert case
            return 0
        return call

    @pytest.fixture
    def opened():
        assert holds
        return holds

    @pytest.mark.parametrize("case", [1, 2])
    def test_it(case, verb, opened):
"""


def said_of(folder: Path, body: str) -> list[str]:
    """The complaints about a test with these lines, in a suite of this file alone."""
    path = folder / "test_it.py"
    path.write_text(dedent(AROUND) + indent(body, "    "))
    return complaints(path, Suite(folder))


@pytest.mark.parametrize("body", WRONG)
def test_what_may_assert_nothing_is_found(tmp_path: Path, body: str) -> None:
    assert any(re.search(WRONG[body], line) for line in said_of(tmp_path, body))


@pytest.mark.parametrize("body", RIGHT)
def test_what_asserts_is_let_be(tmp_path: Path, body: str) -> None:
    assert not said_of(tmp_path, body)


def test_a_fixture_skips_no_case_of_its_own(tmp_path: Path) -> None:
    fixture = """
        @pytest.fixture(params=[1, 2])
        def number(request):
            if request.param == 2:
                pytest.skip("not this one")
            return request.param
    """
    (tmp_path / "conftest.py").write_text(dedent(fixture))
    (found,) = complaints(tmp_path / "conftest.py", Suite(tmp_path))
    assert "number: skips by its parameter" in found


def test_what_asserts_is_known_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "support").mkdir()
    (tmp_path / "support/laws.py").write_text("CASES = [1]\ndef law(case):\n    assert case\n")
    path = tmp_path / "test_it.py"
    path.write_text(
        "from support.laws import CASES, law as checked\n"
        "def test_one():\n    checked(1)\n"
        "def test_two():\n    for case in CASES:\n        checked(case)\n"
        "def test_three():\n    law(1)\n"
    )
    (found,) = complaints(path, Suite(tmp_path))
    assert "test_three" in found
