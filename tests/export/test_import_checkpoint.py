"""Checkpoints of pytorch-CycleGAN-and-pix2pix against networks that were written anew."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_export.export import ExportOptions
from gensdk_export.importers.checkpoints.translation_checkpoint import checkpoint_plan, import_checkpoint
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from support.cyclegan_reference import Resnet, Unet

NGF = 4


def settle(network: nn.Module) -> nn.Module:
    """Weights and statistics that differ from layer to layer, of a size at which nothing saturates."""
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() > 1:
            tensor.normal_(std=1.2 / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return network.eval()


def resnet(blocks: int, norm: str, *, dropout: bool = False, inputs: int = 3, outputs: int = 3) -> Any:
    network = settle(Resnet(inputs, outputs, NGF, blocks, norm, dropout=dropout))
    return network, network.state_dict()


def unet(downs: int, norm: str, *, inputs: int = 3, outputs: int = 3) -> Any:
    network = settle(Unet(inputs, outputs, NGF, downs, norm))
    assert isinstance(network, Unet)
    return network, network.original_state_dict()


FORMS = {
    "resnet_9blocks, instance": (lambda: resnet(9, "instance"), "resnet_9blocks"),
    "resnet_6blocks, batch, dropout": (lambda: resnet(6, "batch", dropout=True, inputs=1), "resnet_6blocks"),
    "resnet_6blocks, none": (lambda: resnet(6, "none"), "resnet_6blocks"),
    "unet_128, batch": (lambda: unet(7, "batch"), "unet_128"),
    "unet_256, instance": (lambda: unet(8, "instance", outputs=1), "unet_256"),
}


def source_of(network: nn.Module, side: int) -> Tensor:
    channels = next(network.parameters()).shape[1]
    generator = torch.Generator().manual_seed(1)
    return torch.rand((1, channels, side, side), generator=generator) * 2 - 1


@pytest.mark.parametrize("name", FORMS)
def test_the_network_is_told_from_its_weights(name: str, tmp_path: Path) -> None:
    make, option = FORMS[name]
    reference, weights = make()
    torch.save(weights, tmp_path / "latest_net_G.pth")
    plan, provenance, _ = checkpoint_plan(tmp_path / "latest_net_G.pth")
    assert provenance.config["netG"] == option
    assert provenance.config["norm"] == name.split(", ")[1]
    source = plan.model.source
    assert source is not None
    assert source.multiple == (4 if "resnet" in name else 2 ** (7 if "128" in name else 8))
    given = source_of(reference, 256)
    with torch.inference_mode():
        expected, result = reference(given), plan.modules["translator"](given)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.05


@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_a_checkpoint_becomes_a_bundle(name: str, tmp_path: Path) -> None:
    reference, weights = resnet(6, "instance") if name == "resnet" else unet(5, "batch")
    torch.save(weights, tmp_path / "latest_net_G.pth")
    options = ExportOptions(fp16=name == "unet", uint8=True)
    import_checkpoint(tmp_path / "latest_net_G.pth", tmp_path / "out.gsdk", options, size=(32, 32))
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    given = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = reference(given).numpy()
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        np.testing.assert_allclose(generator.sample(image=images).array, expected, atol=1e-4)
        odd = generator.translate(images[0, :29, :50])
    assert isinstance(odd, np.ndarray)
    assert odd.shape == (29, 50, 3)


def test_data_parallel_and_old_instance_norms(tmp_path: Path) -> None:
    reference, weights = resnet(6, "instance")
    old: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in weights.items():
        old[f"module.{name}"] = tensor
        if name.endswith("conv_block.1.bias"):  # a norm of PyTorch 0.3 stands behind it
            norm = f"module.{name.removesuffix('1.bias')}2"
            old[f"{norm}.running_mean"], old[f"{norm}.running_var"] = torch.randn(16), torch.rand(16)
    torch.save({"state_dict": old, "epoch": 7}, tmp_path / "old.pth")
    plan, provenance, _ = checkpoint_plan(tmp_path / "old.pth")
    assert provenance.config["norm"] == "instance"
    given = source_of(reference, 32)
    with torch.inference_mode():
        torch.testing.assert_close(plan.modules["translator"](given), reference(given), atol=1e-5, rtol=0)


def test_statistics_of_each_image(tmp_path: Path) -> None:
    """What that repository's test.py does without --eval: batch norms of batches of one, still training."""
    reference, weights = unet(5, "batch")
    torch.save(weights, tmp_path / "net.pth")
    plan, _, _ = checkpoint_plan(tmp_path / "net.pth", statistics="image")
    given = source_of(reference, 64)
    with torch.inference_mode():
        result = plan.modules["translator"](given)
        stored = reference(given)
        expected = reference.train()(given)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert (stored - expected).abs().max() > 0.05


class Evil:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


def test_what_is_no_such_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "net.pth", tmp_path / "out.gsdk"
    _, weights = resnet(6, "batch")
    unsound = [
        ({"model": Evil()}, InputError, "tensors alone"),
        (nn.Linear(2, 2), InputError, "tensors alone"),
        ([torch.zeros(2)], InputError, "state dict"),
        ({}, InputError, "state dict"),
        ({"a": 1}, InputError, "tensors by name"),
        ({"model.1.weight": torch.zeros(1).expand(9, 3, 7, 7)}, InputError, "more than the file holds"),
        ({"model.0.weight": torch.zeros(2, 2)}, ExportError, "expected a U-Net or ResNet"),
        ({**weights, "model.99.conv_block.3.weight": torch.zeros(1, 1, 1, 1)}, ExportError, "convolutions at"),
        ({**weights, "model.30.bias": torch.zeros(3)}, ExportError, "convolution's weight 'model.30.weight'"),
        ({**weights, "model.1.weight": torch.zeros(64, 3, 7, 7)}, ExportError, "don't fit"),
        ({**weights, "model.1.weight": torch.zeros(500_000, 3, 1, 1)}, ExportError, "don't fit"),
        ({k: v for k, v in weights.items() if k != "model.4.weight"}, ExportError, "'model.4.weight' is missing"),
    ]
    for content, kind, message in unsound:
        torch.save(content, path)
        with pytest.raises(GensdkError) as caught:
            import_checkpoint(path, out)
        assert isinstance(caught.value, kind), caught.value
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert not out.exists()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="tensors alone"):
        import_checkpoint(path, out)
    assert "code ran" not in capsys.readouterr().out
