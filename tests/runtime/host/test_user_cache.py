"""The user's cache: private, or refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_runtime.host.user_cache import cache_folder
from support.another_os import LINUX, MACOS, WINDOWS

posix = pytest.mark.skipif(WINDOWS, reason="POSIX permissions")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_folders_are_made_for_this_user_alone(cache: Path) -> None:
    folder = cache_folder("engines", "v1")
    assert folder == cache / "engines" / "v1" == cache_folder("engines", "v1")
    assert cache_folder() == cache
    if not WINDOWS:
        assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent, cache)} == {0o700}


@posix
def test_a_loose_umask_changes_nothing() -> None:
    before = os.umask(0)
    try:
        assert stat.S_IMODE(cache_folder("tuning").stat().st_mode) == 0o700
    finally:
        os.umask(before)


@posix
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o702])
@pytest.mark.parametrize("level", ["cache", "engines"])
def test_a_folder_that_others_may_write_is_refused(cache: Path, mode: int, level: str) -> None:
    folder = cache_folder("engines")
    (cache if level == "cache" else folder).chmod(mode)
    with pytest.raises(UnavailableError, match=r"others may write.*chmod 700"):
        cache_folder("engines")


@posix
def test_another_users_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_folder()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UnavailableError, match="belongs to another user"):
        cache_folder()


@posix
def test_a_link_counts_as_what_it_points_to(cache: Path, tmp_path: Path) -> None:
    own, loose = tmp_path / "own", tmp_path / "loose"
    own.mkdir(0o700)
    loose.mkdir(0o700)
    loose.chmod(0o777)
    cache_folder()
    (cache / "a").symlink_to(own)
    (cache / "b").symlink_to(loose)
    (cache / "c").symlink_to(tmp_path / "nowhere")
    assert cache_folder("a") == cache / "a"
    for name in ("b", "c"):
        with pytest.raises(UnavailableError):
            cache_folder(name)


def test_a_file_in_the_way_is_one_line(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("")
    with pytest.raises(UnavailableError, match="can't be made") as failure:
        cache_folder("engines")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a\\b", "C:", "a\0"])
def test_no_path_leads_out(part: str) -> None:
    with pytest.raises(InputError, match="plain names"):
        cache_folder("engines", part)


@pytest.mark.skipif(not WINDOWS, reason="where the cache lies elsewhere")
def test_the_place_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSDK_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache_folder("x") == tmp_path / "AppData" / "Local" / "gensdk" / "x"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "own"))
    assert cache_folder("x") == tmp_path / "own" / "gensdk" / "x"


@pytest.mark.skipif(not MACOS, reason="where the cache lies elsewhere")
def test_the_place_on_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSDK_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of another system"))
    assert cache_folder("x") == tmp_path / "Library" / "Caches" / "gensdk" / "x"


@pytest.mark.skipif(not LINUX, reason="where the cache lies elsewhere")
def test_the_place_on_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSDK_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder("x") == tmp_path / ".cache" / "gensdk" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder("x") == tmp_path / "own" / "gensdk" / "x"
