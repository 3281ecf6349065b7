"""The page: complete, closed to the outside, and in a real browser equal to Python from the same seeds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gensdk.cli.main import cli
from gensdk_export.page import onnxruntime_web as web
from gensdk_export.page.page import write_page
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import ExportError, GensdkError, InputError, UnavailableError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.conditions import LabelSpec
from support.browser import Browser, served
from support.pages import sample, status

EMBEDDED = ("digits-ddpm", "digits-dcgan", "digits-pixelcnn")
SCRIPTS = {"page.css", "page.js", "sampler.js", "worker.js", "noise.js", "prompts.js", "vocabulary.js"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, runtime_files: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in EMBEDDED:
        write_page(name, folder / name, onnxruntime_web_folder=runtime_files)
    noisy = {"solver": "ddpm", "num_inference_steps": 5, "guidance_scale": 2.0}
    write_page("digits-ddpm", folder / "noisy", settings=noisy, onnxruntime_web_folder=runtime_files)
    return {path.name: path for path in folder.iterdir()}


def test_the_page_is_complete_and_names_what_it_draws(pages: dict[str, Path]) -> None:
    page = pages["digits-ddpm"]
    assert {path.name for path in page.iterdir()} == SCRIPTS | {
        "index.html",
        "model.onnx",
        "page.json",
        "onnxruntime-web",
    }
    facts = json.loads((page / "page.json").read_text())
    assert facts["image"] == {"channels": 1, "height": 8, "width": 8, "value_range": [-1.0, 1.0]}
    assert facts["classes"]["count"] == 10
    assert facts["settings"]["num_inference_steps"] == 20
    noisy = json.loads((pages["noisy"] / "page.json").read_text())
    assert [(each["name"], each["stream"], each["steps"]) for each in noisy["inputs"]] == [
        ("latents", 0, None),
        ("noise", 1, 5),
    ]
    html = (page / "index.html").read_text()
    assert "@" not in html
    assert "default-src 'none'" in html
    assert "unsafe-inline" not in html
    assert not re.search(r"https?://", html)


def test_names_from_a_bundle_become_no_markup(tab: Browser, tmp_path: Path, runtime_files: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    with Bundle.open("digits-dcgan") as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        label = LabelSpec(num_classes=10, class_names=(name, *map(str, range(1, 10))))
        model = bundle.manifest.model.with_condition(label)
        write_bundle(tmp_path / "named.gsdk", bundle.manifest.model_copy(update={"model": model}), files).close()
    write_page(tmp_path / "named.gsdk", tmp_path / "page", onnxruntime_web_folder=runtime_files)
    with served(tmp_path / "page") as url:
        tab.open(url)
        assert "samples" in status(tab)
        shown = (
            "return [document.getElementById('label').options[2].text, document.querySelectorAll('img').length]"
        )
        assert tab.run(shown) == [name, 0]


def test_what_is_no_page_stays_and_a_page_is_replaced(tmp_path: Path, runtime_files: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    with pytest.raises(InputError, match="no page"):
        write_page("digits-dcgan", tmp_path / "thesis", onnxruntime_web_folder=runtime_files)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    for name in ("digits-dcgan", "digits-vae"):
        report = write_page(name, tmp_path / "site", onnxruntime_web_folder=runtime_files)
        assert json.loads((report.page / "page.json").read_text())["name"] == name
    with pytest.raises(InputError, match="one call as it is"):
        write_page("digits-vae", tmp_path / "site", settings={"solver": "ddim"})
    assert json.loads((tmp_path / "site" / "page.json").read_text())["name"] == "digits-vae"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "thesis"]


def test_onnxruntime_web_is_the_pinned_one_or_none(
    tmp_path: Path, runtime_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "package" / "dist"
    shutil.copytree(runtime_files, copy)
    assert web.onnxruntime_web(tmp_path / "package").keys() == web.FILES.keys()
    broken = copy / "ort.wasm.bundle.min.mjs"
    broken.write_bytes(broken.read_bytes() + b"\n")
    with pytest.raises(InputError, match=web.VERSION):
        web.onnxruntime_web(tmp_path / "package")
    with pytest.raises(ExportError, match="not the pinned one"):
        web._unpack(b"another archive")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnavailableError, match=r"Node\.js"):
        web.onnxruntime_web()


def test_a_damaged_cache_is_noticed(tmp_path: Path, runtime_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSDK_CACHE", str(tmp_path / "cache"))
    files = {name: (runtime_files / name).read_bytes() for name in web.FILES}
    folder = web.cache_folder("onnxruntime-web", web.VERSION)
    web._keep(folder, files)
    assert web.onnxruntime_web() == files
    name = next(iter(files))
    (folder / name).write_bytes(b"x" + files[name][1:])
    monkeypatch.setattr(web, "_download", lambda: b"another archive")
    with pytest.raises(ExportError, match="pinned"):
        web.onnxruntime_web()


def test_the_command_line(tmp_path: Path, runtime_files: Path) -> None:
    def export(*arguments: Any) -> Any:
        return CliRunner().invoke(cli, ["export", *map(str, arguments)])

    made = export("digits-dcgan", "--page", tmp_path / "site", "--onnxruntime-web", runtime_files, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.output)["page_bytes"] > 10_000_000
    for wrong in (
        ("digits-dcgan",),
        ("digits-dcgan", "--page", tmp_path / "site", "-o", tmp_path / "x.gsdk"),
        ("digits-dcgan", "-o", tmp_path / "x.gsdk", "--solver", "ddim"),
    ):
        assert export(*wrong).exit_code == 2
    missing = export("no-such-bundle", "--page", tmp_path / "site")
    assert isinstance(missing.exception, GensdkError) or missing.exit_code == 3


@pytest.mark.parametrize("name", [*EMBEDDED, "noisy"])
def test_the_browser_draws_what_python_draws(tab: Browser, pages: dict[str, Path], name: str) -> None:
    settings = {"solver": "ddpm", "num_inference_steps": 5, "guidance_scale": 2.0} if name == "noisy" else {}
    bundle = "digits-ddpm" if name == "noisy" else name
    with served(pages[name]) as url, Generator.load(bundle, backend="onnxruntime", threads=1) as generator:
        tab.open(url)
        for count, seed, label in ((3, 0, None), (5, 2**64 - 1, 7), (2, 12345678901, [1, 0])):
            expected = generator.sample(count, seed=seed, label=label, **settings)
            drawn, labels = sample(tab, seed=str(seed), count=count, label=label)
            assert labels == expected.labels.tolist()
            np.testing.assert_allclose(drawn, expected.array, atol=1e-3)
            assert drawn.shape == expected.array.shape
        assert "samples of seed 0" in status(tab)
        shown = tab.run("const c = document.getElementById('canvas'); return [c.hidden, c.width, c.height]")
        assert shown[0] is False
        assert min(shown[1:]) > 400


def test_a_large_count_comes_in_batches_and_bad_arguments_are_named(tab: Browser, pages: dict[str, Path]) -> None:
    with served(pages["digits-dcgan"]) as url, Generator.load("digits-dcgan", backend="onnxruntime") as generator:
        tab.open(url)
        drawn, _ = sample(tab, seed=3, count=70)
        np.testing.assert_allclose(drawn, generator.sample(70, seed=3).array, atol=1e-3)
        for options, reason in (
            ({"seed": -1}, "seed"),
            ({"seed": str(2**64)}, "seed"),
            ({"count": 0}, "count"),
            ({"label": 10}, "class"),
            ({"label": [1, 2, 3]}, "one label for each"),
        ):
            with pytest.raises(AssertionError, match=f"RangeError.*{reason}"):
                sample(tab, **options)


def test_nothing_leaves_this_machine(tab: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    with served(pages["digits-dcgan"]) as url, served(tmp_path) as elsewhere:
        tab.open(url)
        status(tab)
        assert all(request.startswith((url, f"blob:{url}", "data:")) for request in tab.requested())
        outside = f"fetch('{elsewhere}', {{ mode: 'no-cors' }})"
        assert tab.run(f"return {outside}.then(() => 'let through', () => 'refused')") == "refused"
        code = f"{outside}.then(() => postMessage('let through'), () => postMessage('refused'))"
        worker = """
          const worker = new Worker(URL.createObjectURL(new Blob([given[0]])));
          return new Promise((done) => { worker.onmessage = (event) => done(event.data); });"""
        assert tab.run(worker, code) == "refused"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("model.onnx", "not the file"),
        ("page.json", "."),
        ("onnxruntime-web/ort.wasm.bundle.min.mjs", "missing or broken"),
    ],
)
def test_a_broken_file_is_told_on_the_page(
    tab: Browser, pages: dict[str, Path], tmp_path: Path, file: str, reason: str
) -> None:
    shutil.copytree(pages["digits-dcgan"], tmp_path / "page")
    (tmp_path / "page" / file).write_bytes(b"\x00 broken")
    with served(tmp_path / "page") as url:
        tab.open(url)
        shown = status(tab)
    assert shown.startswith("This did not work")
    assert re.search(reason, shown)
