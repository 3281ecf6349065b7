"""Every family exported once, with everything there is to export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.export_report import ExportReport
from gensdk_export.page import onnxruntime_web as web
from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.plan import ExportPlan
from support.browser import CHROMIUM, DRIVER, MISSING, Browser, browser
from support.plans import family_plan, points_plan


@dataclass(frozen=True)
class Exported:
    plan: ExportPlan
    report: ExportReport
    bundle: Path


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tracing is serial, and small tensors gain nothing from threads that compete."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    folder = tmp_path_factory.mktemp("bundles")

    @cache
    def export(family: str) -> Exported:
        name, _, points = family.partition(":")
        plan, out = points_plan(name) if points else family_plan(name), folder / f"{name}{points}.gsdk"
        options = ExportOptions(fp16=True, engines=("fp32", "fp16"))
        return Exported(plan, export_plan(plan, Provenance(data="digits", steps=0), out, options), out)

    return export


@pytest.fixture(scope="module")
def runtime_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxruntime-web, had from npm once."""
    folder = tmp_path_factory.mktemp("web") / "onnxruntime-web"
    try:
        files = web.onnxruntime_web()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(MISSING)
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened
