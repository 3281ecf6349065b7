"""Every peer gives the same pictures from the same noise, so that what is compared is the same work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peers import GPU_PEERS, PEERS, SEED, PeerSpec, peer_spec
from peers.child import PeerFailed, start_peer
from peers.onnxruntime import open_peer as open_onnxruntime
from peers.torch import OnDevice
from sidebyside import Comparison, applies
from workloads import Case, Workload
from workloads.noise import draw_noise
from workloads.prepare import Prepared, prepare

from gensdk_runtime.backends.openvino.importing import shared_core

CASES = {"diffusion": Case(2, 4), "generator": Case(2), "pixels": Case(2)}
IN_PROCESS = [name for name in PEERS if not PEERS[name].options.get("compiled")]
"""torch.compile needs a compiler and many seconds; the comparison itself checks its pictures."""


def workload(name: str) -> Workload:
    return Workload(f"tiny-{name}", "", f"support.tiny_workloads:{name}", (CASES[name],))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module", params=list(CASES))
def prepared(request: pytest.FixtureRequest, root: Path) -> Prepared:
    return prepare(workload(request.param), root)


def peers_of(prepared: Prepared) -> list[PeerSpec]:
    model = prepared.describe()
    return [PEERS[name] for name in IN_PROCESS if applies(PEERS[name], model)]


def test_a_workload_is_made_once(prepared: Prepared, root: Path) -> None:
    before = prepared.bundle.joinpath("manifest.json").stat().st_mtime_ns
    again = prepare(workload(prepared.name.removeprefix("tiny-")), root)
    assert again == prepared
    assert again.bundle.joinpath("manifest.json").stat().st_mtime_ns == before


def test_the_weights_are_those_of_the_bundle(prepared: Prepared) -> None:
    first, second = (prepared.load().network.state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_all_peers_give_the_same_pictures(prepared: Prepared) -> None:
    case = CASES[prepared.name.removeprefix("tiny-")]
    noise = draw_noise(prepared.describe(), case.batch, seed=SEED)
    ours = np.array(PEERS["gensdk"].open(prepared, case).run(noise))
    assert ours.std() > 0.05
    compared = 0
    for spec in peers_of(prepared):
        peer = spec.open(prepared, case)
        if peer.whole:
            for _ in range(2):  # no peer keeps anything from one call to the next
                np.testing.assert_allclose(peer.run(noise), ours, atol=1e-4, err_msg=spec.name)
        else:
            peer.run(noise)
            found = peer.differing(noise, ours)
            assert found["rows"] == found["all"] == 0
            assert found["all_of"] == ours.size
            assert peer.differing(noise, -ours)["all"] > 0
        compared += 1
    assert compared >= 5


def test_no_peer_makes_an_openvino_core_of_its_own(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that are freed, one can leave the thread a dead signal stack: the next Ctrl-C is a crash."""
    openvino = pytest.importorskip("openvino")
    shared_core(openvino)
    monkeypatch.setattr(openvino, "Core", lambda: pytest.fail("a second Core"))
    case = CASES[prepared.name.removeprefix("tiny-")]
    opened = [spec.open(prepared, case) for spec in peers_of(prepared) if "openvino" in spec.name.lower()]
    assert opened


HAS_CUDA = torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="this PyTorch reaches no GPU")
@pytest.mark.parametrize("name", [name for name in GPU_PEERS if not GPU_PEERS[name].options.get("compiled")])
def test_peers_on_a_gpu_give_the_same_pictures(root: Path, name: str) -> None:
    for kind in ("diffusion", "generator"):
        made, case = prepare(workload(kind), root), CASES[kind]
        noise = draw_noise(made.describe(), case.batch, seed=SEED)
        ours = np.array(PEERS["gensdk"].open(made, case).run(noise))
        peer = peer_spec(name).open(made, case)
        for _ in range(2):
            np.testing.assert_allclose(peer.run(noise), ours, atol=1e-3, err_msg=name)


def test_gensdk_on_a_backend_by_name(root: Path) -> None:
    made, case = prepare(workload("generator"), root), CASES["generator"]
    noise = draw_noise(made.describe(), case.batch, seed=SEED)
    peer = peer_spec("gensdk@onnxruntime").open(made, case)
    np.testing.assert_allclose(peer.run(noise), PEERS["gensdk"].open(made, case).run(noise), atol=1e-5)
    assert peer.detail() == "onnxruntime"
    assert peer_spec("gensdk@onnxruntime").ours
    with pytest.raises(KeyError):
        peer_spec("nobody")


def test_a_bare_loop_that_falls_back_is_none(root: Path) -> None:
    """ONNX Runtime would go on with another provider, and be timed as what it is not."""
    made, case = prepare(workload("generator"), root), CASES["generator"]
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(RuntimeError, match="fell back from Nobody to CPUExecutionProvider"),
    ):
        open_onnxruntime(made, case, provider="Nobody")


@pytest.mark.parametrize("kind", ["diffusion", "generator"])
def test_on_a_device_nothing_but_noise_and_images_pass(root: Path, kind: str) -> None:
    """What a CUDA graph captures, on the processor: noise in, images out, both tensors."""
    made, case = prepare(workload(kind), root), CASES[kind]
    noise = draw_noise(made.describe(), case.batch, seed=SEED)
    peer = PEERS["torch"].open(made, case)
    assert isinstance(peer, OnDevice)
    with torch.inference_mode():
        images = peer.compute(torch.from_numpy(noise))
    np.testing.assert_array_equal(images.numpy(), peer.run(noise))


def test_peers_in_processes_of_their_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny = workload("generator")
    comparison = Comparison(tiny, prepare(tiny, root), ["gensdk", "onnxruntime"], root=root, say=lambda _: None)
    result = comparison.measure(tiny.cases[0], seconds=0.0, rounds=2)
    assert not result.failures
    assert result.best_peer == "onnxruntime"
    assert result.differences["onnxruntime"] < 1e-4
    for timing in result.timings.values():
        assert len(timing.rounds) == 2
        assert all(len(calls) and (calls > 0).all() for calls in timing.rounds)


def test_a_peer_that_fails_says_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with start_peer("onnxruntime", prepare(workload("generator"), root), root=root) as child:
        with pytest.raises(PeerFailed, match="FileNotFoundError"):
            child.ask("open", timeout=60, batch=1, steps=None, noise=str(root / "missing.npy"))
        with pytest.raises(PeerFailed, match="no command"):
            child.ask("close", timeout=60)
        child.close()
        with pytest.raises(PeerFailed, match="died with exit code"):
            child.ask("memory", timeout=60)
