"""Locks between processes: held once, waited for, gone with their holder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gensdk_runtime.host.locks import locked, locked_if_possible, try_lock
from gensdk_runtime.host.own_files import open_own


def test_a_lock_is_held_once_and_let_go_with_its_descriptor(tmp_path: Path) -> None:
    first, second = (open_own(tmp_path / ".lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert try_lock(first) is True
    assert try_lock(second) is False
    os.close(first)
    assert try_lock(second) is True
    os.close(second)


def test_who_comes_second_waits_as_long_as_its_patience(tmp_path: Path) -> None:
    path, waits = tmp_path / ".lock", list[float]()
    with locked(path) as held:
        assert held is True
        with locked(path) as at_once:
            assert at_once is False
        with locked(path, patience=0.1, on_wait=lambda: waits.append(time.monotonic())) as later:
            assert later is False
        assert waits
        assert path.exists(), "who does not hold it does not remove it"
    assert not path.exists()


def test_a_lock_that_is_let_go_is_taken_although_its_file_was_removed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = locked(path)
    holder.__enter__()

    def let_go() -> None:
        if path.exists():
            holder.__exit__(None, None, None)

    with locked(path, patience=60.0, on_wait=let_go) as held, locked(path) as third:
        assert held is True
        assert third is False
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["link", "folder", "missing folder"])
def test_where_no_lock_can_be_made(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / ".lock" if kind == "missing folder" else tmp_path / ".lock"
    if kind == "link":
        path.symlink_to(tmp_path / "made by mistake")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError, match=r"\.lock"), locked(path):
        pass
    with locked_if_possible(path) as held:
        assert held is None
    assert not (tmp_path / "made by mistake").exists()
