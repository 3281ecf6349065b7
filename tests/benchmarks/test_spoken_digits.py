"""The benchmark of spoken digits, on tones: chains that look back know more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from spoken_digits import chains, facts, part

from gensdk_runtime.errors import InputError
from support.sounds import spoken


def test_rows_of_the_data_and_of_the_chains(tmp_path: Path) -> None:
    source = f"fsdd:{spoken(tmp_path, takes=12)}"
    train, test = part(source, "train", "digit"), part(source, "test", "digit")
    told = {row.measure: row.value for row in facts(train, test)}
    assert (told["train: files"], told["test: files"]) == (6 * 7, 6 * 5)
    bits = [row.value for row in chains(train, test)]
    assert len(bits) == 3
    assert 0 < bits[2] < min(bits[:2]) < max(bits) <= 8.01


def test_other_data_are_refused() -> None:
    with pytest.raises(InputError, match="expected spoken digits, got images"):
        part("digits", "train", "auto")
