"""The table of an export shows what was compared, in the unit of the bound beside it."""

from __future__ import annotations

from pathlib import Path

from gensdk_export.export_report import HEADING, MEASURED, ExportReport, GraphRow, row_text
from gensdk_runtime.proof.drift import Drift


def drift(max_abs: float, scaled: float) -> Drift:
    return Drift(
        calls=1,
        max_abs=max_abs,
        scaled=scaled,
        psnr=40.0,
        flipped=0,
        discrete=0,
        non_finite=False,
        constant=False,
        per_step=(scaled,),
    )


def test_a_difference_stands_in_the_unit_of_its_bound() -> None:
    """An estimate of x_0 from much noise was "4.1e-01 ... ok" beside a bound of 0.02."""
    row = GraphRow("step", "fp16", "torch half", 1000, drift(0.41, 0.0026), "ok", 0.02)
    shown = dict(zip(HEADING, row_text(row), strict=True))
    assert shown["differs by"] == "2.6e-03 (4.1e-01 unscaled)"
    assert shown["allowed"] == "0.02"
    assert "unscaled" not in row_text(GraphRow("g", "fp32", "onnxruntime", 1, drift(1e-6, 1e-6), "ok", 1e-4))[4]


def test_a_bound_in_decibels_is_shown_as_one() -> None:
    row = GraphRow("g", "fp32", "onnxruntime", 1, drift(0.4, 0.4), "ok", 1.0, 25.0)
    assert dict(zip(HEADING, row_text(row), strict=True))["allowed"] == "PSNR 25 dB"
    assert row.to_dict()["least_psnr"] == 25.0


def test_the_text_says_what_was_measured() -> None:
    row = GraphRow("samples", "fp16", "torch half", None, drift(0.1, 0.1), "reported")
    assert dict(zip(HEADING, row_text(row), strict=True))["allowed"] == ""
    assert MEASURED in ExportReport(Path("x.gsdk"), "x", (row,), (), None, (), 1, 0.0).text()
