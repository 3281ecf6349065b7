"""Files of weights that others saved: a flipped bit is seen where the file has checksums."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.weights_file import refuse_damage

STATE = {"a": torch.arange(1, 1000.0), "b": torch.ones(7)}


def flipped(path: Path, part: str) -> Path:
    """One bit in the middle of a part of the archive."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(part)
        start = info.header_offset
        data = bytearray(path.read_bytes())
        body = archive.read(part)
    place = data.index(body, start) + len(body) // 2
    data[place] ^= 1
    path.write_bytes(data)
    return path


def parts(path: Path) -> list[str]:
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        return [each.filename for each in archive.infolist() if each.file_size]


def test_a_flipped_bit_in_any_part_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    names = parts(path)
    refuse_damage(path)
    assert len(names) > 3
    for name in names:
        torch.save(STATE, path)
        with pytest.raises(InputError, match=f"{name}' is damaged"):
            refuse_damage(flipped(path, name))


@pytest.mark.parametrize("archive", [True, False])
def test_files_without_checksums_pass(archive: bool, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "weights.pth", _use_new_zipfile_serialization=archive)
    finally:
        torch.serialization.set_crc32_options(True)
    path = tmp_path / "weights.pth"
    refuse_damage(path)
    assert torch.load(path, weights_only=True).keys() == STATE.keys()
