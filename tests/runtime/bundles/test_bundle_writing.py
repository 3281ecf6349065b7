"""Replacing bundles: what readers see meanwhile, and what a kill or a full disk leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gensdk_runtime.bundles import bundle as bundle_module
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BundleError, InputError, IntegrityError, ManifestError
from gensdk_runtime.host import atomic
from support.another_os import WINDOWS
from support.tiny_bundle import (
    GRAPH,
    content,
    lay_out,
    pack,
    tiny_files,
    tiny_manifest,
    tiny_onnx,
    tree,
)

as_zip = pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])


replaces_what_is_open = pytest.mark.skipif(WINDOWS, reason="an open bundle stands")


@pytest.fixture(params=["exchange", "two steps"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the system's exchange of paths, and without it."""
    if request.param == "two steps":
        monkeypatch.setattr(atomic, "_exchange", lambda new, target: False)
    return str(request.param)


@pytest.mark.skipif(not WINDOWS, reason="elsewhere an open bundle is replaced")
@as_zip
@pytest.mark.parametrize("before", [False, True], ids=["folder before", "zip before"])
def test_an_open_bundle_stands_where_open_files_are_not_replaced(
    tmp_path: Path, before: bool, as_zip: bool
) -> None:
    with write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(1.0), as_zip=before) as old:
        with pytest.raises(BundleError, match="on Windows close what has the old bundle open"):
            write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(2.0), as_zip=as_zip)
        assert {name: old.read(name) for name in old.manifest.files} == tiny_files(1.0)
    write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(2.0), as_zip=as_zip).close()
    assert content(tmp_path / "x") == tiny_files(2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@replaces_what_is_open
@pytest.mark.parametrize("before", [False, True], ids=["folder before", "zip before"])
@as_zip
def test_a_bundle_is_replaced_and_readers_keep_theirs(
    tmp_path: Path, swap: str, before: bool, as_zip: bool
) -> None:
    old = write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(1.0), as_zip=before)
    write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(2.0), as_zip=as_zip).close()
    assert content(tmp_path / "x") == tiny_files(2.0)
    assert {name: old.read(name) for name in old.manifest.files} == tiny_files(1.0)
    old.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@replaces_what_is_open
def test_a_bundle_is_rewritten_from_its_own_files(tmp_path: Path) -> None:
    with write_bundle(tmp_path / "x", tiny_manifest(), tiny_files()) as bundle:
        files = {name: bundle.path / name for name in bundle.manifest.files}
        write_bundle(bundle.path, bundle.manifest, {**files, "notes/more.txt": b"more"}).close()
    assert content(tmp_path / "x") == {**tiny_files(), "notes/more.txt": b"more"}


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(1.0)).close()
    (tmp_path / "latest").symlink_to("x")
    write_bundle(tmp_path / "latest", tiny_manifest(), tiny_files(2.0)).close()
    assert (tmp_path / "latest").is_symlink()
    assert content(tmp_path / "x") == tiny_files(2.0)


@as_zip
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, as_zip: bool) -> None:
    lay_out(tmp_path / "folder", {"thesis.tex": b"years"})
    (tmp_path / "file").write_bytes(b"years")
    pack(tmp_path / "archive.zip", {"thesis.tex": b"years"})
    before = tree(tmp_path)
    for name in ("folder", "file", "archive.zip", "folder/thesis.tex"):
        with pytest.raises(BundleError, match=r"won't replace a f.* that is no bundle"):
            write_bundle(tmp_path / name, tiny_manifest(), tiny_files(), as_zip=as_zip)
    with pytest.raises(BundleError, match=r"can't write|can be written"):
        write_bundle(tmp_path / "file" / "x", tiny_manifest(), tiny_files(), as_zip=as_zip)
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", tiny_manifest(), tiny_files(), as_zip=as_zip).close()
    assert content(tmp_path / "empty") == tiny_files()


@as_zip
@pytest.mark.parametrize(
    ("files", "error", "reason"),
    [
        ({"README.md": b"x"}, ManifestError, "is used but not listed"),
        ({**tiny_files(), "../x": b"x"}, InputError, "path '../x' is not"),
        ({**tiny_files(), "manifest.json": b"{}"}, InputError, "stands in the way"),
        ({**tiny_files(), f"{GRAPH}/x": b"x"}, InputError, "stands in the way"),
        ({**tiny_files(), "readme.md": b"x"}, InputError, "differ in case"),
        ({**tiny_files(), "empty": b""}, InputError, "'empty' is empty"),
        ({**tiny_files(), "gone": Path("/no/such/file")}, InputError, "which is no file"),
        ({**tiny_files(), GRAPH: tiny_onnx(output="other").SerializeToString()}, IntegrityError, "x: .*outputs"),
    ],
)
def test_what_cannot_be_packed_leaves_the_old_bundle(
    tmp_path: Path, as_zip: bool, files: dict[str, bytes], error: type[Exception], reason: str
) -> None:
    write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(1.0)).close()
    before = tree(tmp_path)
    with pytest.raises(error, match=reason):
        write_bundle(tmp_path / "x", tiny_manifest(), files, as_zip=as_zip)
    assert tree(tmp_path) == before


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB: writing more fails with OSError, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_disk")
@as_zip
def test_a_disk_that_is_full_leaves_the_old_bundle(tmp_path: Path, as_zip: bool) -> None:
    write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(1.0), as_zip=as_zip).close()
    before = tree(tmp_path)
    large = {**tiny_files(2.0), "large": bytes(200_000)}
    with pytest.raises(BundleError, match=r"can't write the bundle .*nothing was changed") as caught:
        write_bundle(tmp_path / "x", tiny_manifest(), large, as_zip=as_zip)
    assert str(caught.value).isprintable()
    assert tree(tmp_path) == before


def test_a_swap_that_fails_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(1.0)).close()
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(atomic, "_exchange", lambda new, target: False)
    with pytest.raises(BundleError, match="Permission denied"):
        write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(2.0))
    assert content(tmp_path / "x") == tiny_files(1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(WINDOWS, reason="locks tell who lives on POSIX systems")
def test_what_dead_writers_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    target = tmp_path / "x"
    lay_out(tmp_path / ".x.new-00000000", {"graphs/half.onnx": b"half"})
    (tmp_path / ".x.new-11111111").write_bytes(b"half a zip")
    lay_out(tmp_path / ".other.new-00000000", {"a": b"of another bundle, whose writer is dead too"})
    with atomic.sibling(target, folder=True) as mine, atomic.sibling(target, folder=False) as mine_too:
        write_bundle(target, tiny_manifest(), tiny_files()).close()
        assert {path.name for path in tmp_path.iterdir()} == {"x", mine.name, mine_too.name}


def test_a_writer_killed_between_two_steps_leaves_the_old_bundle_readable(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_bundle(target, tiny_manifest(), tiny_files(1.0)).close()
    target.rename(atomic.previous_of(target))
    assert content(target) == tiny_files(1.0)
    write_bundle(target, tiny_manifest(), tiny_files(2.0)).close()
    assert content(target) == tiny_files(2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_predecessor_that_is_being_removed_is_not_taken_for_a_damaged_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    previous = atomic.previous_of(target)
    write_bundle(previous, tiny_manifest(), tiny_files(1.0)).close()
    (previous / GRAPH).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        content(target)  # nothing else stands there
    write_bundle(target, tiny_manifest(), tiny_files(2.0)).close()
    write_bundle(previous, tiny_manifest(), tiny_files(1.0)).close()
    (previous / GRAPH).unlink()
    found = iter([previous])  # what the reader saw before the writer's second step
    monkeypatch.setattr(bundle_module, "_standing", lambda path: next(found, path))
    assert content(target) == tiny_files(2.0)


@replaces_what_is_open
@pytest.mark.parametrize(("swap", "writers"), [("exchange", 2), ("two steps", 1)], indirect=["swap"])
@pytest.mark.usefixtures("swap")
def test_readers_and_writers_at_once(tmp_path: Path, writers: int) -> None:
    """Each reader sees one whole bundle. Two writers at once need the exchange: two steps may collide."""
    target = tmp_path / "x"
    versions = [tiny_files(float(scale)) for scale in range(3)]
    write_bundle(target, tiny_manifest(), versions[0]).close()
    stop = threading.Event()
    problems: list[BaseException] = []

    def guarded(work: object, *arguments: object) -> None:
        try:
            while not stop.is_set():
                work(*arguments)  # type: ignore[operator]
        except BaseException as failure:
            problems.append(failure)

    def read() -> None:
        assert content(target) in versions

    threads = [threading.Thread(target=guarded, args=(read,)) for _ in range(2)]
    for files in versions[1 : writers + 1]:
        write = (write_bundle, target, tiny_manifest(), files)
        threads.append(threading.Thread(target=guarded, args=(lambda w: w[0](*w[1:]).close(), write)))
    for thread in threads:
        thread.start()
    stop.wait(1.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]
    assert content(target) in versions


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from gensdk_runtime.host import atomic
from gensdk_runtime.bundles import bundle as bundle_module
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from support.tiny_bundle import tiny_files, tiny_manifest

target, as_zip, two_steps = Path(sys.argv[1]), sys.argv[2] == "zip", sys.argv[3] == "two steps"
if two_steps:
    atomic._exchange = lambda new, target: False
versions = [{**tiny_files(float(i)), "bulk": bytes([i + 1]) * 300_000} for i in range(2)]
write_bundle(target, tiny_manifest(), versions[0], as_zip=as_zip).close()
start = time.monotonic()
write_bundle(target, tiny_manifest(), versions[0], as_zip=as_zip).close()
one_write = time.monotonic() - start
random.seed(0)
seen = set()
for kill in range(200):
    if kill >= 20 and len(seen) == 2:
        break
    child = os.fork()
    if child == 0:
        while True:
            for files in (versions[kill % 2], versions[1 - kill % 2]):
                write_bundle(target, tiny_manifest(), files, as_zip=as_zip).close()
    time.sleep(random.uniform(0.0, 3.0 * one_write * (1 + kill // 20)))  # the machine may be slower by now
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with Bundle.open(target) as bundle:
        content = {name: bundle.read(name) for name in bundle.manifest.files}
    seen.add(versions.index(content))
write_bundle(target, tiny_manifest(), versions[0], as_zip=as_zip).close()
assert [path.name for path in target.parent.iterdir()] == [target.name]
print("seen", sorted(seen))
"""


@pytest.mark.parametrize(("kind", "swap"), [("folder", "exchange"), ("folder", "two steps"), ("zip", "rename")])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_bundle(tmp_path: Path, kind: str, swap: str) -> None:
    tests = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", KILLS, tmp_path / "x", kind, swap],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": tests, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "seen [0, 1]\n"
