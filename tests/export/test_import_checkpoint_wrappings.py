"""Checkpoints as people save them: whatever wraps a generator's weights is taken off, or named in one line."""

from __future__ import annotations

import json
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.nn.utils import weight_norm as hooked_weight_norm

from gensdk_export.importers.checkpoints.translation_checkpoint import checkpoint_plan
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from support.cyclegan_reference import Resnet

State = dict[str, Tensor]


def generator(seed: int = 0, norm: str = "instance") -> nn.Module:
    torch.manual_seed(seed)
    network = Resnet(3, 3, 4, 6, norm, dropout=False)
    for tensor in network.parameters():
        tensor.data.normal_(std=1.2 / max(1, tensor[0].numel()) ** 0.5) if tensor.dim() > 1 else None
    return network.eval()


def prefixed(state: State, head: str) -> State:
    return {head + name: tensor for name, tensor in state.items()}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "DataParallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled in DDP": lambda state: prefixed(state, "module._orig_mod."),
    "DDP compiled": lambda state: prefixed(state, "_orig_mod.module."),
    "averaged": lambda state: {"n_averaged": torch.tensor(7), **prefixed(state, "module.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "netG."), "epoch": 3, "loops": {"a": [1]}},
    "lightning, two": lambda state: {
        "state_dict": {**prefixed(state, "netG_A."), "netD.model.0.weight": torch.zeros(1)},
    },
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "generator": lambda state: {"generator": state, "discriminator": {"model.0.weight": torch.zeros(2)}},
    "ema": lambda state: {"params_ema": state, "params": prefixed(generator(1).state_dict(), "")},
    "g_ema": lambda state: {"g": generator(1).state_dict(), "g_ema": state, "d": {}},
    "nested": lambda state: {"state": {"models": {"G": prefixed(state, "module.")}}},
}


def write(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def same(path: Path, reference: nn.Module, **options: Any) -> dict[str, str]:
    plan, _, guesses = checkpoint_plan(path, **options)
    given = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.inference_mode():
        expected, result = reference(given), plan.modules["translator"](given)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.01
    return {guess.what: guess.value for guess in guesses}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrappings_come_off(name: str, tmp_path: Path) -> None:
    network = generator()
    told = same(write(WRAPPINGS[name](network.state_dict()), tmp_path / "net.pth"), network)
    places = {"lightning": "netG", "lightning, two": "netG_A", "ema": "params_ema", "g_ema": "g_ema"}
    assert told.get("weights") == places.get(name, told.get("weights"))


def test_of_two_generators_one_is_asked_for(tmp_path: Path) -> None:
    first, second = generator(0), generator(1)
    states = {**prefixed(first.state_dict(), "netG_A."), **prefixed(second.state_dict(), "netG_B.")}
    path = write({"state_dict": states}, tmp_path / "cyclegan.ckpt")
    with pytest.raises(InputError, match="2 networks that fit, netG_A, netG_B; say which with --network"):
        checkpoint_plan(path)
    same(path, first, network="netG_A")
    same(path, second, network="netG_B")
    with pytest.raises(InputError, match="no network 'netG_C'"):
        checkpoint_plan(path, network="netG_C")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_told(dtype: torch.dtype, tmp_path: Path) -> None:
    network = generator()
    for tensor in network.parameters():
        tensor.data = tensor.data.to(dtype).float()
    state = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    assert same(write(state, tmp_path / "net.pth"), network)["numbers"] == "float32"


def write_safetensors(state: State, path: Path, **changes: Any) -> Path:
    """By the format's description: 8 bytes of length, a JSON header, the tensors one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in state.items():
        data = tensor.contiguous().numpy().tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets, **changes}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_safetensors(tmp_path: Path) -> None:
    network = generator()
    path = write_safetensors(network.state_dict(), tmp_path / "net.safetensors")
    same(path, network)
    data = path.read_bytes()
    for broken in (data[:7], data[: len(data) // 2], b"\xff" * 8 + data[8:], b"\x04" + bytes(7) + b"null"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="safetensors"):
            checkpoint_plan(path)
    for changes in (
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": "ab"},
        {"shape": [2**40]},
        {"shape": [-1]},
        {"dtype": "F8"},
        {"dtype": []},
    ):
        with pytest.raises(InputError, match="safetensors"):
            checkpoint_plan(write_safetensors(network.state_dict(), path, **changes))


def every_convolution(network: nn.Module, wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """`wrap` around each, and a few runs while training, which settle u and v."""
    torch.manual_seed(0)
    for part in list(network.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            wrap(part)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(1, 3, 16, 16))
    return network.eval()


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "hooked weight norm": hooked_weight_norm,
    "hooked spectral norm": hooked_spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_weights_are_folded(name: str, tmp_path: Path) -> None:
    network = every_convolution(generator(), NORMS[name])
    told = same(write(prefixed(network.state_dict(), "module."), tmp_path / "net.pth"), network)
    assert told[name.removeprefix("hooked ")] == "folded into 18 weights"


def test_what_is_refused_says_what_it_is(tmp_path: Path) -> None:
    network, path = generator(), tmp_path / "net.pth"
    state = network.state_dict()
    meta = {name: tensor.to("meta") for name, tensor in state.items()}
    numberless = {**state, "model.weight": torch.zeros(1), "model.x.y": torch.zeros(1)}
    huge = {**state, f"model.{'9' * 5000}.conv_block.1.weight": torch.zeros(1, 1, 1, 1)}
    loop: dict[str, Any] = {"a": torch.zeros(1)}
    loop["self"] = loop
    cases: list[tuple[Any, type[GensdkError], str]] = [
        (meta, InputError, "no values"),
        (numberless, ExportError, "belongs to no layer"),
        (huge, ExportError, "belongs to no layer"),
        (
            {"model.weight": torch.zeros(1), "model.1.weight": torch.zeros(1, 1, 1, 1)},
            ExportError,
            "U-Net or ResNet",
        ),
        (network, InputError, "support.cyclegan_reference.Resnet"),
        ({"state_dict": state, "hyper_parameters": Namespace(lr=1)}, InputError, "argparse.Namespace"),
        ({"netD.model.0.weight": torch.zeros(2, 2), "x": torch.zeros(1)}, ExportError, "discriminator"),
        ({name: tensor.to_sparse() for name, tensor in state.items()}, InputError, "sparse"),
        (loop, ExportError, "expected a U-Net or ResNet"),
        (np.zeros(3).tolist(), InputError, "state dict"),
        ({**state, "model.1.weight_g": torch.ones(3, 1), "model.1.weight_v": torch.ones(2)}, InputError, "shapes"),
    ]
    for content, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            checkpoint_plan(write(content, path))
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_is_code(tmp_path: Path) -> None:
    torch.jit.trace(nn.Conv2d(3, 3, 1).eval(), torch.rand(1, 3, 8, 8)).save(str(tmp_path / "net.pt"))
    with pytest.raises(InputError, match="TorchScript"):
        checkpoint_plan(tmp_path / "net.pt")


def test_an_archive_that_unpacks_to_more_than_it_takes(tmp_path: Path) -> None:
    path = write(generator().state_dict(), tmp_path / "net.pth")
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
        bomb.writestr("net/data/99", bytes(2**20))
    checkpoint_plan(path)
    with pytest.raises(InputError, match="unpacks to"):
        checkpoint_plan(tmp_path / "bomb.pth")
