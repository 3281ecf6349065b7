"""Files that gensdk reads, changed at random: what comes out is right, or one of our own errors."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError

from gensdk_runtime.backends.tensorrt.cache import EngineCache, EngineCacheWarning
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import GensdkError, IntegrityError
from gensdk_runtime.onnx_files.inline import inlined
from gensdk_runtime.onnx_files.mapped_weights import map_weights
from gensdk_runtime.onnx_files.scan import scan
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.proof.golden import Golden
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.tuning import store
from support.another_os import WINDOWS
from support.bombs import BOMBS
from support.refusals import refusal_of

ROUNDS = 400
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
PIECES = (
    b"\x00",
    b"\xff",
    b"\x80" * 11,
    b"\x1b[2J",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"[",
    b'"',
    b"{}",
    b"null",
    b"NaN",
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        how = rng.randrange(5)
        if how == 0 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif how == 1:
            del changed[at : at + rng.choice((1, 2, 16, 1000))]
        elif how == 2:
            changed[at:at] = changed[at : at + rng.choice((1, 8, 64))]
        elif how == 3:
            changed[at:at] = rng.choice(PIECES)
        elif at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def manifest_bytes() -> list[bytes]:
    found = []
    for name in embedded_names():
        with Bundle.open(name) as bundle:
            found.append(bundle.manifest.to_json().encode())
    return found


def onnx_files() -> list[bytes]:
    with Bundle.open("digits-dcgan") as bundle:
        whole = bundle.graph_source("generator", "fp32").read()
    return [BOMBS["a loop that doubles"](), BOMBS["If"](), BOMBS["functions"]()[:2000], whole[:4000], whole]


def golden_bytes() -> list[bytes]:
    with Bundle.open("digits-vae") as bundle:
        return [bundle.read(bundle.manifest.golden or "")]


def read_onnx(data: bytes) -> None:
    facts = scan(data)
    inlined(data, dict.fromkeys(facts.external_locations, b"somebody's weights"))
    map_weights(data)


READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes], object]]] = {
    "manifest": (manifest_bytes, lambda data: Manifest.parse(data, what="manifest")),
    "ONNX": (onnx_files, read_onnx),
    "golden": (golden_bytes, Golden.from_bytes),
}


@pytest.mark.parametrize("kind", READERS)
def test_readers_raise_nothing_but_our_own(kind, monkeypatch) -> None:
    make, read = READERS[kind]
    originals, rng = make(), random.Random(0)
    monkeypatch.setattr("gensdk_runtime.onnx_files.mapped_weights.MIN_FILE_BYTES", 1000)
    changed = [mutated(originals[round_ % len(originals)], rng) for round_ in range(ROUNDS)]
    refused = [bool(refusal_of(partial(read, data), GensdkError)) for data in changed]
    assert 0 < sum(refused) < ROUNDS, "some are refused, some are read"


def test_bundles_that_were_changed_are_refused_or_whole(tmp_path) -> None:
    rng, path, whole = random.Random(1), tmp_path / "x.gsdk", 0
    with Bundle.open("digits-dcgan") as bundle:
        original, manifest = bundle.path.read_bytes(), bundle.manifest
    changed = [mutated(original, rng) for _ in range(60)]
    for _ in range(60):  # one bit at the end, in the zip file's directory, where some mean nothing
        at = len(original) - rng.randrange(1, 900)
        changed.append(original[:at] + bytes([original[at] ^ 1 << rng.randrange(8)]) + original[at + 1 :])
    for data in changed:
        path.write_bytes(data)
        with contextlib.suppress(GensdkError), Bundle.open(path) as bundle:
            assert bundle.manifest.files == manifest.files
            assert all(bundle.read(name) for name in bundle.manifest.files)
            whole += 1
    assert 0 < whole < len(changed), "some are refused, some are whole"


def test_what_was_measured_is_read_as_hostile_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    with Bundle.open("digits-dcgan") as bundle:
        manifest = bundle.manifest
    key = {"bundle": "x", "precision": "fp32"}
    table = CostTable(costs=(Cost(choice=Choice(backend="onnxruntime"), batch=1, seconds=0.1),))
    path = store.save_table(key, table, manifest)
    assert path is not None
    original, rng = path.read_bytes(), random.Random(2)
    for _ in range(ROUNDS):
        path.write_bytes(mutated(original, rng))
        found = store.load_table(key, manifest)
        assert found is None or isinstance(found, CostTable)


def test_an_engine_that_was_changed_is_built_again(tmp_path: Path) -> None:
    cache, rng = EngineCache(tmp_path), random.Random(3)
    identity = {"kind": "engine", "graph": "g"}
    cache.put(identity, b"engine" * 50)
    path = next(tmp_path.glob("*.engine"))
    original = path.read_bytes()
    for _ in range(100):
        data = mutated(original, rng)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EngineCacheWarning)
            assert cache.get(identity) == (b"engine" * 50 if data == original else None)
        cache.put(identity, b"engine" * 50)


@pytest.mark.skipif(WINDOWS, reason="owners as POSIX systems have them")
@pytest.mark.parametrize(
    "how",
    [
        "a link",
        "others may write",
        pytest.param("another's", marks=pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")),
        "a pipe",
    ],
)
def test_an_engine_that_others_could_have_written_is_not_loaded(tmp_path: Path, how: str) -> None:
    cache, identity = EngineCache(tmp_path), {"kind": "engine", "graph": "g"}
    cache.put(identity, b"engine")
    path = next(tmp_path.glob("*.engine"))
    if how == "a link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif how == "others may write":
        path.chmod(0o666)
    elif how == "another's":
        os.chown(path, 12345, 12345)
    else:
        path.unlink()
        os.mkfifo(path)
    with pytest.warns(EngineCacheWarning, match="is not used"):
        assert cache.get(identity) is None


def test_scan_refuses_a_cut_file_wherever_protobuf_does() -> None:
    """All cuts but those between two fields of the model, which leave a shorter one."""
    data = BOMBS["If"]()
    refused = [end for end in range(len(data)) if refusal_of(partial(scan, data[:end]), IntegrityError)]
    assert refused == [end for end in range(len(data)) if not parses(data[:end])]
    assert len(data) - len(refused) == 3


def parses(data: bytes) -> bool:
    try:
        onnx.ModelProto().ParseFromString(data)
    except DecodeError:
        return False
    return True
