"""``gensdk import`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk.cli.import_ import NOT_OF_DREAMS, import_command
from gensdk.cli.main import run
from gensdk_runtime.bundles.bundle import Bundle
from support.onnx_models import FLOAT, conv, convolution, write_onnx


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    axes = ["n", 3, "h", "w"]
    return write_onnx(
        tmp_path / "photo style.onnx", [conv("x", "y")], [("x", FLOAT, axes)], [("y", FLOAT, axes)], convolution()
    )


def test_it_imports_tells_and_verifies(model: Path, capsys: Any) -> None:
    out = model.parent / "photo.gsdk"
    code, told, heard = outcome(
        capsys, "import", model, "-o", out, "--range", "-1,1", "--size", "16x24", "--uint8"
    )
    assert code == 0
    assert "nchw" in told
    assert "--layout" in told
    assert "photo-style" in told
    assert "reading the file" in heard
    with Bundle.open(out) as bundle:
        source = bundle.manifest.model.source
        assert source is not None
        assert (source.height, source.width, source.value_range) == (16, 24, (-1.0, 1.0))
    assert outcome(capsys, "verify", out, "--backend", "onnxruntime")[0] == 0


def test_json_has_the_guesses(model: Path, capsys: Any) -> None:
    out = model.parent / "photo.gsdk"
    code, told, heard = outcome(capsys, "import", model, "-o", out, "--size", "16x16", "--json")
    assert (code, heard) == (0, "")
    assert {guess["what"]: guess["value"] for guess in json.loads(told)["guesses"]}["scale"] == "1"


def test_wrong_use_is_one_line(model: Path, capsys: Any) -> None:
    np.save(model.parent / "two.npy", np.zeros(2))
    pth = model.parent / "meta.pth"
    torch.save({"model.1.weight": torch.zeros(2, 2, device="meta")}, pth)
    out = ("-o", model.parent / "no.gsdk")
    for arguments, code, message in (
        ((model, *out, "--fp16"), 5, "leave --fp16 out"),
        ((model, *out, "--range", "1,0"), 2, "lower value first"),
        ((model, *out, "--size", "256"), 2, "HEIGHTxWIDTH"),
        ((model, *out, "--input", "x"), 5, "--input NAME=ROLE"),
        ((model, *out, "--constant", "x=none.npy"), 5, "none.npy"),
        ((model, *out, "--constant", f"x={model}"), 5, "not readable as .npy"),
        ((model, *out, "--constant", f"x={model.parent / 'two.npy'}"), 5, "expected a constant"),
        ((model, *out, "--style", "picture.png"), 5, "go together"),
        ((model.parent / "two.npy", *out), 5, "expected an .onnx file"),
        ((model.parent, *out), 5, "config.json"),
        ((model.parent, *out, "--label", "x"), 5, "--label is for ONNX files"),
        ((model.parent, *out, "--network", "netG_A"), 5, "--network is for checkpoints"),
        ((model, *out, "--network", "netG_A"), 5, "--network is for checkpoints"),
        ((model, *out, "--solver", "ddim"), 5, "--solver is for diffusers folders"),
        ((model, *out, "--input-range", "x"), 5, "--input-range NAME=LOW,HIGH"),
        ((model, *out, "--input-range", "x=1,0"), 2, "lower value first"),
        ((model, *out, "--input-range", "z=0,1"), 5, "no input 'z'"),
        ((pth, *out, "--output-range", "0,1"), 5, "--output-range is for ONNX files"),
        ((pth, *out, "--solver", "ddim"), 5, "--solver is for diffusers folders"),
        ((pth, *out, "--classes", "3"), 5, "--classes is for ONNX files and diffusers folders"),
        ((pth, *out, "--null-class"), 5, "--null-class is for diffusers folders"),
        ((model, *out, "--null-class"), 5, "--null-class is for diffusers folders"),
        ((pth, *out), 5, "no values (it is on the meta device)"),
        ((model.parent / "net.pth", *out), 5, "which is none"),
        ((model,), 2, "Missing option '-o'"),
    ):
        got, told, heard = outcome(capsys, "import", *arguments)
        assert (got, told) == (code, "")
        assert message in heard
        assert not out[1].exists()


def test_options_that_dreams_don_t_take_are_called_as_they_are_typed() -> None:
    flags = {param.name: param.opts for param in import_command.params}
    assert all(flag in flags[name] for name, flag in NOT_OF_DREAMS.items())


@pytest.mark.parametrize(("options", "extra"), [((), "import"), (("--dream",), "training")])
def test_a_missing_package_is_answered_by_the_smallest_extra_that_has_it(
    options: tuple[str, ...], extra: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'onnx'")

    monkeypatch.setattr("gensdk.cli.import_._import_onnx", missing)
    monkeypatch.setattr("gensdk.cli.import_._import_classifier", missing)
    _, _, err = outcome(capsys, "import", model, "-o", model.parent / "out.gsdk", *options)
    assert f'pip install "gensdk[{extra}]"' in err
