"""Hostile and damaged zip files: every refusal, each in one line that names the entry."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.zip_files import MAX_ENTRIES
from gensdk_runtime.errors import BundleError, InputError, IntegrityError
from support.tiny_bundle import pack, refusal, sealed, tiny_files

FILES = sealed(tiny_files())


def test_what_systems_leave_in_zips_is_tolerated_and_all_else_is_not(tmp_path: Path) -> None:
    extra = {"__MACOSX/graphs/._scale.onnx": b"x", "graphs/.DS_Store": b"x", "graphs/": b""}
    with Bundle.open(pack(tmp_path / "x", {**extra, **FILES})) as opened, pytest.raises(InputError):
        opened.read("graphs/.DS_Store")
    refusal(pack(tmp_path / "y", {**FILES, "notes.txt": b"x"}), IntegrityError, "'notes.txt' is not listed")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "graphs/../../x", "a\\b", "C:/x", "a//b", "./a", "x\x00.txt"])
def test_entries_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "x", {**FILES, "N" * len(name): b"x"})
    path.write_bytes(path.read_bytes().replace(b"N" * len(name), name.encode()))
    refusal(path, IntegrityError, "refused: path")


def add(
    path: Path, name: str = "extra", *, data: bytes = b"x", mode: int = 0, flag: int = 0, method: int = 0
) -> Path:
    """Appends an entry, patching what :mod:`zipfile` would not write."""
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED if method == 8 else zipfile.ZIP_STORED
        archive.writestr(info, data)
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<HH", raw, entry + 8, struct.unpack_from("<H", raw, entry + 8)[0] | flag, method)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": stat.S_IFLNK | 0o777, "data": b"/etc/passwd"}, "a link or a device"),
        ({"mode": stat.S_IFCHR | 0o777}, "a link or a device"),
        ({"flag": 1}, "encrypted"),
        ({"method": 14}, "neither stored nor deflated"),
        ({"data": bytes(2**22), "method": 8}, "grows from .* to 4194304 bytes"),
        ({"name": "README.md"}, "stands twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_suspicious_entries_are_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = add(pack(tmp_path / "x", FILES), **change)  # type: ignore[arg-type]
    refusal(path, IntegrityError, f"entry .* refused: .*{reason}")


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x", {**FILES, "README.txt": FILES["README.md"]}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\x01\x02")
    last = raw.rindex(b"PK\x01\x02")
    raw[last + 42 : last + 46] = raw[first + 42 : first + 46]  # the last entry now lies where the first one does
    path.write_bytes(raw)
    refusal(path, IntegrityError, "overlaps with another")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("change", [-1, 1, 2**20])
def test_an_entry_that_is_larger_or_smaller_than_it_says_is_refused(
    tmp_path: Path, method: int, change: int
) -> None:
    real = FILES["README.md"] + b"x" * max(0, -change)
    path = pack(tmp_path / "x", {**FILES, "README.md": real}, method)
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"README.md", raw.index(b"PK\x01\x02")) - 46
    struct.pack_into("<I", raw, entry + 24, len(real) + change)
    path.write_bytes(raw)
    refusal(path, IntegrityError, "README.md")


def test_a_huge_list_of_entries_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "x"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**23, 0, 0)
    path.write_bytes(b"PK" + bytes(2**23 - 2) + end)
    refusal(path, IntegrityError, "list of entries is over")
    many = {f"{i}": b"" for i in range(MAX_ENTRIES + 1)}
    refusal(pack(path, many), IntegrityError, "entries, at most")


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"GIF89a", "neither"), (b"PK\x03\x04", "damaged zip")]
)
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "x").write_bytes(data)
    refusal(tmp_path / "x", IntegrityError, reason)


def test_every_truncated_zip_is_refused(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole", FILES).read_bytes()
    lengths = range(1, len(whole), 7)
    assert len(lengths) > 100
    for length in lengths:
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(BundleError) as caught:
            Bundle.open(tmp_path / "x")
        assert str(caught.value).isprintable()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_zips_are_refused_or_unharmed(scratch: Path, method: int, data: st.DataObject) -> None:
    """Bytes that no content depends on (times, permissions) may change; content may not."""
    raw = bytearray(pack(scratch, FILES, method).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        replacement = data.draw(st.binary(min_size=1, max_size=4))
        raw[at : at + len(replacement)] = replacement
    scratch.write_bytes(raw)
    message = ""
    try:
        with Bundle.open(scratch) as opened:
            content = {name: opened.read(name) for name in opened.manifest.files}
    except BundleError as failure:
        message, content = str(failure), tiny_files()
    assert content == tiny_files()
    assert message.isprintable()
