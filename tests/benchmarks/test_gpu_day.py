"""The script of the first day on a GPU: each part on small settings, and what becomes of one that goes wrong."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_day
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from day_one import (
    device_calls,
    double,
    part_frames,
    part_latency,
    part_machine,
    part_memory,
    part_proof,
    part_transfers,
)
from day_one.backends import REFERENCE, asked_for, choosable, on_gpu, processors_first
from day_one.conduct import OPENS, Day
from day_one.equality import bounds_of, equality
from day_one.parts import MACHINE, PARTS, PREPARE
from day_one.report import JSON, KIND, MARKDOWN, SCHEMA
from day_one.result import Order, Row
from peers import DRAW_ON, ON, peer_spec
from workloads import WORKLOADS, Case

from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.cuda import device
from gensdk_runtime.backends.onnxruntime.providers import Memory
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.methods.prepared import Prepared
from support.embedded import IMAGES, precisions_of


@pytest.fixture
def small(tmp_path: Path) -> Order:
    return Order(
        "",
        "",
        str(tmp_path),
        60.0,
        backends=(REFERENCE,),
        bundles=("digits-dcgan",),
        batches=(2,),
        frames=((32, 40),),
    )


def of(order: Order, part: str, piece: str = REFERENCE, **more: Any) -> Order:
    return Order(**{**vars(order), "part": part, "piece": piece, **more})


def found(rows: Iterator[Row | str]) -> list[Row]:
    made = [each for each in rows if isinstance(each, Row)]
    assert made
    return made


def states(rows: list[Row]) -> set[str]:
    return {row.state for row in rows}


def test_the_machine_says_which_backends_open(small: Order) -> None:
    rows = found(part_machine.rows(of(small, MACHINE)))
    opening = {row.subject: row for row in rows if row.what == OPENS}
    assert opening[REFERENCE].state == "passed"
    assert {row.state for row in opening.values()} <= {"passed", "skipped"}
    assert all(row.detail for row in rows)
    assert {"processor", "memory", "driver"} <= {row.what for row in rows}


@pytest.mark.parametrize("bundle", IMAGES)
def test_proof_of_every_bundle(small: Order, bundle: str) -> None:
    rows = found(part_proof.rows(of(small, "proof", bundles=(bundle,))))
    assert {row.what for row in rows} >= {
        "drift from PyTorch",
        "replay",
        "replay anew",
        "batch split",
        "prepared draws",
    }
    assert {row.subject for row in rows} == {f"{bundle} {precision}" for precision in precisions_of(bundle)}
    assert "failed" not in states(rows)
    assert all(
        "bit for bit" in row.detail for row in rows if row.what in ("replay", "batch split", "prepared draws")
    )


def test_what_a_backend_can_not_do_is_a_failed_check(small: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the kernel\nwas lost")

    monkeypatch.setattr(part_proof, "verify_bundle", broken)
    rows = found(part_proof.rows(of(small, "proof")))
    failed = [row for row in rows if row.state == "failed"]
    assert [row.what for row in failed] == ["drift from PyTorch"] * 2
    assert failed[0].detail == "RuntimeError: the kernel was lost"
    assert [row.state for row in rows if row.what == "replay"] == ["passed"] * 2


@pytest.fixture
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_memory, "SIZES", (1, 3))
    monkeypatch.setattr(part_memory, "CAPTURED", (2,))
    monkeypatch.setattr(part_memory, "THREADS", 3)
    monkeypatch.setattr(part_memory, "STEPS", 2)


@pytest.mark.usefixtures("few_sizes")
def test_memory_of_the_host(small: Order) -> None:
    rows = found(part_memory.rows(of(small, "memory")))
    assert "failed" not in states(rows)
    assert rows[-1].what == "left after close()"
    assert [row.state for row in rows if row.what == "3 threads against one"] == ["passed", "passed"]


def test_nothing_passes_to_a_device_that_is_none(small: Order) -> None:
    (row,) = found(part_transfers.rows(of(small, "transfers")))
    assert (row.state, "memory of the host" in row.detail) == ("skipped", True)


@pytest.mark.slow
def test_latencies_beside_peers(small: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(part_latency, "ON_CPU", ("onnxruntime",))
    monkeypatch.setattr(part_latency, "LEAST", 0.01)
    monkeypatch.setattr(part_latency, "MOST", 0.01)
    rows = found(part_latency.rows(of(small, "latency", "digits-dcgan")))
    timed = {row.where: row for row in rows if row.what == "latency" and row.state == "measured"}
    assert set(timed) == {"gensdk@onnxruntime", "onnxruntime"}
    assert all(row.low <= row.value <= row.high for row in timed.values() if row.low and row.high and row.value)
    assert [row.state for row in rows if row.what == "the same pictures"] == ["passed"]
    assert [row.what for row in rows].count("time over gensdk's") == 1
    without = {row.where for row in rows if row.state == "skipped"}
    assert without >= {"torch-cuda", "torch-cuda-graph", "onnxruntime-cuda"}


def test_latencies_without_pytorch(small: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(part_latency, "MOST", 0.01)
    monkeypatch.setattr(part_latency, "LEAST", 0.01)
    rows = found(part_latency.rows(of(small, "latency", "digits-dcgan")))
    skipped = {row.where: row.detail for row in rows if row.state == "skipped"}
    assert "torch missing" in skipped["torch"]
    assert 'pip install "gensdk[training]"' in skipped["torch"]
    assert {row.where for row in rows if row.state == "measured"} == {"gensdk@onnxruntime"}


def test_frames_without_pytorch(small: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (row,) = found(part_frames.rows(of(small, "frames")))
    assert (row.state, "exported from PyTorch" in row.detail) == ("skipped", True)


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_frames, "MODELS", {"U-Net": "pix2pix"})
    monkeypatch.setattr(part_frames, "BURST", 0.0)


@pytest.mark.usefixtures("small_models")
@pytest.mark.slow
def test_frames(small: Order) -> None:
    assert all(isinstance(each, str) for each in part_frames.rows(of(small, "frames", PREPARE)))
    (row,) = found(part_frames.rows(of(small, "frames")))
    assert (row.state, row.subject, row.unit) == ("measured", "untrained U-Net, 32x40", "ms")
    large = of(small, "frames", frames=((32, 40), (4320, 7680)), seconds=5.0)
    _, late = found(part_frames.rows(large))
    assert (late.state, "it would take about" in late.detail) == ("skipped", True)


def test_a_model_that_was_not_made_in_time_is_left_out(small: Order) -> None:
    rows = found(part_frames.rows(of(small, "frames")))
    assert [(row.state, "is not there" in row.detail) for row in rows] == [("skipped", True)] * 2


def test_backends_on_processors_come_first() -> None:
    names = ("tensorrt:rtx", "openvino", "onnxruntime:cuda", REFERENCE)
    assert processors_first(names) == [REFERENCE, "openvino", "onnxruntime:cuda", "tensorrt:rtx"]


def test_a_prepared_call_that_draws_something_else_fails(small: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Prepared.draw
    monkeypatch.setattr(Prepared, "draw", lambda self, seed: original(self, min(seed, 12)))  # a seed that stays
    rows = found(part_proof.rows(of(small, "proof")))
    assert {row.what for row in rows if row.state == "failed"} == {part_proof.PREPARED}


def test_the_modes_of_a_provider_open_where_it_does(small: Order) -> None:
    assert choosable()["onnxruntime:cuda:graphs"] == choosable()["onnxruntime:cuda:tf32"] == "onnxruntime:cuda"
    assert choosable()["onnxruntime:cuda:tf32:graphs"] == "onnxruntime:cuda"
    assert "onnxruntime:tensorrt:graphs" not in choosable()
    assert all(create_or_refuse(name) for name in choosable())
    assert on_gpu("onnxruntime:cuda:graphs")
    assert not on_gpu("onnxruntime:openvino")
    looked = [of(small, MACHINE).row(name, OPENS, "passed") for name in (REFERENCE, "onnxruntime:cuda")]
    for wanted, chosen in (
        ((), (REFERENCE, "onnxruntime:cuda")),
        (("onnxruntime:cuda:graphs", REFERENCE), (REFERENCE, "onnxruntime:cuda:graphs")),
    ):
        day = Day(small, (MACHINE,), lambda _: None, wanted=wanted)
        day._note_backends(looked)
        assert (day.order.backends, day.closed) == (chosen, {})


def create_or_refuse(name: str) -> bool:
    """Whether `create_backend` knows the name, can it open here or not."""
    with contextlib.suppress(UnavailableError):
        create_backend(name)
    return True


def test_tf32_that_was_asked_for_is_held_to_no_bound(small: Order) -> None:
    row = of(small, "proof", "onnxruntime:cuda:tf32").bounded("a bundle", "drift", False, 0.1, detail="far")
    assert (row.state, row.detail) == ("measured", "far; TF32 was asked for and does not keep it")
    assert of(small, "proof", "onnxruntime:cuda").bounded("a bundle", "drift", False).state == "failed"


def test_prepared_calls_are_a_peer_with_the_same_pictures(tmp_path: Path) -> None:
    prepared, case = part_latency.as_shipped(WORKLOADS["digits-ddpm"], tmp_path), Case(2, 3)
    noise = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    plain, drawn = (peer_spec(f"{on}{REFERENCE}").open(prepared, case).run(noise).copy() for on in (ON, DRAW_ON))
    assert np.array_equal(plain, drawn)


def test_prepared_calls_are_timed_on_engines(small: Order) -> None:
    ours, _, _ = part_latency.contenders(of(small, "latency", backends=(REFERENCE, "tensorrt:rtx")))
    assert ours == ["gensdk@onnxruntime", "gensdk@tensorrt:rtx", "gensdk-draw@tensorrt:rtx"]


@pytest.fixture
def on_double(small: Order, monkeypatch: pytest.MonkeyPatch) -> Order:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    monkeypatch.setattr(double, "Settled", lambda: monkeypatch)  # as long as the test lasts
    return of(small, "", double=True)


CALLS = ("sample()", "prepared draw()")
KINDS = pytest.mark.parametrize("piece", ["tensorrt:rtx", "tensorrt:classic"])


@KINDS
def test_proof_on_the_double(on_double: Order, piece: str) -> None:
    rows = found(part_proof.rows(of(on_double, "proof", piece)))
    assert "failed" not in states(rows)
    assert {row.where for row in rows} == {f"{piece} (double)"}


@KINDS
@pytest.mark.usefixtures("few_sizes")
def test_memory_of_the_double_comes_back(on_double: Order, piece: str) -> None:
    rows = found(part_memory.rows(of(on_double, "memory", piece, bundles=("digits-ddpm",))))
    assert (rows[-1].what, rows[-1].state, rows[-1].value) == ("left after close()", "passed", 0.0)
    taken = [row.value for row in rows if row.what.startswith("after")]
    assert all(value is not None and value > 0 for value in taken)
    assert "cudaMemGetInfo" in rows[-1].detail


@KINDS
@pytest.mark.parametrize("bundle", IMAGES)
def test_transfers_are_counted_as_the_double_counts_them(on_double: Order, piece: str, bundle: str) -> None:
    rows = found(part_transfers.rows(of(on_double, "transfers", piece, bundles=(bundle,))))
    assert states(rows) == {"passed", "measured"}
    by_call = [{row.what: row.value for row in rows if row.subject.endswith(call)} for call in CALLS]
    for counted in by_call:
        assert counted[device_calls.DOWNLOADS] == counted[device_calls.WAITS] == 1
        assert counted[device_calls.UPLOADS], "the keys of a new seed"
        assert counted[device_calls.ALLOCATIONS] == 0
        assert set(counted) == set(device_calls.COUNTED)
    if bundle == "digits-ddpm":
        assert by_call[1][device_calls.LAUNCHES] == 1, "the whole loop"


@pytest.mark.parametrize("piece", ["onnxruntime:cuda", "onnxruntime:cuda:graphs", "onnxruntime:tensorrt"])
@pytest.mark.parametrize("bundle", IMAGES)
def test_transfers_of_onnx_runtime_are_counted_where_its_buffers_are(
    small: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: str, bundle: str
) -> None:
    here = pytest.importorskip("support.onnxruntime_here", reason="the extra rtx is not installed")
    host = here.onnxruntime_here(piece, monkeypatch, tmp_path)
    rows = found(part_transfers.rows(of(small, "transfers", piece, bundles=(bundle,))))
    assert host.cuda.calls["cudaMemcpyHostToDevice"], "the device was played"
    for call in CALLS:
        counted = {row.what: row for row in rows if row.subject.endswith(call)}
        bounded = [counted[what] for what in part_transfers.MOST]
        assert [row.state for row in bounded] == ["passed"] * len(part_transfers.MOST)
        assert counted[device_calls.UPLOADS].value
        assert counted[device_calls.DOWNLOADS].value == counted[device_calls.WAITS].value == 1
        assert counted[device_calls.ALLOCATIONS].value == 0
        assert "inside a graph" in counted[device_calls.COPIES].detail


def test_without_cuda_bindings_onnx_runtimes_own_tensors_are_counted(
    small: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = pytest.importorskip("support.onnxruntime_here", reason="the extra rtx is not installed")
    here.onnxruntime_here("onnxruntime:cuda", monkeypatch, tmp_path)
    here.take_cuda_away(monkeypatch)
    rows = found(part_transfers.rows(of(small, "transfers", "onnxruntime:cuda")))
    values = {(row.what, row.state) for row in rows}
    assert {(device_calls.UPLOADS, "measured"), (device_calls.WAITS, "skipped")} <= values
    assert all(row.value for row in rows if row.what == device_calls.DOWNLOADS)


def test_a_counter_lets_every_call_through(on_double: Order) -> None:
    backend = double.backend_on_double(of(on_double, "", "tensorrt:classic"))
    cuda = device.cuda()
    with Generator.load("digits-ddpm", backend=backend) as generator, device_calls.counting() as counter:
        samples = generator.sample(2, seed=0, num_inference_steps=3)
        assert device.cuda() is counter
        calls = dict(cuda.calls)  # before close() waits for all streams
    assert device.cuda() is cuda
    assert samples.array.std() > 0
    assert counter.counts[device_calls.UPLOADS] == calls["cudaMemcpyHostToDevice"] > 0
    assert counter.counts[device_calls.DOWNLOADS] == calls["cudaMemcpyDeviceToHost"] > 0
    assert counter.counts[device_calls.ALLOCATIONS] == calls["allocated"] > 0
    assert counter.counts[device_calls.LAUNCHES] == calls["launch"] > 0
    assert counter.counts[device_calls.WAITS] == calls["waits"] > 0
    assert counter.cudaMemcpyKind is cuda.cudaMemcpyKind
    with pytest.raises(AttributeError):
        _ = counter.cudaNothing


def test_tensors_of_onnx_runtime_are_counted() -> None:
    """As on a device: the memory is the processor's, since there is no other here."""
    memory = Memory("cpu")
    with part_transfers.counting_tensors() as tally:
        value = memory.allocate(onnxruntime, (2, 3), np.float32)
        memory.upload(onnxruntime, np.ones((2, 3), np.float32), value)
        memory.download(onnxruntime, value, array := np.zeros((2, 3), np.float32))
    memory.upload(onnxruntime, array, value)
    assert array.sum() == 6
    assert tally.counts == {device_calls.UPLOADS: 1, device_calls.DOWNLOADS: 1, device_calls.ALLOCATIONS: 1}


def test_equality_says_which_it_is() -> None:
    with Generator.load("digits-vae", backend=REFERENCE) as generator:
        samples, model = generator.sample(4, seed=0).array, generator.model
    bounds = bounds_of("digits-vae", "fp32")
    assert equality(model, bounds, samples, samples.copy()).words == "bit for bit"
    near = equality(model, bounds, samples, samples + np.float32(1e-5))
    assert (near.ok, near.bits) == (True, False)
    assert "not bit for bit" in near.words
    far = equality(model, bounds, samples, samples + np.float32(0.5))
    assert (far.ok, far.difference == pytest.approx(0.5, abs=1e-3)) == (False, True)
    assert not equality(model, bounds, samples, np.full_like(samples, np.nan)).ok
    assert not equality(model, bounds, samples, samples[:2]).ok


def test_an_order_and_a_row_pass_between_processes(small: Order) -> None:
    order = of(small, "proof", double=True)
    assert Order.from_json(order.to_json()) == order
    row = order.row("a bundle", "latency", "measured", 1.5, unit="ms", low=1.0, high=2.0, detail="a\x1bword" * 400)
    read = Row(**json.loads(row.to_line())["row"])
    assert (read.figure, len(read.detail)) == ("1.5 ms (1 .. 2)", 600)
    assert read.detail.isprintable()


# What becomes of children that go wrong: a module that stands in for day_one.child and does what it is told.

CHILD = """
import json, os, sys, time
order = json.loads(sys.argv[1])
def row(what, subject="", state="passed"):
    found = dict(part=order["part"], where=order["piece"], subject=subject, what=what, state=state)
    print(json.dumps({"row": found}))
    sys.stdout.flush()
if order["part"] == "machine":
    row("opens", "onnxruntime")
    row("opens", "openvino")
    row("opens", "onnxruntime:cuda", "skipped")
elif order["piece"] == "onnxruntime":
    row("before")
    print(json.dumps({"doing": "something brave"}))
    sys.stdout.flush()
    %s
else:
    row("after")
"""

WRONG = {
    "crash": ("os.abort()", "it crashed (SIGABRT) while it was at: something brave"),
    "exit": ("print('gone', file=sys.stderr); sys.exit(9)", "it ended (exit code 9) while it was at"),
    "hang": ("time.sleep(60)", "took over 4 s and was stopped while it was at: something brave"),
    "raise": ("print(json.dumps({'failure': 'KeyError: x'})); sys.exit(1)", "KeyError: x while it was at"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_piece_that_goes_wrong_is_a_row_and_the_rest_goes_on(
    small: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    work, told = WRONG[wrong]
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "day_of_trouble.py").write_text(CHILD % work)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    limits = {"proof": 8.0, "memory": 8.0}
    said: list[str] = []
    day = Day(small, ("proof", "memory"), said.append, limits, child="day_of_trouble")
    rows = list(day.rows())
    assert day.order.backends == (REFERENCE, "openvino")
    proof = [row for row in rows if row.part == "proof"]
    assert [(row.where, row.what, row.state) for row in proof] == [
        (REFERENCE, "before", "passed"),
        (REFERENCE, "all", "stopped" if wrong == "hang" else "failed"),
        ("openvino", "after", "passed"),
        ("onnxruntime:cuda", "all", "skipped"),
    ]
    assert told in proof[1].detail
    assert [row.what for row in rows if row.part == "memory" and row.where == "openvino"] == ["after"]
    assert said


def test_no_time_is_a_row_too(small: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "day_of_trouble.py").write_text(CHILD % "pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    day = Day(small, ("proof",), lambda _: None, {"proof": 0.5}, child="day_of_trouble")
    rows = [row for row in day.rows() if row.where in (REFERENCE, "openvino")]
    assert [row.state for row in rows] == ["skipped"] * 2
    assert all("give a larger --limit" in row.detail for row in rows)


def test_a_total_that_is_too_short_is_said_as_such(small: Order) -> None:
    day = Day(small, ("proof",), lambda _: None, total=0.5)
    machine, proof = day.rows()
    assert "give a larger --total" in machine.detail
    assert "did not come to it" in proof.detail


def run(*arguments: str) -> Result:
    return CliRunner().invoke(gpu_day.main, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "prof"), "'prof' is none of machine, proof"),
        (("--skip", "memory,"), "'' is none of machine, proof"),
        (("--only", "proof", "--skip", "proof"), "leave no part"),
        (("--limit", "0"), "expected seconds above 0, got 0"),
        (("--limit", "nan"), "expected seconds above 0, got nan"),
        (("--batch", "1,x"), "expected whole numbers from 1 to 1024"),
        (("--frames", "720"), "expected HEIGHTxWIDTH from 8 to 7680"),
        (("--bundles", "digits"), "'digits' is none of digits-dcgan"),
        (("--backends", "gpu"), "no backend 'gpu'"),
        (("--backends", "onnxruntime:cudo"), "no backend 'onnxruntime:cudo'; did you mean 'onnxruntime:cuda'"),
        (("--backends", ""), "no backend ''"),
        (("--output", ""), "expected a folder, got nothing"),
    ],
)
def test_bad_arguments_are_refused_in_a_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run("--output", str(tmp_path / "day"), *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "day").exists()


def test_an_output_that_can_not_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--output", str(tmp_path / "file"))
    assert done.exit_code == 1
    assert "can't be written" in done.output
    assert "==" not in done.output, "nothing was begun"


def test_a_double_without_the_tests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("day_one.double.TESTS", tmp_path / "nowhere")
    done = run("--double", "--output", str(tmp_path / "day"))
    assert done.exit_code == 2
    assert "the double of a GPU is part of the tests" in " ".join(done.output.split())


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = (
        "--only",
        "machine,proof,transfers",
        "--bundles",
        "digits-dcgan",
        "--backends",
        f"{REFERENCE},tensorrt",
    )
    done = run("--output", str(tmp_path), *arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / JSON).read_text())
    assert (found["kind"], found["schema"], found["ok"]) == (KIND, SCHEMA, True)
    assert found["conditions"]["backends"] == [REFERENCE]
    closed = found["conditions"]["closed"]
    assert set(closed) == {"tensorrt:rtx", "tensorrt:classic"}
    assert all(f"NOT OPEN: {name}: {closed[name]}" in done.output for name in closed)
    assert all(closed.values())
    assert sum(found["counts"].values()) == len(found["rows"])
    rows = [Row(**row) for row in found["rows"]]
    assert {row.part for row in rows} == {"machine", "proof", "transfers"}
    text = (tmp_path / MARKDOWN).read_text()
    assert "bit for bit" in text
    assert "| on | proof | transfers |" in text
    assert f"| {REFERENCE} | 10 ok | - |" in text
    assert "double" not in text
    titles = [part.title for part in PARTS.values() if part.name in found["conditions"]["parts"]]
    assert all(f"## {title}" in text for title in titles)
    assert "every check passed" in done.output


def test_a_run_that_found_nothing_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = run("--output", str(tmp_path), "--only", "machine,transfers,machine", "--backends", REFERENCE)
    assert done.exit_code == 1, done.output
    assert "NOTHING WAS CHECKED" in done.output
    assert "every check passed" not in done.output
    found = json.loads((tmp_path / JSON).read_text())
    assert (found["ok"], found["conditions"]["parts"]) == (False, ["machine", "transfers"])


def test_backends_are_read_once_each() -> None:
    assert asked_for("tensorrt") == ("tensorrt:rtx", "tensorrt:classic")
    assert asked_for("onnxruntime:cpu, onnxruntime,tensorrt:rtx,tensorrt") == (
        REFERENCE,
        "tensorrt:rtx",
        "tensorrt:classic",
    )
