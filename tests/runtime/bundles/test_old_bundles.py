"""Bundles that an older gensdk wrote are read, verified, and draw what they drew then.

The bits of a sum depend on the processor, so what was recorded on one machine is held within 1e-5 on all of them:
OpenVINO, whose sums are ordered otherwise throughout, stays within 3e-6 of it in these cases. Bytes may round the
other way. What ONNX Runtime gives on one machine must not depend on the split at all.
"""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from gensdk import Bundle, Generator
from gensdk.cli.main import run
from support.old_bundles import CASES, NAMES, RECORDED, Arrays, bundle, draw

ATOL = 1e-5


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    with np.load(RECORDED, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_fixtures_are_old(name: str) -> None:
    with zipfile.ZipFile(bundle(name)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["schema_version"] == 1
    with Bundle.open(bundle(name)) as opened:
        assert opened.manifest.model.name == name


def test_they_draw_what_they_drew(name: str, recorded: Arrays) -> None:
    expected = {key: array for key, array in recorded.items() if key.startswith(f"{name}/")}
    drawn = draw(name)
    assert drawn.keys() == expected.keys()
    assert {key.split("/")[1] for key in drawn} == set(CASES[name])
    for key, array in drawn.items():
        assert array.dtype == expected[key].dtype, key
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, expected[key], rtol=0, atol=ATOL, err_msg=key)
        elif array.dtype == np.uint8:
            assert np.abs(array.astype(int) - expected[key]).max() <= 1, key
        else:
            np.testing.assert_array_equal(array, expected[key], err_msg=key)


def test_the_split_changes_no_bit(name: str) -> None:
    with Generator.load(bundle(name), backend="onnxruntime", threads=1) as generator:
        whole = generator.sample(20, seed=9, progress=False)
        for size in (16, 7):
            split = generator.sample(20, seed=9, batch_size=size, progress=False)
            np.testing.assert_array_equal(split.array, whole.array)
            np.testing.assert_array_equal(split.labels, whole.labels)


def test_their_proofs_hold(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["verify", str(bundle(name)), "--backend", "onnxruntime", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    assert {check["precision"] for check in report["graphs"]} == {"fp32", "fp16"}


def test_half_precision_draws_about_the_same(name: str, recorded: Arrays) -> None:
    with Generator.load(bundle(name), backend="onnxruntime", precision="fp16", threads=1) as generator:
        half = generator.sample(6, seed=3, progress=False)
    np.testing.assert_array_equal(half.labels, recorded[f"{name}/default/labels"])
    assert np.abs(half.array - recorded[f"{name}/default/array"]).mean() < 0.01
