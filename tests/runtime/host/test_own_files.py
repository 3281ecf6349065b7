"""What gensdk keeps is opened where it is a plain file, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gensdk_runtime.host.own_files import check_own_folder, open_own, opened_own, read_own

WAYS = {
    "read": os.O_RDONLY,
    "lock": os.O_RDWR | os.O_CREAT,
    "append": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}
every_way = pytest.mark.parametrize("flags", WAYS.values(), ids=WAYS)


@every_way
def test_links_are_not_followed_and_what_they_name_stays(tmp_path: Path, flags: int) -> None:
    precious, link, dangling = tmp_path / "precious", tmp_path / "link", tmp_path / "dangling"
    precious.write_text("kept")
    link.symlink_to(precious)
    dangling.symlink_to(tmp_path / "made by mistake")
    for path in (link, dangling):
        with pytest.raises(OSError, match="it is a link"):
            open_own(path, flags)
    assert precious.read_text() == "kept"
    assert not (tmp_path / "made by mistake").exists()


@every_way
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_and_nothing_blocks(tmp_path: Path, flags: int, kind: str) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(OSError, match=r"not a plain file|Is a directory|No such device"):
        open_own(path, flags)


def test_a_file_is_made_for_its_user_and_never_emptied(tmp_path: Path) -> None:
    path = tmp_path / "new"
    os.close(open_own(path, os.O_RDWR | os.O_CREAT))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("content")
    os.close(open_own(path, os.O_RDWR | os.O_CREAT))
    assert path.read_text() == "content"
    with pytest.raises(ValueError, match="O_TRUNC"):
        open_own(path, os.O_RDWR | os.O_TRUNC)
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "none")


def test_sizes_are_looked_at_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(OSError, match="1099511627776 bytes, where at most 100"):
        read_own(path, limit=100)
    path.write_bytes(b"x" * 100)
    assert read_own(path, limit=100) == b"x" * 100
    with opened_own(path, limit=100) as file:
        assert file.read(3) == b"xxx"


def test_folders_are_no_links(tmp_path: Path) -> None:
    folder, link, file = tmp_path / "folder", tmp_path / "link", tmp_path / "file"
    check_own_folder(folder)
    folder.mkdir()
    check_own_folder(folder)
    link.symlink_to(folder)
    file.touch()
    with pytest.raises(OSError, match="it is a link"):
        check_own_folder(link)
    with pytest.raises(OSError, match="not a folder"):
        check_own_folder(file)
