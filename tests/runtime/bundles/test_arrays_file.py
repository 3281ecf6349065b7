"""Array files of unknown origin: what NumPy writes comes back; the rest is one line, before memory is taken."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from gensdk_runtime.bundles.arrays_file import npz_names, read_npy, read_npz
from gensdk_runtime.errors import InputError, IntegrityError
from support.refusals import refusal_of

LIMIT = 1 << 20
DTYPES = ("?", "u1", "<i2", ">i4", "<u8", ">f2", "<f4", ">f8", "<c8", "<U5", ">U3", "S4")


def npz(*, compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def member(content: bytes, name: str = "a.npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def headed(header: str, body: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1")
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.booleans(), st.booleans())
def test_what_numpy_writes_comes_back(
    data: st.DataObject, dtype: str, columns_first: bool, compressed: bool
) -> None:
    shape = data.draw(arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    array = values.copy(order="F" if columns_first else "C")
    found = read_npz(npz(compressed=compressed, a=array, b=np.zeros(3)), limit_bytes=LIMIT)
    assert list(found) == ["a", "b"]
    for read in (found["a"], read_npy(npy(array), limit_bytes=LIMIT)):
        assert read.dtype == values.dtype.newbyteorder("=")
        assert read.dtype.isnative
        assert read.shape == values.shape
        np.testing.assert_array_equal(read, values)


def test_names_choose_and_the_rest_is_not_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    path.write_bytes(npz(a=np.arange(3), b=np.array([{"x": 1}], dtype=object), c=np.zeros((1 << 20), np.uint8)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    assert npz_names(path) == ["a", "b", "c"]
    assert list(read_npz(path, names=["a"], limit_bytes=64)) == ["a"]
    for names, message in ((["b"], "Python objects"), (["c"], "at most 64 are read"), (["d"], "no array 'd'")):
        with pytest.raises(InputError, match=message):
            read_npz(path, names=names, limit_bytes=64)
    with pytest.raises(IntegrityError, match=r"^golden: .*'README.txt' is no array"):
        read_npz(path, limit_bytes=LIMIT, what="golden", error=IntegrityError)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
        "{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr": "<f4", "fortran_order": False, "shape": (2, )}   \n',
        "{'descr':'<f4','fortran_order':False,'shape':(2L,)}",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_writers_are_read(header: str, version: int) -> None:
    found = read_npy(headed(header, np.float32([1.5, 2]).tobytes(), version), limit_bytes=8)
    assert found.tolist() == [1.5, 2]


HOSTILE_HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }",
    f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**70},), }}",
    f"{{'descr': '|u1', 'fortran_order': False, 'shape': (0, {2**62}), }}",
    f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 5000},), }}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': True, }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1,,1), }",
    "{'descr': '|u1', 'fortran_order': 1, 'shape': (1,), }",
    f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1,' * 40}), }}",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (99999999,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|V8', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': ('<f4', (1000000000,)), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'descr': '|u1', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': True}",
    "{'descr': '<f4', 'fortran_order': False}",
    "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (1,)}",
    "(" * 5000,
    "{'descr': '\\x1b]0;x\\x07', \x1b]0;x\x07",
    "0_0\x00'",
    "",
]


@pytest.mark.parametrize("header", HOSTILE_HEADERS, ids=range(len(HOSTILE_HEADERS)))
def test_hostile_headers_are_one_line_and_take_no_memory(header: str) -> None:
    content = headed(header, b"\0" * 64)
    tracemalloc.start()
    try:
        for read in (
            lambda: read_npy(content, limit_bytes=1 << 50),
            lambda: read_npz(member(content), limit_bytes=1 << 50),
        ):
            with pytest.raises(InputError) as failure:
                read()
            assert str(failure.value).isprintable()
            assert len(str(failure.value)) < 400
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def doubled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy(np.zeros(2)))
        archive.writestr("b.npy", npy(np.ones(2)))
    return buffer.getvalue().replace(b"b.npy", b"a.npy")


def encrypted() -> bytes:
    data = bytearray(npz(a=np.zeros(2)))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def claims_size(size: int) -> bytes:
    """A directory that says an array has so many bytes, and a header that agrees."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size - 128},), }}".ljust(117) + "\n"
    data = bytearray(member(headed(header)))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", size)
    return bytes(data)


def overlapped() -> bytes:
    """Two names for the same bytes."""
    data = bytearray(npz(a=np.zeros(500), b=np.zeros(500)))
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (doubled, "stands twice"),
        (encrypted, "is encrypted"),
        (overlapped, "overlaps"),
        (lambda: claims_size(2**31), "says 2147483520 bytes"),
        (lambda: member(npy(np.zeros(9)), method=zipfile.ZIP_LZMA), "neither stored nor deflated"),
        (lambda: member(npy(np.zeros(9)) + b"x"), "says 72 bytes, 73 follow"),
        (lambda: member(npy(np.zeros(9))[:-1]), "says 72 bytes, 71 follow"),
        (lambda: member(b"no array"), "does not begin as one"),
        (lambda: member(npy(np.zeros(9)), name="a.txt"), "is no array"),
        (lambda: b"PK\x05\x06", "not a whole"),
        (lambda: b"", "not a whole"),
    ],
)
def test_hostile_archives_are_told(content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        read_npz(content(), limit_bytes=1 << 50)
    assert "\n" not in str(failure.value)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_does() -> None:
    bomb = npz(compressed=True, images=np.zeros((80, 1 << 20), np.uint8))
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"it grows from \d+ to 83886080 bytes"):
            read_npz(bomb, limit_bytes=1 << 40)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert read_npz(npz(images=np.zeros((80, 1 << 20), np.uint8)), limit_bytes=1 << 40)["images"].shape[0] == 80


def test_a_pipe_and_a_missing_file_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="no plain file"):
        read_npz(tmp_path / "pipe.npz", limit_bytes=LIMIT)
    with pytest.raises(InputError, match="No such file"):
        read_npy(tmp_path / "none.npy", limit_bytes=LIMIT)
    with pytest.raises(InputError, match="no plain file"):
        npz_names(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_mutated_files_give_arrays_or_one_error(compressed: bool) -> None:
    random = np.random.default_rng(7)
    whole = npz(
        compressed=compressed,
        images=random.integers(0, 256, (3, 5, 4), np.uint8),
        labels=np.array(["a", "bc", "d"]),
        points=random.normal(size=(4, 2)).astype(">f4"),
    )
    single, refused = npy(random.normal(size=(4, 2))), []
    for _ in range(1500):
        for data, read in ((whole, read_npz), (single, read_npy)):
            changed = bytearray(data)
            for _ in range(random.integers(1, 5)):
                at, what = int(random.integers(0, len(changed))), int(random.integers(0, 4))
                if what == 0:
                    changed[at] ^= 1 << int(random.integers(0, 8))
                elif what == 1:
                    changed[at] = int(random.integers(0, 256))
                elif what == 2:
                    del changed[at : at + int(random.integers(1, 30))]
                else:
                    changed[at:at] = random.bytes(int(random.integers(1, 9)))
                if not changed:
                    break
            refused.append(bool(refusal_of(partial(read, bytes(changed), limit_bytes=LIMIT), InputError)))
    assert set(refused) == {True, False}, "some are refused, some are read"
