"""The engine cache: one good entry, whatever happens to the folder, the file or the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gensdk_runtime.backends.tensorrt import cache as cache_module
from gensdk_runtime.backends.tensorrt.cache import EngineCache, EngineCacheWarning, key_of
from gensdk_runtime.errors import InputError
from support.another_os import WINDOWS
from support.engine_building import build_for_real, build_slowly

posix = pytest.mark.skipif(WINDOWS, reason="POSIX")
CONTEXT = multiprocessing.get_context("spawn")
IDENTITY = {"graph": "a" * 64, "version": "1.7.1", "profile": {"z": [[1, 2], [8, 2], [64, 2]]}}
DATA = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    folder = tmp_path / "engines"
    folder.mkdir()
    return EngineCache(folder)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """A message where none is due is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def entry(cache: EngineCache, identity: dict[str, Any] | None = None) -> Path:
    assert cache.folder is not None
    return cache.folder / f"{key_of(identity or IDENTITY)}.engine"


def never() -> bytes:
    raise AssertionError("it was to be found")


def test_what_was_built_is_found(cache: EngineCache) -> None:
    first = cache.fetch(IDENTITY, lambda: DATA)
    assert (first.data, first.fresh) == (DATA, True)
    again = EngineCache(cache.folder).fetch(dict(reversed(IDENTITY.items())), never)
    assert (again.data, again.fresh) == (DATA, False)
    assert [path.name for path in entry(cache).parent.iterdir()] == [entry(cache).name]


@pytest.mark.parametrize("change", [{"graph": "b" * 64}, {"version": "1.7.2"}, {"profile": {}}, {"driver": 13000}])
def test_everything_in_the_identity_counts(cache: EngineCache, change: dict[str, Any]) -> None:
    cache.put(IDENTITY, DATA)
    assert cache.get({**IDENTITY, **change}) is None


def damage() -> dict[str, tuple[Callable[[bytes], bytes], str]]:
    other = {**IDENTITY, "version": "1.6.0"}

    def flipped(place: int) -> Callable[[bytes], bytes]:
        return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return {
        "last byte": (flipped(-1 % (len(DATA))), "damaged"),
        "content": (flipped(600), "damaged"),
        "identity": (flipped(100), "damaged"),
        "checksum": (flipped(20), "damaged"),
        "magic": (flipped(3), "another version of gensdk"),
        "truncated": (lambda data: data[:-1], "damaged"),
        "header alone": (lambda data: data[:30], "damaged"),
        "empty": (lambda data: b"", "another version of gensdk"),
        "longer": (lambda data: data + b"x", "damaged"),
        "foreign": (lambda data: cache_module._header(other, DATA) + DATA, "version '1.6.0', wanted '1.7.1'"),
    }


@pytest.mark.parametrize("kind", damage())
def test_a_bad_entry_is_said_and_built_again(cache: EngineCache, kind: str) -> None:
    change, message = damage()[kind]
    cache.put(IDENTITY, DATA)
    path = entry(cache)
    path.write_bytes(change(path.read_bytes()))
    with pytest.warns(EngineCacheWarning, match=message) as said:
        fetched = cache.fetch(IDENTITY, lambda: DATA)
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    assert (fetched.data, fetched.fresh) == (DATA, True)
    assert cache.get(IDENTITY) == DATA


@posix
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_read(cache: EngineCache, tmp_path: Path, kind: str) -> None:
    path = entry(cache)
    if kind == "link":
        cache.put(IDENTITY, DATA)
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.warns(EngineCacheWarning, match="is not used"):
        assert cache.get(IDENTITY) is None


def test_a_build_that_fails_leaves_nothing(cache: EngineCache) -> None:
    def fail() -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.fetch(IDENTITY, fail)
    assert not list(entry(cache).parent.iterdir())
    assert cache.fetch(IDENTITY, lambda: DATA).fresh


def test_the_least_recently_used_go(cache: EngineCache) -> None:
    small = EngineCache(cache.folder, limit=3 * (len(DATA) + 400))
    identities = [{"graph": str(i)} for i in range(4)]
    for age, identity in enumerate(identities[:3]):
        small.put(identity, DATA)
        os.utime(entry(small, identity), (1000 + age, 1000 + age))
    assert small.get(identities[0]) == DATA  # used: now it is the youngest
    small.put(identities[3], DATA)
    assert [small.get(identity) is not None for identity in identities] == [True, False, True, True]


def test_what_is_larger_than_the_limit_is_not_kept(cache: EngineCache) -> None:
    small = EngineCache(cache.folder, limit=1000)
    small.put({"graph": "small"}, b"x")
    with pytest.warns(EngineCacheWarning, match="over the cache's limit of 1000; set GENSDK_CACHE_LIMIT"):
        small.put(IDENTITY, DATA)
    assert small.get({"graph": "small"}) == b"x"


@pytest.mark.parametrize(
    ("text", "size"), [("", 4 * 2**30), ("1000", 1000), ("2G", 2**31), ("500MiB", 500 * 2**20), ("1 TB", 2**40)]
)
def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("GENSDK_CACHE_LIMIT", text)
    assert EngineCache().limit == size


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "1e9", "9" * 30])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GENSDK_CACHE_LIMIT", text)
    with pytest.raises(InputError, match="GENSDK_CACHE_LIMIT"):
        EngineCache()


@posix
def test_without_a_folder_everything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("GENSDK_CACHE", str(shared))
    with pytest.warns(EngineCacheWarning, match=r"engines are not kept: others may write"):
        cache = EngineCache()
    for _ in range(2):
        assert cache.fetch(IDENTITY, lambda: DATA).fresh
    assert not list(shared.iterdir())


def test_a_folder_that_is_gone_is_said(cache: EngineCache, tmp_path: Path) -> None:
    """As one on a full or read-only disk: building goes on, nothing is kept."""
    entry(cache).parent.rmdir()
    with pytest.warns(EngineCacheWarning, match="can't be kept"):
        assert cache.fetch(IDENTITY, lambda: DATA).data == DATA


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said(cache: EngineCache) -> None:
    entry(cache).parent.chmod(0o500)
    with pytest.warns(EngineCacheWarning, match="can't be kept"):
        assert cache.fetch(IDENTITY, lambda: DATA).data == DATA
    entry(cache).parent.chmod(0o700)


def test_an_entry_that_came_before_the_lock_is_taken(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process builds and lets go between the first look and the lock."""
    locked = EngineCache._locked

    def late(self: EngineCache, *args: Any) -> Any:
        EngineCache(self.folder).put(IDENTITY, DATA)
        return locked(self, *args)

    monkeypatch.setattr(EngineCache, "_locked", late)
    assert not cache.fetch(IDENTITY, never).fresh


def test_of_two_processes_one_builds(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = (cache.folder, IDENTITY, DATA, log, 0.5)
    both = [CONTEXT.Process(target=build_slowly, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text() == "built\n"
    assert [path.name for path in entry(cache).parent.iterdir()] == [entry(cache).name]


@posix
def test_a_killed_builder_leaves_no_lock(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = CONTEXT.Process(target=build_slowly, args=(cache.folder, IDENTITY, DATA, log, 600))
    killed.start()
    while not log.exists():
        assert killed.is_alive()
        time.sleep(0.02)
    waits: list[int] = []

    def on_wait() -> None:
        if not waits:
            os.kill(killed.pid, signal.SIGKILL)
        waits.append(1)

    fetched = cache.fetch(IDENTITY, lambda: DATA, on_wait=on_wait)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert waits
    assert fetched.fresh
    assert [path.name for path in entry(cache).parent.iterdir()] == [entry(cache).name]


def test_of_two_processes_one_builds_the_real_engine(cache: EngineCache) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    barrier, told = CONTEXT.Barrier(2), CONTEXT.SimpleQueue()
    both = [CONTEXT.Process(target=build_for_real, args=(cache.folder, barrier, told)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    one, other = told.get(), told.get()
    assert {one[0], other[0]} == {True, False}  # one built, the other took it
    assert one[1] == other[1]
    assert len(list(entry(cache).parent.iterdir())) == 1
