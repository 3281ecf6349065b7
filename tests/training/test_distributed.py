"""Two processes on the CPU: one model, disjoint data, the same numbers everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_training.data.order import DataOrder
from gensdk_training.run import load_run
from support.processes import advance_and_tell, run_two, train_here, train_or_tell
from support.tiny import FAMILIES, tiny_run


def reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_replicas_stay_identical_and_see_disjoint_data(family: str, tmp_path: Path) -> None:
    config = tiny_run(family, steps=12)
    run_two(advance_and_tell, config.to_json(), 12, tmp_path)
    first, second = reports(tmp_path)
    assert first["digests"] == second["digests"]
    assert first["losses"] == second["losses"]
    draws = len(second["seen"])
    parts = [report["seen"][-draws:] for report in (first, second)]  # the first one may look before it steps
    count = len(config.data.load())
    both = [tuple(one + other) for one, other in zip(*parts, strict=True)]
    order = DataOrder(count, 0).indices(0, 16 * 8 * draws).reshape(-1, 16).tolist()
    numbers = [order.index(list(each)) for each in both]
    assert numbers == sorted(set(numbers)), "each batch once, in the run's order"
    built = config.build_family(config.data.load().info)
    if not any(built.rests(phase.name, step) for phase in built.phases() for step in range(12)):
        assert numbers == list(range(draws))


def test_two_processes_compute_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The PixelCNN's loss draws nothing and is a mean over images, so the halves' mean gradient is the whole's.
    config = tiny_run("pixelcnn", steps=15, config={"lr_schedule": "constant"}).to_json()
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    run_two(advance_and_tell, config, 15, tmp_path / "two")
    advance_and_tell(config, 15, tmp_path / "one")
    alone = [step["loss"] for step in json.loads((tmp_path / "one" / "0.json").read_text())["losses"]]
    for report in reports(tmp_path / "two"):
        together = [step["loss"] for step in report["losses"]]
        np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert np.mean(alone[-3:]) < alone[0]


def test_a_run_of_two_trains_resumes_and_refuses_another_number(tmp_path: Path) -> None:
    straight = tiny_run("dcgan", steps=8, checkpoint_every=3).to_json()
    run_two(train_or_tell, straight, tmp_path / "straight", tmp_path, {})
    assert reports(tmp_path) == [{"error": None}, {"error": None}]
    run_two(train_or_tell, straight, tmp_path / "cut", tmp_path, {"max_seconds": 0})
    assert load_run(tmp_path / "cut").step == 1
    run_two(train_or_tell, straight, tmp_path / "cut", tmp_path, {"resume": True})
    assert reports(tmp_path) == [{"error": None}, {"error": None}]
    sums = [
        json.loads((tmp_path / run / "checkpoints" / "step-0000008" / "state.json").read_text())["sha256"]
        for run in ("straight", "cut")
    ]
    assert sums[0] == sums[1]
    with pytest.raises(Exception, match="'processes' was 2, is 1"):
        train_here(straight, tmp_path / "cut", resume=True)


def test_an_error_of_the_first_process_ends_both(tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "letter.txt").touch()
    run_two(train_or_tell, tiny_run("vae").to_json(), tmp_path / "strange", tmp_path, {})
    first, second = reports(tmp_path)
    assert first == second
    assert "not empty ('letter.txt')" in first["error"]


def test_a_batch_that_can_not_be_halved_is_refused_by_both(tmp_path: Path) -> None:
    config = tiny_run("vae", config={"batch_size": 15}).to_json()
    run_two(train_or_tell, config, tmp_path / "run", tmp_path, {})
    for report in reports(tmp_path):
        assert report["error"] == "InputError: batch_size 15 can't be cut into 2 equal parts"
