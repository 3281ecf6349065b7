"""What was measured is kept, found again for the same key alone, and read as hostile input."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError
from gensdk_runtime.host.locks import try_lock
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.fingerprint import bundle_identity, measurement_key
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.tuning import store
from support.step_bundle import write_step_bundle

TABLE = CostTable(
    costs=(
        Cost(choice=Choice(threads=1), batch=1, seconds=0.5),
        Cost(choice=Choice(backend="openvino", threads=2), batch=8, seconds=1.5),
    ),
    padded=("openvino",),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})
    monkeypatch.setattr(store, "_said", False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    with Bundle.open(write_step_bundle(tmp_path_factory.mktemp("store") / "tiny.gsdk")) as bundle:
        return bundle.manifest


@pytest.fixture
def key(manifest) -> dict[str, str]:
    return measurement_key(manifest, "fp32", None)


def test_what_is_kept_is_found_again(manifest, key) -> None:
    assert store.load_table(key, manifest) is None
    path = store.save_table(key, TABLE, manifest)
    assert path is not None
    assert store.load_table(key, manifest) == TABLE
    other = TABLE.only([Choice(threads=1)])
    store.save_table(key, other, manifest)
    assert store.load_table(key, manifest) == other
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing half-written is left"


def test_another_bundle_precision_thread_limit_or_gpu_is_another_key(manifest, key, tmp_path, monkeypatch) -> None:
    store.save_table(key, TABLE, manifest)
    with Bundle.open(write_step_bundle(tmp_path / "other.gsdk", width=4)) as bundle:
        assert bundle_identity(bundle.manifest) != bundle_identity(manifest)
        assert store.load_table(measurement_key(bundle.manifest, "fp32", None), bundle.manifest) is None
    for precision, threads in (("fp16", None), ("fp32", 1)):
        assert store.load_table(measurement_key(manifest, precision, threads), manifest) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert store.load_table(measurement_key(manifest, "fp32", None), manifest) is None


def test_the_key_says_what_it_depends_on(key) -> None:
    assert {"bundle", "cpu", "cores", "gpus", "gensdk", "python", "packages", "precision", "threads"} <= key.keys()
    assert "onnxruntime-" in key["packages"]
    assert "numpy-" in key["packages"]


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        stored = json.loads(data)
        change(stored)
        return json.dumps(stored).encode()

    return edit


def costs(**update: Any) -> Callable[[dict[str, Any]], None]:
    return lambda stored: stored["table"]["costs"][0].update(update)


def choice(**update: Any) -> Callable[[dict[str, Any]], None]:
    return lambda stored: stored["table"]["costs"][0]["choice"].update(update)


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-20],
    "no JSON": lambda data: b"\xff\x00" * 100,
    "deep": lambda data: b"[" * 100_000,
    "huge": lambda data: data[:-1] + b" " * store.MAX_BYTES + b"}",
    "newer": edited(lambda stored: stored.update(schema_version=3)),
    "unknown key": edited(lambda stored: stored.update(code="print(1)")),
    "foreign": edited(lambda stored: stored["key"].update(cpu="another")),
    "no costs": edited(lambda stored: stored["table"].update(costs=[])),
    "negative": edited(costs(seconds=-1.0)),
    "text": edited(costs(seconds="1")),
    "too large a batch": edited(costs(batch=65)),
    "absurd batch": edited(costs(batch=10**9)),
    "fake": edited(choice(backend="fake")),
    "stranger": edited(choice(backend="mine")),
    "path": edited(choice(backend="onnxruntime:../../x")),
    "one call": edited(choice(form="one_call")),
    "workers": edited(choice(workers=10**6)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_can_not_be_trusted_is_ignored_and_rewritten(damage, manifest, key) -> None:
    path = store.save_table(key, TABLE, manifest)
    assert path is not None
    path.write_bytes(damage(path.read_bytes()))
    assert store.load_table(key, manifest) is None
    assert store.save_table(key, TABLE, manifest) == path
    assert store.load_table(key, manifest) == TABLE


def test_a_cache_that_can_not_be_written_is_said_once(manifest, key, monkeypatch, tmp_path, caplog) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("GENSDK_CACHE", str(blocked))
    with caplog.at_level(logging.WARNING, logger="gensdk"):
        assert store.save_table(key, TABLE, manifest) is None
        assert store.save_table(measurement_key(manifest, "fp16", None), TABLE, manifest) is None
    assert len(caplog.records) == 1
    assert "can't be kept" in caplog.text
    assert store.load_table(key, manifest) == TABLE, "this process remembers"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_folder_that_others_may_write_to_is_not_used(manifest, key, cache, caplog) -> None:
    store.save_table(key, TABLE, manifest)
    (cache / store.FOLDER).chmod(0o777)
    assert store.load_table(key, manifest) is None


def test_clearing_forgets_what_is_named(manifest, key) -> None:
    other = measurement_key(manifest, "fp16", None)
    for each in (key, other):
        store.save_table(each, TABLE, manifest)
    assert store.clear_tables([key]) == 1
    assert store.load_table(key, manifest) is None
    assert store.load_table(other, manifest) == TABLE
    assert store.clear_tables([key, other]) == 1


def test_what_can_not_be_removed_is_named(manifest, key) -> None:
    path = store.save_table(key, TABLE, manifest)
    assert path is not None
    path.unlink()
    path.mkdir()
    with pytest.raises(BackendError, match=path.name):
        store.clear_tables([key])


def test_only_one_measures_at_a_time(cache) -> None:
    with store.measuring_alone(1.0):
        descriptor = os.open(cache / store.FOLDER / ".lock", os.O_RDWR)
        try:
            assert os.name != "posix" or try_lock(descriptor) is False
        finally:
            os.close(descriptor)
        with store.measuring_alone(0.1):  # goes on when it has waited long enough
            pass
    with store.measuring_alone(0.0):
        pass
