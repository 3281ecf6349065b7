"""Packages that bring something, as pip lays them out: broken ones, and two that bring the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gensdk_runtime.backends import get_backend
from gensdk_runtime.errors import GensdkWarning, InputError, UnavailableError
from gensdk_runtime.host.installed import load_entry_point, load_entry_points
from gensdk_runtime.spec.kinds import CONDITIONS, OUTPUTS, PROGRAMS
from gensdk_runtime.spec.options import parse_options

GROUP = "gensdk.programs"
BROKEN = {
    "an import": "import nothing_of_this_name",
    "syntax": "def (",
    "the end of the process": "raise SystemExit(3)",
    "two lines": "raise ValueError('one\\ntwo')",
    "depth": "def deeper(): deeper()\ndeeper()",
}
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package with one module, which brings `brought` for a group."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def put(package: str, module: str, body: str = "", *, brought: str = "odd", group: str = GROUP) -> None:
        (tmp_path / f"{module}.py").write_text(body)
        information = tmp_path / f"{package}-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[{group}]\n{brought} = {module}\n")

    yield put
    for name in set(sys.modules) - before:
        if name.startswith("brings_"):
            del sys.modules[name]


ASKED: dict[str, Callable[[str], object]] = {
    "gensdk.backends": get_backend,
    "gensdk.outputs": lambda kind: OUTPUTS.read({"kind": kind}),
    "gensdk.conditions": lambda kind: CONDITIONS.read({"kind": kind}),
    "gensdk.programs": lambda kind: PROGRAMS.read({"kind": kind}),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("group", ASKED)
def test_a_package_that_cant_be_loaded_is_named_in_one_line(group: str, fault: str, install: Install) -> None:
    install("oddities", "brings_nothing", BROKEN[fault], group=group)
    with pytest.raises(UnavailableError, match=rf"the package oddities, .* 'odd' \({group}\), can't be") as caught:
        ASKED[group]("odd")
    assert "\n" not in str(caught.value)


def test_one_broken_package_does_not_hide_the_others(install: Install) -> None:
    install("oddities", "brings_nothing", BROKEN["syntax"])
    install("evens", "brings_something", brought="even")
    with pytest.warns(GensdkWarning, match="oddities, which brings 'odd'"):
        load_entry_points(GROUP)
    assert "brings_something" in sys.modules
    with (
        pytest.warns(GensdkWarning, match="can't be loaded"),
        pytest.raises(InputError, match="no option 'num_inference_stepz'; did you mean 'num_inference_steps'"),
    ):
        parse_options(["num_inference_stepz=3"], ["diffusion"])


def test_two_packages_that_bring_the_same_are_an_error(install: Install) -> None:
    """What a bundle means can't depend on the order of folders."""
    install("oddities", "brings_one")
    install("rarities", "brings_another")
    with pytest.raises(UnavailableError, match=r"oddities and rarities both bring 'odd'.*uninstall one"):
        load_entry_point(GROUP, "odd")
    assert not {"brings_one", "brings_another"} & set(sys.modules)


def test_a_package_in_two_folders_is_one(
    install: Install, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("oddities", "brings_older")
    newer = tmp_path_factory.mktemp("newer")
    information = newer / "oddities-2.dist-info"
    information.mkdir()
    (newer / "brings_newer.py").write_text("")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: oddities\nVersion: 2\n")
    (information / "entry_points.txt").write_text(f"[{GROUP}]\nodd = brings_newer\n")
    monkeypatch.syspath_prepend(newer)
    assert load_entry_point(GROUP, "odd")
    assert "brings_newer" in sys.modules
    assert "brings_older" not in sys.modules


def test_nothing_is_loaded_where_no_package_brings_it() -> None:
    assert not load_entry_point(GROUP, "odd")
